"""Which days are there: derived from the stored rows and the gaps, never from what Dagster ran."""

from datetime import date, datetime

import duckdb

from crypto_assets.periods import DAY, days
from crypto_assets.tables import TABLES, Table, partitioned
from crypto_assets.warehouse.warehouse import Warehouse


def unfinished_days(warehouse: Warehouse, first: date, now: datetime) -> list[date]:
    """Return the days from `first` on that some table could have more of if asked at `now`.

    A closed day is done once it is final, or was asked for at `now` already, as in a home whose
    clock stands still; in a calculated table once it is there, since `staleness` tells the rest.
    """
    with warehouse.session("looking for unfinished days") as connection:
        done = {
            (table, day)
            for table, day, is_final, asked_at in connection.execute(
                "SELECT table_name, date, is_final, asked_at FROM coverage"
            ).fetchall()
            if is_final or TABLES[table].derived or (asked_at and asked_at >= now)
        }
        row = connection.execute(
            "SELECT max(observed_at) FROM market_caps WHERE date = ?", [now.date()]
        ).fetchone()
    left = {
        day
        for table in partitioned()
        for day in due_days(table, first, now)
        if (table.name, day) not in done
    }
    snapshot_at = row[0] if row else None
    if snapshot_at is None or snapshot_at < now:
        left.add(now.date())
    return sorted(left)


def told_days(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[date, bool]]:
    """Return, by table, the days of which it tells something, and whether each is final."""
    told: dict[str, dict[date, bool]] = {table.name: {} for table in partitioned()}
    for table, day, is_final in connection.execute(
        "SELECT table_name, date, is_final FROM coverage"
    ).fetchall():
        told[table][day] = is_final
    return told


def due_days(table: Table, first: date, now: datetime) -> list[date]:
    """Return the closed days from `first` on that a table should have by now."""
    return list(days(first, _last_due(table, now)))


def _last_due(table: Table, now: datetime) -> date:
    return (now - table.ready_after).date() - DAY
