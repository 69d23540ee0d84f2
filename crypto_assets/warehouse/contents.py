"""What is stored of a table's days, in few words: how many rows, and a hash of their content.

Provenance is left out of the hash, so that two warehouses made at different times can be equal.
"""

from dataclasses import dataclass, field
from datetime import date

import duckdb

from crypto_assets.tables import Table
from crypto_assets.warehouse.schema import day_of
from crypto_assets.warehouse.session import quoted


@dataclass(frozen=True)
class DayContent:
    """The rows of one day; the hash does not depend on their order."""

    rows: int
    content_hash: str


@dataclass(frozen=True)
class Contents:
    """A table as stored: all its rows, and the asked days one by one."""

    rows: int
    days: dict[date, DayContent] = field(default_factory=dict)


def contents(
    connection: duckdb.DuckDBPyConnection, table: Table, days: tuple[date, date] | None
) -> Contents:
    """Return how many rows a table has, and what is on the days [first, last]."""
    name = quoted(table.name)
    row = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    total = int(row[0]) if row else 0
    if days is None or table.time_column is None:
        return Contents(total)
    day = day_of(table)
    found = connection.execute(
        f"SELECT {day}, count(*), {hash_sql(table)} FROM {name} "
        f"WHERE {day} BETWEEN ? AND ? GROUP BY ALL",
        list(days),
    ).fetchall()
    return Contents(total, {on: DayContent(rows, content) for on, rows, content in found})


def hash_sql(table: Table) -> str:
    """Return the SQL aggregate that hashes the content of rows, whatever their order.

    DuckDB's own hash is forty times as fast as a cryptographic one, and its version is part of
    the result, because another version may hash otherwise.
    """
    columns = ", ".join(map(quoted, table.content_columns))
    # Keys are unique, so no two rows can cancel each other out.
    return f"concat('duckdb-', version(), ':', lower(hex(bit_xor(hash({columns})))))"
