"""Contracts to DDL: every table, the tables beside them, the coverage view and `views`.

Here belongs what the warehouse consists of. Writing rows is `writer`'s.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from crypto_assets.periods import wall_now
from crypto_assets.tables import TABLES, Table, partitioned
from crypto_assets.warehouse import contents, migrations, views
from crypto_assets.warehouse.beside import BESIDE_DESCRIPTIONS
from crypto_assets.warehouse.errors import WarehouseError, reason_of
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.session import quoted, transaction
from crypto_assets.warehouse.sqls import day_of, literal

_DDL_BESIDE = """
CREATE TABLE gaps (
    table_name VARCHAR NOT NULL, series VARCHAR NOT NULL,
    first_day DATE NOT NULL, last_day DATE NOT NULL,
    state VARCHAR NOT NULL, reason VARCHAR NOT NULL, checked_at TIMESTAMP NOT NULL
);
CREATE TABLE restatements (
    table_name VARCHAR NOT NULL, day DATE NOT NULL, key VARCHAR NOT NULL,
    column_name VARCHAR NOT NULL, old_value VARCHAR, new_value VARCHAR,
    old_observed_at TIMESTAMP NOT NULL, new_observed_at TIMESTAMP NOT NULL,
    run_id VARCHAR NOT NULL, restated_at TIMESTAMP NOT NULL
);
CREATE TABLE schema_migrations (
    version INTEGER NOT NULL, name VARCHAR NOT NULL, applied_at TIMESTAMP NOT NULL
);
CREATE TABLE warehouse_info (
    is_sandbox BOOLEAN NOT NULL, history_start DATE NOT NULL, created_at TIMESTAMP NOT NULL
);
"""


_ALWAYS = ("schema_migrations", "warehouse_info", "gaps", "restatements")
BESIDE = (*_ALWAYS, "partitions")
_FINGERPRINT = "crypto_assets_views"
Columns = dict[str, dict[str, str]]
"""Types by column by table."""


@dataclass(frozen=True)
class Identity:
    """What a warehouse is once and for all: invented data or real, and its first day."""

    is_sandbox: bool
    history_start: date


def ensure_schema(connection: duckdb.DuckDBPyConnection, identity: Identity) -> None:
    """Create what is missing, add new columns, and refuse a warehouse of another identity.

    Raises `WarehouseError`, also where the tables are not what a program of their version made.
    """
    migrated = False
    if _is_as_described(connection):
        _check_identity(connection, identity)
        migrated = migrations.migrate(connection)
        if not migrated and contents.are_recorded(connection):
            return
    existing = existing_columns(connection)
    if not existing:
        with transaction(connection):
            _create(connection, identity)
        return
    _check_present(existing, _ALWAYS)
    _check_identity(connection, identity)
    # Each in a transaction of its own: DuckDB can't commit an altered table together with rows of
    # it that were changed before.
    migrated = migrations.migrate(connection) or migrated
    with transaction(connection):
        if migrated:
            existing = existing_columns(connection)
        _check_present(existing, BESIDE)
        changed = _add_columns(connection, existing)
        _describe(connection, is_due=migrated)
        are_due = not contents.are_recorded(connection)
        for table in partitioned():
            if table.name in changed or are_due:
                contents.record_all(connection, table)


def schema_problems(existing: Columns) -> list[str]:
    """Return what keeps tables from being those of the contracts, beside what can be added."""
    problems = []
    for table in TABLES.values():
        found = existing.get(table.name, {})
        wanted = {column.name: column for column in table.all_columns}
        problems += [
            f"column {table.name}.{name} is not known to this program"
            for name in found
            if name not in wanted
        ]
        problems += [
            f"column {table.name}.{name} is {found[name]}, not {column.type}"
            for name, column in wanted.items()
            if name in found and found[name] != column.type
        ]
        problems += [
            f"column {table.name}.{name} is missing, and needs a value in every row"
            for name, column in wanted.items()
            if found and name not in found and not column.nullable
        ]
    return problems


def create_table_sql(table: Table) -> str:
    """Return the DDL of one contract. No keys or indexes: validation keeps keys unique."""
    columns = ", ".join(
        f"{quoted(c.name)} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in table.all_columns
    )
    return f"CREATE TABLE {quoted(table.name)} ({columns})"


def existing_columns(connection: duckdb.DuckDBPyConnection) -> Columns:
    """Return the columns of all tables and views, with their types."""
    rows = connection.execute(
        "SELECT table_name, column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = 'main'"
    ).fetchall()
    found: Columns = {}
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def _check_present(existing: Columns, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in existing]
    if missing:
        raise WarehouseError(
            f"this warehouse has lost its table {', '.join(missing)}, or is none: restore it from "
            "a backup, or use another home; nothing was changed"
        )


def _create(connection: duckdb.DuckDBPyConnection, identity: Identity) -> None:
    connection.execute(_DDL_BESIDE)
    contents.reset(connection)
    for table in TABLES.values():
        connection.execute(create_table_sql(table))
    _describe(connection, is_due=True)
    migrations.record(connection, migrations.newest(), "create")
    connection.execute(
        "INSERT INTO warehouse_info VALUES (?, ?, ?)",
        [identity.is_sandbox, identity.history_start, wall_now()],
    )


def _is_as_described(connection: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether nothing of the schema changed since this program's contracts were checked."""
    # Called rather than looked up: the list of all functions takes 25 ms.
    try:
        row = connection.execute(f"SELECT {_FINGERPRINT}()").fetchone()
    except duckdb.CatalogException:
        return False
    return row is not None and row[0] == _looks(connection)


def _looks(connection: duckdb.DuckDBPyConnection) -> str:
    """Return a hash of what tables and views there are, and of what is wanted of them.

    Of a view only the name counts: its columns take 8 ms to find, and its text is not always told
    the same way.
    """
    found = connection.execute(
        "SELECT table_name, sql FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = 'main' "
        "UNION ALL SELECT view_name, '' FROM duckdb_views() "
        "WHERE database_name = current_database() AND schema_name = 'main' ORDER BY ALL"
    ).fetchall()
    wanted = [*map(create_table_sql, TABLES.values()), *_described()]
    return hashlib.sha256("\n".join([*map(str, found), *wanted]).encode()).hexdigest()


def _describe(connection: duckdb.DuckDBPyConnection, is_due: bool) -> None:
    """Bring up to date what follows from this program alone and holds no rows.

    That is due where the file was last described otherwise, or something of it is gone.
    """
    if not is_due and _is_as_described(connection):
        return
    for statement in _described():
        try:
            connection.execute(statement)
        except duckdb.CatalogException as error:
            reason = reason_of(error)
            raise WarehouseError(
                f"can't make the views of this warehouse ({reason}): rename what has the name of "
                "one of them; no row was changed"
            ) from None
    # Kept as a macro, it is lost wherever the others are lost, as in a backup.
    connection.execute(f"CREATE OR REPLACE MACRO {_FINGERPRINT}() AS {literal(_looks(connection))}")
    told = literal("What the tables, views and comments of this file are; for the program.")
    connection.execute(f"COMMENT ON MACRO {_FINGERPRINT} IS {told}")


def _described() -> Iterator[str]:
    for table in TABLES.values():
        name = quoted(table.name)
        yield f"COMMENT ON TABLE {name} IS {literal(table.row)}"
        for column in table.all_columns:
            text = literal(column.documentation)
            yield f"COMMENT ON COLUMN {name}.{quoted(column.name)} IS {text}"
    yield _coverage_view_sql()
    for beside, told in BESIDE_DESCRIPTIONS.items():
        name, kind = quoted(beside), "VIEW" if beside == "coverage" else "TABLE"
        yield f"COMMENT ON {kind} {name} IS {literal(told.row)}"
        for meant, meaning in told.columns.items():
            yield f"COMMENT ON COLUMN {name}.{quoted(meant)} IS {literal(meaning)}"
    yield from views.statements()


def _check_identity(connection: duckdb.DuckDBPyConnection, identity: Identity) -> None:
    row = connection.execute("SELECT is_sandbox, history_start FROM warehouse_info").fetchone()
    if row is None:
        raise WarehouseError("this warehouse has lost its identity: restore it from a backup")
    if row[0] != identity.is_sandbox:
        kinds = {True: "sandbox", False: "live"}
        raise WarehouseError(
            f"this home holds {kinds[row[0]]} data and the settings are for {kinds[not row[0]]} "
            "data: they never mix; choose another home (CRYPTO_ASSETS_HOME)"
        )
    if row[1] != identity.history_start:
        raise WarehouseError(
            f"setting 'history.start' is {identity.history_start}, but this warehouse began with "
            f"{row[1]}: set it back, or start another home (CRYPTO_ASSETS_HOME)"
        )


def _add_columns(connection: duckdb.DuckDBPyConnection, existing: Columns) -> set[str]:
    """Add the contract's new tables and nullable columns; return which tables have new columns."""
    problems = schema_problems(existing)
    if problems:
        raise WarehouseError(
            f"{problems[0]}: upgrade crypto_assets if a newer one wrote this warehouse, or bring a "
            "migration for it; no row was changed"
        )
    changed = set()
    for table in TABLES.values():
        found = existing.get(table.name)
        if found is None:
            connection.execute(create_table_sql(table))
            continue
        for column in table.all_columns:
            if column.name not in found:
                connection.execute(
                    f"ALTER TABLE {quoted(table.name)} "
                    f"ADD COLUMN {quoted(column.name)} {column.type}"
                )
                changed.add(table.name)
    return changed


def _coverage_view_sql() -> str:
    """Each day of each table that has rows or known gaps; final when nothing more is to come."""
    stored = " UNION ALL ".join(map(_stored_days_sql, partitioned()))
    return f"""
    CREATE OR REPLACE VIEW coverage AS
    WITH stored AS ({stored}),
    absent AS (
        SELECT table_name, day AS date,
            coalesce(list(series ORDER BY series) FILTER (WHERE state = 'missing'), []) AS missing,
            min(checked_at) FILTER (WHERE state = 'missing') AS checked_at
        FROM ({gap_days_sql()}) GROUP BY ALL
    )
    SELECT table_name, date,
        coalesce(rows_stored, 0) AS rows_stored,
        coalesce(series_stored, 0) AS series_stored,
        coalesce(len(missing), 0) AS series_missing,
        coalesce(missing, []) AS missing,
        coalesce(rows_final, true) AND coalesce(len(missing), 0) = 0 AS is_final,
        observed_at, coalesce(checked_at, observed_at) AS asked_at
    FROM stored FULL JOIN absent USING (table_name, date)
    """


def _stored_days_sql(table: Table) -> str:
    """One row a stored day; a provisional row that will never be final holds up no day."""
    given_up, join = "false", ""
    if table.series_column:
        given_up = "given_up.series IS NOT NULL"
        join = (
            f"LEFT JOIN (FROM ({gap_days_sql()}) WHERE table_name = '{table.name}' "
            f"AND state = 'no_data_at_provider') AS given_up "
            f"ON given_up.series = rows.{quoted(table.series_column)} "
            f"AND given_up.day = {day_of(table, 'rows.')}"
        )
    day = day_of(table, "rows.")
    return (
        f"SELECT '{table.name}' AS table_name, {day} AS date, "
        f"count(*) AS rows_stored, {_series_count(table)} AS series_stored, "
        # Final hours alone do not end a day: something must have been seen after its close.
        f"bool_and(is_final OR {given_up}) AND (max(observed_at) >= max({day}) + INTERVAL 1 DAY "
        f"OR bool_and({given_up})) AS rows_final, max(observed_at) AS observed_at "
        f"FROM {quoted(table.name)} AS rows {join} GROUP BY {day}"
    )


def _series_count(table: Table) -> str:
    if table.series_column is None:
        return "1"
    return f"count(DISTINCT rows.{quoted(table.series_column)})"
