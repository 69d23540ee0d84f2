"""One write: stage, validate, replace by key, record what changed, all in one transaction.

Here belongs how rows get into a table without any being lost, doubled or half-written. What the
rows are is the assets' concern, who may open the file the session's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime

import duckdb
import numpy as np
import pandas as pd

from crypto_assets.periods import days, wall_now
from crypto_assets.tables import FIRST_FINAL_AT, Table
from crypto_assets.warehouse import contents, gaps
from crypto_assets.warehouse.contents import DayContent
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.session import having, quoted, transaction
from crypto_assets.warehouse.sqls import day_of, key_json, literal, within
from crypto_assets.warehouse.validation import check_key, check_values, conform, violation

# The rows as they came, read from memory; and a copy of them to change, where stored rows are met.
_ARRIVED = "arrived"
_STAGED = "staged"
_STORED = "stored"
# Relative; below it a changed DOUBLE is noise of another route to the same value.
FLOAT_NOISE = 1e-9
# Of more series than this a write looks for stored rows without naming them.
_SERIES_NAMED = 200
# Fewer rows are inserted by one thread: more of them take twice the work, and leave row groups that
# are half full, which the checkpoint then writes anew.
_ROWS_OF_A_THREAD = 1_000_000


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


@dataclass(frozen=True)
class _Arrival:
    """Where the rows that came belong: what each day has of them, and which series they are of."""

    rows: int
    days: Mapping[date, DayContent] = field(default_factory=dict)
    series: tuple[str, ...] = ()
    """Empty where there are too many to name."""


def write(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> WriteReport:
    """Store a batch in one transaction, or nothing of it.

    Stored rows with the key of a written row are replaced, all others stay; of a calculated table
    whole days are replaced. A row that is final is never replaced by one that is not, nor a final
    exact candle by an approximate one, nor a value by a NULL where the contract says so. Final
    values of a provider that change go to `restatements`. Raises `ContractViolationError`.
    """
    if len(batch.rows):
        with _arriving(connection, batch, to) as arrival, transaction(connection) as pending:
            report = _store(connection, batch, to, arrival)
            _record_gaps(connection, batch, to)
            # Restatements are rows of a table of their own, one a value.
            pending.rows = max(report.received, report.restated)
        return report
    with transaction(connection):
        if to.table.derived and to.days:
            _replace_days(connection, to.table, set(days(*to.days)), {})
        _record_gaps(connection, batch, to)
    return WriteReport()


@contextmanager
def _arriving(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> Iterator[_Arrival]:
    """Let SQL read the rows meanwhile, once they are found to keep their contract."""
    try:
        try:
            frame, is_unique = _conformed(batch.rows, to)
            _show(connection, frame, to)
            check_values(connection, _ARRIVED, to.table)
            if not is_unique:
                check_key(connection, _ARRIVED, to.table)
            arrival = _arrival(connection, frame, to.table)
            _check_days(connection, to, arrival)
        except ContractViolationError:
            batch.on_refusal()
            raise
        yield arrival
    finally:
        connection.unregister("incoming")


def _store(
    connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write, arrival: _Arrival
) -> WriteReport:
    """Let the rows that came take their places in the table."""
    table = to.table
    report = WriteReport(received=arrival.rows, changed=arrival.rows)
    if table.derived:
        report.changed = _count_changed_days(connection, table, arrival)
        asked = set(days(*to.days)) if to.days else set()
        _replace_days(connection, table, asked, arrival.days)
        _insert(connection, table, _ARRIVED, arrival.rows)
        return report
    is_provided = table.time_column is not None
    gone: set[date] = set()
    if is_provided:
        report.restated, gone = _remove_what_is_gone(connection, batch.whole, to)
    source, met = _ARRIVED, _find_stored(connection, table, arrival)
    if met:
        source = _STAGED
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {_STAGED} AS FROM {_ARRIVED}")
        _keep_stored_values(connection, table)
        if is_provided:
            _keep_better_rows(connection, table)
        report.changed = _count_changed(connection, table)
        if is_provided:
            report.restated += _record_restatements(connection, to)
            gone |= _days_of_stored(connection, table)
            _leave_unchanged_rows(connection, table)
        _delete_met(connection, table, arrival)
    _insert(connection, table, source, arrival.rows)
    if is_provided:
        contents.add(connection, table, arrival.days, gone)
    return report


def _record_gaps(connection: duckdb.DuckDBPyConnection, batch: Batch, to: Write) -> None:
    if batch.inspection:
        found = gaps.without_whole_days(connection, to.table, batch.inspection)
        gaps.record(connection, to.table.name, found)


def _replace_days(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    asked: set[date],
    arrived: Mapping[date, DayContent],
) -> None:
    """Make room for days calculated anew from all there is: what no longer follows goes too."""
    touched = asked | arrived.keys()
    _delete_days(connection, table, touched)
    contents.replace(connection, table, touched, arrived)


def _insert(connection: duckdb.DuckDBPyConnection, table: Table, source: str, rows: int) -> None:
    is_large = rows >= _ROWS_OF_A_THREAD
    settings = {"preserve_insertion_order": "false"} if is_large else {"threads": "1"}
    with having(connection, settings):
        connection.execute(f"INSERT INTO {quoted(table.name)} BY NAME FROM {source}")


def _delete_days(connection: duckdb.DuckDBPyConnection, table: Table, touched: set[date]) -> None:
    if touched:
        on_days, values = _on_days(table, touched)
        connection.execute(f"DELETE FROM {quoted(table.name)} WHERE {on_days}", values)


def _on_days(table: Table, wanted: set[date]) -> tuple[str, dict[str, object]]:
    """Return the condition of rows of some days, and its values.

    The range lets DuckDB skip what is far off, and says it all where no day between is left out.
    """
    values: dict[str, object] = {"first": min(wanted), "last": max(wanted)}
    near = within(table, "$first", "$last")
    if len(wanted) <= (max(wanted) - min(wanted)).days:
        values["days"] = sorted(wanted)
        near += f" AND {day_of(table)} IN (SELECT unnest($days))"
    return near, values


def _conformed(rows: pd.DataFrame, to: Write) -> tuple[pd.DataFrame, bool]:
    """Bring the rows to the contract's types and order; tell whether no two share a key.

    The order is by time, so that DuckDB can skip the rows of other times when it reads some.
    """
    stamps = _stamps(rows, to)
    names = [name for name in rows.columns if name not in stamps]
    told = [column for column in to.table.all_columns if column.name not in stamps]
    given = rows if len(names) == len(rows.columns) else rows[names]
    frame = conform(given, to.table, told)
    order = list(dict.fromkeys(n for n in (to.table.time_column, *to.table.key) if n))
    if _rises(frame, order):
        return frame, True
    frame = frame.sort_values(order, ignore_index=True)
    return frame, _rises(frame, order)


def _rises(frame: pd.DataFrame, order: list[str]) -> bool:
    """Tell whether each row comes after the one before it, so that no two are equal."""
    if len(frame) < 2 or not set(order) <= set(frame.columns):
        return False
    after: np.ndarray = np.zeros(len(frame) - 1, dtype=bool)
    alike: np.ndarray = np.ones(len(frame) - 1, dtype=bool)
    for name in order:
        values = frame[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            places = values.cat.codes.to_numpy()
        elif isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufM":
            places = values.to_numpy()
        else:
            places = pd.factorize(values, sort=True)[0]
        after |= alike & (places[1:] > places[:-1])
        alike &= places[1:] == places[:-1]
    return bool(after.all())


def _stamps(rows: pd.DataFrame, to: Write) -> dict[str, str]:
    """Return the columns that a write knows by itself, in SQL."""
    stamps = {"run_id": literal(to.run_id)}
    if "materialized_at" not in rows.columns:
        stamps["materialized_at"] = literal(str(wall_now()))
    if FIRST_FINAL_AT in to.table.all_columns:
        stamps[FIRST_FINAL_AT.name] = "CASE WHEN is_final THEN observed_at END"
    return stamps


def _show(connection: duckdb.DuckDBPyConnection, frame: pd.DataFrame, to: Write) -> None:
    """Let SQL see a frame with all columns and types of the table."""
    sources = {name: quoted(name) for name in frame.columns}
    sources = _stamps(frame, to) | sources
    columns = ", ".join(
        f"CAST({sources.get(column.name, 'NULL')} AS {column.type}) AS {quoted(column.name)}"
        for column in to.table.all_columns
    )
    connection.register("incoming", frame)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {_ARRIVED} AS SELECT {columns} FROM incoming")


def _arrival(connection: duckdb.DuckDBPyConnection, frame: pd.DataFrame, table: Table) -> _Arrival:
    if table.time_column is None:
        return _Arrival(len(frame))
    found = connection.execute(contents.by_day_sql(table, source=_ARRIVED)).fetchall()
    series: tuple[str, ...] = ()
    if table.series_column:
        named = frame[table.series_column].unique()
        series = tuple(named) if len(named) <= _SERIES_NAMED else ()
    return _Arrival(len(frame), {day: DayContent(*told) for day, *told in found}, series)


def _find_stored(connection: duckdb.DuckDBPyConnection, table: Table, arrival: _Arrival) -> bool:
    """Copy the stored rows that have a staged one's key; tell whether there are any."""
    near, values = _reachable(table, arrival)
    found = connection.execute(
        f"SELECT 1 FROM {quoted(table.name)} WHERE {near} LIMIT 1", values
    ).fetchone()
    if found is None:
        return False
    row = connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_STORED} AS SELECT * FROM {quoted(table.name)} "
        f"SEMI JOIN {_ARRIVED} ON {_same(quoted(table.name), _ARRIVED, table.key)} "
        f"WHERE {near}",
        values,
    ).fetchone()
    return bool(row and row[0])


def _reachable(table: Table, arrival: _Arrival) -> tuple[str, dict[str, object]]:
    """Return the condition, and its values, that lets DuckDB skip what no staged row can meet."""
    if table.time_column is None:
        return "true", {}
    stored = f"{quoted(table.name)}."
    near = within(table, "$first", "$last", stored)
    values: dict[str, object] = {"first": min(arrival.days), "last": max(arrival.days)}
    if table.series_column and arrival.series:
        names = ", ".join(map(literal, arrival.series))
        near += f" AND {stored}{quoted(table.series_column)} IN ({names})"
    return near, values


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


def _check_days(connection: duckdb.DuckDBPyConnection, to: Write, arrival: _Arrival) -> None:
    if to.days is None or all(to.days[0] <= day <= to.days[1] for day in arrival.days):
        return
    outside = connection.execute(
        f"SELECT * FROM {_ARRIVED} WHERE {day_of(to.table)} NOT BETWEEN ? AND ?", list(to.days)
    ).fetchdf()
    rule = f"days within the partitions asked for, {to.days[0]} to {to.days[1]}"
    raise violation(to.table, rule, len(outside), outside)


def _days_of_stored(connection: duckdb.DuckDBPyConnection, table: Table) -> set[date]:
    found = connection.execute(f"SELECT DISTINCT {day_of(table)} FROM {_STORED}").fetchall()
    return {day for (day,) in found}


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
) -> tuple[int, set[date]]:
    """Remove stored rows that did not come again; return how many, and of which days."""
    if whole is None or whole.empty:
        return 0, set()
    table, stored = to.table, quoted(to.table.name)
    slices = tuple(str(name) for name in whole.columns)
    names = ", ".join(map(quoted, slices))
    now = wall_now()
    connection.register("whole", whole)
    try:
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE gone AS
            WITH asked AS (
                SELECT {names}, coalesce(max({_ARRIVED}.observed_at),
                    (SELECT max(observed_at) FROM {_ARRIVED})) AS asked_at
                FROM whole LEFT JOIN {_ARRIVED} USING ({names}) GROUP BY ALL
            )
            SELECT {stored}.*, asked_at, {key_json(stored, table)} AS key_json
            FROM {stored} JOIN asked ON {_same(stored, "asked", slices)}
            ANTI JOIN {_ARRIVED} ON {_same(stored, _ARRIVED, table.key)}
            -- What another run saw later is not gone; unless a clock was set back since.
            WHERE {stored}.observed_at <= asked_at OR {stored}.observed_at > $now""",
            {"now": now},
        )
    finally:
        connection.unregister("whole")
    days_of = connection.execute(f"SELECT {day_of(table)} FROM gone").fetchall()
    if days_of:
        connection.execute(
            f"INSERT INTO restatements SELECT ?, {day_of(table)}, key_json, '(row)', "
            "CAST(to_json(gone) AS VARCHAR), NULL, observed_at, asked_at, ?, ? FROM gone",
            [table.name, to.run_id, now],
        )
        connection.execute(
            f"DELETE FROM {stored} USING gone WHERE {_same(stored, 'gone', table.key)}"
        )
    connection.execute("DROP TABLE gone")
    return len(days_of), {day for (day,) in days_of}


def _differs(table: Table) -> str:
    return " OR ".join(
        f"({_changed(c.name, c.type == 'DOUBLE')})"
        for c in table.columns
        if c.name not in table.key
    )


def _count_changed(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    return _count_differing(connection, table, _STAGED, _STORED, {})


def _count_changed_days(
    connection: duckdb.DuckDBPyConnection, table: Table, arrival: _Arrival
) -> int:
    """Count the calculated rows that are not stored already, of days whose hashes differ."""
    noted = contents.noted(connection, table, arrival.days)
    changed = {day for day, found in arrival.days.items() if noted.get(day) != found}
    new = changed - noted.keys()
    count = sum(arrival.days[day].rows for day in new)
    if changed == new:
        return count
    on_days, values = _on_days(table, changed - new)
    left, right = (f"(FROM {name} WHERE {on_days})" for name in (_ARRIVED, quoted(table.name)))
    return count + _count_differing(connection, table, left, right, values)


def _count_differing(
    connection: duckdb.DuckDBPyConnection,
    table: Table,
    staged: str,
    stored: str,
    values: Mapping[str, object],
) -> int:
    row = connection.execute(
        f"SELECT count(*) FROM {staged} AS staged LEFT JOIN "
        f"(SELECT *, true AS is_stored FROM {stored}) AS stored "
        f"ON {_same('staged', 'stored', table.key)} "
        f"WHERE stored.is_stored IS NULL OR {_differs(table)}",
        values,
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


def _delete_met(connection: duckdb.DuckDBPyConnection, table: Table, arrival: _Arrival) -> None:
    near, values = _reachable(table, arrival)
    connection.execute(
        f"DELETE FROM {quoted(table.name)} USING {_STAGED} "
        f"WHERE {_same(quoted(table.name), _STAGED, table.key)} AND {near}",
        values,
    )


def _same(left: str, right: str, columns: tuple[str, ...]) -> str:
    return " AND ".join(f"{left}.{quoted(name)} = {right}.{quoted(name)}" for name in columns)
