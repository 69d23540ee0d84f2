"""Which days are there: derived from the stored rows and the gaps, never from what Dagster ran."""

from datetime import date, datetime

import duckdb

from crypto_assets.periods import DAY, days
from crypto_assets.tables import Table, partitioned
from crypto_assets.warehouse.warehouse import Warehouse


def unfinished_days(warehouse: Warehouse, first: date, now: datetime) -> list[date]:
    """Return the days from `first` on that some table lacks, or has not as new as could be.

    A closed day is finished once it is final in every table; the running day once its market
    snapshot was taken at `now` or later.
    """
    with warehouse.session("looking for unfinished days") as connection:
        left = {
            day
            for table in partitioned()
            for day in unfinished_closed_days(connection, table, first, now)
        }
        row = connection.execute(
            "SELECT max(observed_at) FROM market_caps WHERE date = ?", [now.date()]
        ).fetchone()
    snapshot_at = row[0] if row else None
    if snapshot_at is None or snapshot_at < now:
        left.add(now.date())
    return sorted(left)


def unfinished_closed_days(
    connection: duckdb.DuckDBPyConnection, table: Table, first: date, now: datetime
) -> list[date]:
    """Return the closed days from `first` on that are due and not final in a table."""
    rows = connection.execute(
        "SELECT date FROM coverage WHERE table_name = ? AND is_final", [table.name]
    ).fetchall()
    final = {day for (day,) in rows}
    last_due = (now - table.ready_after).date() - DAY
    return [day for day in days(first, last_due) if day not in final]
