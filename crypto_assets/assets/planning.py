"""What filling tables for some days would ask of the providers, without asking.

The same knowledge and the same routes as fetching itself. Belongs here: counting calls ahead.
Does not belong here: what a month may cost in all (`operations.budgeting`), printing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from crypto_assets.assets.candles import tracked_for
from crypto_assets.assets.choice import EVERYTHING, FetchChoice
from crypto_assets.assets.flows import ASSETS
from crypto_assets.assets.histories import is_answered, needed
from crypto_assets.assets.market import needs_snapshot
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import Tracked, tracked_by_day
from crypto_assets.periods import day_closed_by_snapshot
from crypto_assets.providers import coingecko, routes
from crypto_assets.providers.plans import Plan
from crypto_assets.providers.routes import Call
from crypto_assets.tables import COIN_LIST, ETF_FLOWS, FEAR_GREED, MARKET_CAPS, TABLES, Table

# By table: provider, path and calls of what takes no planning.
FIXED = {
    COIN_LIST.name: (coingecko.PROVIDER, "coins/list", 1),
    FEAR_GREED.name: ("alternative_me", "fng/", 1),
    ETF_FLOWS.name: ("farside", "{asset}/", len(ASSETS)),
}

FetchChoices = Mapping[str, FetchChoice]
_NO_CHOICES: FetchChoices = {}


@dataclass(frozen=True)
class Group:
    """Calls that differ in their coin only; `answered` of them are in the raw store already."""

    table: str
    provider: str
    path: str
    calls: int
    answered: int = 0
    call: Call | None = None

    @property
    def is_candles(self) -> bool:
        """Whether the answers are candles, or what candles are rebuilt from."""
        of_market = self.call is None or self.call.endpoint == "markets"
        return TABLES[self.table].has_exactness and not of_market


@dataclass(frozen=True)
class FetchPlan:
    """All calls that filling would make. `is_guess`: the universe is not known yet."""

    groups: tuple[Group, ...]
    unreachable_days: int = 0
    is_guess: bool = False

    @property
    def calls(self) -> int:
        """Calls that are still to be made, whatever the provider."""
        return sum(group.calls - group.answered for group in self.groups)

    @property
    def credits(self) -> int:
        """CoinGecko credits they cost; a call that has to be repeated costs none of its own."""
        return sum(
            group.calls - group.answered
            for group in self.groups
            if group.provider == coingecko.PROVIDER
        )

    def minutes(self, plan: Plan) -> float | None:
        """How long the plan's rate makes it take at least; None where it has no limit."""
        return self.credits / plan.calls_per_minute if plan.calls_per_minute else None


def fetch_plan(
    platform: Platform,
    tables: Sequence[str],
    first: date,
    last: date,
    now: datetime,
    choices: FetchChoices = _NO_CHOICES,
) -> FetchPlan:
    """Return the calls that filling these tables for [first, last] would make now.

    `choices` are what a person chose for some of the tables. Looking ahead founds no warehouse,
    whose first day would be fixed for good.
    """
    if not platform.warehouse.path.exists():
        with TemporaryDirectory() as folder:
            elsewhere = copy(platform)
            path = Path(folder) / platform.warehouse.path.name
            elsewhere.warehouse = replace(platform.warehouse, path=path)
            return _fetch_plan(elsewhere, tables, first, last, now, choices)
    return _fetch_plan(platform, tables, first, last, now, choices)


def _fetch_plan(
    platform: Platform,
    tables: Sequence[str],
    first: date,
    last: date,
    now: datetime,
    choices: FetchChoices,
) -> FetchPlan:
    groups: list[Group] = []
    unreachable = 0
    stored = tracked_by_day(platform.warehouse, first, last)
    is_guess = len(stored) < (last - first).days + 1
    guessed = _guessed(platform, stored)
    for name in tables:
        if name in FIXED:
            provider, path, calls = FIXED[name]
            groups.append(Group(name, provider, path, calls))
        if name not in routes.ROUTES:
            continue
        table, choice = TABLES[name], choices.get(name, EVERYTHING)
        # What the first table asked for its universe, the others find stored or just answered.
        is_first = not any(group.call for group in groups)
        if table is MARKET_CAPS:
            takes_snapshot = needs_snapshot(platform, first, last, now, choice)
        else:
            takes_snapshot = is_guess and is_first
        if takes_snapshot:
            pages = routes.market_snapshot(now.date(), platform.settings.universe.tracked)
            groups += [
                Group(name, coingecko.PROVIDER, routes.PATHS[page.endpoint], 1, 0, page)
                for page in pages
            ]
        closed = day_closed_by_snapshot(now) if takes_snapshot else None
        known_today = guessed | frozenset(choice.coins)
        tracked = tracked_for(platform, table, first, last, known_today=known_today)
        if table is MARKET_CAPS:
            by_snapshot = {now.date(), closed}
            tracked = {day: coins for day, coins in tracked.items() if day not in by_snapshot}
        asked, missed = _histories(platform, table, tracked, now, choice)
        groups += asked
        unreachable += missed
    return FetchPlan(tuple(groups), unreachable, is_guess)


def beyond_budget(platform: Platform, plan: FetchPlan) -> str | None:
    """Return why the month's credits are not enough for the plan, and what to do; else None."""
    limit = platform.plan.credits_per_month
    if limit is None or platform.settings.coingecko.may_exceed_credits or not plan.credits:
        return None
    used = platform.usage.month(coingecko.PROVIDER, platform.clock.today()).credits
    if used + plan.credits <= limit:
        return None
    return (
        f"this needs {plan.credits:,} CoinGecko credits and the month has "
        f"{max(limit - used, 0):,} of {limit:,} left (plan '{platform.plan.name}'), so nothing was "
        "asked: take fewer days or coins, wait for the next month, or allow it with "
        "--over-budget (setting coingecko.may_exceed_credits)"
    )


def over_budget(
    platform: Platform,
    tables: Sequence[str],
    first: date,
    last: date,
    choices: FetchChoices = _NO_CHOICES,
) -> str | None:
    """Return why filling these tables for [first, last] now is beyond the month; else None.

    Nothing is planned where nothing could be.
    """
    if platform.plan.credits_per_month is None or platform.settings.coingecko.may_exceed_credits:
        return None
    now = platform.clock.now()
    return beyond_budget(platform, fetch_plan(platform, tables, first, last, now, choices))


def _histories(
    platform: Platform,
    table: Table,
    tracked: Mapping[date, Tracked],
    now: datetime,
    choice: FetchChoice,
) -> tuple[list[Group], int]:
    ask_for = needed(platform, tracked, table, now, choice).only(choice.of(tracked))
    calls: Counter[Call] = Counter()
    answered: Counter[Call] = Counter()
    for request in ask_for.requests:
        for call in request.calls:
            calls[call] += 1
            answered[call] += is_answered(platform, table, now, ask_for, request.coin, call)
    found = [
        Group(
            table.name,
            coingecko.PROVIDER,
            routes.PATHS[call.endpoint],
            count,
            answered[call],
            call,
        )
        for call, count in sorted(calls.items(), key=lambda item: (item[0].first, item[0].last))
    ]
    return found, sum(map(len, ask_for.unreachable.values()))


def _guessed(platform: Platform, stored: Mapping[date, Tracked]) -> frozenset[str]:
    """Return the coins of days without a universe: the nearest known, filled up with nameless."""
    universe = platform.settings.universe
    named = stored[max(stored)].coins if stored else frozenset()
    lacking = max(universe.tracked, len(universe.always)) - len(named)
    return named | {f"coin {n}" for n in range(1, lacking + 1)}
