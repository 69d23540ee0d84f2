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
from crypto_assets.warehouse.session import quoted, transaction
from crypto_assets.warehouse.sqls import day_of, key_json
from crypto_assets.warehouse.validation import check_rows, conform, violation

_STAGED = "staged"
_STORED = "stored"
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

    Stored rows with the key of a written row are replaced, all others stay; of a calculated table
    whole days are replaced. A row that is final is never replaced by one that is not, nor a final
    exact candle by an approximate one, nor a value by a NULL where the contract says so. Final
    values of a provider that change go to `restatements`. Raises `ContractViolationError`.
    """
    if len(batch.rows):
        # Before the transaction, since DuckDB reads what the same one wrote with one thread only.
        try:
            _stage(connection, batch.rows, to)
            check_rows(connection, _STAGED, to.table)
            _check_days(connection, to)
        except ContractViolationError:
            batch.on_refusal()
            raise
    with transaction(connection):
        report = WriteReport()
        if len(batch.rows):
            report = _store(connection, batch, to)
        elif to.table.derived and to.days:
            asked = set(days(*to.days))
            _delete_days(connection, to.table, asked)
            contents.record(connection, to.table, asked)
        if batch.inspection:
            found = gaps.without_whole_days(connection, to.table, batch.inspection)
            gaps.record(connection, to.table.name, found)
    return report


def _store(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> WriteReport:
    """Let the staged rows take their places in the table."""
    table = to.table
    report = WriteReport(received=len(batch.rows), changed=len(batch.rows))
    touched = _touched_days(connection, batch, to)
    is_provided = not table.derived and table.time_column is not None
    if is_provided:
        report.restated = _remove_what_is_gone(connection, batch.whole, to)
    met = _find_stored(connection, table)
    if met:
        _keep_stored_values(connection, table)
        if is_provided:
            _keep_better_rows(connection, table)
        report.changed = _count_changed(connection, table)
        if is_provided:
            report.restated += _record_restatements(connection, to)
            _leave_unchanged_rows(connection, table)
    if table.derived:
        _delete_days(connection, table, touched)
    elif met:
        _delete_met(connection, table)
    connection.execute(f"INSERT INTO {quoted(table.name)} BY NAME FROM {_STAGED}")
    contents.record(connection, table, touched)
    return report


def _delete_days(connection: duckdb.DuckDBPyConnection, table: Table, touched: set[date]) -> None:
    """Make room for days calculated anew from all there is: what no longer follows goes too."""
    connection.execute(
        f"DELETE FROM {quoted(table.name)} WHERE {day_of(table)} IN (SELECT unnest(?))",
        [list(touched)],
    )


def _stage(connection: duckdb.DuckDBPyConnection, rows: pd.DataFrame, to: Write) -> None:
    """Bring the rows to the contract's types in a temporary table."""
    stamps: dict[str, str] = {"run_id": "$run_id", "materialized_at": "$now"}
    values: dict[str, str | datetime] = {"run_id": to.run_id, "now": wall_now()}
    if "materialized_at" in rows.columns:
        del stamps["materialized_at"], values["now"]
    if FIRST_FINAL_AT in to.table.all_columns:
        stamps[FIRST_FINAL_AT.name] = "CASE WHEN is_final THEN observed_at END"
    told = [column for column in to.table.all_columns if column.name not in stamps]
    frame = conform(rows[[name for name in rows.columns if name not in stamps]], to.table, told)
    # By time, so that DuckDB can skip the rows of other times when it reads some.
    order = [name for name in (to.table.time_column, *to.table.key) if name]
    frame = frame.sort_values(list(dict.fromkeys(order)), ignore_index=True)
    sources = stamps | {name: quoted(name) for name in frame.columns}
    columns = ", ".join(
        f"CAST({sources.get(column.name, 'NULL')} AS {column.type}) AS {quoted(column.name)}"
        for column in to.table.all_columns
    )
    connection.register("incoming", frame)
    try:
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS SELECT {columns} FROM incoming", values
        )
    finally:
        connection.unregister("incoming")


def _find_stored(connection: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Copy the stored rows that have a staged one's key; tell whether there are any."""
    near = connection.execute(
        f"SELECT 1 FROM {quoted(table.name)} {_reachable(table)} LIMIT 1"
    ).fetchone()
    if near is None:
        return False
    row = connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_STORED} AS SELECT * FROM {quoted(table.name)} "
        f"SEMI JOIN {_STAGED} ON {_same(quoted(table.name), _STAGED, table.key)} "
        f"{_reachable(table)}"
    ).fetchone()
    return bool(row and row[0])


def _reachable(table: Table, word: str = "WHERE") -> str:
    """Return the condition that lets DuckDB skip what no staged row can meet."""
    if table.time_column is None:
        return ""
    time = quoted(table.time_column)
    return (
        f"{word} {quoted(table.name)}.{time} >= (SELECT min({time}) FROM {_STAGED}) "
        f"AND {quoted(table.name)}.{time} <= (SELECT max({time}) FROM {_STAGED})"
    )


def _keep_stored_values(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Take from the stored rows what the staged ones can't know."""
    kept = [
        f"{quoted(column.name)} = coalesce(staged.{quoted(column.name)}, "
        f"stored.{quoted(column.name)})"
        for column in table.columns
        if column.keeps_stored
    ]
    if FIRST_FINAL_AT in table.all_columns:
        first = "coalesce(stored.first_final_at, staged.first_final_at)"
        if table.has_exactness:
            # An exact candle was not known as long as there was only an approximate one.
            better = "stored.exactness <> 'exact' AND staged.exactness = 'exact'"
            first = f"CASE WHEN {better} THEN staged.first_final_at ELSE {first} END"
        kept.append(f"first_final_at = {first}")
    if kept:
        connection.execute(
            f"UPDATE {_STAGED} SET {', '.join(kept)} FROM {_STORED} "
            f"WHERE {_same(_STAGED, _STORED, table.key)}"
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
    """Drop staged rows that know less than the stored ones, or were observed before them."""
    worse = "stored.is_final AND NOT staged.is_final"
    alike = "stored.is_final = staged.is_final"
    if table.has_exactness:
        worse += (
            " OR stored.is_final AND stored.exactness = 'exact' AND staged.exactness <> 'exact'"
        )
        alike += " AND stored.exactness = staged.exactness"
    # Two runs may end in another order than they asked. What is stamped with a time to come was
    # observed by a clock that has been set back since.
    worse += (
        f" OR {alike} AND staged.observed_at < stored.observed_at AND stored.observed_at <= $now"
    )
    connection.execute(
        f"DELETE FROM {_STAGED} USING {_STORED} "
        f"WHERE {_same(_STAGED, _STORED, table.key)} AND ({worse})",
        {"now": wall_now()},
    )


def _remove_what_is_gone(
    connection: duckdb.DuckDBPyConnection, whole: pd.DataFrame | None, to: Write
) -> int:
    if whole is None or whole.empty:
        return 0
    table, stored = to.table, quoted(to.table.name)
    slices = tuple(str(name) for name in whole.columns)
    names = ", ".join(map(quoted, slices))
    now = wall_now()
    connection.register("whole", whole)
    try:
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE gone AS
            WITH asked AS (
                SELECT {names}, coalesce(max(staged.observed_at),
                    (SELECT max(observed_at) FROM {_STAGED})) AS asked_at
                FROM whole LEFT JOIN {_STAGED} USING ({names}) GROUP BY ALL
            )
            SELECT {stored}.*, asked_at, {key_json(stored, table)} AS key_json
            FROM {stored} JOIN asked ON {_same(stored, "asked", slices)}
            ANTI JOIN {_STAGED} ON {_same(stored, _STAGED, table.key)}
            -- What another run saw later is not gone; unless a clock was set back since.
            WHERE {stored}.observed_at <= asked_at OR {stored}.observed_at > $now""",
            {"now": now},
        )
    finally:
        connection.unregister("whole")
    row = connection.execute(
        f"INSERT INTO restatements SELECT ?, {day_of(table)}, key_json, '(row)', "
        "CAST(to_json(gone) AS VARCHAR), NULL, observed_at, asked_at, ?, ? FROM gone",
        [table.name, to.run_id, now],
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
        f"(SELECT *, true AS is_stored FROM {_STORED}) AS stored "
        f"ON {_same(_STAGED, _STORED, table.key)} "
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
        f"FROM {_STAGED} JOIN {_STORED} "
        f"ON {_same(_STAGED, _STORED, table.key)} "
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
    """Drop staged rows that say what is stored: `materialized_at` then tells the last change.

    A final row that another source confirms is that source's from then on, but has not changed.
    """
    alike = (
        f"{_same(_STAGED, _STORED, table.key)} AND NOT ({_differs(table)}) "
        "AND stored.is_final = staged.is_final"
    )
    connection.execute(
        f"UPDATE {_STAGED} SET materialized_at = stored.materialized_at FROM {_STORED} "
        f"WHERE {alike} AND stored.is_final AND stored.source <> staged.source"
    )
    connection.execute(
        f"DELETE FROM {_STAGED} USING {_STORED} WHERE {alike} "
        "AND (stored.is_final AND stored.source = staged.source "
        "OR stored.observed_at = staged.observed_at)"
    )


def _delete_met(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    connection.execute(
        f"DELETE FROM {quoted(table.name)} USING {_STAGED} "
        f"WHERE {_same(quoted(table.name), _STAGED, table.key)} {_reachable(table, 'AND')}"
    )


def _same(left: str, right: str, columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in columns)
