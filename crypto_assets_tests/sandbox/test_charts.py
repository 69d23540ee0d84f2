from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.sandbox import Market

DAY_MS = 86_400_000
NOON = datetime(2026, 3, 1, 12, 0)


def ms(moment: datetime | date) -> int:
    moment = datetime(moment.year, moment.month, moment.day) if type(moment) is date else moment
    return int(moment.replace(tzinfo=UTC).timestamp() * 1_000)


def moment(stamp: int) -> datetime:
    return datetime(1970, 1, 1) + timedelta(milliseconds=stamp)


def gaps_in_seconds(points: list[list[float]]) -> np.ndarray[Any, Any]:
    return np.diff([stamp for stamp, _ in points]) / 1_000


def test_a_daily_point_is_the_close_of_the_day_before(shared: Any, market: Market):
    body = shared.json("coins/cardano/market_chart", days=180)
    truth = market.daily("cardano", date(2025, 9, 2), date(2026, 2, 28))
    for name, column in (
        ("prices", "price_usd"),
        ("market_caps", "market_cap_usd"),
        ("total_volumes", "volume_24h_usd"),
    ):
        served = {stamp: value for stamp, value in body[name] if stamp % DAY_MS == 0}
        expected = {
            ms(day + timedelta(days=1)): value
            for day, value in zip(truth["date"], truth[column], strict=True)
        }
        assert served == expected


def test_now_is_appended_so_the_last_day_occurs_twice(shared: Any, market: Market):
    for interval in ({"days": 180}, {"days": 30, "interval": "daily"}, {"days": 7}):
        prices = shared.json("coins/bitcoin/market_chart", **interval)["prices"]
        assert prices[-1] == [ms(NOON), market.price("bitcoin", NOON)]
    assert [stamp for stamp, _ in prices if stamp == ms(NOON)] == [ms(NOON)]
    daily = shared.json("coins/bitcoin/market_chart", days=30, interval="daily")["prices"]
    assert len(daily) == 31
    assert [moment(stamp).date() for stamp, _ in daily].count(NOON.date()) == 2


@pytest.mark.parametrize(
    ("days", "lowest", "highest"), [(1, 200, 400), (2, 600, 6_660), (90, 600, 6_660)]
)
def test_up_to_90_days_stamps_are_unaligned(shared: Any, days: int, lowest: int, highest: int):
    body = shared.json("coins/solana/market_chart", days=days)
    stamps = sorted(stamp for stamp, _ in body["prices"])[:-1]
    gaps = np.diff(stamps) / 1_000
    assert lowest <= gaps.min() < gaps.max() <= highest
    assert len(set(gaps)) > 10
    assert sum(stamp % 300_000 == 0 for stamp in stamps) < 3


def test_ninety_days_are_hours_and_ninety_one_are_days(shared: Any):
    assert len(shared.json("coins/solana/market_chart", days=90)["prices"]) > 2_000
    assert len(shared.json("coins/solana/market_chart", days=91)["prices"]) == 92
    assert len(shared.json("coins/solana/market_chart", days=90, interval="daily")["prices"]) == 91


def test_sub_daily_points_have_the_price_of_their_moment(shared: Any, market: Market):
    for days in (1, 14):
        for stamp, price in shared.json("coins/some%20token/market_chart", days=days)["prices"][
            ::7
        ]:
            assert price == market.price("some token", moment(stamp))


def test_the_tail_is_out_of_order_now_and_then(start: Callable[..., Any]):
    sandbox = start()
    unordered = 0
    for hour in range(40):
        sandbox.server.clock.set(NOON + timedelta(days=hour))
        stamps = [
            stamp
            for stamp, _ in sandbox.json("coins/solana/market_chart", days=10, interval="daily")[
                "prices"
            ]
        ]
        unordered += stamps != sorted(stamps)
        assert sorted(stamps)[-1] == ms(NOON + timedelta(days=hour))
    assert 1 <= unordered <= 15


def test_arrays_of_a_ragged_coin_differ_in_length(shared: Any):
    body = shared.json("coins/ragged-chart/market_chart", days=180)
    lengths = {name: len(points) for name, points in body.items()}
    assert lengths["prices"] == 181
    assert lengths["market_caps"] < 181
    assert lengths["total_volumes"] < 181
    assert lengths["market_caps"] != lengths["total_volumes"] or [
        stamp for stamp, _ in body["market_caps"]
    ] != [stamp for stamp, _ in body["total_volumes"]]


def test_a_missing_day_is_in_no_daily_chart_but_in_the_truth(shared: Any, market: Market):
    body = shared.json("coins/bitcoin/market_chart", days="max")
    stamps = {moment(stamp) for stamp, _ in body["prices"]}
    assert datetime(2015, 1, 28) not in stamps
    assert {datetime(2015, 1, 27), datetime(2015, 1, 29)} <= stamps
    assert len(market.daily("bitcoin", date(2015, 1, 27), date(2015, 1, 27))) == 1


def test_a_coin_without_cap_has_nulls_in_its_chart(shared: Any):
    body = shared.json("coins/capless/market_chart", days=180)
    assert {cap for _, cap in body["market_caps"]} == {None}
    assert None not in {price for _, price in body["prices"]}


@pytest.mark.parametrize("coin_id", ["matic-network", "lumen-yard", "never-traded"])
def test_renamed_and_untraded_ids_answer_200_and_empty(shared: Any, coin_id: str):
    empty = {"prices": [], "market_caps": [], "total_volumes": []}
    assert shared.json(f"coins/{coin_id}/market_chart", days=1_000) == empty
    assert shared.json(f"coins/{coin_id}/ohlc", days=30) == []


def test_the_new_id_of_a_renamed_coin_goes_on_at_the_same_price(market: Market):
    at = datetime(2026, 2, 1)
    assert market.price("lumen-yard", at) == market.price("lumen-yard-2", at)


@pytest.mark.parametrize(
    ("path", "ready"), [("market_chart", timedelta(minutes=10)), ("range", timedelta(minutes=35))]
)
def test_the_last_day_is_ready_minutes_after_midnight(
    start: Callable[..., Any], path: str, ready: timedelta
):
    midnight = datetime(2026, 3, 1)
    for moment_, is_there in (
        (midnight + ready - timedelta(seconds=1), False),
        (midnight + ready, True),
    ):
        sandbox = start(moment_)
        if path == "range":
            window = {"from": ms(midnight) // 1_000 - 100 * 86_400, "to": ms(moment_) // 1_000}
            prices = sandbox.json("coins/cosmos/market_chart/range", **window)["prices"]
        else:
            prices = sandbox.json("coins/cosmos/market_chart", days=100)["prices"]
        assert (ms(midnight) in [stamp for stamp, _ in prices]) is is_there
        assert [ms(midnight - timedelta(days=1)), ms(moment_)] == [
            stamp
            for stamp in sorted(stamp for stamp, _ in prices)[-3:]
            if stamp not in {ms(midnight), ms(midnight - timedelta(days=2))}
        ]


def test_a_range_is_automatic_by_its_length_and_appends_now_only_if_it_reaches_it(shared: Any):
    first = ms(date(2025, 6, 1)) // 1_000
    hours = shared.json("coins/tron/market_chart/range", from_=first, to=first + 90 * 86_400)
    days = shared.json("coins/tron/market_chart/range", from_=first, to=first + 91 * 86_400)
    assert 2_100 < len(hours["prices"]) < 2_200
    assert {stamp % DAY_MS for stamp, _ in days["prices"]} == {0}
    assert len(days["prices"]) == 92
    future = shared.json("coins/tron/market_chart/range", from_=first, to=ms(NOON) // 1_000 + 10**6)
    assert max(stamp for stamp, _ in future["prices"]) == ms(NOON)


def test_ranges_accept_iso_dates(shared: Any):
    query = {"from": "2025-06-01", "to": "2025-12-01T00:00:00Z"}
    stamps = [stamp for stamp, _ in shared.json("coins/tron/market_chart/range", **query)["prices"]]
    assert (stamps[0], stamps[-1]) == (ms(date(2025, 6, 1)), ms(date(2025, 12, 1)))


def candles_by_open(rows: list[list[float]], seconds: int) -> dict[datetime, tuple[float, ...]]:
    return {moment(int(row[0])) - timedelta(seconds=seconds): tuple(row[1:]) for row in rows}


def truth_by_open(frame: pd.DataFrame) -> dict[datetime, tuple[float, ...]]:
    return {
        row.open_time.to_pydatetime(): (row.open, row.high, row.low, row.close)
        for row in frame.itertuples()
    }


@pytest.mark.parametrize(
    ("interval", "name", "seconds", "days"),
    [("hourly", "1h", 3_600, 31), ("daily", "1D", 86_400, 180)],
)
def test_candles_are_stamped_at_their_close(
    shared: Any, market: Market, interval: str, name: str, seconds: int, days: int
):
    first = datetime(2025, 7, 1)
    last = first + timedelta(days=days)
    window = {"from": ms(first) // 1_000, "to": ms(last) // 1_000}
    rows = shared.json("coins/ethereum/ohlc/range", interval=interval, **window)
    assert rows[0][0] == ms(first)
    assert rows[-1][0] == ms(last)
    served = candles_by_open(rows, seconds)
    opening = first - timedelta(seconds=seconds)
    assert served == truth_by_open(market.candles("ethereum", name, opening, last))


@pytest.mark.parametrize(("days", "name", "seconds"), [(1, "30min", 1_800), (30, "4h", 14_400)])
def test_recent_candles_are_clipped_at_the_window_and_unfinished_at_now(
    start: Callable[..., Any], market: Market, days: int, name: str, seconds: int
):
    now = datetime(2026, 3, 1, 12, 7)
    sandbox = start(now)
    rows = sandbox.json("coins/ripple/ohlc", days=days)
    served = candles_by_open(rows, seconds)
    assert rows[-1][0] > ms(now) > rows[-2][0]
    opens = sorted(served)
    truth = truth_by_open(market.candles("ripple", name, opens[0], opens[-1] + timedelta(days=1)))
    for opened in opens[1:-1]:
        assert served[opened] == truth[opened]
    first_price = market.price("ripple", now - timedelta(days=days) + timedelta(minutes=3))
    assert served[opens[0]][0] == first_price
    assert served[opens[-1]][3] == market.price("ripple", now)


def test_long_windows_have_four_day_candles(shared: Any):
    for days in (90, 180, 365):
        stamps = [row[0] for row in shared.json("coins/ethereum/ohlc", days=days)]
        assert set(np.diff(stamps)) == {4 * DAY_MS}
        assert stamps[-1] > ms(NOON)


@settings(max_examples=25, deadline=None)
@given(coin_id=st.sampled_from(["bitcoin", "dai", "pepe"]), offset=st.integers(1, 2_800))
def test_every_number_served_is_the_truth_to_the_last_bit(
    shared: Any, market: Market, coin_id: str, offset: int
):
    last = datetime(2026, 2, 28) - timedelta(days=offset % 900)
    first = last - timedelta(days=1)
    window = {"from": ms(first) // 1_000 + 1, "to": ms(last) // 1_000, "interval": "hourly"}
    served = candles_by_open(shared.json(f"coins/{coin_id}/ohlc/range", **window), 3_600)
    assert served == truth_by_open(market.candles(coin_id, "1h", first, last))


def test_a_daily_candle_is_absent_or_unfinished_until_35_minutes_after_midnight(
    start: Callable[..., Any], market: Market
):
    midnight = datetime(2026, 3, 1)
    window = {"from": ms(midnight) // 1_000 - 5 * 86_400, "to": ms(midnight) // 1_000 + 86_400}
    query = {"interval": "daily", **window}
    early, ready = start(midnight + timedelta(minutes=34)), start(midnight + timedelta(minutes=35))
    kinds = set()
    for coin_id in ("bitcoin", "ethereum", "solana", "ripple", "cardano", "tron", "dogecoin"):
        truth = market.candles(coin_id, "1D", date(2026, 2, 28), midnight).iloc[0]
        before = {row[0]: row for row in early.json(f"coins/{coin_id}/ohlc/range", **query)}
        after = {row[0]: row for row in ready.json(f"coins/{coin_id}/ohlc/range", **query)}
        assert after[ms(midnight)][4] == truth["close"]
        assert max(after) == ms(midnight) + DAY_MS
        assert ms(midnight) + DAY_MS not in before
        late = before.get(ms(midnight))
        kinds.add("absent" if late is None else "unfinished")
        if late is not None:
            assert late[4] == market.price(coin_id, midnight - timedelta(minutes=30))
    assert kinds == {"absent", "unfinished"}


def test_history_of_a_date_is_the_close_of_the_day_before(
    shared: Any, start: Callable[..., Any], market: Market
):
    body = shared.json("coins/ethereum/history", date="01-03-2026")
    close = market.daily("ethereum", date(2026, 2, 28), date(2026, 2, 28)).iloc[0]
    assert body["market_data"]["current_price"]["usd"] == close["price_usd"]
    assert body["market_data"]["market_cap"]["usd"] == close["market_cap_usd"]
    early = start(datetime(2026, 3, 1, 0, 34)).json("coins/ethereum/history", date="01-03-2026")
    assert "market_data" not in early


@settings(max_examples=15, deadline=None)
@given(now=st.datetimes(datetime(2024, 1, 1), datetime(2026, 11, 1)))
def test_nothing_comes_from_the_future_but_the_stamp_of_the_unfinished_candle(
    market: Market, now: datetime
):
    from crypto_assets.sandbox import charts
    from crypto_assets.sandbox.charts import Window

    now = now.replace(microsecond=0)
    end = ms(now) / 1_000
    for granularity in ("5m", "hourly", "daily"):
        window = Window(end - 86_400 * 3, end + 10**7)
        body = charts.market_chart(market, "bitcoin", window, granularity, now, 10)
        assert max(stamp for points in body.values() for stamp, _ in points) == ms(now)
    rows = charts.recent_candles(market, "bitcoin", 1, now)
    assert sum(row[0] > ms(now) for row in rows) == 1
    assert rows[-1][4] == market.price("bitcoin", now)
