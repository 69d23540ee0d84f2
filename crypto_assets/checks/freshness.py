"""How far each table should reach at a time of day: told by the schedules, compared with the rows.

What was materialized when says nothing here: an old day filled again makes no table fresh.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import dagster as dg
import duckdb

from crypto_assets.periods import DAY, HOUR, is_weekend, midnight
from crypto_assets.settings import Settings, ticks
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.session import quoted

FRESH = "is_fresh"
"""Name of the check that tells whether a table reaches as far as it should."""
FRESH_DESCRIPTION = "The rows reach as far as the schedules should have brought them by now."
# An answer of shortly before a tick may serve it.
_REUSE = timedelta(minutes=10)
# Longer than any pause between two ticks of a month.
_HORIZON_DAYS = 70


@dataclass(frozen=True)
class Freshness:
    """How far a table reaches (UTC), and how far it should by now, if anything is due."""

    table: str
    reaches: datetime | None
    wanted: datetime | None = None

    @property
    def is_late(self) -> bool:
        """Whether something should be there and is not."""
        return self.wanted is not None and (self.reaches is None or self.reaches < self.wanted)

    def __str__(self) -> str:
        reaches = f"{self.reaches:%Y-%m-%d %H:%M}" if self.reaches else "nowhere"
        if self.wanted is None:
            return f"reaches {reaches}; nothing is due"
        return f"reaches {reaches}, due is {self.wanted:%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True)
class _Demand:
    """Which schedule fills a table, how far a tick takes it, and what tells how far it got."""

    schedule: str
    reaches: str
    """SQL of one TIMESTAMP; `$day`, where it has one, is the day of the tick."""
    wanted: Callable[[datetime], datetime]
    first_of_day: bool = False
    """Only the first tick of a day fills it."""


def _of_running_day(table: str) -> _Demand:
    sql = f"SELECT max(observed_at) FROM {quoted(table)} WHERE date >= $day"
    return _Demand("market_refresh", sql, lambda tick: tick - _REUSE)


def _of_closed_day(table: str) -> _Demand:
    # What was seen of a day while it ran is not its close.
    sql = (
        f"SELECT CAST(max(date) + 1 AS TIMESTAMP) FROM {quoted(table)} "
        "WHERE observed_at >= date + INTERVAL 1 DAY"
    )
    return _Demand("daily_close", sql, lambda tick: midnight(tick.date()))


_DEMANDS: dict[str, _Demand] = {
    "coin_list": _Demand(
        "market_refresh",
        "SELECT max(last_seen_at) FROM coin_list",
        lambda tick: tick - _REUSE,
        first_of_day=True,
    ),
    "market_caps": _of_running_day("market_caps"),
    "ranks": _of_running_day("ranks"),
    "ema_signals": _of_running_day("ema_signals"),
    "ohlc_hourly": _Demand(
        "hourly_candles",
        # What was seen of an hour while it ran is not its candle.
        "SELECT max(open_time) + INTERVAL 1 HOUR FROM ohlc_hourly "
        "WHERE observed_at >= open_time + INTERVAL 1 HOUR",
        # The providers' own copies of candles are half an hour old at times.
        lambda tick: tick.replace(minute=0) - HOUR,
    ),
    "ohlc_daily": _of_closed_day("ohlc_daily"),
    "fear_greed": _Demand(
        "fear_greed",
        "SELECT CAST(max(date) AS TIMESTAMP) FROM fear_greed",
        lambda tick: midnight(tick.date()),
    ),
    "etf_flows": _Demand(
        "etf_flows",
        # A day on which nobody reports is told like one; weekends are known without asking.
        # The asset that is furthest behind counts.
        "SELECT CAST(min(newest) AS TIMESTAMP) FROM (SELECT asset, max(date) AS newest FROM ("
        "SELECT asset, date FROM etf_flows UNION ALL "
        f"SELECT series, day FROM ({gap_days_sql()}) WHERE table_name = 'etf_flows' "
        "AND state = 'no_data_at_provider' AND reason <> 'weekend') "
        "GROUP BY asset HAVING asset IN (SELECT asset FROM etf_flows))",
        # One trading day of patience: a holiday shows only when a later day is there.
        lambda tick: midnight(_trading_days_before(tick.date(), 2)),
    ),
    "daily_snapshot": _of_closed_day("daily_snapshot"),
}


def freshness(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    now: datetime,
    tables: Iterable[str] = TABLES,
) -> dict[str, Freshness]:
    """Return, by table, how far it reaches and how far it should at `now`.

    Nothing is due where the schedules are off, and what was due before the home saw its first
    prices is not asked for.
    """
    row = connection.execute("SELECT min(observed_at) FROM market_caps").fetchone()
    began = row[0] if row else None
    latest = now - timedelta(minutes=settings.freshness.grace_minutes)
    found = {}
    for table in tables:
        demand = _DEMANDS[table]
        cron = settings.schedules.cron(demand.schedule)
        tick = last_tick(cron, latest, first_of_day=demand.first_of_day)
        day = tick.date() if tick else now.date()
        values = {"day": day} if "$day" in demand.reaches else {}
        told = connection.execute(demand.reaches, values).fetchone()
        reaches = told[0] if told else None
        is_due = settings.schedules.enabled and tick and began and tick >= began
        found[table] = (
            Freshness(table, reaches, demand.wanted(tick))
            if tick and is_due
            else Freshness(table, reaches)
        )
    return found


def freshness_result(fresh: Freshness) -> dg.AssetCheckResult:
    """Return what the check of a table's freshness says; it warns, since old rows are not wrong."""
    return dg.AssetCheckResult(
        passed=not fresh.is_late,
        check_name=FRESH,
        asset_key=fresh.table,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"told": f"{fresh.table} {fresh}"},
    )


def last_tick(cron: str, until: datetime, *, first_of_day: bool = False) -> datetime | None:
    """Return when a cron expression (UTC) last fired, `until` included; only the first of a day."""
    for back in range(_HORIZON_DAYS):
        of_day = ticks(cron, until.date() - back * DAY)
        fired = [at for at in (of_day[:1] if first_of_day else of_day) if at <= until]
        if fired:
            return fired[-1]
    return None


def freshness_policies(settings: Settings) -> Mapping[str, dg.FreshnessPolicy]:
    """Return, by table, how old its last materialization may get, as the Dagster UI shows it.

    Empty where the schedules are off: nothing is due then.
    """
    if not settings.schedules.enabled:
        return {}
    grace = timedelta(minutes=settings.freshness.grace_minutes)
    today = settings.clock.today()
    pauses = {
        table: _longest_pause(settings.schedules.cron(demand.schedule), today, demand.first_of_day)
        for table, demand in _DEMANDS.items()
    }
    return {
        table: dg.FreshnessPolicy.time_window(fail_window=pause + grace)
        for table, pause in pauses.items()
    }


@lru_cache(maxsize=64)
def _longest_pause(cron: str, today: date, first_of_day: bool) -> timedelta:
    fired = [
        at
        for ahead in range(_HORIZON_DAYS)
        for at in ticks(cron, today + ahead * DAY)[: 1 if first_of_day else None]
    ]
    pauses = [later - earlier for earlier, later in pairwise(fired)]
    return max(pauses, default=_HORIZON_DAYS * DAY)


def _trading_days_before(day: date, count: int) -> date:
    """Return the weekday that lies `count` weekdays before a day."""
    while count:
        day -= DAY
        count -= not is_weekend(day)
    return day
