"""CoinGecko's payloads, as recorded and as they could go wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.providers import coingecko_frames
from crypto_assets.providers.coingecko_frames import (
    MARKETS_COLUMNS,
    REFUSED,
    parse_coin_list,
    parse_market_chart,
    parse_markets,
    parse_markets_page,
    parse_ohlc,
)
from crypto_assets.providers.errors import ContractError
from crypto_assets.providers.payloads import decode

JAN_1 = 1_704_067_200_000
DAY = 86_400_000
HALF_HOUR = timedelta(minutes=30)
Recorded = Callable[[str], Any]


def market(coin_id: str, **changes: Any) -> dict[str, Any]:
    row = {
        "id": coin_id,
        "symbol": "sym",
        "name": "Name",
        "current_price": 1.5,
        "market_cap": 1000,
        "market_cap_rank": 1,
        "total_volume": 10,
        "circulating_supply": 5.0,
        "total_supply": None,
        "last_updated": "2024-01-15T08:54:11.000Z",
    }
    return {**row, **changes}


def chart(prices: Any, caps: Any = (), volumes: Any = ()) -> dict[str, Any]:
    return {
        "prices": [list(p) for p in prices],
        "market_caps": [list(p) for p in caps],
        "total_volumes": [list(p) for p in volumes],
    }


# markets


def test_the_recorded_page_keeps_all_100_prices_whether_integer_or_not(recorded: Recorded) -> None:
    body = recorded("coins_markets_usd_100.json")["body"]
    frame = parse_markets(body)
    assert len(frame) == 100
    assert frame["price_usd"].notna().all()
    assert {c: str(t) for c, t in frame.dtypes.items()} == MARKETS_COLUMNS
    by_id = frame.set_index("coin_id")
    # The payload has the integer 42652 here, and floats in the other rows.
    assert by_id.loc["bitcoin", "price_usd"] == 42652.0
    assert by_id.loc["ethereum", "price_usd"] == 2511.71
    assert by_id.loc["bitcoin", "market_cap_usd"] == 837_025_489_900.0
    assert by_id.loc["bitcoin", "provider_rank"] == 1
    assert by_id.loc["bitcoin", "last_updated_at"] == pd.Timestamp("2024-01-15 08:54:11")
    assert frame["total_supply"].isna().sum() == 3


@given(
    st.lists(
        st.none()
        | st.integers(1, 10**15)
        | st.floats(1e-12, 1e12, allow_nan=False, allow_subnormal=False),
        min_size=1,
        max_size=30,
    )
)
def test_any_mix_of_integers_floats_and_nulls_comes_back_as_those_numbers(
    prices: list[Any],
) -> None:
    frame = parse_markets([market(f"c{i}", current_price=p) for i, p in enumerate(prices)])
    expected = [math.nan if p is None else float(p) for p in prices]
    np.testing.assert_array_equal(frame["price_usd"].to_numpy(), expected)


def test_every_number_of_a_market_row_may_be_null() -> None:
    nothing = {name: None for name in market("a") if name not in ("id", "symbol", "name")}
    frame = parse_markets([market("a", **nothing)])
    assert frame.drop(columns=["coin_id", "symbol", "name"]).isna().all(axis=None)
    assert {c: str(t) for c, t in frame.dtypes.items()} == MARKETS_COLUMNS


def test_an_empty_page_has_all_columns_and_types() -> None:
    page = parse_markets_page([])
    assert page.received == 0
    assert {c: str(t) for c, t in page.frame.dtypes.items()} == MARKETS_COLUMNS


def test_a_market_cap_of_zero_is_unknown() -> None:
    assert math.isnan(parse_markets([market("a", market_cap=0)])["market_cap_usd"].item())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("current_price", "42652"),
        ("current_price", True),
        ("current_price", 0),
        ("current_price", -1.5),
        ("current_price", math.nan),
        ("current_price", math.inf),
        ("current_price", 10**400),
        ("current_price", [1]),
        ("market_cap", -1),
        ("market_cap", math.nan),
        ("total_supply", 10**400),
        ("circulating_supply", "1"),
        ("market_cap_rank", 1.5),
        ("market_cap_rank", 0),
        ("last_updated", "yesterday-ish"),
        ("last_updated", 5),
        ("name", 5),
    ],
)
def test_an_impossible_value_refuses_its_row_with_the_reason(name: str, value: Any) -> None:
    page = parse_markets_page([market("good"), market("bad", **{name: value})])
    assert list(page.frame["coin_id"]) == ["good"]
    assert page.received == 2
    assert f"bad.{name}" in page.refused["bad"]


def test_a_field_retyped_in_every_row_is_a_broken_contract() -> None:
    rows = [market(c, current_price="1.5") for c in "abc"]
    with pytest.raises(ContractError, match=r"current_price.*all 3 coins"):
        parse_markets(rows)


@pytest.mark.parametrize("name", [name for name in market("a") if name != "id"])
def test_a_field_that_is_gone_is_named(name: str) -> None:
    row = market("a")
    del row[name]
    page = parse_markets_page([market("b"), row])
    assert page.refused == {"a": f"a.{name} should be present"}
    with pytest.raises(ContractError, match=rf"a\.{name} should be present, for all 1 coins"):
        parse_markets([row])


def test_a_row_without_an_id_breaks_the_contract_of_the_page() -> None:
    with pytest.raises(ContractError, match="id should be present"):
        parse_markets([market("b"), {"symbol": "a"}])


def test_a_new_field_is_logged_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [market("a", brand_new_field=1)]
    for _ in range(3):
        assert len(parse_markets(rows)) == 1
    assert caplog.text.count("brand_new_field") == 1


@pytest.mark.parametrize("payload", [{"a": 1}, "text", None, [1], [None], [market("")]])
def test_a_page_that_is_no_list_of_coins_is_refused(payload: Any) -> None:
    with pytest.raises(ContractError):
        parse_markets(payload)


def test_numbers_json_cannot_hold_are_refused_by_coin_and_field() -> None:
    for text in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = json.dumps([market("ok"), market("bad", current_price=0.123)])
        page = parse_markets_page(decode(body.replace("0.123", text).encode()))
        assert "bad.current_price should be a finite number" in page.refused["bad"]


# market_chart


def test_the_recorded_daily_chart_has_the_recorded_values(recorded: Recorded) -> None:
    frame = parse_market_chart(recorded("market_chart_range_btc_2014_2015.json")["body"], "bitcoin")
    assert len(frame) == 347
    first = frame.iloc[0]
    assert first["stamp"] == pd.Timestamp("2014-02-17")
    assert (first["price_usd"], first["market_cap_usd"], first["volume_24h_usd"]) == (
        645.14,
        8_005_429_360.0,
        48_516_100.0,
    )
    # These two come as integers among floats.
    whole = frame.set_index("stamp").loc[pd.Timestamp("2014-03-26")]
    assert (whole["market_cap_usd"], whole["volume_24h_usd"]) == (7_343_002_343.0, 17_583_200.0)
    assert pd.Timestamp("2015-01-28") not in set(frame["stamp"])
    assert frame.notna().all(axis=None)


def test_the_recorded_five_minute_chart_keeps_its_unaligned_stamps(recorded: Recorded) -> None:
    frame = parse_market_chart(recorded("market_chart_btc_usd_days1.json")["body"], "bitcoin")
    assert len(frame) == 289
    assert frame["stamp"].iloc[0] == pd.Timestamp("2024-01-14 08:54:48.449")
    assert frame["price_usd"].iloc[-1] == 42652.40211627688
    assert str(frame["stamp"].dtype) == "datetime64[ns]"


def test_values_are_joined_by_stamp_and_not_by_position() -> None:
    stamps = [JAN_1, JAN_1 + DAY, JAN_1 + 2 * DAY]
    frame = parse_market_chart(
        chart(
            [(s, i + 1) for i, s in enumerate(stamps)],
            caps=[(stamps[1], 200), (stamps[2], 300)],
            volumes=[(stamps[2], 30), (stamps[0], 10), (JAN_1 + 9 * DAY, 99)],
        ),
        "b",
    )
    assert list(frame["price_usd"]) == [1, 2, 3]
    np.testing.assert_array_equal(frame["market_cap_usd"], [math.nan, 200, 300])
    np.testing.assert_array_equal(frame["volume_24h_usd"], [10, math.nan, 30])


def test_points_are_sorted_and_the_last_of_equal_stamps_counts() -> None:
    frame = parse_market_chart(
        chart([(JAN_1 + DAY, 2), (JAN_1, 7), (JAN_1 + DAY, 3)], caps=[(JAN_1, 1), (JAN_1, 5)]), "b"
    )
    assert list(frame["stamp"]) == [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")]
    assert list(frame["price_usd"]) == [7, 3]
    assert frame["market_cap_usd"].iloc[0] == 5


def test_unknown_caps_and_volumes_are_nan_and_a_null_price_is_no_point() -> None:
    frame = parse_market_chart(
        chart(
            [(JAN_1, 1), (JAN_1 + DAY, None)],
            caps=[(JAN_1, 0), (JAN_1 + DAY, 5)],
            volumes=[(JAN_1, None)],
        ),
        "b",
    )
    assert list(frame["stamp"]) == [pd.Timestamp("2024-01-01")]
    assert frame[["market_cap_usd", "volume_24h_usd"]].isna().all(axis=None)


def test_a_renamed_id_brings_an_empty_frame_of_the_right_types() -> None:
    frame = parse_market_chart(chart([]), "matic-network")
    assert frame.empty
    assert {c: str(t) for c, t in frame.dtypes.items()} == {
        "stamp": "datetime64[ns]",
        "price_usd": "float64",
        "market_cap_usd": "float64",
        "volume_24h_usd": "float64",
    }


@pytest.mark.parametrize("price", [0, -1, 0.0, math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_impossible_price_is_left_out_alone_and_told_of_by_its_stamp(
    price: Any, bad: int
) -> None:
    stamps = [JAN_1 + n * DAY for n in range(3)]
    prices = [(stamp, price if n == bad else n + 1.5) for n, stamp in enumerate(stamps)]
    frame = parse_market_chart(chart(prices, caps=[(s, s) for s in stamps]), "bitcoin", "daily")
    left = [n for n in range(3) if n != bad]
    assert list(frame["stamp"]) == [pd.Timestamp(stamps[n], unit="ms") for n in left]
    assert list(frame["price_usd"]) == [n + 1.5 for n in left]
    assert list(frame["market_cap_usd"]) == [stamps[n] for n in left]
    at = pd.Timestamp(stamps[bad], unit="ms")
    assert set(frame.attrs[REFUSED]) == {at}
    shown = float(price) if price in (0, -1) else "NaN or infinite"
    assert frame.attrs[REFUSED][at] == (
        f"bitcoin.prices at {at} should be finite and greater than 0, not {shown!r}"
    )


def test_the_price_that_was_refused_is_named() -> None:
    frame = parse_market_chart(chart([(JAN_1, 1), (JAN_1 + DAY, -1.5)]), "bitcoin")
    assert frame.attrs[REFUSED] == {
        pd.Timestamp("2024-01-02"): "bitcoin.prices at 2024-01-02 00:00:00 should be finite and "
        "greater than 0, not -1.5"
    }


def test_a_chart_without_an_impossible_price_tells_of_none() -> None:
    # A price that is null is a point that does not exist, and no reason to tell of.
    assert parse_market_chart(chart([(JAN_1, 1), (JAN_1 + DAY, None)]), "b").attrs[REFUSED] == {}
    assert parse_market_chart(chart([]), "b").attrs[REFUSED] == {}


def test_a_chart_of_nothing_but_impossible_prices_breaks_the_contract() -> None:
    prices = [(JAN_1, 0), (JAN_1 + DAY, math.nan), (JAN_1 + 2 * DAY, math.inf)]
    with pytest.raises(
        ContractError, match=r"bitcoin\.prices should be possible prices, none of the 3"
    ):
        parse_market_chart(chart(prices), "bitcoin")
    assert len(parse_market_chart(chart([*prices, (JAN_1 + 3 * DAY, 7)]), "bitcoin")) == 1


def test_of_equal_stamps_a_last_price_that_is_good_makes_up_for_a_bad_one() -> None:
    frame = parse_market_chart(chart([(JAN_1, 0), (JAN_1, 5)]), "b")
    assert list(frame["price_usd"]) == [5]
    assert frame.attrs[REFUSED] == {}
    frame = parse_market_chart(chart([(JAN_1, 5), (JAN_1, 0), (JAN_1 + DAY, 6)]), "b")
    assert list(frame["price_usd"]) == [6]
    assert set(frame.attrs[REFUSED]) == {pd.Timestamp("2024-01-01")}


@pytest.mark.parametrize("price", ["42652", True, [1], {}])
def test_a_price_of_another_type_refuses_the_whole_chart_with_coin_and_stamp(price: Any) -> None:
    with pytest.raises(ContractError, match=r"bitcoin\.prices at 2024-01-02"):
        parse_market_chart(chart([(JAN_1, 1), (JAN_1 + DAY, price)]), "bitcoin")


@pytest.mark.parametrize("value", [math.nan, math.inf, "5", False])
def test_nothing_odd_in_a_nullable_array_becomes_null_silently(value: Any) -> None:
    with pytest.raises(ContractError, match=r"bitcoin\.market_caps at 2024-01-01"):
        parse_market_chart(chart([(JAN_1, 1)], caps=[(JAN_1, value)]), "bitcoin")


@pytest.mark.parametrize("stamp", [None, "x", 1.5, True, JAN_1 // 1000, JAN_1 * 1000, -1])
def test_a_stamp_that_is_no_millisecond_time_is_refused(stamp: Any) -> None:
    with pytest.raises(ContractError, match="stamp"):
        parse_market_chart(chart([(stamp, 1)]), "b")


@pytest.mark.parametrize("name", ["prices", "market_caps", "total_volumes"])
def test_an_array_that_is_gone_is_named(name: str) -> None:
    body = chart([(JAN_1, 1)])
    del body[name]
    with pytest.raises(ContractError, match=name):
        parse_market_chart(body, "b")


@pytest.mark.parametrize("point", [5, [], [JAN_1], {"t": 1}, None, "12"])
def test_a_point_of_another_shape_is_refused(point: Any) -> None:
    with pytest.raises(ContractError, match="prices"):
        parse_market_chart({**chart([]), "prices": [point]}, "b")


def test_a_third_value_of_a_point_is_ignored() -> None:
    points = [(JAN_1, 1, "new"), (JAN_1 + DAY, 2, None)]
    frame = parse_market_chart(chart(points, caps=points, volumes=points), "b")
    plain = [(JAN_1, 1), (JAN_1 + DAY, 2)]
    pd.testing.assert_frame_equal(frame, parse_market_chart(chart(plain, plain, plain), "b"))
    assert list(frame["price_usd"]) == [1, 2]


def test_daily_points_are_midnights_but_for_a_newest_now() -> None:
    now = JAN_1 + DAY + 30_000
    points = [(JAN_1, 1), (JAN_1 + DAY, 2), (now, 3)]
    assert list(parse_market_chart(chart(points), "b", "daily")["price_usd"]) == [1, 2, 3]
    # A coin that began today has no midnight yet.
    assert len(parse_market_chart(chart([(now, 3)]), "b", "daily")) == 1
    assert parse_market_chart(chart([]), "b", "daily").empty


@pytest.mark.parametrize(
    "offsets",
    [
        [7_000, DAY, 2 * DAY],
        [0, DAY + 7_000, 2 * DAY],
        [0, DAY + 1, 2 * DAY, 2 * DAY + 7_000],
        [7_000, DAY + 7_000, 2 * DAY + 7_000],
        [7_000, DAY + 7_000],
    ],
)
def test_daily_points_off_their_midnights_are_refused_whole(offsets: list[int]) -> None:
    body = chart([(JAN_1 + offset, 1) for offset in offsets])
    with pytest.raises(ContractError, match=r"b\.prices stamp should be midnights but the last"):
        parse_market_chart(body, "b", "daily")
    # Where no interval was asked for, none is promised.
    assert len(parse_market_chart(body, "b")) == len(offsets)


points = st.lists(
    st.tuples(
        st.integers(0, 40).map(lambda d: JAN_1 + d * DAY),
        st.one_of(st.integers(1, 10**9), st.floats(1e-9, 1e9)),
    ),
    max_size=60,
)


@given(points, points, points)
def test_a_chart_is_the_last_value_of_each_stamp_whatever_order_and_lengths(
    prices: Any, caps: Any, volumes: Any
) -> None:
    frame = parse_market_chart(chart(prices, caps, volumes), "b")
    expected = dict(prices)
    stamps = [int(s.value // 1_000_000) for s in frame["stamp"]]
    assert stamps == sorted(expected)
    assert list(frame["price_usd"]) == [expected[s] for s in stamps]
    np.testing.assert_array_equal(
        frame["market_cap_usd"], [float(dict(caps).get(s, math.nan)) for s in stamps]
    )
    np.testing.assert_array_equal(
        frame["volume_24h_usd"], [float(dict(volumes).get(s, math.nan)) for s in stamps]
    )


# ohlc


def test_the_recorded_candles_are_stamped_at_their_close(recorded: Recorded) -> None:
    response = recorded("ohlc_btc_days1.json")
    frame = parse_ohlc(response["body"], "bitcoin", HALF_HOUR)
    assert len(frame) == 49
    last = frame.iloc[-1]
    # Asked at 08:54:43: the newest candle is unfinished and closes in the future.
    assert last["close_time"] == pd.Timestamp("2024-01-15 09:00")
    assert last["open_time"] == pd.Timestamp("2024-01-15 08:30")
    assert list(last[["open", "high", "low", "close"]]) == [42686.0, 42707.0, 42660.0, 42707.0]
    assert (frame["high"] >= frame["low"]).all()


def test_candles_are_sorted_and_the_last_of_equal_stamps_counts() -> None:
    frame = parse_ohlc(
        [[JAN_1 + DAY, 5, 6, 4, 5], [JAN_1, 1, 2, 1, 2], [JAN_1 + DAY, 5, 7, 4, 6]],
        "b",
        timedelta(days=1),
    )
    assert list(frame["close"]) == [2, 6]
    assert list(frame["open_time"]) == [pd.Timestamp("2023-12-31"), pd.Timestamp("2024-01-01")]


def test_no_candles_are_an_empty_frame_of_the_right_types() -> None:
    frame = parse_ohlc([], "b", HALF_HOUR)
    assert [str(t) for t in frame.dtypes] == ["datetime64[ns]"] * 2 + ["float64"] * 4


GOOD = [[JAN_1, 1, 2, 1, 2], [JAN_1 + 2 * DAY, 5, 6, 4, 5]]


def refused_of(candle: list[Any]) -> str:
    """The reason for a candle of 2024-01-02, which has to be left out between two good ones."""
    frame = parse_ohlc([GOOD[0], candle, GOOD[1]], "b", timedelta(days=1))
    good = parse_ohlc(GOOD, "b", timedelta(days=1))
    assert good.attrs[REFUSED] == {}
    told = frame.attrs.pop(REFUSED)
    del good.attrs[REFUSED]
    pd.testing.assert_frame_equal(frame, good)
    assert list(told) == [pd.Timestamp("2024-01-02")]
    reason = told[pd.Timestamp("2024-01-02")]
    assert reason.startswith("b.ohlc at 2024-01-02 00:00:00 should be ")
    return str(reason).removeprefix("b.ohlc at 2024-01-02 00:00:00 should be ")


@pytest.mark.parametrize("position", [1, 2, 3, 4])
@pytest.mark.parametrize("value", [None, 0, -1, math.nan, math.inf, -math.inf, 10**400])
def test_an_impossible_candle_value_costs_that_candle_alone(position: int, value: Any) -> None:
    row: list[Any] = [JAN_1 + DAY, 1, 2, 1, 2]
    row[position] = value
    assert refused_of(row).startswith("finite and greater than 0, not [")


@pytest.mark.parametrize("candle", [[3, 2, 1, 1], [1, 2, 1, 3], [1, 3, 2, 3], [3, 3, 2, 1]])
def test_a_high_below_or_a_low_above_open_or_close_costs_that_candle_alone(
    candle: list[int],
) -> None:
    reason = refused_of([JAN_1 + DAY, *candle])
    got = [float(price) for price in candle]
    assert reason == f"a candle, low <= open and close <= high, not {got}"


def test_a_candle_of_one_price_is_possible() -> None:
    frame = parse_ohlc([[JAN_1, 2, 2, 2, 2]], "b", timedelta(days=1))
    assert len(frame) == 1
    assert frame.attrs[REFUSED] == {}


def test_candles_of_which_none_is_possible_break_the_contract() -> None:
    rows = [[JAN_1, 1, 2, 1, 0], [JAN_1 + DAY, 3, 2, 1, 1]]
    with pytest.raises(
        ContractError, match=r"b\.ohlc should be possible prices, none of the 2 is: "
    ):
        parse_ohlc(rows, "b", timedelta(days=1))


@pytest.mark.parametrize("position", [1, 2, 3, 4])
@pytest.mark.parametrize("value", ["1", True, [1]])
def test_a_candle_value_of_another_type_refuses_all_by_name(position: int, value: Any) -> None:
    row: list[Any] = [JAN_1 + DAY, 1, 2, 1, 2]
    row[position] = value
    name = ("open", "high", "low", "close")[position - 1]
    with pytest.raises(ContractError, match=rf"b\.{name} at 2024-01-02"):
        parse_ohlc([GOOD[0], row], "b", timedelta(days=1))


@pytest.mark.parametrize("payload", [{}, None, [1], [[JAN_1, 1, 2, 3]], [[]], ["12345"]])
def test_candles_of_another_shape_are_refused(payload: Any) -> None:
    with pytest.raises(ContractError, match="ohlc"):
        parse_ohlc(payload, "b", HALF_HOUR)


def test_a_sixth_value_of_a_candle_is_ignored() -> None:
    more = [[*row, extra] for row, extra in zip(GOOD, ("volume", None), strict=True)]
    pd.testing.assert_frame_equal(
        parse_ohlc(more, "b", timedelta(days=1)), parse_ohlc(GOOD, "b", timedelta(days=1))
    )


@pytest.mark.parametrize(
    ("interval", "offset"),
    [
        (timedelta(days=1), 7_000),
        (timedelta(days=1), DAY // 2),
        (timedelta(hours=1), 7_000),
        (timedelta(hours=1), 1_800_000),
        (HALF_HOUR, 1),
    ],
)
def test_candles_off_the_grid_of_their_interval_are_refused_whole(
    interval: timedelta, offset: int
) -> None:
    rows = [GOOD[0], [JAN_1 + DAY + offset, 1, 2, 1, 2]]
    with pytest.raises(ContractError, match=r"b\.ohlc stamp should be a multiple of"):
        parse_ohlc(rows, "b", interval)


def test_candles_of_several_days_have_no_grid() -> None:
    assert len(parse_ohlc([GOOD[0], [JAN_1 + DAY + 7_000, 1, 2, 1, 2]], "b", timedelta(days=4)))


# what is plainly good is read as what has to be looked at closely

strays = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(["1", [], {}, math.nan, math.inf, -0.0, 0, -1, 10**400, 2**63, JAN_1 / 1]),
    st.integers(1, 10),
    st.floats(0.5, 10),
)


@st.composite
def tables(draw: st.DrawFn, width: int) -> list[Any]:
    """Rows of ascending stamps and good values, with a stray or another order now and then."""
    rows: list[Any] = [
        [JAN_1 + n * DAY, *draw(st.permutations([5, 1.5, 2, 4.0]))][:width]
        for n in range(draw(st.integers(0, 5)))
    ]
    if width == 5:
        rows = [[row[0], 2, max(row[1:]), min(row[1:]), 2.0] for row in rows]
    for _ in range(draw(st.integers(0, 2)) if rows else 0):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, width - 1))] = draw(strays)
    if rows and draw(st.integers(0, 4)) == 0:
        rows[draw(st.integers(0, len(rows) - 1))] = draw(st.sampled_from([None, [], [1], [1] * 6]))
    if draw(st.integers(0, 3)) == 0:
        rows = list(draw(st.permutations(rows)))
    if rows and draw(st.integers(0, 3)) == 0:
        rows.append(list(rows[-1]) if isinstance(rows[-1], list) else [])
    return rows


def outcome(read: Callable[[], pd.DataFrame]) -> tuple[str, Any]:
    try:
        frame = read()
    except ContractError as error:
        return str(error), None
    refused = frame.attrs.pop(REFUSED)
    return repr(refused), frame


def assert_same(one: Callable[[], pd.DataFrame], other: Callable[[], pd.DataFrame]) -> None:
    (told, frame), (expected_told, expected) = outcome(one), outcome(other)
    assert told == expected_told
    if expected is not None:
        pd.testing.assert_frame_equal(frame, expected)


@settings(deadline=None)
@given(tables(5), st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=4)]))
def test_candles_are_the_same_by_the_short_way(rows: list[Any], interval: timedelta) -> None:
    assert_same(
        lambda: parse_ohlc(rows, "b", interval),
        lambda: coingecko_frames._any_ohlc(rows, "b", interval),
    )


@settings(deadline=None)
@given(tables(2), tables(2), tables(2), st.booleans(), st.sampled_from([None, "daily"]))
def test_charts_are_the_same_by_the_short_way(
    prices: list[Any], caps: list[Any], volumes: list[Any], alike: bool, interval: str | None
) -> None:
    body = {
        "prices": prices,
        "market_caps": prices if alike else caps,
        "total_volumes": prices if alike else volumes,
    }
    assert_same(
        lambda: parse_market_chart(body, "b", interval),
        lambda: coingecko_frames._any_chart(body, "b", interval),
    )


@pytest.mark.parametrize("interval", [timedelta(hours=1), timedelta(days=1)])
def test_plain_candles_do_go_the_short_way(interval: timedelta) -> None:
    assert coingecko_frames._regular_ohlc(GOOD, interval) is not None
    points = [[JAN_1, 1], [JAN_1 + DAY, 2.0], [JAN_1 + DAY + 7_000, 3]]
    assert coingecko_frames._regular_chart(chart(points, points, points), "daily") is not None


# coins/list


def test_the_recorded_list_keeps_odd_ids_empty_and_shared_symbols(recorded: Recorded) -> None:
    frame = parse_coin_list(recorded("coins_list.json")["body"])
    assert len(frame) == 12190
    assert frame["coin_id"].is_unique
    assert {"1move token", "boringdao-[old]"} <= set(frame["coin_id"])
    assert (frame["symbol"] == "").sum() == 3
    shared = frame[frame["symbol"].duplicated(keep=False)]
    assert shared["symbol"].nunique() > 1000
    assert frame["is_active"].all()
    assert set(frame["platforms"]) == {"{}"}


def test_platforms_are_json_with_sorted_keys() -> None:
    rows = [
        {"id": "a", "symbol": "s", "name": None, "platforms": {"z": "0x1", "b": None, "é": ""}},
        {"id": "b", "symbol": "", "name": "\ud800", "platforms": None},
    ]
    frame = parse_coin_list(rows, is_active=False)
    assert json.loads(frame["platforms"][0]) == {"b": None, "z": "0x1", "é": ""}
    assert frame["platforms"][0].startswith('{"b":null,"z":"0x1"')
    assert frame["platforms"][1] == "{}"
    assert list(frame["name"]) == ["", "?"]
    assert not frame["is_active"].any()


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, unique=True))
def test_ids_of_any_characters_survive_as_text_that_can_be_stored(ids: list[str]) -> None:
    frame = parse_coin_list([{"id": i, "symbol": i, "name": i} for i in ids])
    assert len(frame) == len(ids)
    for text in frame["coin_id"]:
        text.encode()


@pytest.mark.parametrize(
    "rows", [[], {}, [{"id": 5, "symbol": "a", "name": "b"}], [{"id": "a", "name": "b"}], ["a"]]
)
def test_a_list_that_is_no_list_of_coins_is_refused(rows: Any) -> None:
    with pytest.raises(ContractError):
        parse_coin_list(rows)
