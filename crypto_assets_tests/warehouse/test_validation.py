"""A frame keeps its contract or is refused by column, rule and rows; the old slice stays."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets import tables
from crypto_assets.tables import Column, Table
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.validation import conform
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import D1, D2, caps

Change = Callable[[pd.DataFrame], pd.DataFrame]
AWARE = pd.Timestamp("2026-01-05", tz="UTC")


def setting(column: str, value: Any) -> Change:
    """Put one value into the second row, keeping the others."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].astype("object").tolist()
        values[1] = value
        return frame.assign(**{column: pd.Series(values, index=frame.index)})

    return change


BROKEN_CAPS: dict[str, tuple[Change, str]] = {
    "null": (setting("price_usd", None), "1 row.* 'price_usd is not null'.*ether"),
    "nan": (setting("price_usd", math.nan), "1 row.* 'price_usd is not null'.*ether"),
    "null key": (setting("coin_id", None), "1 row.* 'coin_id is not null'"),
    "infinite": (setting("price_usd", math.inf), "1 row.* 'price_usd is finite'.*ether"),
    "infinite where null is allowed": (
        setting("market_cap_usd", -math.inf),
        "1 row.* 'market_cap_usd is finite'.*ether",
    ),
    "zero": (setting("price_usd", 0.0), "1 row.* 'price_usd > 0'.*ether"),
    "negative": (setting("volume_24h_usd", -0.01), "1 row.* 'volume_24h_usd >= 0'.*ether"),
    "rank zero": (setting("provider_rank", 0), "1 row.* 'provider_rank >= 1'.*ether"),
    "doubled key": (
        setting("coin_id", "bitcoin"),
        r"'\(\"date\", \"coin_id\"\) is unique'.*bitcoin",
    ),
    "other day": (
        setting("date", pd.Timestamp("2026-01-08")),
        "1 row.* 'days within the partitions asked for, 2026-01-05 to 2026-01-05'.*ether",
    ),
    "unknown column": (
        lambda frame: frame.assign(ath=1.0),
        r"the contract's columns.*unknown: \['ath'\]",
    ),
    "absent column": (
        lambda frame: frame.drop(columns="price_usd"),
        r"the contract's columns.*absent: \['price_usd'\]",
    ),
    "doubled column": (
        lambda frame: pd.concat([frame, frame[["price_usd"]]], axis=1),
        "the contract's columns",
    ),
    "number as text": (setting("price_usd", "42652"), "'price_usd is DOUBLE, came as object'"),
    "truth as number": (
        lambda frame: frame.assign(price_usd=True),
        "'price_usd is DOUBLE, came as bool'",
    ),
    "fraction for a whole": (
        setting("provider_rank", 1.5),
        "'provider_rank is INTEGER, came as (float64|object)'",
    ),
    "number for truth": (
        lambda frame: frame.assign(is_final=1),
        "'is_final is BOOLEAN, came as int64'",
    ),
    "number for text": (setting("coin_id", 7), "'coin_id is VARCHAR, came as object'"),
    "time of day in a day": (
        setting("date", pd.Timestamp("2026-01-05 01:00")),
        "'date is DATE, came as",
    ),
    "text for a day": (
        lambda frame: frame.assign(date="2026-01-05"),
        "'date is DATE, came as object'",
    ),
    "list for text": (setting("coin_id", ["a", "b"]), "'coin_id is VARCHAR, came as object'"),
    "lists for numbers": (
        lambda frame: frame.assign(price_usd=pd.Series([[1.0, 2.0]] * 2, index=frame.index)),
        "'price_usd is DOUBLE, came as object'",
    ),
    "aware day": (lambda frame: frame.assign(date=AWARE), r"'date is DATE, came as .*UTC"),
    "aware time": (
        lambda frame: frame.assign(observed_at=AWARE),
        r"'observed_at is TIMESTAMP, came as .*UTC",
    ),
    "aware time as object": (
        setting("observed_at", datetime(2026, 1, 5, tzinfo=UTC)),
        "'observed_at is TIMESTAMP, came as object'",
    ),
    "a rank that no INTEGER holds": (
        lambda frame: frame.assign(provider_rank=3_000_000_000),
        "provider_rank",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_CAPS)
def test_a_broken_frame_is_refused_and_the_old_slice_stays(warehouse: Warehouse, kind: str) -> None:
    change, told = BROKEN_CAPS[kind]
    warehouse.write(Batch(caps((D1, "bitcoin", 1.0), (D2, "bitcoin", 2.0))), frames.to())
    before = warehouse.path.read_bytes()
    broken = change(caps((D1, "bitcoin", 7.0), (D1, "ether", 8.0)))
    with pytest.raises(ContractViolationError, match=f"(?s)refused to write market_caps: .*{told}"):
        warehouse.write(Batch(broken), frames.to(first=D1))
    assert warehouse.path.read_bytes() == before


def flows(day: str, asset: str = "btc") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": [pd.Timestamp(day)],
            "asset": [asset],
            "ticker": ["IBIT"],
            "net_flow_usd": [1e6],
            "is_final": [True],
            "observed_at": [pd.Timestamp(frames.SEEN)],
            "source": ["sandbox/test"],
        }
    )


BROKEN_RULES: dict[str, tuple[Table, pd.DataFrame, str]] = {
    "one of": (tables.ETF_FLOWS, flows("2026-01-05", "doge"), "'asset is one of 'btc', 'eth', 'so"),
    "a weekend": (tables.ETF_FLOWS, flows("2026-01-10"), "'weekdays only'"),
    "low above close": (
        tables.OHLC_DAILY,
        frames.candles((D1, "bitcoin", 0.4)),
        "'low is the lowest'",
    ),
    "high below close": (
        tables.OHLC_DAILY,
        frames.candles((D1, "bitcoin", 2e6)),
        "'high is the highest'",
    ),
    "between the hours": (
        tables.OHLC_HOURLY,
        frames.hours(D1, [3]).assign(open_time=pd.Timestamp("2026-01-05 03:30")),
        "'starts on the hour'",
    ),
    "above the maximum": (
        tables.FEAR_GREED,
        pd.DataFrame(
            {
                "date": [pd.Timestamp(D1)],
                "value": [101],
                "label": ["Greed"],
                "band": ["extreme greed"],
                "is_final": [True],
                "observed_at": [pd.Timestamp(frames.SEEN)],
                "source": ["sandbox/test"],
            }
        ),
        "'value <= 100'",
    ),
}


@pytest.mark.parametrize("kind", BROKEN_RULES)
def test_a_rule_of_the_table_holds_for_every_row(warehouse: Warehouse, kind: str) -> None:
    table, rows, told = BROKEN_RULES[kind]
    with pytest.raises(ContractViolationError, match=told):
        warehouse.write(Batch(rows), Write(table, "run-1"))
    assert warehouse.query(f"SELECT count(*) AS n FROM {table.name}")["n"].tolist() == [0]


def test_a_refusal_counts_all_rows_and_shows_five(warehouse: Warehouse) -> None:
    rows = caps(*[(D1, f"coin-{number}", -1.0) for number in range(9)])
    with pytest.raises(ContractViolationError) as refused:
        warehouse.write(Batch(rows), frames.to())
    error = refused.value
    assert (error.table, error.rule, error.violations) == ("market_caps", "price_usd > 0", 9)
    assert sum(f"coin-{number}" in error.examples for number in range(9)) == 5


@pytest.mark.parametrize("day", [D1, D2])
def test_a_refusal_stays_readable_with_a_value_of_10_kb(warehouse: Warehouse, day: date) -> None:
    rows = caps((day, "x" * 10_000, -1.0 if day == D1 else 1.0))
    with pytest.raises(ContractViolationError) as refused:
        warehouse.write(Batch(rows), frames.to(first=D1))
    assert len(str(refused.value)) < 2_000


# Frames that are fine, whatever they look like.


def test_a_nullable_column_may_be_absent_and_stays_null(warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "bitcoin", 1.0)).drop(columns="volume_24h_usd")), frames.to())
    rows = warehouse.query(
        "SELECT typeof(volume_24h_usd) AS t, volume_24h_usd AS v FROM market_caps"
    )
    assert (rows["t"].tolist(), rows["v"].isna().tolist()) == (["DOUBLE"], [True])


def test_an_integer_price_among_floats_is_a_price(warehouse: Warehouse) -> None:
    warehouse.write(
        Batch(caps((D1, "a", 0), (D1, "b", 0)).assign(price_usd=[42652, 1])), frames.to()
    )
    assert sorted(warehouse.query("SELECT price_usd FROM market_caps")["price_usd"]) == [1.0, 42652]


def test_a_text_that_is_there_once_in_5000_rows_is_stored(warehouse: Warehouse) -> None:
    ids: list[str | None] = [None] * 5000
    ids[2501] = "raw-2501"
    rows = caps(*[(D1, f"coin-{number:04}", 1.0) for number in range(5000)], raw_id=ids)
    warehouse.write(Batch(rows), frames.to())
    stored = warehouse.query("SELECT coin_id, raw_id FROM market_caps WHERE raw_id IS NOT NULL")
    assert stored.to_numpy().tolist() == [["coin-2501", "raw-2501"]]


def test_a_doubled_index_is_no_doubled_row(warehouse: Warehouse) -> None:
    rows = pd.concat([caps((D1, "a", 1.0)), caps((D1, "b", 2.0))])
    assert rows.index.tolist() == [0, 0]
    warehouse.write(Batch(rows), frames.to())
    with warehouse.session("test") as connection:
        assert frames.prices(connection) == {(D1, "a"): 1.0, (D1, "b"): 2.0}


def test_days_may_come_as_dates(warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0)).assign(date=[D1])), frames.to(first=D1))
    with warehouse.session("test") as connection:
        assert frames.prices(connection) == {(D1, "a"): 1.0}


TABLE = Table("t", "A row.", (), ("v",), None)


def conformed(connection: duckdb.DuckDBPyConnection, kind: Any, values: pd.Series[Any]) -> Any:
    """What DuckDB stores of values of a column of this type, or None for a refusal."""
    column = Column("v", kind, "A value.", nullable=True)
    try:
        frame = conform(pd.DataFrame({"v": values}), TABLE, [column])
    except ContractViolationError:
        return None
    if frame.columns.empty:
        return [None] * len(values)
    connection.register("given", frame)
    try:
        return [v for (v,) in connection.execute(f"SELECT v::{kind} FROM given").fetchall()]
    finally:
        connection.unregister("given")


FAST = settings(max_examples=25, deadline=None)
floats = st.floats(allow_nan=False)
INTS_32 = st.integers(-(2**31), 2**31 - 1)


@FAST
@given(st.lists(floats | st.none(), min_size=1, max_size=8))
def test_every_double_is_stored_to_the_last_bit(
    memory: duckdb.DuckDBPyConnection, values: list[float | None]
) -> None:
    assert conformed(memory, "DOUBLE", pd.Series(values, dtype="float64")) == values


@FAST
@given(st.lists(INTS_32 | floats | st.none(), min_size=1, max_size=5))
def test_a_number_becomes_the_same_whole_or_is_refused(
    memory: duckdb.DuckDBPyConnection, values: list[float | None]
) -> None:
    wholes = all(v is None or (math.isfinite(v) and v == int(v)) for v in values)
    in_range = wholes and all(v is None or -(2**31) <= v < 2**31 for v in values)
    stored = conformed(memory, "INTEGER", pd.Series(values, dtype="float64"))
    assert stored == (values if in_range else None)


@FAST
@given(st.lists(st.booleans() | st.none(), min_size=1, max_size=5))
def test_truth_is_stored_as_it_is(
    memory: duckdb.DuckDBPyConnection, values: list[bool | None]
) -> None:
    assert conformed(memory, "BOOLEAN", pd.Series(values, dtype="object")) == values


@FAST
@given(st.lists(st.text(max_size=20) | st.none(), min_size=1, max_size=5))
def test_every_text_is_stored_as_it_is(
    memory: duckdb.DuckDBPyConnection, values: list[str | None]
) -> None:
    assert conformed(memory, "VARCHAR", pd.Series(values, dtype="object")) == values


def test_half_a_character_is_refused(warehouse: Warehouse) -> None:
    # What JSON's "\\ud83d" alone becomes; DuckDB gives up the whole database at it.
    with pytest.raises(ContractViolationError, match="coin_id"):
        warehouse.write(Batch(caps((D1, "half a bitcoin \ud83d", 1.0))), frames.to())


stamps = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))


@FAST
@given(st.lists(stamps | st.none(), min_size=1, max_size=5), st.sampled_from(["ns", "us", None]))
def test_every_moment_is_stored_to_the_microsecond(
    memory: duckdb.DuckDBPyConnection, values: list[datetime | None], unit: str | None
) -> None:
    dtype = f"datetime64[{unit}]" if unit else "object"
    assert conformed(memory, "TIMESTAMP", pd.Series(values, dtype=dtype)) == values


@FAST
@given(st.lists(stamps | st.dates(date(1970, 1, 1), date(2100, 1, 1)), min_size=1, max_size=3))
def test_a_moment_is_a_day_only_at_midnight(
    memory: duckdb.DuckDBPyConnection, values: list[date]
) -> None:
    midnight = [
        not isinstance(v, datetime) or (v.hour, v.minute, v.second, v.microsecond) == (0, 0, 0, 0)
        for v in values
    ]
    asked = [v.date() if isinstance(v, datetime) else v for v in values]
    stored = conformed(memory, "DATE", pd.Series(values, dtype="object"))
    assert stored == (asked if all(midnight) else None)


@FAST
@given(
    st.sampled_from(["DOUBLE", "INTEGER", "BOOLEAN", "DATE", "TIMESTAMP"]),
    st.lists(st.text(), min_size=1, max_size=3),
)
def test_text_is_never_read_as_anything_else(
    memory: duckdb.DuckDBPyConnection, kind: str, values: list[str]
) -> None:
    assert conformed(memory, kind, pd.Series(values, dtype="object")) is None


def test_nanoseconds_are_refused_rather_than_cut_off(memory: duckdb.DuckDBPyConnection) -> None:
    values = pd.Series([pd.Timestamp("2026-01-05 00:00:00.000000001")])
    assert conformed(memory, "TIMESTAMP", values) is None


@pytest.mark.parametrize("kind", ["DOUBLE", "INTEGER", "VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP"])
@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT])
def test_nothing_is_null_in_every_type(
    memory: duckdb.DuckDBPyConnection, kind: str, nothing: Any
) -> None:
    assert conformed(memory, kind, pd.Series([nothing, nothing], dtype="object")) == [None, None]
