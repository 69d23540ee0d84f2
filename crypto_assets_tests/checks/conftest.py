"""A home with four closed days in all tables, filled once."""

from datetime import date
from pathlib import Path

import pytest

from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import open_lab

FIRST, LAST = date(2026, 3, 6), date(2026, 3, 9)


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market) as lab:
        assert lab.run(list(TABLES), FIRST, LAST).succeeded
    return home
