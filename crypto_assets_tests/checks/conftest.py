"""Homes that the platform filled, each once: a few days, a long history, days as they went by."""

import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, Lab, open_lab

FIRST, LAST = date(2026, 3, 6), date(2026, 3, 9)
HISTORY_START, TODAY = date(2026, 1, 1), NOON.date()


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """Four closed days in all tables."""
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market) as lab:
        assert lab.run(list(TABLES), FIRST, LAST).succeeded
    return home


@pytest.fixture(scope="session")
def long_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """Ten weeks in all tables, the running day too."""
    home = tmp_path_factory.mktemp("long")
    with open_lab(home, market) as lab:
        assert lab.run(list(TABLES), HISTORY_START, TODAY).succeeded
    return home


@pytest.fixture(scope="session", params=["unlimited", "demo"])
def lived_home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, market: Market
) -> Path:
    """From Friday to Tuesday as the schedules would have filled it, on a paid and a free plan."""
    home = tmp_path_factory.mktemp(f"lived_{request.param}")
    section: dict[str, object] = {"plan": request.param}
    if request.param == "demo":
        section |= {"api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
    with open_lab(home, market, coingecko=section) as lab:
        # A free plan's hour takes many calls: one day of it, two of a paid one.
        lived = [TODAY] if request.param == "demo" else [LAST, TODAY]
        eve = lived[0] - timedelta(days=1)
        lab.at(datetime(eve.year, eve.month, eve.day, 12, 20))
        assert lab.fill(list(TABLES), FIRST, eve).succeeded
        for day in lived:
            live_through(lab, day)
    return home


def live_through(lab: Lab, day: date) -> None:
    """Run what the schedules ask for until noon of a day, a tick of each, those of 01:30 too."""
    before = day - timedelta(days=1)
    market = ["coin_list", "market_caps", "ranks", "ema_signals"]
    closing = [*market[1:], "ohlc_hourly", "ohlc_daily", "daily_snapshot"]
    for hour, minute, tables, first, last in (
        (0, 1, market, before, day),
        (0, 10, ["fear_greed"], before, day),
        (0, 30, ["ohlc_hourly"], before, day),
        (1, 1, closing, before, before),
        (1, 30, ["ohlc_hourly"], before, day),
        (9, 30, ["etf_flows", "daily_snapshot"], before, before),
        (12, 0, market[1:], day, day),
    ):
        lab.at(datetime(day.year, day.month, day.day, hour, minute))
        report = lab.run(tables, first, last)
        assert report.succeeded
        assert report.checks_failed == []


@pytest.fixture(scope="session")
def long_history(
    tmp_path_factory: pytest.TempPathFactory, long_home: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    copy = shutil.copy(long_home / "warehouse.duckdb", tmp_path_factory.mktemp("copy"))
    with duckdb.connect(copy) as connection:
        yield connection


@pytest.fixture
def stored(
    long_history: duckdb.DuckDBPyConnection,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The long history, which may be damaged: it is whole again afterwards."""
    long_history.execute("BEGIN")
    yield long_history
    long_history.execute("ROLLBACK")
