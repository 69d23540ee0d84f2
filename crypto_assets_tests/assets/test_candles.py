from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
OHLC = ["open", "high", "low", "close"]
FREE = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}


def truth(market: Market, coin: str, length: str, first: object, last: object) -> pd.DataFrame:
    start, end = pd.Timestamp(str(first)), pd.Timestamp(str(last)) + pd.Timedelta(days=1)
    return market.candles(coin, length, start.to_pydatetime(), end.to_pydatetime())


@pytest.mark.parametrize(
    ("table", "length", "time"), [("ohlc_daily", "1D", "date"), ("ohlc_hourly", "1h", "open_time")]
)
def test_candles_stamped_at_their_close_are_stored_by_their_open(
    lab: Lab, table: str, length: str, time: str
) -> None:
    first = YESTERDAY - timedelta(days=40)
    assert lab.run([table], first, YESTERDAY).succeeded
    for coin in ("bitcoin", "ethereum", "ripple"):
        stored = lab.sql(f"FROM {table} WHERE coin_id = ? ORDER BY {time}", coin)
        expected = truth(lab.market, coin, length, first, YESTERDAY)
        assert list(stored[time]) == list(expected["open_time"])
        np.testing.assert_allclose(stored[OHLC], expected[OHLC], rtol=1e-9)
        assert stored["is_final"].all()
        assert set(stored["exactness"]) == {"exact"}
        assert stored["volume_usd"].isna().all()


@pytest.mark.slow
def test_the_forming_candle_is_not_final_and_is_replaced_once_it_is(lab: Lab) -> None:
    lab.run(["ohlc_hourly", "ohlc_daily"], TODAY)
    forming = lab.sql("FROM ohlc_hourly WHERE coin_id = 'bitcoin' ORDER BY open_time")
    assert forming["open_time"].iloc[-1] == pd.Timestamp(2026, 3, 10, 12)
    # 11:00 closed at 12:00, but histories are taken as settled 35 minutes after a close.
    assert list(forming["is_final"]) == [True] * 11 + [False] * 2
    assert not lab.sql("SELECT is_final FROM ohlc_daily")["is_final"].any()
    lab.at(datetime(2026, 3, 11, 1, 0)).run(["ohlc_hourly", "ohlc_daily"], TODAY)
    hours = lab.sql("FROM ohlc_hourly WHERE coin_id = 'bitcoin' ORDER BY open_time")
    assert len(hours) == 24
    assert hours["is_final"].all()
    expected = truth(lab.market, "bitcoin", "1h", TODAY, TODAY)
    np.testing.assert_allclose(hours[OHLC], expected[OHLC], rtol=1e-9)
    assert lab.sql("SELECT is_final FROM ohlc_daily")["is_final"].all()


def test_sessions_are_asia_europe_and_us_by_the_hour(lab: Lab) -> None:
    lab.run(["ohlc_hourly"], YESTERDAY)
    rows = lab.sql(
        "SELECT session, min(hour(open_time)), max(hour(open_time)), "
        "count(DISTINCT hour(open_time)) FROM ohlc_hourly GROUP BY session ORDER BY 2"
    )
    assert rows.to_numpy().tolist() == [["Asia", 0, 7, 8], ["Europe", 8, 15, 8], ["US", 16, 23, 8]]


@pytest.mark.slow
def test_a_free_plan_gives_true_daily_candles_for_thirty_days_and_says_where_it_guesses(
    tmp_path: Path, market: Market
) -> None:
    first = YESTERDAY - timedelta(days=40)
    with open_lab(tmp_path, market, plan="demo", coingecko=FREE, universe={"tracked": 3}) as lab:
        lab.server.plan = "demo"
        assert lab.run(["ohlc_daily"], first, first + timedelta(days=2)).succeeded
        assert lab.run(["ohlc_daily"], TODAY - timedelta(days=20), YESTERDAY).succeeded
        stored = lab.sql("FROM ohlc_daily WHERE coin_id = 'ethereum' ORDER BY date")
        guessed = stored[stored["exactness"] == "approximate"]
        assert list(guessed["date"].dt.date) == [first + timedelta(days=n) for n in range(3)]
        exact = stored[stored["exactness"] == "exact"]
        expected = truth(market, "ethereum", "1D", TODAY - timedelta(days=20), YESTERDAY)
        assert list(exact["date"]) == list(expected["open_time"])
        np.testing.assert_allclose(exact[OHLC], expected[OHLC], rtol=1e-9)
        rough = truth(market, "ethereum", "1D", first, first + timedelta(days=2))
        np.testing.assert_allclose(guessed[OHLC], rough[OHLC], rtol=0.05)


@pytest.mark.slow
def test_a_guessed_candle_where_two_requests_meet_spans_its_whole_day(
    tmp_path: Path, market: Market
) -> None:
    # A request begins before its first midnight; what it shows of that day is only a stub.
    history = {"start": "2025-06-01"}
    with open_lab(
        tmp_path, market, "demo", coingecko=FREE, universe={"tracked": 1}, history=history
    ) as lab:
        first, last = date(2025, 9, 1), date(2025, 12, 31)
        assert lab.run(["ohlc_daily"], first, last).succeeded
        stored = lab.sql("FROM ohlc_daily WHERE coin_id = 'ethereum' ORDER BY date")
        expected = truth(market, "ethereum", "1D", first, last)
        assert list(stored["date"]) == list(expected["open_time"])
        assert set(stored["exactness"]) == {"approximate"}
        spans = (stored["high"] - stored["low"]) / (expected["high"] - expected["low"])
        assert spans.min() > 0.5
        assert lab.server.stats()["calls"]["coingecko/coins/{id}/market_chart/range"] == {"200": 6}


@pytest.mark.slow
def test_the_oldest_day_a_free_plan_reaches_is_asked_for_within_its_limits(
    tmp_path: Path, market: Market
) -> None:
    oldest = TODAY - timedelta(days=365)
    history = {"start": "2025-01-01"}
    with open_lab(
        tmp_path, market, "demo", coingecko=FREE, universe={"tracked": 1}, history=history
    ) as lab:
        days = (oldest - timedelta(days=2), oldest + timedelta(days=3))
        # A candle needs its whole day within the limit, a close only the day's end.
        for table, reached in (
            ("ohlc_daily", oldest + timedelta(days=1)),
            ("market_caps", oldest),
        ):
            assert lab.run([table], *days).succeeded
            stored = lab.sql(f"SELECT date FROM {table} WHERE coin_id = 'bitcoin' ORDER BY date")
            assert [day.date() for day in stored["date"]] == [
                reached + timedelta(days=n) for n in range((days[1] - reached).days + 1)
            ]
            told = lab.sql(
                "SELECT first_day, last_day, reason FROM gaps "
                "WHERE table_name = ? AND series = 'bitcoin' AND first_day < ?",
                table,
                reached,
            )
            assert [tuple(gap) for gap in told.to_numpy()] == [
                (
                    pd.Timestamp(days[0]),
                    pd.Timestamp(reached) - pd.Timedelta(days=1),
                    "older than the 365 days of the plan 'demo'",
                )
            ]


def test_a_free_plan_fetches_hours_for_the_headline_coins_and_keeps_true_ones(
    tmp_path: Path, market: Market
) -> None:
    universe = {"tracked": 5, "headline": ["bitcoin"]}
    with open_lab(tmp_path, market, plan="demo", coingecko=FREE, universe=universe) as lab:
        lab.at(datetime(2026, 3, 9, 23, 50)).run(["ohlc_hourly"], YESTERDAY)
        lab.at(datetime(2026, 3, 10, 1, 0)).run(["ohlc_hourly"], YESTERDAY)
        stored = lab.sql("FROM ohlc_hourly ORDER BY open_time")
        assert set(stored["coin_id"]) == {"bitcoin"}
        assert len(stored) == 24
        assert stored["is_final"].all()
        exact = stored["exactness"] == "exact"
        assert exact.sum() >= 22
        expected = truth(market, "bitcoin", "1h", YESTERDAY, YESTERDAY)
        np.testing.assert_allclose(
            stored.loc[exact, OHLC], expected.loc[exact.to_numpy(), OHLC], rtol=1e-9
        )


@pytest.mark.slow
def test_a_dead_coin_ends_and_its_later_days_are_known_to_have_nothing(lab: Lab) -> None:
    # Until two days have passed, the provider might only be late.
    last = YESTERDAY - timedelta(days=2)
    dead = next(
        coin
        for coin in lab.market.coins.itertuples()
        if coin.is_priced
        and coin.renamed_to is None
        and coin.died_on is not None
        and YESTERDAY - timedelta(60) < coin.died_on < last
    )
    lab._overrides["universe"] = {"tracked": 2, "always": [dead.coin_id]}
    first = dead.died_on - timedelta(days=5)
    assert lab.run(["ohlc_daily"], first, last).succeeded
    days = lab.sql("SELECT date FROM ohlc_daily WHERE coin_id = ? ORDER BY 1", dead.coin_id)
    assert list(days["date"].dt.date) == [first + timedelta(days=n) for n in range(5)]
    gaps = lab.sql("FROM gaps WHERE series = ?", dead.coin_id)
    assert list(gaps["state"]) == ["no_data_at_provider"]
    assert gaps["first_day"][0].date() == dead.died_on
    assert gaps["last_day"][0].date() == last
    lab.server.reset()
    lab.run(["ohlc_daily"], first, last)
    per_coin = lab.server.stats()["calls"].get("coingecko/coins/{id}/ohlc/range", {})
    assert per_coin == {}
