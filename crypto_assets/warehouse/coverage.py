"""Which days are there: derived from the stored rows and the gaps, never from what Dagster ran."""

from datetime import date, datetime

from crypto_assets.periods import DAY, days
from crypto_assets.tables import Table, partitioned
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.warehouse import Warehouse

_SETTLED = f"""
SELECT table_name, date FROM coverage WHERE is_final
UNION
SELECT table_name, day FROM ({gap_days_sql()}) AS absent
WHERE state = 'no_data_at_provider' AND NOT EXISTS (
    FROM coverage WHERE coverage.table_name = absent.table_name AND coverage.date = absent.day)
"""


def unfinished_days(warehouse: Warehouse, first: date, now: datetime) -> list[date]:
    """Return the days from `first` on that some table lacks, or has not as new as could be.

    A closed day is finished once its rows are final or its providers have none; the running day
    once its market snapshot was taken at `now` or later.
    """
    with warehouse.session("looking for unfinished days") as connection:
        settled = set(connection.execute(_SETTLED).fetchall())
        row = connection.execute(
            "SELECT max(observed_at) FROM market_caps WHERE date = ?", [now.date()]
        ).fetchone()
    left = {
        day
        for table in partitioned()
        for day in days(first, _last_due_day(table, now))
        if (table.name, day) not in settled
    }
    snapshot_at = row[0] if row else None
    if snapshot_at is None or snapshot_at < now:
        left.add(now.date())
    return sorted(left)


def _last_due_day(table: Table, now: datetime) -> date:
    """Return the last day whose final values can be had by now."""
    return (now - table.ready_after).date() - DAY
