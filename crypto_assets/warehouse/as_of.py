"""What a provider's table said at a time: later restatements undone, later knowledge left out.

Belongs here: undoing what `restatements` tells. Does not belong here: writing it (`writer`).
"""

from datetime import date, datetime
from pathlib import Path

import duckdb
import pandas as pd

from crypto_assets.tables import FIRST_FINAL_AT, TABLES, Column, Table
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import key_json

_OBSERVED_AT = Column("observed_at", "TIMESTAMP", "")


def as_of(table: str, at: datetime | date | str, home: Path | str | None = None) -> pd.DataFrame:
    """Return the final rows of a provider's table as they were known at a time (UTC).

    Columns: the table's content, `observed_at` and `first_final_at`. A row counts as known from
    `first_final_at` on; values that the provider restated after `at` are the old ones again.
    Raises `WarehouseError` for a table without such a history.
    """
    contract = TABLES.get(table)
    if contract is None or FIRST_FINAL_AT not in contract.all_columns:
        known = ", ".join(t.name for t in TABLES.values() if FIRST_FINAL_AT in t.all_columns)
        raise WarehouseError(f"'{table}' has no history of its own: choose from {known}")
    moment = _moment(at)
    with connect(home) as connection:
        return known_at(connection, contract, moment)


def _moment(at: datetime | date | str) -> datetime:
    told = WarehouseError(f"{at!r} is no time: give one like '2026-03-01 12:00' (UTC)")
    try:
        moment = pd.Timestamp(at)
        if pd.isna(moment):
            raise told
        if moment.tzinfo is not None:
            moment = moment.tz_convert("UTC").tz_localize(None)
    except (ValueError, TypeError, OverflowError):
        raise told from None
    return moment.to_pydatetime()


def known_at(connection: duckdb.DuckDBPyConnection, table: Table, at: datetime) -> pd.DataFrame:
    """Return the same from an open connection."""
    columns = [*table.columns, _OBSERVED_AT, FIRST_FINAL_AT]
    values = [column for column in table.columns if column.name not in table.key]
    undone = "".join(_old_sql(column) for column in values)
    kept = ", ".join(
        f"CASE WHEN undo.{_mark(c)} THEN CAST(undo.{_old(c)} AS {c.type}) "
        f"ELSE known.{quoted(c.name)} END AS {quoted(c.name)}"
        if c in values
        else f"coalesce(undo.observed_at, known.observed_at) AS {quoted(c.name)}"
        if c is _OBSERVED_AT
        else f"known.{quoted(c.name)}"
        for c in columns
    )
    again = ", ".join(
        f"CAST(json_extract_string(old_value, '$.{c.name}') AS {c.type}) AS {quoted(c.name)}"
        for c in columns
    )
    order = ", ".join(map(quoted, table.key))
    return connection.execute(
        f"""WITH changes AS (
            SELECT * FROM restatements WHERE table_name = $table AND new_observed_at > $at
        ),
        undo AS (
            SELECT key, min_by(old_observed_at, new_observed_at) AS observed_at {undone}
            FROM changes WHERE column_name <> '(row)' GROUP BY key
        ),
        gone AS (
            SELECT {again}, key, new_observed_at AS gone_at
            FROM changes WHERE column_name = '(row)'
        ),
        undo_gone AS (
            SELECT gone.key, gone.gone_at,
                min_by(changed.old_observed_at, changed.new_observed_at) AS observed_at {undone}
            FROM gone JOIN (FROM changes WHERE column_name <> '(row)') AS changed
            ON changed.key = gone.key AND changed.new_observed_at <= gone.gone_at
            GROUP BY gone.key, gone.gone_at
        ),
        before AS (
            SELECT {kept} FROM gone AS known LEFT JOIN undo_gone AS undo
            ON undo.key = known.key AND undo.gone_at = known.gone_at
        )
        SELECT {kept} FROM {quoted(table.name)} AS known
        LEFT JOIN undo ON undo.key = {key_json("known", table)}
        WHERE known.is_final AND known.first_final_at <= $at
        UNION ALL BY NAME SELECT * FROM before WHERE first_final_at <= $at
        ORDER BY {order}""",
        {"table": table.name, "at": at},
    ).fetchdf()


def _old_sql(column: Column) -> str:
    """The value before the first change after the time, and whether there was one."""
    of_column = f"FILTER (WHERE column_name = '{column.name}')"
    return (
        f", arg_min_null(old_value, new_observed_at) {of_column} AS {_old(column)}"
        f", count(*) {of_column} > 0 AS {_mark(column)}"
    )


def _old(column: Column) -> str:
    return quoted(f"old_{column.name}")


def _mark(column: Column) -> str:
    return quoted(f"has_{column.name}")
