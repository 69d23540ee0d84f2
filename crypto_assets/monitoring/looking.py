"""What a home holds: tables, gaps, publication and runs. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import duckdb

from crypto_assets.periods import intervals
from crypto_assets.tables import TABLES
from crypto_assets.warehouse import publishing
from crypto_assets.warehouse.coverage import due_days, told_days
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of


@dataclass(frozen=True)
class TableState:
    """One table of the newest publication."""

    name: str
    rows: int
    first: date | None = None
    last: date | None = None
    last_final: date | None = None
    unfinished: int = 0
    """Closed days since the first one that are due and not final."""
    untold: tuple[tuple[date, date], ...] = ()
    """Intervals of such days of which nothing is told at all."""


SeriesDay = tuple[str, str, date]
"""A table, one of its series, a day."""

EVERY_SERIES = "(all)"


@dataclass(frozen=True)
class Missing:
    """What a table should have on some days and has not."""

    table: str
    series: str
    first: date
    last: date
    reason: str


@dataclass(frozen=True)
class HomeState:
    """A home at a glance, as its readers see it."""

    tables: list[TableState]
    missing: list[Missing]
    publication: publishing.Publication
    is_behind: bool


def look(home: Path, now: datetime) -> HomeState:
    """Return the state of a home. Raises `WarehouseError` when nothing was published yet."""
    publication = read_publication(home)
    with connect(home) as connection:
        tables = table_states(connection, now)
        missing = missing_days(connection, tables)
    return HomeState(tables, missing, publication, publishing.is_behind(home))


def hopeless_days(home: Path) -> list[SeriesDay]:
    """Return the days of series that no provider has."""
    with connect(home) as connection:
        return connection.execute(
            f"SELECT table_name, series, day FROM ({gap_days_sql()}) "
            "WHERE state = 'no_data_at_provider'"
        ).fetchall()


def read_publication(home: Path) -> publishing.Publication:
    """Return the newest publication. Raises `WarehouseError` when there is none yet."""
    publication = publishing.read_state(home)
    if publication.version == 0 and publication.withheld_by:
        raise WarehouseError(f"nothing has been published in {home} yet: {withheld(publication)}")
    if publication.version == 0:
        connect(home).close()
    return publication


def table_states(connection: duckdb.DuckDBPyConnection, now: datetime) -> list[TableState]:
    """Return the state of each table at `now`."""
    told = told_days(connection)
    return [_table(connection, name, told.get(name, {}), now) for name in TABLES]


def missing_days(
    connection: duckdb.DuckDBPyConnection, tables: Sequence[TableState]
) -> list[Missing]:
    """Return what is missing and may still come, newest first; also days never asked for."""
    rows = connection.execute(
        "SELECT table_name, series, first_day, last_day, reason FROM gaps WHERE state = 'missing'"
    ).fetchall()
    found = [Missing(*row) for row in rows]
    found += [
        Missing(table.name, EVERY_SERIES, first, last, "never fetched")
        for table in tables
        for first, last in table.untold
    ]
    return sorted(found, key=lambda gap: (-gap.last.toordinal(), gap.table, gap.series))


def withheld(publication: publishing.Publication) -> str:
    """Return what withholds a publication and what to do, as a sentence."""
    by = ", ".join(
        f"{failed.offending_rows} row(s) of {failed.table} break '{failed.check}' on "
        f"{failed.first} to {failed.last}"
        for failed in publication.withheld_by
    )
    since = f"{publication.withheld_since:%Y-%m-%d %H:%M} UTC" if publication.withheld_since else ""
    return (
        f"publication is withheld since {since} because {by}; look at the failed checks in the "
        "Dagster UI and materialize these days again"
    )


def _table(
    connection: duckdb.DuckDBPyConnection, name: str, told: Mapping[date, bool], now: datetime
) -> TableState:
    table = TABLES[name]
    if table.time_column is None:
        row = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
        return TableState(name, row[0] if row else 0)
    day = day_of(table)
    row = connection.execute(
        f"SELECT count(*), min({day}), max({day}), max({day}) FILTER (WHERE is_final) "
        f"FROM {quoted(name)}"
    ).fetchone()
    if row is None or row[1] is None:
        return TableState(name, 0)
    rows, first, last, last_final = row
    due = due_days(table, first, now)
    unfinished = sum(not told.get(day) for day in due)
    untold = tuple(intervals(day for day in due if day not in told))
    return TableState(name, rows, first, last, last_final, unfinished, untold)
