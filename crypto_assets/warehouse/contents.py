"""What is stored of each table and day, in few words: how many rows, and a hash of their content.

Kept in the table `partitions` by the transaction that writes the rows, so that `verify` can tell
rows that were changed by anything else. Provenance is left out of the hash: two warehouses made at
different times can be equal.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from datetime import date

import duckdb
import pandas as pd

from crypto_assets.tables import Table
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of, within

EMPTY = "no rows"


@dataclass(frozen=True)
class DayContent:
    """The rows of one day; the hash does not depend on their order."""

    rows: int = 0
    content_hash: str = EMPTY


@dataclass(frozen=True)
class Contents:
    """A table as stored: all its rows, and the asked days one by one."""

    rows: int
    days: dict[date, DayContent] = field(default_factory=dict)


def reset(connection: duckdb.DuckDBPyConnection) -> None:
    """Forget what was written down, inside the caller's transaction."""
    connection.execute(
        "CREATE OR REPLACE TABLE partitions (table_name VARCHAR NOT NULL, day DATE NOT NULL, "
        "rows_stored BIGINT NOT NULL, content_hash VARCHAR NOT NULL)"
    )


def are_recorded(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether anything is written down."""
    return connection.execute("SELECT 1 FROM partitions LIMIT 1").fetchone() is not None


def record(connection: duckdb.DuckDBPyConnection, table: Table, days: Iterable[date]) -> None:
    """Write down what is stored on some days, inside the caller's transaction."""
    touched = pd.DataFrame({"day": pd.to_datetime(sorted(set(days)))})
    if touched.empty or table.time_column is None:
        return
    connection.register("touched", touched)
    try:
        connection.execute(
            "DELETE FROM partitions WHERE table_name = ? "
            "AND day IN (SELECT CAST(day AS DATE) FROM touched)",
            [table.name],
        )
        near = f"WHERE {within(table, '?', '?')}"
        connection.execute(
            f"""INSERT INTO partitions SELECT ?, * FROM ({by_day_sql(table, near)})
            WHERE day IN (SELECT CAST(day AS DATE) FROM touched)""",
            [table.name, touched["day"].iloc[0], touched["day"].iloc[-1]],
        )
    finally:
        connection.unregister("touched")


def noted(
    connection: duckdb.DuckDBPyConnection, table: Table, days: Iterable[date]
) -> dict[date, DayContent]:
    """Return what is written down of some days."""
    found = connection.execute(
        "SELECT day, rows_stored, content_hash FROM partitions "
        "WHERE table_name = ? AND list_contains(?, day)",
        [table.name, sorted(set(days))],
    ).fetchall()
    return {day: DayContent(rows, content) for day, rows, content in found}


def replace(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    days: Iterable[date],
    found: Mapping[date, DayContent],
) -> None:
    """Write down `found` of the days it has, and of the other `days` that there is nothing."""
    connection.execute(
        "DELETE FROM partitions WHERE table_name = ? AND list_contains(?, day)",
        [table.name, sorted({*days, *found})],
    )
    told = pd.DataFrame(
        {
            "table_name": table.name,
            "day": pd.to_datetime(list(found)),
            "rows_stored": [day.rows for day in found.values()],
            "content_hash": [day.content_hash for day in found.values()],
        }
    )
    connection.register("told", told)
    try:
        connection.execute("INSERT INTO partitions SELECT * FROM told")
    finally:
        connection.unregister("told")


def add(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    came: Mapping[date, DayContent],
    replaced: Set[date],
) -> None:
    """Write down that rows came to days, on some of which stored ones were replaced or removed.

    Those are counted anew, and all of them where that is no more work than the rows that came.
    """
    before = noted(connection, table, came)
    if sum(day.rows for day in before.values()) <= sum(day.rows for day in came.values()):
        record(connection, table, came.keys() | replaced)
        return
    after = {
        day: _together(before.get(day), content)
        for day, content in came.items()
        if day not in replaced
    }
    told = {day: content for day, content in after.items() if content}
    replace(connection, table, told, told)
    record(connection, table, (came.keys() | replaced) - told.keys())


def _together(stored: DayContent | None, came: DayContent) -> DayContent | None:
    """Return the content of both; none where another version of DuckDB hashed the stored rows."""
    if stored is None:
        return came
    (version, one), (other_version, other) = (day.content_hash.split(":") for day in (stored, came))
    if version != other_version:
        return None
    return DayContent(stored.rows + came.rows, f"{version}:{int(one, 16) ^ int(other, 16):x}")


def record_all(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Write down what is stored on all days, inside the caller's transaction."""
    connection.execute("DELETE FROM partitions WHERE table_name = ?", [table.name])
    connection.execute(
        f"INSERT INTO partitions SELECT ?, * FROM ({by_day_sql(table)})", [table.name]
    )


def contents(
    connection: duckdb.DuckDBPyConnection, table: Table, days: tuple[date, date] | None
) -> Contents:
    """Return how many rows a table has, and what is written down of the days [first, last]."""
    row = connection.execute(f"SELECT count(*) FROM {quoted(table.name)}").fetchone()
    total = int(row[0]) if row else 0
    if days is None:
        return Contents(total)
    found = connection.execute(
        "SELECT day, rows_stored, content_hash FROM partitions "
        "WHERE table_name = ? AND day BETWEEN ? AND ?",
        [table.name, *days],
    ).fetchall()
    return Contents(total, {day: DayContent(rows, content) for day, rows, content in found})


def by_day_sql(table: Table, where: str = "", source: str | None = None) -> str:
    """Return a query of what is stored, or in another relation: day, rows_stored, content_hash.

    DuckDB's own hash is forty times as fast as a cryptographic one, and its version is part of
    the result, because another version may hash otherwise.
    """
    columns = ", ".join(map(quoted, table.compared_columns))
    return (
        f"SELECT {day_of(table)} AS day, count(*) AS rows_stored, "
        # Keys are unique, so no two rows can cancel each other out.
        f"concat('duckdb-', version(), ':', lower(hex(bit_xor(hash({columns}))))) AS content_hash "
        f"FROM {source or quoted(table.name)} {where} GROUP BY ALL"
    )
