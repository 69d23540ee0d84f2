"""What all tests share."""

import os
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from hypothesis import settings

from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, WEEK, Lab, open_lab

# How long an example takes is the machine's.
settings.register_profile("ours", deadline=None)
settings.load_profile("ours")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings and Dagster home out of the tests."""
    for name in list(os.environ):
        ours = name.startswith("CRYPTO_ASSETS_") and name != "CRYPTO_ASSETS_RECORDINGS"
        if ours or name in {"DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE"}:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def market() -> Market:
    """The sandbox's market model, which is also the oracle."""
    return Market(seed=7)


@pytest.fixture
def lab(tmp_path: Path, market: Market) -> Iterator[Lab]:
    """A lab with ten coins on the unlimited plan."""
    with open_lab(tmp_path, market) as opened:
        yield opened


@pytest.fixture(scope="session")
def week_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A home from its first day, 2026-03-02, to the running one, filled once; not to be changed."""
    home = tmp_path_factory.mktemp("week")
    with open_lab(home, market, **WEEK) as made:
        assert made.run(list(TABLES), date(2026, 3, 2), NOON.date()).succeeded
    return home


@pytest.fixture
def week(week_home: Path, tmp_path: Path, market: Market) -> Iterator[Lab]:
    """A lab on a copy of it."""
    home = shutil.copytree(week_home, tmp_path / "home", symlinks=True)
    with open_lab(home, market, **WEEK) as opened:
        yield opened
