"""Which days of a calculated table were computed before something they depend on changed.

Told by the rows themselves (`materialized_at`), so a killed or forgotten run loses nothing.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from crypto_assets.periods import close_of
from crypto_assets.tables import TABLES, Table
from crypto_assets.warehouse.schema import day_of
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.warehouse import Warehouse

ALL_HISTORY = 100 * 365
# The schedules fill a day until two hours after its close; before that nothing is overdue.
SETTLING = timedelta(hours=2)


@dataclass(frozen=True)
class Input:
    """A table another one is computed from, and how many days back it looks."""

    table: Table
    look_back_days: int = 0


# The first input of each table brings its rows: a day it has and the table has not is stale too.
INPUTS: dict[str, tuple[Input, ...]] = {
    "ranks": (Input(TABLES["market_caps"], 7),),
    "ema_signals": (Input(TABLES["ranks"]), Input(TABLES["market_caps"], ALL_HISTORY)),
    "daily_snapshot": (
        Input(TABLES["market_caps"], 8),
        Input(TABLES["ranks"]),
        Input(TABLES["ema_signals"]),
        Input(TABLES["ohlc_hourly"]),
        Input(TABLES["ohlc_daily"]),
        Input(TABLES["fear_greed"]),
        Input(TABLES["etf_flows"]),
    ),
}


def stale_days(warehouse: Warehouse, now: datetime) -> dict[str, list[date]]:
    """Return, by calculated table, the closed days to compute again, ascending."""
    found = {}
    with warehouse.session("looking for stale days") as connection:
        for name, inputs in INPUTS.items():
            sql = " UNION ".join(
                _stale_sql(TABLES[name], needed, is_first=place == 0)
                for place, needed in enumerate(inputs)
            )
            days = [row[0] for row in connection.execute(f"{sql} ORDER BY 1").fetchall()]
            settled = [day for day in days if close_of(day) + SETTLING <= now]
            if settled:
                found[name] = settled
    return found


def impatient(warehouse: Warehouse) -> Warehouse:
    """Return the same warehouse for a caller that would rather not wait for a running write."""
    return replace(warehouse, lock_timeout_seconds=1.0)


def _stale_sql(table: Table, needed: Input, *, is_first: bool) -> str:
    made = (
        f"SELECT {day_of(table)} AS day, min(materialized_at) AS made_at "
        f"FROM {quoted(table.name)} GROUP BY ALL"
    )
    changed = (
        f"SELECT {day_of(needed.table)} AS day, max(materialized_at) AS changed_at "
        f"FROM {quoted(needed.table.name)} GROUP BY ALL"
    )
    stale = (
        f"SELECT made.day FROM ({made}) AS made JOIN ({changed}) AS changed "
        f"ON changed.day BETWEEN made.day - {needed.look_back_days} AND made.day "
        "AND changed.changed_at > made.made_at"
    )
    never_made = f"SELECT day FROM ({changed}) WHERE day NOT IN (SELECT day FROM ({made}))"
    return f"{stale} UNION {never_made}" if is_first else stale
