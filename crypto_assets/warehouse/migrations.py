"""Numbered steps from one schema to the next, each applied once, in a transaction.

A new nullable column needs none: it is added from the contract. A renamed column, another type or
rows that have to be filled do. A migration that has been released never changes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import duckdb

from crypto_assets.periods import wall_now
from crypto_assets.warehouse import contents
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.session import transaction


@dataclass(frozen=True)
class Migration:
    """One step: applied to a warehouse whose version is the one before."""

    version: int
    name: str
    apply: Callable[[duckdb.DuckDBPyConnection], None]


def sql(*statements: str) -> Callable[[duckdb.DuckDBPyConnection], None]:
    """Return a step that runs these statements."""

    def apply(connection: duckdb.DuckDBPyConnection) -> None:
        for statement in statements:
            connection.execute(statement)

    return apply


# Of version 2, with their keys where a row that was restated since was known before. A candle may
# have been restated while it was approximate, when nobody knew the exact one.
_PROVIDED = {
    "market_caps": ("date", "coin_id"),
    "fear_greed": ("date",),
    "etf_flows": ("date", "asset", "ticker"),
    "ohlc_hourly": (),
    "ohlc_daily": (),
}


def _first_final_sql(table: str, key: tuple[str, ...]) -> Iterator[str]:
    yield f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS first_final_at TIMESTAMP"
    yield (
        f"UPDATE {table} SET first_final_at = observed_at WHERE is_final AND first_final_at IS NULL"
    )
    if key:
        named = ", ".join(f"{name} := {table}.{name}" for name in key)
        yield f"""UPDATE {table} SET first_final_at = least(first_final_at, restated.at)
            FROM (SELECT key, min(old_observed_at) AS at FROM restatements
                WHERE table_name = '{table}' GROUP BY key) AS restated
            WHERE is_final AND restated.key = CAST(to_json(struct_pack({named})) AS VARCHAR)"""


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        2,
        "tell when a row was first final",
        sql(
            *(
                statement
                for table, key in _PROVIDED.items()
                for statement in _first_final_sql(table, key)
            )
        ),
    ),
)
CREATED_AT_VERSION = 1


def newest(migrations: tuple[Migration, ...] = MIGRATIONS) -> int:
    """Return the schema version of this program."""
    return max([CREATED_AT_VERSION, *(migration.version for migration in migrations)])


def version_of(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the schema version of a warehouse that has one."""
    row = connection.execute("SELECT max(version) FROM schema_migrations").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def migrate(
    connection: duckdb.DuckDBPyConnection, migrations: tuple[Migration, ...] = MIGRATIONS
) -> bool:
    """Apply what is missing, each in a transaction with its record; tell whether anything was.

    Raises `WarehouseError` where the warehouse is newer than this program.
    """
    version = version_of(connection)
    if version > newest(migrations):
        raise WarehouseError(
            f"this warehouse has schema version {version}, this program knows "
            f"{newest(migrations)}: upgrade crypto_assets, or use another home; nothing was changed"
        )
    missing = [migration for migration in migrations if migration.version > version]
    for migration in sorted(missing, key=lambda one: one.version):
        with transaction(connection):
            migration.apply(connection)
            # Rows may have changed: what is written down of them has to be made anew.
            contents.reset(connection)
            record(connection, migration.version, migration.name)
    return bool(missing)


def record(connection: duckdb.DuckDBPyConnection, version: int, name: str) -> None:
    """Note that a warehouse has a version."""
    connection.execute(
        "INSERT INTO schema_migrations VALUES (?, ?, ?)", [version, name, wall_now()]
    )
