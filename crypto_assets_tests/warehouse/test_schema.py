"""What a warehouse consists of, and which warehouse it is."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from pathlib import Path

import duckdb
import pytest

from crypto_assets import tables
from crypto_assets.tables import RANKS, TABLES, Column
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.migrations import newest
from crypto_assets.warehouse.schema import Identity, create_table_sql
from crypto_assets.warehouse.sqls import day_of
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import D1

pytestmark = pytest.mark.usefixtures("each_opening_is_a_new_program")

NINE = {
    "coin_list",
    "market_caps",
    "ranks",
    "ema_signals",
    "ohlc_hourly",
    "ohlc_daily",
    "fear_greed",
    "etf_flows",
    "daily_snapshot",
}


def test_a_new_warehouse_has_the_nine_tables_and_those_beside_them(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    found = {row[0] for row in memory.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert found == NINE | {
        "gaps",
        "restatements",
        "partitions",
        "schema_migrations",
        "warehouse_info",
    }
    views = memory.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    assert sorted(name for (name,) in views) == [
        *("coverage", "current_signals", "etf_flow_summary", "latest_market", "returns")
    ]


def test_columns_have_the_types_of_the_contract_before_any_row_came(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    rows = memory.execute(
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE table_name = 'market_caps' ORDER BY column_index"
    ).fetchall()
    assert rows == [
        ("date", "DATE", False),
        ("coin_id", "VARCHAR", False),
        ("price_usd", "DOUBLE", False),
        ("market_cap_usd", "DOUBLE", True),
        ("volume_24h_usd", "DOUBLE", True),
        ("circulating_supply", "DOUBLE", True),
        ("provider_rank", "INTEGER", True),
        ("is_point_in_time", "BOOLEAN", False),
        ("is_final", "BOOLEAN", False),
        ("observed_at", "TIMESTAMP", False),
        ("source", "VARCHAR", False),
        ("run_id", "VARCHAR", False),
        ("materialized_at", "TIMESTAMP", False),
        ("raw_id", "VARCHAR", True),
        ("first_final_at", "TIMESTAMP", True),
    ]


def test_no_table_has_a_key_or_an_index(memory: duckdb.DuckDBPyConnection) -> None:
    assert memory.execute("SELECT * FROM duckdb_indexes()").fetchall() == []
    kinds = memory.execute("SELECT DISTINCT constraint_type FROM duckdb_constraints()").fetchall()
    assert kinds == [("NOT NULL",)]


def test_tables_and_columns_are_described_in_the_file(memory: duckdb.DuckDBPyConnection) -> None:
    told = memory.execute(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'ranks' "
        "AND column_name = 'market_share'"
    ).fetchone()
    assert told == ("Share of the tracked set's market cap. Unit: fraction.",)
    assert memory.execute(
        "SELECT comment FROM duckdb_columns() WHERE table_name = 'ohlc_daily' "
        "AND column_name = 'exactness'"
    ).fetchone() == (
        "'exact': the provider's own candles; 'approximate': rebuilt from spaced prices.",
    )
    undescribed = memory.execute(
        "SELECT table_name FROM duckdb_tables() WHERE comment IS NULL"
    ).fetchall()
    assert {name for (name,) in undescribed} & NINE == set()


def test_the_ddl_is_the_contract() -> None:
    small = replace(
        RANKS, columns=(Column("date", "DATE", "x"), Column("n", "INTEGER", "y", nullable=True))
    )
    assert create_table_sql(small).startswith(
        'CREATE TABLE "ranks" ("date" DATE NOT NULL, "n" INTEGER, "is_final" BOOLEAN NOT NULL, '
    )


def test_a_merged_table_has_no_days() -> None:
    with pytest.raises(ValueError, match="coin_list has no days"):
        day_of(tables.COIN_LIST)


def refused(warehouse: Warehouse, identity: Identity, told: str) -> None:
    """Assert that an identity is refused and the file stays as it is."""
    before = hashlib.sha256(warehouse.path.read_bytes()).hexdigest()
    with pytest.raises(WarehouseError, match=told):
        replace(warehouse, identity=identity).query("SELECT 1")
    assert hashlib.sha256(warehouse.path.read_bytes()).hexdigest() == before


def test_a_sandbox_home_never_takes_live_data(warehouse: Warehouse) -> None:
    refused(warehouse, Identity(False, date(2026, 1, 1)), "holds sandbox data .* for live data")


def test_a_live_home_never_takes_sandbox_data(tmp_path: Path) -> None:
    live = Warehouse(tmp_path / "warehouse.duckdb", Identity(False, date(2026, 1, 1)))
    live.query("SELECT 1")
    refused(live, Identity(True, date(2026, 1, 1)), "holds live data .* for sandbox data")


def test_the_start_of_history_is_fixed_once_set(warehouse: Warehouse) -> None:
    refused(
        warehouse,
        Identity(True, date(2025, 1, 1)),
        "'history.start' is 2025-01-01, but this warehouse began with 2026-01-01",
    )


def test_a_newer_schema_is_refused_and_left_alone(warehouse: Warehouse) -> None:
    with warehouse.session("test") as connection:
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, 'tomorrow', now())", [newest() + 1]
        )
    told = f"schema version {newest() + 1}, this program knows {newest()}: upgrade"
    refused(warehouse, frames.IDENTITY, told)


def test_a_warehouse_without_identity_is_refused(warehouse: Warehouse) -> None:
    with warehouse.session("test") as connection:
        connection.execute("DELETE FROM warehouse_info")
    refused(warehouse, frames.IDENTITY, "lost its identity")


def with_column(monkeypatch: pytest.MonkeyPatch, column: Column) -> None:
    changed = replace(tables.MARKET_CAPS, columns=(*tables.MARKET_CAPS.columns, column))
    monkeypatch.setitem(TABLES, "market_caps", changed)


def test_a_new_column_is_added_in_place(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.write(Batch(frames.caps((D1, "bitcoin", 2.5))), frames.to())
    with_column(monkeypatch, Column("max_supply", "DOUBLE", "Most there can be.", nullable=True))
    rows = warehouse.query("SELECT price_usd, max_supply FROM market_caps")
    assert rows["price_usd"].tolist() == [2.5]
    assert rows["max_supply"].isna().tolist() == [True]
    both = frames.caps((D1, "ether", 3.0)).assign(max_supply=7.0)
    warehouse.write(Batch(both), frames.to(TABLES["market_caps"]))
    stored = warehouse.query("SELECT coin_id, max_supply FROM market_caps ORDER BY 1")
    assert stored["max_supply"].tolist()[1] == 7.0
    # The view was made again: it still answers.
    assert warehouse.query("SELECT rows_stored FROM coverage")["rows_stored"].tolist() == [2]


def test_a_new_column_that_needs_a_value_waits_for_a_migration(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_column(monkeypatch, Column("max_supply", "DOUBLE", "Most there can be."))
    refused(warehouse, frames.IDENTITY, r"market_caps\.max_supply is missing, and needs a value")


def test_a_table_of_a_newer_program_is_made_in_an_old_warehouse(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.write(Batch(frames.caps((D1, "bitcoin", 2.5))), frames.to())
    monkeypatch.setitem(TABLES, "funding", replace(tables.FEAR_GREED, name="funding"))
    assert warehouse.query("SELECT count(*) AS n FROM funding")["n"].tolist() == [0]
    assert warehouse.query("SELECT price_usd FROM market_caps")["price_usd"].tolist() == [2.5]
