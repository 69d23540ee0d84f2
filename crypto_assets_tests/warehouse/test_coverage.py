"""Which days are there: told by rows and gaps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from crypto_assets import tables
from crypto_assets.tables import TABLES
from crypto_assets.warehouse import coverage
from crypto_assets.warehouse.coverage import unfinished_days
from crypto_assets.warehouse.gaps import Gap, GapState, Inspection
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import D1, D2, D3, SEEN, caps, hours, to

NONE_OF_IT = pd.DataFrame()


def days_of(warehouse: Warehouse, table: str = "market_caps") -> list[tuple[Any, ...]]:
    with warehouse.session("test") as connection:
        return connection.execute(
            "SELECT date, rows_stored, series_stored, series_missing, missing, is_final "
            "FROM coverage WHERE table_name = ? ORDER BY date",
            [table],
        ).fetchall()


def gap(coin: str, day: date, state: GapState = "missing") -> Inspection:
    return Inspection({coin: [day]}, [Gap(coin, day, state, "a reason")])


def test_a_day_is_final_with_all_its_rows(warehouse: Warehouse) -> None:
    rows = caps((D1, "a", 1.0), (D1, "b", 1.0), (D2, "a", 1.0), (D2, "b", 1.0))
    warehouse.write(Batch(rows.assign(is_final=[True, True, True, False])), frames.to())
    assert days_of(warehouse) == [(D1, 2, 2, 0, [], True), (D2, 2, 2, 0, [], False)]
    with warehouse.session("test") as connection:
        assert connection.execute("SELECT DISTINCT observed_at FROM coverage").fetchall() == [
            (SEEN,)
        ]


def test_a_missing_coin_is_named_and_keeps_its_day_open(warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0)), gap("b", D1)), frames.to())
    assert days_of(warehouse) == [(D1, 1, 1, 1, ["b"], False)]
    warehouse.write(Batch(caps((D1, "b", 1.0)), Inspection({"b": [D1]})), frames.to())
    assert days_of(warehouse) == [(D1, 2, 2, 0, [], True)]


def test_a_coin_the_provider_has_not_keeps_no_day_open(warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0)), gap("b", D1, "no_data_at_provider")), frames.to())
    assert days_of(warehouse) == [(D1, 1, 1, 0, [], True)]


def test_a_day_of_which_nothing_came_is_there_with_no_rows(warehouse: Warehouse) -> None:
    warehouse.write(Batch(NONE_OF_IT, gap("b", D1)), frames.to())
    assert days_of(warehouse) == [(D1, 0, 0, 1, ["b"], False)]


def test_a_gap_of_one_table_says_nothing_of_another(warehouse: Warehouse) -> None:
    warehouse.write(Batch(frames.candles((D1, "a", 1.0))), frames.to_candles())
    warehouse.write(Batch(caps((D1, "a", 1.0)), gap("b", D1)), frames.to())
    assert days_of(warehouse, "ohlc_daily") == [(D1, 1, 1, 0, [], True)]


def test_hours_count_as_rows_of_their_day(warehouse: Warehouse) -> None:
    warehouse.write(Batch(hours(D1, range(24))), Write(tables.OHLC_HOURLY, "run-1"))
    assert days_of(warehouse, "ohlc_hourly") == [(D1, 24, 1, 0, [], True)]


def test_a_day_whose_first_hours_alone_are_stored_is_not_final(warehouse: Warehouse) -> None:
    seen = pd.Timestamp(D1) + pd.Timedelta(hours=3, minutes=35)
    rows = hours(D1, [0, 1, 2], observed_at=seen)
    warehouse.write(Batch(rows), Write(tables.OHLC_HOURLY, "run-1"))
    assert days_of(warehouse, "ohlc_hourly") == [(D1, 3, 1, 0, [], False)]


# Unfinished days.

Only = Callable[..., None]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Only:
    """Lets these tables alone decide."""

    def choose(*names: str) -> None:
        monkeypatch.setattr(coverage, "partitioned", lambda: (TABLES[name] for name in names))

    return choose


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_an_empty_warehouse_lacks_every_day(warehouse: Warehouse) -> None:
    assert unfinished_days(warehouse, D1, at("2026-01-07 12:00")) == [D1, D2, D3]


def test_final_days_are_finished(warehouse: Warehouse, only: Only) -> None:
    only("market_caps")
    now = at("2026-01-07 12:00")
    warehouse.write(Batch(caps((D1, "a", 1.0), (D2, "a", 1.0))), frames.to())
    assert unfinished_days(warehouse, D1, now) == [D3]
    running = caps((D3, "a", 1.0), is_final=False, observed_at=pd.Timestamp(now))
    warehouse.write(Batch(running), frames.to())
    assert unfinished_days(warehouse, D1, now) == []
    assert unfinished_days(warehouse, D1, at("2026-01-07 12:01")) == [D3]


def test_one_table_that_lacks_a_day_is_enough(warehouse: Warehouse, only: Only) -> None:
    only("market_caps", "ohlc_daily")
    warehouse.write(Batch(caps((D1, "a", 1.0), (D2, "a", 1.0))), frames.to())
    warehouse.write(Batch(frames.candles((D1, "a", 1.0))), frames.to_candles())
    assert unfinished_days(warehouse, D1, at("2026-01-07 12:00")) == [D2, D3]


def test_a_day_the_provider_has_nothing_of_is_finished(warehouse: Warehouse, only: Only) -> None:
    only("market_caps")
    warehouse.write(Batch(NONE_OF_IT, gap("a", D1, "no_data_at_provider")), frames.to())
    assert unfinished_days(warehouse, D1, at("2026-01-06 12:00")) == [D2]


def test_a_day_with_a_missing_coin_is_not_finished_by_one_without_data(
    warehouse: Warehouse, only: Only
) -> None:
    only("market_caps")
    warehouse.write(Batch(NONE_OF_IT, gap("a", D1, "no_data_at_provider")), frames.to())
    asked = replace(gap("b", D1), checked_at=at("2026-01-06 01:00"))
    warehouse.write(Batch(NONE_OF_IT, asked), frames.to())
    assert unfinished_days(warehouse, D1, at("2026-01-06 12:00")) == [D1, D2]
    # At the moment it was asked, as in a home whose clock stands still, there is no more to have.
    assert unfinished_days(warehouse, D1, at("2026-01-06 01:00")) == [D2]


@pytest.mark.parametrize(
    ("table", "due_at"),
    [
        ("market_caps", "2026-01-06 00:10"),
        ("ohlc_daily", "2026-01-06 00:35"),
        ("fear_greed", "2026-01-06 00:00"),
        ("etf_flows", "2026-01-06 09:15"),
    ],
)
def test_a_day_is_due_once_its_provider_is_ready(
    warehouse: Warehouse, only: Only, table: str, due_at: str
) -> None:
    only(table)
    moment, day = at(due_at), date(2026, 1, 4)
    warehouse.write(Batch(NONE_OF_IT, gap("a", day, "no_data_at_provider")), to(TABLES[table]))
    running = moment.date()
    assert unfinished_days(warehouse, day, moment) == [D1, running]
    just_before = unfinished_days(warehouse, day, moment - timedelta(microseconds=1))
    assert just_before == [running if moment > at("2026-01-06") else D1]
