"""Which days of a calculated table were computed before something they depend on changed.

Told by the rows themselves (`materialized_at`), so a killed or forgotten run loses nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from crypto_assets.periods import close_of, wall_now
from crypto_assets.tables import EMA_SIGNALS, TABLES, Table, partitioned
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of
from crypto_assets.warehouse.warehouse import Warehouse

SpanPairs = Sequence[tuple[int, int]]

ALL_HISTORY = 100 * 365
# The schedules fill a day until two hours after its close; before that nothing is overdue.
SETTLING = timedelta(hours=2)


_OTHER_PAIRS = """
SELECT date AS day FROM (SELECT DISTINCT date, fast_span, slow_span FROM ema_signals)
GROUP BY date HAVING list_sort(list(concat(fast_span, '/', slow_span))) <> $pairs
"""


@dataclass(frozen=True)
class Input:
    """A table another one is computed from, and how many days back it looks."""

    table: Table
    look_back_days: int = 0
    makes_rows: str = "true"
    """Which of its rows lead to rows of the calculated table (SQL)."""


# The first input of each table brings its rows: a day it has and the table has not is stale too.
INPUTS: dict[str, tuple[Input, ...]] = {
    "ranks": (Input(TABLES["market_caps"], 7, "market_cap_usd IS NOT NULL"),),
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


@dataclass(frozen=True)
class Recalculation:
    """Calculated tables to compute again, on days [first, last]."""

    tables: tuple[str, ...]
    first: date
    last: date
    newest_input_at: datetime | None


def recalculation(
    warehouse: Warehouse, now: datetime, span_pairs: SpanPairs
) -> Recalculation | None:
    """Return what has to be computed again, with all that follows from it; None if nothing."""
    with warehouse.session("looking for stale days"):
        stale = stale_days(warehouse, now, span_pairs)
        days = sorted(day for of_table in stale.values() for day in of_table)
        if not days:
            return None
        newest_input_at = _newest_input(warehouse)
    tables = list(stale)
    for name, inputs in INPUTS.items():
        if name not in tables and any(needed.table.name in tables for needed in inputs):
            tables.append(name)
    return Recalculation(tuple(tables), days[0], days[-1], newest_input_at)


def stale_days(
    warehouse: Warehouse, now: datetime, span_pairs: SpanPairs | None = None
) -> dict[str, list[date]]:
    """Return, by calculated table, the closed days to compute again, ascending.

    A day is stale when something it is made of changed after it was computed, when it was never
    computed, when it is not final though all it is made of is, or when its signals are not those
    of `span_pairs`.
    """
    found = {}
    with warehouse.session("looking for stale days") as connection:
        for name, inputs in INPUTS.items():
            table = TABLES[name]
            parts = [_changed_since_sql(table, needed) for needed in inputs]
            parts += [_never_made_sql(table, inputs[0]), _finalised_sql(table, inputs)]
            values: dict[str, object] = {"wall": wall_now()}
            if table is EMA_SIGNALS and span_pairs:
                parts.append(_OTHER_PAIRS)
                values["pairs"] = sorted(f"{fast}/{slow}" for fast, slow in span_pairs)
            rows = connection.execute(f"{' UNION '.join(parts)} ORDER BY 1", values).fetchall()
            settled = [day for (day,) in rows if close_of(day) + SETTLING <= now]
            if settled:
                found[name] = settled
    return found


def _newest_input(warehouse: Warehouse) -> datetime | None:
    """Return when a provider's rows last changed."""
    told = " UNION ALL ".join(
        f"SELECT max(materialized_at) AS changed_at FROM {quoted(table.name)}"
        for table in partitioned()
        if not table.derived
    )
    with warehouse.session("looking for stale days") as connection:
        row = connection.execute(f"SELECT max(changed_at) FROM ({told})").fetchone()
    return row[0] if row else None


def impatient(warehouse: Warehouse) -> Warehouse:
    """Return the same warehouse for a caller that would rather not wait for a running write."""
    return replace(warehouse, lock_timeout_seconds=1.0)


def _changed_since_sql(table: Table, needed: Input) -> str:
    # A stamp from the future tells of a clock that was set back; it would never be overtaken.
    return (
        f"SELECT made.day FROM ({_by_day(table, 'min', 'made_at')}) AS made "
        f"JOIN ({_by_day(needed.table, 'max', 'changed_at')}) AS changed "
        f"ON changed.day BETWEEN made.day - {needed.look_back_days} AND made.day "
        "AND changed.changed_at > made.made_at AND changed.changed_at <= $wall"
    )


def _never_made_sql(table: Table, needed: Input) -> str:
    return (
        f"SELECT day FROM (SELECT DISTINCT {day_of(needed.table)} AS day "
        f"FROM {quoted(needed.table.name)} WHERE {needed.makes_rows} "
        f"EXCEPT SELECT DISTINCT {day_of(table)} FROM {quoted(table.name)})"
    )


def _finalised_sql(table: Table, inputs: Sequence[Input]) -> str:
    names = ", ".join(f"'{needed.table.name}'" for needed in inputs)
    return (
        "SELECT made.date AS day FROM coverage AS made JOIN coverage AS needed USING (date) "
        f"WHERE made.table_name = '{table.name}' AND NOT made.is_final "
        f"AND needed.table_name IN ({names}) AND needed.is_final "
        f"GROUP BY made.date HAVING count(*) = {len(inputs)}"
    )


def _by_day(table: Table, aggregate: str, name: str) -> str:
    return (
        f"SELECT {day_of(table)} AS day, {aggregate}(materialized_at) AS {name} "
        f"FROM {quoted(table.name)} GROUP BY ALL"
    )
