"""What should be in a table and is not: exceptions only, as intervals of days.

Here belongs keeping the `gaps` table. Whether an absence is the provider's or ours is for the
caller to say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Literal

import duckdb
import pandas as pd

from crypto_assets.periods import wall_now
from crypto_assets.tables import Table
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of, within

GapState = Literal["missing", "no_data_at_provider", "approximate"]


@dataclass(frozen=True, slots=True)
class Gap:
    """One series that has no row on one day, or an approximate one, and why."""

    series: str
    day: date
    state: GapState
    reason: str


@dataclass(frozen=True)
class Inspection:
    """Which days were looked for, by series, which of them are not there, and when that was."""

    days: Mapping[str, Sequence[date]]
    gaps: Sequence[Gap] = ()
    checked_at: datetime | None = None


def gap_days_sql() -> str:
    """Return a query of all gaps by day: table_name, series, day, state, reason, checked_at."""
    return """SELECT table_name, series, CAST(unnest(range(
        CAST(first_day AS TIMESTAMP), CAST(last_day AS TIMESTAMP) + INTERVAL 1 DAY,
        INTERVAL 1 DAY)) AS DATE) AS day, state, reason, checked_at FROM gaps"""


def record(connection: duckdb.DuckDBPyConnection, table_name: str, found: Inspection) -> None:
    """Replace what is known of the inspected days, inside the caller's transaction.

    Gaps of other series and days stay; neighbouring days with one reason become one interval.
    """
    inspected = pd.DataFrame(
        [(series, day) for series, days in found.days.items() for day in days],
        columns=["series", "day"],
    ).astype({"series": "object", "day": "datetime64[ns]"})
    gaps = pd.DataFrame(
        [(gap.series, gap.day, gap.state, gap.reason) for gap in found.gaps],
        columns=["series", "day", "state", "reason"],
    ).astype({"series": "object", "day": "datetime64[ns]"})
    connection.register("inspected", inspected)
    connection.register("found_gaps", gaps)
    try:
        connection.execute(
            f"""CREATE OR REPLACE TEMP TABLE gap_days AS
            SELECT known.* EXCLUDE (table_name) FROM ({gap_days_sql()}) AS known
            ANTI JOIN inspected
            ON inspected.series = known.series AND CAST(inspected.day AS DATE) = known.day
            WHERE known.table_name = $table AND series IN (SELECT series FROM inspected)
            UNION ALL BY NAME
            SELECT series::VARCHAR AS series, CAST(day AS DATE) AS day, state::VARCHAR AS state,
                reason::VARCHAR AS reason, $now::TIMESTAMP AS checked_at FROM found_gaps""",
            {"table": table_name, "now": found.checked_at or wall_now()},
        )
        connection.execute(
            "DELETE FROM gaps WHERE table_name = ? AND series IN (SELECT series FROM inspected)",
            [table_name],
        )
        connection.execute(
            """INSERT INTO gaps BY NAME
            SELECT ? AS table_name, series, min(day) AS first_day, max(day) AS last_day,
                state, reason, max(checked_at) AS checked_at
            FROM (SELECT *, day - CAST(row_number() OVER (
                PARTITION BY series, state, reason ORDER BY day) AS INTEGER) AS island
                FROM gap_days)
            GROUP BY series, state, reason, island ORDER BY ALL""",
            [table_name],
        )
        connection.execute("DROP TABLE gap_days")
    finally:
        connection.unregister("inspected")
        connection.unregister("found_gaps")


def without_whole_days(
    connection: duckdb.DuckDBPyConnection, table: Table, found: Inspection
) -> Inspection:
    """Leave out gaps of days that are stored whole and final, from more answers than this one."""
    if table.series_column is None or not any(gap.state == "missing" for gap in found.gaps):
        return found
    series = sorted({gap.series for gap in found.gaps})
    rows = connection.execute(
        f"SELECT {quoted(table.series_column)}, {day_of(table)} AS day FROM {quoted(table.name)} "
        f"WHERE {within(table, '$first', '$last')} "
        f"AND list_contains($series, {quoted(table.series_column)}) "
        f"GROUP BY ALL HAVING bool_and(is_final) AND count(*) >= {table.rows_a_day}",
        {
            "series": series,
            "first": min(gap.day for gap in found.gaps),
            "last": max(gap.day for gap in found.gaps),
        },
    ).fetchall()
    whole = set(rows)
    left = [g for g in found.gaps if g.state != "missing" or (g.series, g.day) not in whole]
    return replace(found, gaps=left)
