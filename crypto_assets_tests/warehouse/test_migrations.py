"""A warehouse of an older program is brought up to date in place, or not touched at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from crypto_assets import tables
from crypto_assets.periods import wall_now
from crypto_assets.tables import TABLES, Column
from crypto_assets.warehouse import contents, migrations, views
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.migrations import MIGRATIONS, Migration, migrate, newest, sql
from crypto_assets.warehouse.schema import ensure_schema
from crypto_assets.warehouse.verifying import verify
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import (
    D1,
    D2,
    IDENTITY,
    LATER,
    SEEN,
    candles,
    caps,
    hours,
    to,
)

pytestmark = pytest.mark.usefixtures("each_opening_is_a_new_program")

PROVIDED = ("market_caps", "ohlc_hourly", "ohlc_daily", "fear_greed", "etf_flows")


def to_version_1(path: Path) -> None:
    """Take away what the first program did not know."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("DROP VIEW coverage")
        connection.execute("DROP TABLE partitions")
        for table in PROVIDED:
            connection.execute(f"ALTER TABLE {table} DROP COLUMN first_final_at")
        connection.execute("DELETE FROM schema_migrations")
        connection.execute("INSERT INTO schema_migrations VALUES (1, 'create', '2026-01-01')")


@pytest.fixture
def old(warehouse: Warehouse) -> Warehouse:
    """A warehouse of version 1 with rows, final and not."""
    warehouse.write(Batch(caps((D1, "a", 1.0), (D1, "b", 2.0))), to())
    warehouse.write(Batch(caps((D2, "a", 3.0), observed_at=LATER, is_final=False)), to())
    warehouse.write(Batch(candles((D1, "a", 4.0), observed_at=LATER)), frames.to_candles())
    to_version_1(warehouse.path)
    return warehouse


def versions(warehouse: Warehouse) -> list[tuple[int, str]]:
    with warehouse.session("test") as connection:
        return connection.execute("SELECT version, name FROM schema_migrations").fetchall()


def dump(path: Path) -> dict[str, Any]:
    """Everything a file holds, schema and rows."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        ]
        schema = connection.execute(
            "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal "
            "ORDER BY ALL"
        ).fetchall()
        return {"schema": schema, **{name: frames.everything(connection, name) for name in names}}


def test_a_warehouse_of_version_1_keeps_its_rows(old: Warehouse) -> None:
    before = dump(old.path)
    with old.session("test") as connection:
        assert frames.prices(connection) == {(D1, "a"): 1.0, (D1, "b"): 2.0, (D2, "a"): 3.0}
    after = dump(old.path)
    # The new column is the last one.
    assert sorted(row[:-1] for row in after["market_caps"]) == sorted(before["market_caps"])
    assert [row[:-1] for row in after["ohlc_daily"]] == before["ohlc_daily"]


def test_a_migrated_warehouse_has_the_schema_of_a_new_one(old: Warehouse, empty: Path) -> None:
    old.query("SELECT 1")
    assert dump(old.path)["schema"] == dump(empty)["schema"]
    made = old.query("SELECT view_name FROM duckdb_views() WHERE NOT internal")
    assert set(made["view_name"]) == {"coverage", *views.VIEWS}
    assert len(old.query("FROM coverage WHERE table_name = 'market_caps'")) == 2


def test_final_rows_of_version_1_were_first_final_when_they_were_observed(old: Warehouse) -> None:
    with old.session("test") as connection:
        assert connection.execute(
            "SELECT date, coin_id, first_final_at FROM market_caps ORDER BY ALL"
        ).fetchall() == [(D1, "a", SEEN), (D1, "b", SEEN), (D2, "a", None)]
        assert connection.execute("SELECT first_final_at FROM ohlc_daily").fetchall() == [(LATER,)]


def test_rows_of_version_1_that_were_restated_were_first_final_before_that(
    warehouse: Warehouse,
) -> None:
    latest = datetime(2026, 2, 3)
    for moment, price in ((SEEN, 1.0), (LATER, 2.0), (latest, 3.0)):
        warehouse.write(Batch(caps((D1, "a", price), observed_at=moment)), to())
        closed = hours(D1, [7], close=2 + price, observed_at=moment)
        warehouse.write(Batch(closed), to(tables.OHLC_HOURLY))
    warehouse.write(Batch(caps((D1, "b", 1.0), (D2, "a", 1.0), observed_at=LATER)), to())
    to_version_1(warehouse.path)
    with warehouse.session("test") as connection:
        asked = "SELECT observed_at, first_final_at FROM"
        assert connection.execute(f"{asked} market_caps ORDER BY date, coin_id").fetchall() == [
            (latest, SEEN),
            (LATER, LATER),
            (LATER, LATER),
        ]
        # The values before may have been approximate, when nobody knew the exact ones.
        assert connection.execute(f"{asked} ohlc_hourly").fetchall() == [(latest, latest)]


def test_a_migrated_warehouse_verifies(old: Warehouse) -> None:
    with old.session("test") as connection:
        assert [verdict for verdict in verify(connection) if not verdict.is_fine] == []
        noted = connection.execute(
            "SELECT table_name, day, rows_stored FROM partitions ORDER BY ALL"
        ).fetchall()
    assert noted == [("market_caps", D1, 2), ("market_caps", D2, 1), ("ohlc_daily", D1, 1)]


def test_a_migrated_warehouse_can_be_written_to(old: Warehouse) -> None:
    later = datetime(2026, 2, 3)
    old.write(Batch(caps((D1, "a", 9.0), observed_at=later)), to())
    rows = old.query("SELECT price_usd, first_final_at FROM market_caps WHERE coin_id = 'a'")
    assert rows["first_final_at"][rows["price_usd"] == 9.0].tolist() == [SEEN]
    assert old.query("SELECT old_value FROM restatements")["old_value"].tolist() == ["1.0"]


def test_each_migration_is_recorded_once_whatever_is_opened_later(old: Warehouse) -> None:
    expected = [(1, "create"), *((m.version, m.name) for m in MIGRATIONS)]
    for _ in range(3):
        assert versions(old) == expected
    applied = old.query("SELECT applied_at FROM schema_migrations WHERE version = 2")
    assert abs((applied["applied_at"][0] - wall_now()).total_seconds()) < 60


def test_a_new_warehouse_is_made_at_the_newest_version(warehouse: Warehouse) -> None:
    assert versions(warehouse) == [(newest(), "create")]


def test_versions_are_numbered_without_a_hole() -> None:
    numbers = [migration.version for migration in MIGRATIONS]
    assert numbers == list(range(2, 2 + len(numbers)))
    assert all(migration.name for migration in MIGRATIONS)


def test_a_warehouse_newer_than_the_code_is_refused_with_nothing_changed(old: Warehouse) -> None:
    with duckdb.connect(str(old.path)) as connection:
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, 'tomorrow', '2026-05-01')", [newest() + 1]
        )
    before, raw = dump(old.path), old.path.read_bytes()
    told = rf"schema version {newest() + 1}, this program knows {newest()}: upgrade crypto_assets"
    with pytest.raises(WarehouseError, match=told):
        old.query("SELECT 1")
    with pytest.raises(WarehouseError, match=told):
        old.write(Batch(caps((D1, "z", 1.0))), to())
    assert dump(old.path) == before
    assert old.path.read_bytes() == raw


def test_an_old_warehouse_of_another_identity_is_not_migrated(old: Warehouse) -> None:
    before = dump(old.path)
    other = replace(old, identity=replace(IDENTITY, is_sandbox=False))
    with pytest.raises(WarehouseError, match="never mix"):
        other.query("SELECT 1")
    assert dump(old.path) == before


# Migrations of a program to come.

RENAMED = Migration(3, "say price", sql("ALTER TABLE market_caps RENAME price_usd TO price"))
WIDER = Migration(4, "wide ranks", sql("ALTER TABLE market_caps ALTER provider_rank TYPE BIGINT"))


def migrated(path: Path, steps: tuple[Migration, ...]) -> bool:
    with duckdb.connect(str(path)) as connection:
        return migrate(connection, steps)


def test_a_column_is_renamed_by_a_numbered_migration(old: Warehouse) -> None:
    before = dump(old.path)["market_caps"]
    assert migrated(old.path, (*MIGRATIONS, RENAMED))
    with duckdb.connect(str(old.path)) as connection:
        assert connection.execute(
            "SELECT date, coin_id, price FROM market_caps ORDER BY ALL"
        ).fetchall() == [(D1, "a", 1.0), (D1, "b", 2.0), (D2, "a", 3.0)]
        told = connection.execute("SELECT version, name FROM schema_migrations ORDER BY 1")
        assert told.fetchall() == [(1, "create"), (2, MIGRATIONS[0].name), (3, "say price")]
    assert [row[:-1] for row in dump(old.path)["market_caps"]] == before


def test_steps_are_applied_in_the_order_of_their_numbers_and_once(old: Warehouse) -> None:
    seen: list[int] = []
    steps = tuple(
        Migration(n, f"step {n}", lambda _, n=n: seen.append(n))  # type: ignore[misc]
        for n in (4, 2, 3)
    )
    assert migrated(old.path, steps)
    assert seen == [2, 3, 4]
    assert not migrated(old.path, steps)
    more = Migration(5, "step 5", lambda _: seen.append(5))
    assert migrated(old.path, (*steps, more))
    assert seen == [2, 3, 4, 5]
    with duckdb.connect(str(old.path)) as connection:
        told = connection.execute("SELECT version FROM schema_migrations ORDER BY 1").fetchall()
    assert told == [(1,), (2,), (3,), (4,), (5,)]


@pytest.fixture
def current(old: Warehouse) -> Warehouse:
    """The same, brought up to date."""
    old.query("SELECT 1")
    return old


@pytest.mark.parametrize("failing", ["SELECT * FROM nowhere", "SELECT error('no')"])
def test_a_failing_migration_changes_nothing(current: Warehouse, failing: str) -> None:
    before = dump(current.path)
    steps = ("DELETE FROM ohlc_daily", "ALTER TABLE market_caps RENAME price_usd TO price", failing)
    with pytest.raises(duckdb.Error):
        migrated(current.path, (*MIGRATIONS, Migration(newest() + 1, "broken", sql(*steps))))
    assert dump(current.path) == before


def fails(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DELETE FROM market_caps")
    raise KeyboardInterrupt


def test_opening_a_warehouse_whose_migration_is_interrupted_changes_nothing(
    current: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(current.path)
    steps = (*MIGRATIONS, Migration(newest() + 1, "interrupted", fails))
    monkeypatch.setattr(migrate, "__defaults__", (steps,))
    with pytest.raises(KeyboardInterrupt):
        current.query("SELECT 1")
    monkeypatch.undo()
    assert dump(current.path) == before
    assert len(current.query("FROM market_caps")) == 3


def test_a_killed_migration_changes_nothing(current: Warehouse, start: Start) -> None:
    before = dump(current.path)
    child = start("""
from crypto_assets.warehouse import migrations
def hangs(connection):
    connection.execute('DELETE FROM market_caps')
    say('half way')
    sys.stdin.readline()
slow = migrations.Migration(migrations.newest() + 1, 'slow', hangs)
migrations.migrate.__defaults__ = ((*migrations.MIGRATIONS, slow),)
warehouse.query('SELECT 1')
""")
    assert child.stdout is not None
    assert child.stdout.readline() == "half way\n"
    child.kill()
    child.wait()
    assert len(current.query("FROM market_caps")) == 3
    assert dump(current.path) == before


def test_steps_of_several_programs_bring_one_table_up_to_date_at_once(
    old: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Filling rows and altering their table again is too much for one transaction of DuckDB."""
    monkeypatch.setattr(migrate, "__defaults__", ((*MIGRATIONS, WIDER),))
    caps = tables.MARKET_CAPS
    columns = tuple(
        replace(c, type=cast(Any, "BIGINT")) if c.name == "provider_rank" else c
        for c in caps.columns
    )
    monkeypatch.setitem(tables.TABLES, "market_caps", replace(caps, columns=columns))
    stored = old.query("SELECT typeof(provider_rank) AS kind FROM market_caps")
    assert stored["kind"].tolist() == ["BIGINT"] * 3
    assert [version for version, _ in versions(old)] == [1, 2, WIDER.version]


def test_an_old_warehouse_takes_a_new_column_with_its_migrations(
    old: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    supply = Column("max_supply", "DOUBLE", "Most there can be.", nullable=True)
    contract = replace(tables.MARKET_CAPS, columns=(*tables.MARKET_CAPS.columns, supply))
    monkeypatch.setitem(TABLES, "market_caps", contract)
    stored = old.query("SELECT price_usd, max_supply, first_final_at FROM market_caps")
    assert sorted(stored["price_usd"]) == [1.0, 2.0, 3.0]
    assert stored["max_supply"].isna().all()
    assert stored["first_final_at"].notna().sum() == 2


def test_a_table_with_a_renamed_column_is_written_and_read_by_the_new_contract(
    old: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = tuple(
        replace(c, name="price") if c.name == "price_usd" else c for c in tables.MARKET_CAPS.columns
    )
    contract = replace(tables.MARKET_CAPS, columns=columns)
    monkeypatch.setitem(TABLES, "market_caps", contract)
    steps = (*MIGRATIONS, RENAMED)
    monkeypatch.setattr(migrate, "__defaults__", (steps,))
    monkeypatch.setattr(newest, "__defaults__", (steps,))
    # The views of such a program would ask for the new name.
    monkeypatch.setattr(views, "statements", lambda: iter(()))
    rows = caps((D2, "z", 7.0)).rename(columns={"price_usd": "price"})
    old.write(Batch(rows), to(contract))
    stored = old.query("SELECT coin_id, price FROM market_caps ORDER BY price")
    assert stored.to_numpy().tolist() == [["a", 1.0], ["b", 2.0], ["a", 3.0], ["z", 7.0]]


# What is written down of each day goes with the schema.


def test_a_new_column_leaves_a_warehouse_that_verifies(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0), (D2, "a", 2.0))), to())
    supply = Column("max_supply", "DOUBLE", "Most there can be.", nullable=True)
    contract = replace(tables.MARKET_CAPS, columns=(*tables.MARKET_CAPS.columns, supply))
    monkeypatch.setitem(TABLES, "market_caps", contract)
    with warehouse.session("test") as connection:
        assert [v.told for v in verify(connection) if not v.is_fine] == []


def test_a_migration_that_fills_rows_leaves_a_warehouse_that_verifies(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0))), to())
    fill = Migration(newest() + 1, "fill", sql("UPDATE market_caps SET volume_24h_usd = 5"))
    monkeypatch.setattr(migrate, "__defaults__", ((*MIGRATIONS, fill),))
    with warehouse.session("test") as connection:
        told = connection.execute("SELECT volume_24h_usd FROM market_caps").fetchall()
        assert told == [(5.0,)]
        assert [v.told for v in verify(connection) if not v.is_fine] == []


FILL = Migration(newest() + 1, "fill", sql("UPDATE market_caps SET volume_24h_usd = 5"))


def verified(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    """What is written down of each day, once all of it was found to be fine."""
    with warehouse.session("test") as connection:
        assert [verdict for verdict in verify(connection) if not verdict.is_fine] == []
        assert connection.execute("SELECT DISTINCT volume_24h_usd FROM market_caps").fetchall() == [
            (5.0,)
        ]
        return connection.execute(
            "SELECT table_name, day, rows_stored FROM partitions ORDER BY ALL"
        ).fetchall()


WRITTEN_DOWN = [("market_caps", D1, 2), ("market_caps", D2, 1), ("ohlc_daily", D1, 1)]


@pytest.mark.parametrize("fixture", ["old", "current"])
def test_a_migration_whose_hashes_were_not_written_down_is_made_up_for(
    fixture: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse = request.getfixturevalue(fixture)
    steps = (*MIGRATIONS, FILL)
    assert migrated(warehouse.path, steps)
    monkeypatch.setattr(migrate, "__defaults__", (steps,))
    assert verified(warehouse) == WRITTEN_DOWN


def test_a_kill_between_a_migration_and_its_hashes_is_made_up_for(
    current: Warehouse, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start("""
from crypto_assets.warehouse import contents, migrations
def hangs(connection, table):
    say('migrated')
    sys.stdin.readline()
contents.record_all = hangs
fill = migrations.Migration(
    migrations.newest() + 1, 'fill', migrations.sql('UPDATE market_caps SET volume_24h_usd = 5')
)
migrations.migrate.__defaults__ = ((*migrations.MIGRATIONS, fill),)
warehouse.query('SELECT 1')
""")
    assert child.stdout is not None
    assert child.stdout.readline() == "migrated\n"
    child.kill()
    child.wait()
    monkeypatch.setattr(migrate, "__defaults__", ((*MIGRATIONS, FILL),))
    assert verified(current) == WRITTEN_DOWN
    assert [version for version, _ in versions(current)] == [1, newest(), FILL.version]


def test_migrating_in_memory_is_told_by_version_of(memory: duckdb.DuckDBPyConnection) -> None:
    assert migrations.version_of(memory) == newest()
    ensure_schema(memory, IDENTITY)
    assert migrations.version_of(memory) == newest()
    assert contents.contents(memory, tables.COIN_LIST, None).rows == 0
