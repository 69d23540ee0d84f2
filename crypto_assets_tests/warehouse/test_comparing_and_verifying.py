"""Two warehouses side by side, and one against what it says of itself."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from crypto_assets import tables
from crypto_assets.tables import TABLES, partitioned
from crypto_assets.warehouse.comparing import Difference, compare
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.verifying import Verdict, verify
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch, Write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import (
    D1,
    D2,
    D3,
    IDENTITY,
    LATER,
    candles,
    caps,
    hours,
    to,
)

D4 = date(2026, 1, 8)


def ranks(*days: date) -> pd.DataFrame:
    """Ranks of the coins a and b by their caps."""
    return pd.DataFrame(
        {
            "date": [pd.Timestamp(day) for day in days for _ in "ab"],
            "coin_id": ["a", "b"] * len(days),
            "market_cap_rank": [1, 2] * len(days),
            "market_cap_usd": 1000.0,
            "market_share": 0.5,
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(LATER),
            "source": "sandbox/calculated",
        }
    )


def fill(warehouse: Warehouse) -> Warehouse:
    rows = [(day, coin, 2.0) for day in (D1, D2, D3) for coin in "ab"]
    found = Inspection({"c": [D1, D2, D3]}, [Gap("c", D2, "missing", "HTTP 500")])
    warehouse.write(Batch(caps(*rows), found), to())
    warehouse.write(Batch(candles((D1, "a", 4.0), (D2, "a", 5.0))), frames.to_candles())
    warehouse.write(Batch(hours(D1, range(24))), to(tables.OHLC_HOURLY))
    warehouse.write(Batch(ranks(D1, D2, D3)), to(tables.RANKS, D1, D3))
    return warehouse


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    return fill(warehouse)


@pytest.fixture
def other(filled: Warehouse, tmp_path: Path) -> Warehouse:
    """A copy of the filled warehouse, to be changed."""
    (tmp_path / "other").mkdir()
    shutil.copy(filled.path, tmp_path / "other" / FILE_NAME)
    return Warehouse(tmp_path / "other" / FILE_NAME, IDENTITY, 20)


def by_table(a: Warehouse, b: Warehouse) -> dict[str, Difference]:
    with duckdb.connect() as connection:
        for name, warehouse in (("a", a), ("b", b)):
            connection.execute(f"ATTACH '{warehouse.path}' AS {name} (READ_ONLY)")
        return {found.table: found for found in compare(connection)}


def unequal(a: Warehouse, b: Warehouse) -> list[Difference]:
    return [found for found in by_table(a, b).values() if not found.is_equal]


def sql(warehouse: Warehouse, *statements: str) -> None:
    """Do to the file what only something else than the pipeline does."""
    with duckdb.connect(str(warehouse.path)) as connection:
        for statement in statements:
            connection.execute(statement)


# Comparing.


def test_two_equal_warehouses_differ_in_nothing(filled: Warehouse, other: Warehouse) -> None:
    found = by_table(filled, other)
    assert list(found) == [*TABLES, "gaps", "restatements"]
    assert found["market_caps"] == Difference("market_caps", 6, 6)
    assert found["ema_signals"] == Difference("ema_signals", 0, 0)
    assert unequal(filled, other) == []


def test_provenance_is_no_difference(filled: Warehouse, tmp_path: Path) -> None:
    again = Warehouse(tmp_path / "again" / FILE_NAME, IDENTITY, 20)
    rows = [(day, coin, 2.0) for day in (D3, D1, D2) for coin in "ba"]
    again.write(
        Batch(caps(*rows, observed_at=LATER, raw_id=None, source="sandbox/x")),
        Write(tables.MARKET_CAPS, "run-9"),
    )
    assert by_table(filled, again)["market_caps"].is_equal


CHANGES: dict[str, tuple[str, Difference]] = {
    "a changed value": (
        f"UPDATE market_caps SET price_usd = price_usd + 1e-12 WHERE date = '{D2}'",
        Difference("market_caps", 6, 6, changed=2, first=D2, last=D2),
    ),
    "changed values of two days": (
        "UPDATE ranks SET market_cap_rank = 3 - market_cap_rank "
        f"WHERE date <> '{D2}' AND coin_id = 'a'",
        Difference("ranks", 6, 6, changed=2, first=D1, last=D3),
    ),
    "a value that is NULL in one": (
        f"UPDATE market_caps SET volume_24h_usd = NULL WHERE date = '{D3}' AND coin_id = 'b'",
        Difference("market_caps", 6, 6, changed=1, first=D3, last=D3),
    ),
    "a row of the first only": (
        f"DELETE FROM market_caps WHERE date = '{D1}' AND coin_id = 'a'",
        Difference("market_caps", 6, 5, only_a=1, first=D1, last=D1),
    ),
    "a row of the second only": (
        f"INSERT INTO ohlc_daily SELECT * REPLACE (DATE '{D4}' AS date) FROM ohlc_daily "
        f"WHERE date = '{D2}'",
        Difference("ohlc_daily", 2, 3, only_b=1, first=D4, last=D4),
    ),
    "another key": (
        f"UPDATE ohlc_daily SET coin_id = 'z' WHERE date = '{D2}'",
        Difference("ohlc_daily", 2, 2, only_a=1, only_b=1, first=D2, last=D2),
    ),
    "an hour": (
        "UPDATE ohlc_hourly SET high = 9.5 WHERE hour(open_time) = 23",
        Difference("ohlc_hourly", 24, 24, changed=1, first=D1, last=D1),
    ),
    "a whole table": ("DELETE FROM ranks", Difference("ranks", 6, 0, only_a=6, first=D1, last=D3)),
    "a row that is not final in one": (
        f"UPDATE market_caps SET is_final = false WHERE date = '{D2}' AND coin_id = 'a'",
        Difference("market_caps", 6, 6, changed=1, first=D2, last=D2),
    ),
    "a gap of the first only": ("DELETE FROM gaps", Difference("gaps", 1, 0, only_a=1)),
    "a gap of another state": (
        "UPDATE gaps SET state = 'no_data_at_provider'",
        Difference("gaps", 1, 1, only_a=1, only_b=1),
    ),
    "a gap of other days": (
        f"UPDATE gaps SET last_day = '{D3}'",
        Difference("gaps", 1, 1, only_a=1, only_b=1),
    ),
    "a restatement of the second only": (
        f"INSERT INTO restatements VALUES ('market_caps', '{D1}', '{{}}', 'price_usd', '1.0', "
        "'2.0', now(), now(), 'run-1', now())",
        Difference("restatements", 0, 1, only_b=1),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_difference_is_told_with_its_days(
    filled: Warehouse, other: Warehouse, name: str
) -> None:
    statement, expected = CHANGES[name]
    sql(other, statement)
    assert unequal(filled, other) == [expected]


def test_restatements_from_other_values_are_a_difference(
    filled: Warehouse, other: Warehouse
) -> None:
    for warehouse in (filled, other):
        warehouse.write(Batch(caps((D1, "a", 3.0), observed_at=LATER)), to())
    assert unequal(filled, other) == []
    sql(other, "UPDATE restatements SET old_value = '7.0'")
    assert unequal(filled, other) == [Difference("restatements", 1, 1, only_a=1, only_b=1)]


def test_when_and_why_a_gap_was_found_is_no_difference(filled: Warehouse, other: Warehouse) -> None:
    sql(other, "UPDATE gaps SET reason = 'HTTP 502', checked_at = '2026-03-01'")
    assert unequal(filled, other) == []


def test_a_doubled_row_is_a_difference(filled: Warehouse, other: Warehouse) -> None:
    sql(other, f"INSERT INTO market_caps FROM market_caps WHERE date = '{D2}' AND coin_id = 'a'")
    (found,) = unequal(filled, other)
    assert (found.table, found.rows_a, found.rows_b) == ("market_caps", 6, 7)


def test_a_table_without_days_has_differences_without_days(
    filled: Warehouse, other: Warehouse
) -> None:
    listed = pd.DataFrame(
        {
            "coin_id": ["a", "b"],
            "symbol": "",
            "name": "n",
            "is_active": True,
            "first_seen_at": pd.Timestamp(LATER),
            "last_seen_at": pd.Timestamp(LATER),
            "source": "sandbox/test",
        }
    )
    other.write(Batch(listed), to(tables.COIN_LIST))
    assert unequal(filled, other) == [Difference("coin_list", 0, 2, only_b=2)]


# Verifying.


def wrong(warehouse: Warehouse) -> list[Verdict]:
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        return [verdict for verdict in verify(connection) if not verdict.is_fine]


def test_a_good_warehouse_is_fine_in_all_respects(filled: Warehouse) -> None:
    with duckdb.connect(str(filled.path), read_only=True) as connection:
        verdicts = list(verify(connection))
    assert all(verdict.is_fine and verdict.told == "" for verdict in verdicts)
    assert len({(v.table, v.what) for v in verdicts}) == len(verdicts)
    assert len(verdicts) == 1 + len(TABLES) + 3 * len(list(partitioned()))


def test_an_empty_warehouse_is_fine(warehouse: Warehouse) -> None:
    assert wrong(warehouse) == []


def told(warehouse: Warehouse, table: str, what: str) -> str:
    found = [
        verdict.told
        for verdict in wrong(warehouse)
        if (verdict.table, verdict.what) == (table, what)
    ]
    assert len(found) == 1, wrong(warehouse)
    return found[0]


HARMS: dict[str, tuple[str, str, str, str]] = {
    "a changed value": (
        f"UPDATE market_caps SET volume_24h_usd = 11 WHERE date = '{D2}' AND coin_id = 'a'",
        "market_caps",
        "content hashes",
        f"the rows of 1 days, {D2} to {D2}, are not those",
    ),
    "a deleted row": (
        f"DELETE FROM ohlc_daily WHERE date = '{D2}'",
        "ohlc_daily",
        "content hashes",
        f"1 days, {D2} to {D2}",
    ),
    "deleted days": (
        "DELETE FROM ohlc_hourly",
        "ohlc_hourly",
        "content hashes",
        f"1 days, {D1} to {D1}",
    ),
    "a row from elsewhere": (
        f"INSERT INTO ohlc_daily SELECT * REPLACE (DATE '{D4}' AS date) FROM ohlc_daily "
        f"WHERE date = '{D2}'",
        "ohlc_daily",
        "content hashes",
        f"1 days, {D4} to {D4}",
    ),
    "rows of two days": (
        "UPDATE ranks SET market_share = 0.25 WHERE coin_id = 'b'",
        "ranks",
        "content hashes",
        f"3 days, {D1} to {D3}",
    ),
    "a doubled key": (
        f"INSERT INTO market_caps FROM market_caps WHERE date = '{D2}' AND coin_id = 'a'",
        "market_caps",
        "contract and keys",
        "is unique",
    ),
    "a doubled day": (
        "INSERT INTO market_caps FROM market_caps",
        "market_caps",
        "content hashes",
        f"3 days, {D1} to {D3}",
    ),
    "a value out of bounds": (
        f"UPDATE market_caps SET price_usd = -1 WHERE date = '{D2}' AND coin_id = 'a'",
        "market_caps",
        "contract and keys",
        "price_usd",
    ),
    "an infinite value": (
        f"UPDATE ohlc_daily SET high = 'infinity' WHERE date = '{D2}'",
        "ohlc_daily",
        "contract and keys",
        "high is finite",
    ),
    "a rule of the table": (
        f"UPDATE ohlc_daily SET low = 100 WHERE date = '{D2}'",
        "ohlc_daily",
        "contract and keys",
        "low is the lowest",
    ),
    "ranks with a hole": (
        "UPDATE ranks SET market_cap_rank = 3 WHERE coin_id = 'b'",
        "ranks",
        "quality rules",
        r"ranks_are_1_to_n \(3 rows\)",
    ),
    "live rows in a sandbox": (
        f"UPDATE market_caps SET source = 'coingecko' WHERE date = '{D2}' AND coin_id = 'a'",
        "market_caps",
        "quality rules",
        r"source_fits_home \(1 rows\)",
    ),
    "a gap over stored rows": (
        f"INSERT INTO gaps VALUES ('market_caps', 'a', '{D1}', '{D2}', 'missing', 'x', now())",
        "market_caps",
        "gaps",
        "2 days are said to be missing and are there",
    ),
    "a gap over a whole day of hours": (
        "INSERT INTO gaps VALUES "
        f"('ohlc_hourly', 'bitcoin', '{D1}', '{D3}', 'missing', 'x', now())",
        "ohlc_hourly",
        "gaps",
        "1 days are said to be missing and are there",
    ),
    "gaps that overlap": (
        f"INSERT INTO gaps VALUES ('market_caps', 'c', '{D1}', '{D2}', 'missing', 'x', now())",
        "market_caps",
        "gaps",
        "1 gaps overlap",
    ),
    "gaps that begin on one day": (
        f"INSERT INTO gaps VALUES ('market_caps', 'c', '{D2}', '{D3}', 'approximate', 'x', now())",
        "market_caps",
        "gaps",
        "1 gaps overlap",
    ),
    "a row that is not final any more": (
        f"UPDATE market_caps SET is_final = false WHERE date = '{D2}' AND coin_id = 'a'",
        "market_caps",
        "content hashes",
        f"1 days, {D2} to {D2}",
    ),
    "a gap that ends before it begins": (
        f"INSERT INTO gaps VALUES ('market_caps', 'd', '{D3}', '{D1}', 'missing', 'x', now())",
        "market_caps",
        "gaps",
        "1 gaps make no sense",
    ),
    "a gap of an unknown state": (
        f"INSERT INTO gaps VALUES ('ranks', 'd', '{D1}', '{D1}', 'lost', 'x', now())",
        "ranks",
        "gaps",
        "1 gaps make no sense",
    ),
}


@pytest.mark.parametrize("name", HARMS)
def test_what_something_else_did_to_the_file_is_named(filled: Warehouse, name: str) -> None:
    statement, table, what, said = HARMS[name]
    sql(filled, statement)
    assert re.search(said, told(filled, table, what))


def test_only_the_table_that_was_harmed_is_named(filled: Warehouse) -> None:
    sql(filled, "DELETE FROM ohlc_daily")
    assert [(verdict.table, verdict.what) for verdict in wrong(filled)] == [
        ("ohlc_daily", "content hashes")
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.write(Batch(caps((D1, "a", 9.0), observed_at=LATER)), to()),
        lambda w: w.write(Batch(caps((D4, "a", 9.0), is_final=False)), to()),
        lambda w: w.write(Batch(hours(D2, [0, 1])), to(tables.OHLC_HOURLY)),
        lambda w: w.write(Batch(ranks(D1)), to(tables.RANKS, D1, D2)),
        lambda w: w.write(
            Batch(
                candles((D3, "a", 4.0), exactness="approximate"),
                Inspection({"a": [D3]}, [Gap("a", D3, "approximate", "rebuilt")]),
            ),
            frames.to_candles(),
        ),
        lambda w: w.write(
            Batch(
                hours(D2, range(12)),
                Inspection({"bitcoin": [D2]}, [Gap("bitcoin", D2, "missing", "half of it")]),
            ),
            to(tables.OHLC_HOURLY),
        ),
    ],
    ids=["restated", "running", "some hours", "ranks of a day gone", "approximate", "half a day"],
)
def test_what_the_pipeline_writes_is_fine(
    filled: Warehouse, write: Callable[[Warehouse], Any]
) -> None:
    write(filled)
    assert wrong(filled) == []


def test_verifying_changes_nothing(filled: Warehouse) -> None:
    before = filled.path.read_bytes()
    with duckdb.connect(str(filled.path)) as connection:
        list(verify(connection))
    assert filled.path.read_bytes() == before


def test_a_hash_of_another_duckdb_is_not_compared_but_rows_are_counted(filled: Warehouse) -> None:
    sql(
        filled,
        "UPDATE partitions SET content_hash = concat('duckdb-v0.1.0:', "
        "split_part(content_hash, ':', 2))",
        f"UPDATE market_caps SET volume_24h_usd = 11 WHERE date = '{D2}'",
    )
    assert wrong(filled) == []
    sql(filled, f"DELETE FROM market_caps WHERE date = '{D2}' AND coin_id = 'a'")
    assert f"1 days, {D2} to {D2}" in told(filled, "market_caps", "content hashes")


# A file whose tables are not those of the contracts.

LOST = {
    "a contract's table": ("DROP TABLE ohlc_daily", "table ohlc_daily is missing"),
    "a table of days gone": ("DROP TABLE partitions", "table partitions is missing"),
    "the gaps": ("DROP TABLE gaps", "table gaps is missing"),
    "the restatements": ("DROP TABLE restatements", "table restatements is missing"),
    "the view": ("DROP VIEW coverage", "table coverage is missing"),
    "a column that may be null": (
        "ALTER TABLE market_caps DROP COLUMN volume_24h_usd",
        "column market_caps.volume_24h_usd is missing",
    ),
    "a column that may not": (
        "ALTER TABLE market_caps DROP COLUMN price_usd",
        "column market_caps.price_usd is missing, and needs a value in every row",
    ),
    "the name of a column": (
        "ALTER TABLE market_caps RENAME volume_24h_usd TO volume",
        "column market_caps.volume is not known to this program; "
        "column market_caps.volume_24h_usd is missing",
    ),
    "the type of a column": (
        "ALTER TABLE market_caps ALTER price_usd TYPE VARCHAR",
        "column market_caps.price_usd is VARCHAR, not DOUBLE",
    ),
    "its measure": (
        "ALTER TABLE ranks ADD COLUMN extra INTEGER",
        "column ranks.extra is not known to this program",
    ),
}


@pytest.mark.parametrize("name", LOST)
def test_a_warehouse_that_lost_something_of_its_schema_is_told(
    filled: Warehouse, name: str
) -> None:
    statement, said = LOST[name]
    sql(filled, statement)
    advice = ": restore a backup, or run 'crypto-assets rebuild'"
    assert wrong(filled) == [Verdict("the warehouse", "schema", False, said + advice)]


REFUSED = {
    "a table of days gone": ("DROP TABLE partitions", "lost its table partitions"),
    "the gaps": ("DROP TABLE gaps", "lost its table gaps"),
    "the restatements": ("DROP TABLE restatements", "lost its table restatements"),
    "an unknown column": (
        "ALTER TABLE ranks ADD COLUMN extra INTEGER",
        r"column ranks\.extra is not known to this program",
    ),
    "another name": (
        "ALTER TABLE market_caps RENAME volume_24h_usd TO volume",
        r"column market_caps\.volume is not known",
    ),
    "another type": (
        "ALTER TABLE market_caps ALTER price_usd TYPE VARCHAR",
        r"column market_caps\.price_usd is VARCHAR, not DOUBLE",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_session_refuses_what_no_program_made_and_leaves_it_alone(
    filled: Warehouse, name: str
) -> None:
    statement, said = REFUSED[name]
    sql(filled, statement)
    before = filled.path.read_bytes()
    for use in (
        lambda: filled.query("SELECT 1"),
        lambda: filled.write(Batch(caps((D4, "a", 1.0))), to()),
    ):
        with pytest.raises(WarehouseError, match=rf"{said}.*(nothing|no row) was changed"):
            use()
    assert filled.path.read_bytes() == before
