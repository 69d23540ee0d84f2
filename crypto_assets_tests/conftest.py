"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import Lab, open_lab


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings and Dagster home out of the tests."""
    for name in list(os.environ):
        ours = name.startswith("CRYPTO_ASSETS_") and name != "CRYPTO_ASSETS_RECORDINGS"
        if ours or name == "DAGSTER_HOME":
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
