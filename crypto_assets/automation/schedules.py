"""When the jobs run, and for which days. Cron expressions come from the settings, in UTC."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.assets.resource import RECHECK_TAG
from crypto_assets.automation import jobs
from crypto_assets.periods import DAY
from crypto_assets.settings import RestatementSettings, Settings, ticks
from crypto_assets.warehouse.io_manager import RANGE_TAGS

if TYPE_CHECKING:
    from crypto_assets.automation.jobs import AssetJob

# A machine that was off for a holiday week catches up by itself.
CATCH_UP_DAYS = 7
# Four weeks of trading days, and one for the holidays around the turn of the year.
_ETF_LOOK_BACK = timedelta(days=35)


@dataclass(frozen=True)
class Tick:
    """What one tick of a schedule asks for: days [first, last] of some tables of its job."""

    first: date
    last: date
    tables: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)


def market_tick(at: datetime, cron: str) -> Tick:
    """Ask for the running day, in its first hour also for the day that closed.

    The first tick of a day brings the list of coins too.
    """
    first = at.date() - DAY if at.hour == 0 else at.date()
    tables = jobs.MARKET_REFRESH.tables
    if at != ticks(cron, at.date())[0]:
        tables = tuple(table for table in tables if table != "coin_list")
    return Tick(first, at.date(), tables)


def hourly_candles_tick(at: datetime) -> Tick:
    """Ask for the running day; in the first hours also for the last hours of the day before."""
    first = at.date() - DAY if at.hour < 2 else at.date()
    return Tick(first, at.date(), jobs.HOURLY_CANDLES.tables)


def fear_greed_tick(at: datetime) -> Tick:
    """Ask for today, and for the days before, which are final now; one call brings them all."""
    return Tick(at.date() - CATCH_UP_DAYS * DAY, at.date(), jobs.FEAR_GREED.tables)


def daily_close_tick(at: datetime) -> Tick:
    """Ask for yesterday, and for what the days before still lack; final days cost no call."""
    return Tick(at.date() - CATCH_UP_DAYS * DAY, at.date() - DAY, jobs.DAILY_CLOSE.tables)


def restatements_tick(at: datetime, look: RestatementSettings) -> Tick:
    """Ask for the last months, of no table where no coin is to be looked at; the day says which."""
    tags = {RECHECK_TAG: at.date().isoformat()}
    tables = jobs.RESTATEMENTS.tables if look.coins_a_day else ()
    return Tick(at.date() - look.days * DAY, at.date() - DAY, tables, tags)


def etf_flows_tick(at: datetime) -> Tick:
    """Ask for yesterday and all days that may still be revised."""
    return Tick(at.date() - _ETF_LOOK_BACK, at.date() - DAY, jobs.ETF_FLOWS.tables)


def _ticks(settings: Settings) -> dict[str, tuple[jobs.Refresh, Callable[[datetime], Tick]]]:
    return {
        "market_refresh": (
            jobs.MARKET_REFRESH,
            partial(market_tick, cron=settings.schedules.market_refresh),
        ),
        "hourly_candles": (jobs.HOURLY_CANDLES, hourly_candles_tick),
        "fear_greed": (jobs.FEAR_GREED, fear_greed_tick),
        "daily_close": (jobs.DAILY_CLOSE, daily_close_tick),
        "etf_flows": (jobs.ETF_FLOWS, etf_flows_tick),
        "restatements": (
            jobs.RESTATEMENTS,
            partial(restatements_tick, look=settings.restatements),
        ),
    }


def build_schedules(
    settings: Settings, by_name: "Mapping[str, AssetJob]"
) -> list[dg.ScheduleDefinition]:
    """Return one schedule for each cron expression in the settings."""
    return [
        _schedule(name, by_name[refresh.name], settings, tick)
        for name, (refresh, tick) in _ticks(settings).items()
    ]


def build_upkeep_schedules(
    settings: Settings, by_name: "Mapping[str, dg.JobDefinition]"
) -> list[dg.ScheduleDefinition]:
    """Return when the jobs without days run: each by the setting of its name."""
    return [
        dg.ScheduleDefinition(
            name=f"{name}_schedule",
            job=job,
            cron_schedule=settings.schedules.cron(name),
            execution_timezone="UTC",
            description=job.description,
            default_status=_default_status(settings),
        )
        for name, job in by_name.items()
    ]


def scheduled_ticks(settings: Settings) -> list[tuple[str, Callable[[datetime], Tick]]]:
    """Return each schedule's cron expression and what its ticks ask for."""
    return [(settings.schedules.cron(name), tick) for name, (_, tick) in _ticks(settings).items()]


def range_tags(first: date, last: date) -> dict[str, str]:
    """Return the run tags that ask Dagster for a range of partitions in one run."""
    return dict(zip(RANGE_TAGS, (first.isoformat(), last.isoformat()), strict=True))


def _schedule(
    name: str, job: "AssetJob", settings: Settings, tick: Callable[[datetime], Tick]
) -> dg.ScheduleDefinition:
    def request(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC).replace(tzinfo=None)
        asked = tick(at)
        if not asked.tables:
            return dg.SkipReason("The settings ask for nothing: restatements.coins_a_day is 0.")
        first = max(asked.first, settings.history.start)
        if first > asked.last:
            return dg.SkipReason(f"{asked.last} lies before the first day of this home, {first}.")
        return dg.RunRequest(
            asset_selection=[dg.AssetKey(table) for table in asked.tables],
            tags={**range_tags(first, asked.last), **asked.tags},
        )

    return dg.ScheduleDefinition(
        name=f"{job.name}_schedule",
        job=job,
        cron_schedule=settings.schedules.cron(name),
        execution_timezone="UTC",
        execution_fn=request,
        description=job.description,
        default_status=_default_status(settings),
    )


def _default_status(settings: Settings) -> dg.DefaultScheduleStatus:
    statuses = dg.DefaultScheduleStatus
    return statuses.RUNNING if settings.schedules.enabled else statuses.STOPPED
