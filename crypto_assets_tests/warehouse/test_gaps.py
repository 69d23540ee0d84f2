"""Gaps as intervals say the same as a plain set of days."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.warehouse import gaps
from crypto_assets.warehouse.gaps import Gap, Inspection, gap_days_sql, record
from crypto_assets_tests.warehouse import frames

FIRST = date(2026, 2, 25)
DAYS = [FIRST + timedelta(days=n) for n in range(8)]
SERIES = ["bitcoin", "x'); DROP TABLE gaps;--"]
STATES = [
    ("missing", "HTTP 500"),
    ("missing", "timeout"),
    ("no_data_at_provider", "the provider has no value"),
]

inspections = st.dictionaries(
    st.sampled_from(SERIES),
    st.dictionaries(st.sampled_from(DAYS), st.none() | st.sampled_from(STATES)),
)


def intervals(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT table_name, series, first_day, last_day, state, reason FROM gaps ORDER BY ALL"
    ).fetchall()


def by_day(connection: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    return connection.execute(
        f"SELECT table_name, series, day, state, reason FROM ({gap_days_sql()}) ORDER BY ALL"
    ).fetchall()


def inspection(found: dict[str, dict[date, Any]]) -> Inspection:
    return Inspection(
        {series: list(days) for series, days in found.items()},
        [
            Gap(series, day, *why)
            for series, days in found.items()
            for day, why in days.items()
            if why
        ],
    )


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["ranks", "ohlc_daily"]), inspections), max_size=5))
def test_any_inspections_leave_what_a_set_of_days_would(
    memory: duckdb.DuckDBPyConnection, made: list[tuple[str, dict[str, dict[date, Any]]]]
) -> None:
    memory.execute("DELETE FROM gaps")
    model: dict[tuple[str, str, date], Any] = {}
    for table, found in made:
        record(memory, table, inspection(found))
        for series, days in found.items():
            for day, why in days.items():
                model[table, series, day] = why
    left = {key: why for key, why in model.items() if why}
    assert by_day(memory) == sorted((*key, *why) for key, why in left.items())
    # The fewest intervals: one begins wherever the day before does not say the same.
    begin = [
        (table, series, day, *why)
        for (table, series, day), why in left.items()
        if left.get((table, series, day - timedelta(days=1))) != why
    ]
    assert [(t, s, first, *why) for t, s, first, _, *why in intervals(memory)] == sorted(begin)


def test_neighbouring_days_become_one_interval_also_over_the_end_of_a_month(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    memory.execute("DELETE FROM gaps")
    for day in (date(2026, 2, 27), date(2026, 3, 1), date(2026, 2, 28)):
        record(memory, "ranks", Inspection({"a": [day]}, [Gap("a", day, "missing", "HTTP 500")]))
    assert intervals(memory) == [
        ("ranks", "a", date(2026, 2, 27), date(2026, 3, 1), "missing", "HTTP 500")
    ]


def test_a_healed_day_splits_the_interval(memory: duckdb.DuckDBPyConnection) -> None:
    memory.execute("DELETE FROM gaps")
    three = [frames.D1, frames.D2, frames.D3]
    record(
        memory, "ranks", Inspection({"a": three}, [Gap("a", d, "missing", "500") for d in three])
    )
    record(memory, "ranks", Inspection({"a": [frames.D2]}))
    assert intervals(memory) == [
        ("ranks", "a", frames.D1, frames.D1, "missing", "500"),
        ("ranks", "a", frames.D3, frames.D3, "missing", "500"),
    ]


def test_an_inspection_of_nothing_changes_nothing(memory: duckdb.DuckDBPyConnection) -> None:
    memory.execute("DELETE FROM gaps")
    gap = Gap("a", frames.D1, "missing", "500")
    record(memory, "ranks", Inspection({"a": [frames.D1]}, [gap]))
    before = memory.execute("SELECT * FROM gaps").fetchall()
    record(memory, "ranks", Inspection({}))
    record(memory, "ranks", Inspection({"a": []}))
    record(memory, "ranks", Inspection({"b": [frames.D1]}))
    record(memory, "ohlc_daily", Inspection({"a": [frames.D1]}))
    assert memory.execute("SELECT * FROM gaps").fetchall() == before


def test_the_moment_of_the_check_is_told(
    memory: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.execute("DELETE FROM gaps")
    for moment, day in (("2026-01-08 10:00", frames.D1), ("2026-01-09 11:00", frames.D2)):
        at = datetime.fromisoformat(moment)
        monkeypatch.setattr(gaps, "wall_now", lambda at=at: at)
        record(memory, "ranks", Inspection({"a": [day]}, [Gap("a", day, "missing", "500")]))
    assert memory.execute("SELECT first_day, last_day, checked_at FROM gaps").fetchall() == [
        (frames.D1, frames.D2, datetime.fromisoformat("2026-01-09 11:00"))
    ]
