"""One write: stage, validate, replace by key, record what changed, all in one transaction.

Here belongs how rows get into a table without any being lost, doubled or half-written. What the
rows are is the assets' concern, who may open the file the session's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, datetime

import duckdb
import pandas as pd

from crypto_assets.periods import days, wall_now
from crypto_assets.tables import FIRST_FINAL_AT, Table
from crypto_assets.warehouse import contents, gaps
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.session import quoted, roll_back
from crypto_assets.warehouse.sqls import day_of, key_json
from crypto_assets.warehouse.validation import check_rows, conform, violation

_STAGED = "staged"
# Relative; below it a changed DOUBLE is noise of another route to the same value.
FLOAT_NOISE = 1e-9


@dataclass(frozen=True)
class Batch:
    """Rows of whole days for one table, and what was looked for and not found.

    `whole` names slices (some of the key's columns) of which all rows are here: a stored row of
    them that did not come again is removed, and written down as restated. `on_refusal` is called
    when the rows break their contract, so that what they were made of is not used again.
    """

    rows: pd.DataFrame
    inspection: gaps.Inspection | None = None
    whole: pd.DataFrame | None = None
    on_refusal: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Batches:
    """Batches of one table, made while they are written: each is a transaction of its own."""

    parts: Iterable[Batch]


@dataclass
class WriteReport:
    """What writes did: how many rows came, and how many of them changed what was stored."""

    received: int = 0
    changed: int = 0
    restated: int = 0

    def add(self, later: "WriteReport") -> None:
        """Take in what a later write did."""
        self.received += later.received
        self.changed += later.changed
        self.restated += later.restated


@dataclass(frozen=True)
class Write:
    """Who writes what: the run behind the rows and the days it may touch."""

    table: Table
    run_id: str
    days: tuple[date, date] | None = None


def write(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> WriteReport:
    """Store a batch in one transaction, or nothing of it.

    Stored rows that share `replaced_by` with a written row are replaced; all others stay. A row
    that is final is never replaced by one that is not, nor a final exact candle by an approximate
    one, nor a value by a NULL where the contract says so. Final values of a provider that change
    go to `restatements`. Raises `ContractViolationError`.
    """
    connection.execute("BEGIN")
    try:
        report = _write(connection, batch, to)
        connection.execute("COMMIT")
    except BaseException as error:
        roll_back(connection)
        if isinstance(error, ContractViolationError):
            batch.on_refusal()
        raise
    return report


def _write(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> WriteReport:
    table = to.table
    report = WriteReport(received=len(batch.rows))
    if len(batch.rows):
        _stage(connection, batch.rows, to)
        check_rows(connection, _STAGED, table)
        _check_days(connection, to)
        touched = _touched_days(connection, batch, to)
        observed_at = _newest_observation(connection, table)
        if not table.derived and table.time_column:
            _keep_better_rows(connection, table)
        report.changed = _count_changed(connection, table)
        if not table.derived and table.time_column:
            report.restated = _record_restatements(connection, to)
            report.restated += _remove_what_is_gone(connection, batch.whole, observed_at, to)
            _leave_unchanged_rows(connection, table)
        _replace(connection, to)
        connection.execute(f"DROP TABLE {_STAGED}")
        contents.record(connection, table, touched)
    if batch.inspection:
        gaps.record(connection, table.name, batch.inspection)
    return report


def _stage(connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame, to: Write) -> None:
    """Bring the rows to the contract's types in a temporary table."""
    stamped = rows.assign(run_id=to.run_id)
    if "materialized_at" not in rows.columns:
        stamped = stamped.assign(materialized_at=pd.Timestamp(wall_now()))
    frame = conform(stamped, to.table, to.table.all_columns)
    columns = ", ".join(
        f"{quoted(column.name)}::{column.type} AS {quoted(column.name)}"
        for column in to.table.all_columns
    )
    connection.register("incoming", frame)
    try:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS SELECT {columns} FROM incoming"
        )
    finally:
        connection.unregister("incoming")
    _keep_stored_values(connection, to.table)


def _keep_stored_values(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Take from the stored rows what the staged ones can't know."""
    kept = [
        f"{quoted(column.name)} = coalesce(staged.{quoted(column.name)}, "
        f"stored.{quoted(column.name)})"
        for column in table.columns
        if column.keeps_stored
    ]
    if FIRST_FINAL_AT in table.all_columns:
        connection.execute(
            f"UPDATE {_STAGED} SET first_final_at = CASE WHEN is_final THEN observed_at END"
        )
        kept.append("first_final_at = coalesce(stored.first_final_at, staged.first_final_at)")
    if kept:
        connection.execute(
            f"UPDATE {_STAGED} SET {', '.join(kept)} FROM {quoted(table.name)} AS stored "
            f"WHERE {_same(_STAGED, 'stored', table.key)}"
        )


def _check_days(connection: duckdb.DuckDBPyConnection, to: Write) -> None:
    if to.days is None or to.table.time_column is None:
        return
    outside = connection.execute(
        f"SELECT * FROM {_STAGED} WHERE {day_of(to.table)} NOT BETWEEN ? AND ?", list(to.days)
    ).fetchdf()
    if len(outside):
        rule = f"days within the partitions asked for, {to.days[0]} to {to.days[1]}"
        raise violation(to.table, rule, len(outside), outside)


def _newest_observation(connection: duckdb.DuckDBPyConnection, table: Table) -> datetime | None:
    """Return when the newest of the rows that came was observed."""
    if table.time_column is None:
        return None
    row = connection.execute(f"SELECT max(observed_at) FROM {_STAGED}").fetchone()
    return row[0] if row else None


def _touched_days(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> set[date]:
    """Return the days whose rows a write may change: a derived table is replaced in its range."""
    if to.table.time_column is None:
        return set()
    rows = connection.execute(f"SELECT DISTINCT {day_of(to.table)} FROM {_STAGED}").fetchall()
    asked = days(*to.days) if to.table.derived and to.days else ()
    whole: set[date] = set()
    if batch.whole is not None and to.table.time_column in batch.whole:
        whole = {pd.Timestamp(day).date() for day in batch.whole[to.table.time_column]}
    return {day for (day,) in rows} | set(asked) | whole


def _keep_better_rows(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    worse = "stored.is_final AND NOT staged.is_final"
    if table.has_exactness:
        worse += (
            " OR stored.is_final AND stored.exactness = 'exact' AND staged.exactness <> 'exact'"
        )
    connection.execute(
        f"DELETE FROM {_STAGED} USING {quoted(table.name)} AS stored "
        f"WHERE {_same(_STAGED, 'stored', table.key)} AND ({worse})"
    )


def _remove_what_is_gone(
    connection: duckdb.DuckDBPyConnection,
    whole: pd.DataFrame | None,
    observed_at: datetime | None,
    to: Write,
) -> int:
    if whole is None or whole.empty:
        return 0
    table, stored = to.table, quoted(to.table.name)
    slices = tuple(str(name) for name in whole.columns)
    connection.register("whole", whole)
    try:
        gone = (
            f"{stored} SEMI JOIN whole ON {_same(stored, 'whole', slices)} "
            f"ANTI JOIN {_STAGED} ON {_same(stored, _STAGED, table.key)}"
        )
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE gone AS "
            f"SELECT *, {key_json(stored, table)} AS key_json FROM {gone}"
        )
    finally:
        connection.unregister("whole")
    row = connection.execute(
        f"INSERT INTO restatements SELECT ?, {day_of(table)}, key_json, '(row)', "
        "CAST(to_json(gone) AS VARCHAR), NULL, observed_at, ?, ?, ? FROM gone",
        [table.name, observed_at, to.run_id, wall_now()],
    ).fetchone()
    connection.execute(f"DELETE FROM {stored} USING gone WHERE {_same(stored, 'gone', table.key)}")
    connection.execute("DROP TABLE gone")
    return int(row[0]) if row else 0


def _differs(table: Table) -> str:
    return " OR ".join(
        f"({_changed(c.name, c.type == 'DOUBLE')})"
        for c in table.columns
        if c.name not in table.key
    )


def _count_changed(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    row = connection.execute(
        f"SELECT count(*) FROM {_STAGED} LEFT JOIN "
        f"(SELECT *, true AS is_stored FROM {quoted(table.name)}) AS stored "
        f"ON {_same(_STAGED, 'stored', table.key)} "
        f"WHERE stored.is_stored IS NULL OR {_differs(table)}"
    ).fetchone()
    return int(row[0]) if row else 0


def _record_restatements(connection: duckdb.DuckDBPyConnection, to: Write) -> int:
    """Log each final value a provider changed; better knowledge of a rebuilt candle is none."""
    table = to.table
    better = "stored.exactness <> staged.exactness" if table.has_exactness else "false"
    # What was chosen or computed by us is not the provider's to restate.
    skipped = {*table.key, "is_point_in_time", "session", "band", "exactness"}
    values = [column for column in table.columns if column.name not in skipped]
    changes = " UNION ALL ".join(
        f"SELECT ?, {day_of(table, 'staged.')}, {key_json(_STAGED, table)}, "
        f"'{c.name}', CAST(stored.{quoted(c.name)} AS VARCHAR), "
        f"CAST(staged.{quoted(c.name)} AS VARCHAR), stored.observed_at, staged.observed_at, ?, ? "
        f"FROM {_STAGED} JOIN {quoted(table.name)} AS stored "
        f"ON {_same(_STAGED, 'stored', table.key)} "
        f"WHERE stored.is_final AND NOT ({better}) AND {_changed(c.name, c.type == 'DOUBLE')}"
        for c in values
    )
    stamp: list[str | datetime] = [table.name, to.run_id, wall_now()]
    row = connection.execute(f"INSERT INTO restatements {changes}", stamp * len(values)).fetchone()
    return int(row[0]) if row else 0


def _changed(name: str, is_float: bool) -> str:
    staged, stored = f"staged.{quoted(name)}", f"stored.{quoted(name)}"
    differs = f"{staged} IS DISTINCT FROM {stored}"
    if not is_float:
        return differs
    noise = f"abs({staged} - {stored}) <= {FLOAT_NOISE!r} * abs({stored})"
    return f"{differs} AND NOT coalesce({noise}, false)"


def _leave_unchanged_rows(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Drop staged rows that say what is stored: `materialized_at` then tells the last change."""
    connection.execute(
        f"DELETE FROM {_STAGED} USING {quoted(table.name)} AS stored "
        f"WHERE {_same(_STAGED, 'stored', table.key)} AND NOT ({_differs(table)}) "
        "AND stored.is_final = staged.is_final "
        "AND (stored.is_final OR stored.observed_at = staged.observed_at)"
    )


def _replace(connection: duckdb.DuckDBPyConnection, to: Write) -> None:
    table, stored = to.table, quoted(to.table.name)
    if table.derived and to.days:
        # Calculated anew from all there is, so a row that no longer follows goes too.
        connection.execute(
            f"DELETE FROM {stored} WHERE {day_of(table)} BETWEEN ? AND ?", list(to.days)
        )
    connection.execute(
        f"DELETE FROM {stored} USING "
        f"(SELECT DISTINCT {_list(table.replaced_by)} FROM {_STAGED}) AS slices "
        f"WHERE {_same(stored, 'slices', table.replaced_by)}"
    )
    order = _list((*([table.time_column] if table.time_column else []), *table.key))
    connection.execute(f"INSERT INTO {stored} BY NAME SELECT * FROM {_STAGED} ORDER BY {order}")


def _same(left: str, right: str, columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in columns)


def _list(columns: tuple[str, ...]) -> str:
    return ", ".join(quoted(name) for name in dict.fromkeys(columns))
