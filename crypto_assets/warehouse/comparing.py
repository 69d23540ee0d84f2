"""What differs between two warehouses, table by table, provenance aside."""

from dataclasses import dataclass
from datetime import date

import duckdb

from crypto_assets.tables import TABLES, Table
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of

_BESIDE = {
    "gaps": "table_name, series, first_day, last_day, state",
    # A row that is gone is kept with its provenance.
    "restatements": "table_name, day, key, column_name, new_value, "
    "CASE WHEN column_name <> '(row)' THEN old_value END",
}


@dataclass(frozen=True)
class Difference:
    """How a table of two warehouses differs: rows of one only, rows of other content, where."""

    table: str
    rows_a: int
    rows_b: int
    only_a: int = 0
    only_b: int = 0
    changed: int = 0
    first: date | None = None
    last: date | None = None

    @property
    def is_equal(self) -> bool:
        """Whether the content is the same."""
        return self.rows_a == self.rows_b and not (self.only_a or self.only_b or self.changed)


def compare(connection: duckdb.DuckDBPyConnection, a: str = "a", b: str = "b") -> list[Difference]:
    """Return the difference of each table of two attached databases, gaps and restatements too."""
    return [
        *(_compared(connection, table, a, b) for table in TABLES.values()),
        *(_beside(connection, name, columns, a, b) for name, columns in _BESIDE.items()),
    ]


def _beside(
    connection: duckdb.DuckDBPyConnection, name: str, columns: str, a: str, b: str
) -> Difference:
    left, right = (f"SELECT {columns} FROM {quoted(db)}.main.{quoted(name)}" for db in (a, b))
    row = connection.execute(
        f"""SELECT (SELECT count(*) FROM ({left})), (SELECT count(*) FROM ({right})),
            (SELECT count(*) FROM ({left} EXCEPT ALL {right})),
            (SELECT count(*) FROM ({right} EXCEPT ALL {left}))"""
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate has a row")
    return Difference(name, *row)


def _compared(connection: duckdb.DuckDBPyConnection, table: Table, a: str, b: str) -> Difference:
    left, right = (f"{quoted(db)}.main.{quoted(table.name)}" for db in (a, b))
    key = " AND ".join(f"x.{quoted(name)} = y.{quoted(name)}" for name in table.key)
    first_key = quoted(table.key[0])
    differs = " OR ".join(
        f"x.{quoted(name)} IS DISTINCT FROM y.{quoted(name)}"
        for name in table.compared_columns
        if name not in table.key
    )
    day = "NULL::DATE"
    if table.time_column:
        day = f"coalesce({day_of(table, 'x.')}, {day_of(table, 'y.')})"
    row = connection.execute(
        f"""WITH joined AS (
            SELECT x.{first_key} IS NULL AS only_b, y.{first_key} IS NULL AS only_a,
                x.{first_key} IS NOT NULL AND y.{first_key} IS NOT NULL AND ({differs}) AS changed,
                {day} AS day
            FROM {left} AS x FULL JOIN {right} AS y ON {key}
        )
        SELECT (SELECT count(*) FROM {left}), (SELECT count(*) FROM {right}),
            count(*) FILTER (WHERE only_a), count(*) FILTER (WHERE only_b),
            count(*) FILTER (WHERE changed),
            min(day) FILTER (WHERE only_a OR only_b OR changed),
            max(day) FILTER (WHERE only_a OR only_b OR changed)
        FROM joined"""
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate has a row")
    return Difference(table.name, *row)
