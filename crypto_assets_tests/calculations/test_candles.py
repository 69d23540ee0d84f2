"""Candles joined from shorter ones and rebuilt from spaced prices, against plain loops."""

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.calculations import candles
from crypto_assets.calculations.candles import OHLC, Interval

START = datetime(2024, 2, 28)
LENGTHS: dict[str, timedelta] = {
    "30min": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1D": timedelta(days=1),
}
Row = tuple[datetime, float, float, float, float]

a_price = st.floats(0.5, 2.0)


@st.composite
def some_candles(draw: st.DrawFn, part: str = "4h") -> list[Row]:
    rows = []
    for place in draw(st.sets(st.integers(0, 30), max_size=31)):
        low, first, last, high = sorted(draw(st.tuples(a_price, a_price, a_price, a_price)))
        opened, closed = draw(st.permutations([first, last]))
        rows.append((START + place * LENGTHS[part], opened, high, low, closed))
    return draw(st.permutations(rows))


def frame(rows: list[Row]) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=["open_time", *OHLC])
    return found.astype({"open_time": "datetime64[ns]"} | dict.fromkeys(OHLC, "float64"))


def rows_of(found: pd.DataFrame) -> list[Row]:
    return list(found[["open_time", *OHLC]].itertuples(index=False, name=None))


def whole_start(stamp: datetime, whole: str) -> datetime:
    return stamp - (stamp - START) % LENGTHS[whole]


# --- aggregate


@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize(("part", "whole", "parts"), [("4h", "1D", 6), ("30min", "1h", 2)])
@given(data=st.data())
def test_joined_candles_keep_the_true_extremes_and_need_all_their_parts(
    part: str, whole: Interval, parts: int, data: st.DataObject
) -> None:
    rows = data.draw(some_candles(part))
    by_whole: dict[datetime, list[Row]] = {}
    for row in sorted(rows):
        by_whole.setdefault(whole_start(row[0], whole), []).append(row)
    expected = [
        (start, of[0][1], max(row[2] for row in of), min(row[3] for row in of), of[-1][4])
        for start, of in by_whole.items()
        if len(of) == parts
    ]
    assert rows_of(candles.aggregate(frame(rows), part, whole)) == expected


def test_a_repeated_part_does_not_stand_in_for_a_missing_one() -> None:
    first, second = (START, 1.0, 2.0, 1.0, 2.0), (START + timedelta(minutes=30), 2.0, 3.0, 1.0, 1.0)
    assert candles.aggregate(frame([first, first]), "30min", "1h").empty
    assert rows_of(candles.aggregate(frame([first, second, first]), "30min", "1h")) == [
        (START, 1.0, 3.0, 1.0, 1.0)
    ]


# --- closed_by


@pytest.mark.parametrize(
    ("observed_at", "closed"),
    [
        (START + timedelta(hours=1), 1),
        (START + timedelta(hours=2) - timedelta(microseconds=1), 1),
        (START + timedelta(hours=2), 2),
        (START, 0),
    ],
)
def test_a_candle_is_closed_from_its_end_on(observed_at: datetime, closed: int) -> None:
    rows = [(START + n * LENGTHS["1h"], 1.0, 1.0, 1.0, 1.0) for n in range(3)]
    assert len(candles.closed_by(frame(rows), pd.Timestamp(observed_at), "1h")) == closed


# --- approximate


def prices_at(*points: tuple[timedelta, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "stamp": pd.to_datetime([START + after for after, _ in points]),
            "price_usd": [price for _, price in points],
        }
    )


def plain_approximation(points: list[tuple[datetime, float]], length: str) -> list[Row]:
    span = LENGTHS[length]
    rows: list[Row] = []
    starts = {whole_start(stamp - timedelta(microseconds=1), length) for stamp, _ in points}
    for start in sorted(starts):
        inside = [price for stamp, price in points if start < stamp <= start + span]
        before = [price for stamp, price in points if start - span < stamp <= start]
        opened = before[-1] if before else inside[0]
        everything = [opened, *inside]
        rows.append((start, opened, max(everything), min(everything), inside[-1]))
    return rows


@settings(deadline=None, max_examples=50)
@pytest.mark.parametrize("length", ["1h", "1D"])
@given(st.dictionaries(st.integers(-150, 600), a_price, max_size=40), st.randoms())
def test_approximate_candles_are_those_of_a_plain_loop(
    length: Interval, by_place: dict[int, float], order: object
) -> None:
    # Ten-minute places put many prices on the boundaries and leave holes between others.
    points = [(START + n * timedelta(minutes=10), by_place[n]) for n in sorted(by_place)]
    given_prices = pd.DataFrame(points, columns=["stamp", "price_usd"]).astype(
        {"stamp": "datetime64[ns]", "price_usd": "float64"}
    )
    shuffled = given_prices.sample(frac=1, random_state=1)
    found = candles.approximate(shuffled, length)
    assert rows_of(found) == plain_approximation(points, length)


def test_a_price_on_the_boundary_closes_one_candle_and_opens_the_next() -> None:
    hour = timedelta(hours=1)
    found = candles.approximate(
        prices_at((hour / 2, 10.0), (hour, 14.0), (hour * 1.5, 12.0), (hour * 2, 11.0)), "1h"
    )
    assert rows_of(found) == [
        (START, 10.0, 14.0, 10.0, 14.0),
        (START + hour, 14.0, 14.0, 11.0, 11.0),
    ]


def test_a_candle_opens_with_the_last_price_before_it() -> None:
    minute = timedelta(minutes=1)
    found = candles.approximate(
        prices_at((-111 * minute, 7.0), (-4 * minute, 9.0), (50 * minute, 8.0)), "1h"
    )
    assert rows_of(found)[-1] == (START, 9.0, 9.0, 8.0, 8.0)


def test_a_candle_after_a_hole_opens_with_its_own_first_price() -> None:
    day = timedelta(days=1)
    found = candles.approximate(prices_at((day / 2, 10.0), (3.5 * day, 20.0)), "1D")
    assert rows_of(found) == [
        (START, 10.0, 10.0, 10.0, 10.0),
        (START + 3 * day, 20.0, 20.0, 20.0, 20.0),
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_resolution_of_the_stamps_does_not_matter(unit: str) -> None:
    prices = prices_at((timedelta(0), 1.0), (timedelta(hours=1), 2.0))
    found = candles.approximate(prices.astype({"stamp": f"datetime64[{unit}]"}), "1h")
    assert rows_of(found) == [
        (START - timedelta(hours=1), 1.0, 1.0, 1.0, 1.0),
        (START, 1.0, 2.0, 1.0, 2.0),
    ]


# --- session_of


def test_each_hour_opens_in_its_session() -> None:
    hours = pd.Series(pd.date_range("2024-02-29", periods=24, freq="h"), index=range(100, 124))
    found = candles.session_of(hours)
    assert found.tolist() == ["Asia"] * 8 + ["Europe"] * 8 + ["US"] * 8
    assert found.index.equals(hours.index)
    assert candles.session_of(hours.iloc[:0]).empty
