"""What is missing or not final is asked for again: newest first, within the budget, not for ever.

Told by the stored rows and gaps, so that it does not matter how they came to be missing.
"""

import calendar
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.assets.planning import fetch_plan
from crypto_assets.assets.platform import Platform
from crypto_assets.automation import jobs
from crypto_assets.automation.schedules import range_tags
from crypto_assets.checks.freshness import freshness
from crypto_assets.monitoring.attempts import Attempts, Memory, Place
from crypto_assets.monitoring.runs import BY_HAND, unfinished_runs
from crypto_assets.periods import DAY, days, midnight
from crypto_assets.providers import coingecko, routes
from crypto_assets.settings import Settings
from crypto_assets.tables import COIN_LIST, TABLES, Table, partitioned
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules import DOUBTED
from crypto_assets.warehouse.staleness import SETTLING, impatient

if TYPE_CHECKING:
    from crypto_assets.automation.jobs import AssetJob

# While one of these runs, what seems to be missing may be just coming.
_BRINGING = frozenset(
    {
        *(jobs.DAILY_CLOSE.name, jobs.ETF_FLOWS.name, jobs.RESTATEMENTS.name, jobs.HEALING.name),
        *BY_HAND,
    }
)
_FIRST_PAUSE = timedelta(hours=1)
_LONGEST_PAUSE = timedelta(hours=24)
# Tables whose provider counts credits.
_COSTING = frozenset({COIN_LIST.name, *routes.ROUTES})


@dataclass(frozen=True)
class Wanted:
    """What a run should ask for: days [first, last] of some tables, and what of them is needed."""

    first: date
    last: date
    tables: tuple[str, ...]
    places: tuple[Place, ...]


def build_healing_sensor(settings: Settings, job: "AssetJob") -> dg.SensorDefinition:
    """Return the sensor that asks for what is missing."""
    is_on = settings.schedules.enabled and settings.healing.enabled

    @dg.sensor(
        name="healing",
        job=job,
        description="Asks again for what is missing or not final, newest first, within the budget.",
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
    )
    def healing_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = [run for run in unfinished_runs(context.instance) if run.job in _BRINGING]
        if busy:
            return dg.SkipReason(f"A run of {busy[0].job} has not ended.")
        return request_for_missing_days(settings)

    return healing_sensor


def request_for_missing_days(settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Return one run for the newest days that are due to be asked for, or why there is none."""
    with closing(Platform(settings)) as platform, closing(Memory(settings.home)) as memory:
        if not platform.warehouse.path.exists():
            return dg.SkipReason("Nothing is stored yet: the first refresh comes first.")
        now = platform.clock.now()
        platform.warehouse = impatient(platform.warehouse)
        try:
            asked_at = needed_places(platform, now)
            known = _settled(memory, asked_at, settings.healing.tries)
            due = [place for place, at in asked_at.items() if _is_due(known.get(place), at, now)]
            if not due:
                return dg.SkipReason(
                    f"Nothing is due; {len(asked_at)} day(s) wait or were given up."
                )
            wanted = _affordable(platform, due, now)
        except WarehouseError as error:
            return dg.SkipReason(str(error))
        if isinstance(wanted, str):
            return dg.SkipReason(wanted)
        # What nobody answered was no try.
        memory.settle(
            [p for p in wanted.places if p in known and not _was_answered(known[p], asked_at[p])],
            given_up=(),
        )
        memory.note(wanted.places, now)
    return dg.RunRequest(
        run_key=f"{wanted.first} {wanted.last} {wanted.tables} {now:%Y-%m-%d %H:%M:%S}",
        asset_selection=[dg.AssetKey(name) for name in wanted.tables],
        tags=range_tags(wanted.first, wanted.last),
    )


def needed_places(platform: Platform, now: datetime) -> dict[Place, datetime | None]:
    """Return the days of fetched tables that lack something they could have by now.

    With each comes when the provider last told something of it. A day that other rows contradict
    lacks the provider's last word. A day is left to the schedules until they had their turn. What
    the plan does not reach, or the provider has not, is not there.
    """
    with platform.warehouse.session("looking for missing days") as connection:
        told = {
            (table, day): (is_final, asked_at)
            for table, day, is_final, asked_at in connection.execute(
                "SELECT table_name, date, is_final, asked_at FROM coverage"
            ).fetchall()
        }
        approximate = set(
            connection.execute(
                f"SELECT table_name, day FROM ({gap_days_sql()}) WHERE state = 'approximate'"
            ).fetchall()
        )
        ever = {"first": platform.settings.history.start, "last": now.date()}
        doubted = {
            (name, day)
            for name, sql in DOUBTED.items()
            for _, day in connection.execute(sql, ever).fetchall()
        }
        # No later day would bring it by itself.
        (the_list,) = freshness(connection, platform.settings, now, [COIN_LIST.name]).values()
    found: dict[Place, datetime | None] = {}
    for table in partitioned():
        if table.derived:
            continue
        exact_from = _exact_from(platform, table)
        for day in days(*_reach(platform, table, now)):
            place = table.name, day
            is_final, asked_at = told.get(place, (False, None))
            can_be_exact = place in approximate and exact_from and day >= exact_from
            if not is_final or can_be_exact:
                found[place] = asked_at
            elif place in doubted:
                # Rows that are confirmed do not change, so that each asking has to count.
                found[place] = now
    if the_list.is_late:
        found[COIN_LIST.name, now.date()] = None
    return found


def _reach(platform: Platform, table: Table, now: datetime) -> tuple[date, date]:
    """Return the first and last day that can be had, and is not the schedules' to bring."""
    first = platform.settings.history.start
    if table.name in routes.ROUTES:
        first = max(first, routes.reachable_from(table.name, platform.plan, now))
    return first, (now - table.ready_after - SETTLING).date() - DAY


def _exact_from(platform: Platform, table: Table) -> date | None:
    if not table.has_exactness:
        return None
    return routes.exact_from(table.name, platform.plan)


def _settled(
    memory: Memory, asked_at: Mapping[Place, datetime | None], tries: int
) -> dict[Place, Attempts]:
    """Bring the memory up to date and return it: healed days go, hopeless ones are marked."""
    known = memory.all()
    healed = [place for place in known if place not in asked_at]
    hopeless = [
        place
        for place, attempts in known.items()
        if place in asked_at
        and attempts.tries >= tries
        and _was_answered(attempts, asked_at[place])
    ]
    memory.settle(healed, hopeless)
    return {
        place: replace(attempts, is_given_up=attempts.is_given_up or place in hopeless)
        for place, attempts in known.items()
        if place in asked_at
    }


def _was_answered(attempts: Attempts, asked_at: datetime | None) -> bool:
    """Tell whether the provider was in reach at all since: an outage says nothing of its data."""
    return asked_at is not None and asked_at >= attempts.first_at


def _is_due(known: Attempts | None, asked_at: datetime | None, now: datetime) -> bool:
    """Tell whether to ask now: at once, then after 1, 2, 4… hours, at most 24.

    Where nobody answered, after an hour: an outage may be over.
    """
    if known is None:
        return True
    if known.is_given_up:
        return False
    doublings = min(known.tries - 1, 10) if _was_answered(known, asked_at) else 0
    pause = min(_FIRST_PAUSE * 2**doublings, _LONGEST_PAUSE)
    # A clock that was set back must not stop it for good.
    return not timedelta(0) <= now - known.last_at < pause


def _affordable(platform: Platform, due: Sequence[Place], now: datetime) -> Wanted | str:
    """Return what to ask for: the newest days, or day, or what costs nothing; else why not."""
    days_a_run = platform.settings.healing.days_a_run
    reasons = []
    for at_once in (days_a_run, 1):
        wanted = _newest(due, at_once)
        too_dear = _beyond_pace(platform, wanted, now)
        if too_dear is None:
            return wanted
        reasons.append(too_dear)
    free = [place for place in due if place[0] not in _COSTING]
    return _newest(free, days_a_run) if free else reasons[0]


def _newest(due: Sequence[Place], days_a_run: int) -> Wanted:
    last = max(day for _, day in due)
    within = tuple(place for place in due if place[1] > last - days_a_run * DAY)
    first = min(day for _, day in within)
    named = {table for table, _ in within}
    return Wanted(first, last, tuple(name for name in TABLES if name in named), within)


def _beyond_pace(platform: Platform, wanted: Wanted, now: datetime) -> str | None:
    """Return why the run would take credits that the schedules need; else None.

    The month's credits are for all of it alike; healing takes what was left of the time gone by.
    """
    limit = platform.plan.credits_per_month
    if limit is None:
        return None
    cost = fetch_plan(platform, wanted.tables, wanted.first, wanted.last, now).credits
    used = platform.usage.month(coingecko.PROVIDER, now.date()).credits
    begin = midnight(now.date().replace(day=1))
    month = timedelta(days=calendar.monthrange(now.year, now.month)[1])
    pace = int(limit * ((now - begin) / month))
    if not cost or used + cost <= pace:
        return None
    return (
        f"Healing {wanted.first} to {wanted.last} takes {cost:,} credits; {used:,} are used and "
        f"by now {pace:,} of the month's {limit:,} may be."
    )
