"""How many calls the days as they go on cost, counted by the sandbox."""

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
TOMORROW = TODAY + timedelta(days=1)
CAPS_AND_RANKS = ["market_caps", "ranks"]


def calls(lab: Lab) -> int:
    """CoinGecko calls since the last count."""
    found = lab.server.stats()["total"]
    lab.server.reset()
    return int(found)


@pytest.mark.slow
@pytest.mark.parametrize(("tracked", "at_most"), [(100, 1), (200, 1), (250, 2)])
def test_the_tick_at_midnight_closes_a_day_with_one_call(
    tmp_path: Path, market: Market, tracked: int, at_most: int
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": tracked, "always": []}) as lab:
        lab.run(CAPS_AND_RANKS, TODAY)
        calls(lab)
        lab.at(datetime(2026, 3, 11, 0, 0, 30)).run(CAPS_AND_RANKS, TODAY, TOMORROW)
        # 250 coins fill the page: one call by name more for those that fell off it since.
        assert 1 <= calls(lab) <= at_most
        closed = lab.sql("FROM coverage WHERE date = ? AND table_name = 'market_caps'", TODAY)
        assert list(closed["is_final"]) == [True]
        assert closed["series_stored"][0] == tracked
        lab.at(datetime(2026, 3, 11, 12, 0)).run(CAPS_AND_RANKS, TODAY, TOMORROW)
        assert 1 <= calls(lab) <= 2


@pytest.mark.slow
def test_a_snapshot_of_seconds_before_midnight_does_not_stand_in_for_the_tick_after_it(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 100, "always": []}) as lab:
        lab.at(datetime(2026, 3, 10, 23, 59, 48))
        assert lab.run(CAPS_AND_RANKS, TODAY).succeeded
        assert calls(lab) == 1
        lab.at(datetime(2026, 3, 11, 0, 0, 8))
        assert lab.run(CAPS_AND_RANKS, TODAY, TOMORROW).succeeded
        assert calls(lab) == 1
        closed = lab.sql("FROM market_caps WHERE date = ? ORDER BY coin_id", TODAY)
        assert len(closed) == 100
        assert closed["is_final"].all()
        assert set(closed["observed_at"]) == {pd.Timestamp(lab.now)}
        for row in closed.head(10).itertuples():
            assert row.price_usd == market.price(row.coin_id, lab.now)
        covered = lab.sql(
            "SELECT date, is_final, series_stored FROM coverage "
            "WHERE table_name = 'market_caps' AND date >= ? ORDER BY date",
            TODAY,
        )
        assert [tuple(day) for day in covered.to_numpy()] == [
            (pd.Timestamp(TODAY), True, 100),
            (pd.Timestamp(TOMORROW), False, 100),
        ]
        # Some seconds later there is nothing new to ask for.
        lab.at(datetime(2026, 3, 11, 0, 0, 20))
        assert lab.run(CAPS_AND_RANKS, TODAY, TOMORROW).succeeded
        assert calls(lab) == 0


@pytest.mark.slow
def test_final_days_cost_nothing_the_second_time(tmp_path: Path, market: Market) -> None:
    first = TODAY - timedelta(days=40)
    tables = ["market_caps", "ohlc_daily", "ohlc_hourly"]
    with open_lab(tmp_path, market, universe={"tracked": 5, "always": []}) as lab:
        lab.run(["market_caps"], TODAY)
        calls(lab)
        lab.run(tables, first, TODAY - timedelta(days=1))
        assert calls(lab) == 5 * (1 + 1 + 2)
        lab.run(tables, first, TODAY - timedelta(days=1))
        assert calls(lab) == 0
