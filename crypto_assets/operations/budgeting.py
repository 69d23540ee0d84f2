"""What the schedules cost in a month, by asset, against the plan; and what to change.

A month of ticks is played through with the same routes as fetching, for one coin and with
everything going well, and multiplied by the coins. Belongs here: that forecast. Does not belong
here: counting what was used (`providers.usage`).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

from crypto_assets.assets.candles import is_headline_only
from crypto_assets.assets.planning import FIXED
from crypto_assets.assets.platform import plan_of
from crypto_assets.assets.resource import RECHECK_TAG
from crypto_assets.assets.universe import tracked_by_day
from crypto_assets.automation.schedules import Tick, scheduled_ticks
from crypto_assets.periods import DAY, close_of, day_closed_by_snapshot, days, is_final
from crypto_assets.providers import coingecko, routes
from crypto_assets.providers.plans import Plan
from crypto_assets.settings import Settings, ticks
from crypto_assets.tables import MARKET_CAPS, OHLC_HOURLY, TABLES
from crypto_assets.warehouse.warehouse import Warehouse

# The longest month, so that every month fits.
MONTH_DAYS = 31
_PLANS = ("keyless", "demo", "basic", "analyst", "lite")
# Once every N hours, where every hour is too much.
_RARER_HOURS = (2, 3, 4, 6, 8, 12, 24)


@dataclass(frozen=True)
class AssetCost:
    """Calls of one table in a month; only CoinGecko's cost credits."""

    table: str
    provider: str
    calls: int

    @property
    def credits(self) -> int:
        """Credits they cost."""
        return self.calls if self.provider == coingecko.PROVIDER else 0


@dataclass(frozen=True)
class Budget:
    """What the settings cost in a month of 31 days, and what the plan allows."""

    plan: Plan
    assets: tuple[AssetCost, ...]
    busiest_hour_calls: int
    advice: tuple[str, ...] = field(default=())

    @property
    def credits(self) -> int:
        """CoinGecko credits in all."""
        return sum(asset.credits for asset in self.assets)

    @property
    def hourly_calls(self) -> int | None:
        """CoinGecko calls that the plan allows in an hour."""
        limit = self.plan.calls_per_minute
        return limit * 60 if limit else None

    @property
    def fits(self) -> bool:
        """Whether month and hour are enough."""
        month, hour = self.plan.credits_per_month, self.hourly_calls
        return (month is None or self.credits <= month) and (
            hour is None or self.busiest_hour_calls <= hour
        )

    @property
    def sentences(self) -> list[str]:
        """The verdict, and what to change where it does not fit."""
        month, hour = self.plan.credits_per_month, self.hourly_calls
        of_month = "no monthly limit" if month is None else f"{month:,} credits a month"
        of_hour = "no rate limit" if hour is None else f"{hour:,} calls an hour"
        said = [
            f"The schedules need {self.credits:,} credits in a month of {MONTH_DAYS} days and "
            f"{self.busiest_hour_calls:,} calls in the busiest hour; the plan '{self.plan.name}' "
            f"has {of_month} and {of_hour}: {'they fit' if self.fits else 'they do not fit'}."
        ]
        if self.advice:
            said.append(f"Any one of these would fit: {'; '.join(self.advice)}.")
        elif not self.fits:
            said.append("No single setting that was tried makes it fit: change several of them.")
        return said


def budget(settings: Settings) -> Budget:
    """Return what the schedules cost in a month; with advice where that does not fit."""
    beside = _coins_beside(settings)
    found = _forecast(settings, beside)
    if found.fits:
        return found
    advice = tuple(_advice(settings, beside))
    return Budget(found.plan, found.assets, found.busiest_hour_calls, advice)


def _coins_beside(settings: Settings) -> int:
    """Return how many coins are tracked beside the largest: as stored, else at most those named."""
    warehouse = Warehouse.of(settings)
    today = settings.clock.today()
    known = tracked_by_day(warehouse, today, today) if warehouse.path.exists() else {}
    if today not in known:
        return len(settings.universe.always)
    return max(0, len(known[today].coins) - settings.universe.tracked)


def _forecast(settings: Settings, coins_beside: int) -> Budget:
    plan = plan_of(settings)
    month = _Month(settings, plan, coins_beside)
    first = settings.clock.today()
    for day in days(first, first + (MONTH_DAYS - 1) * DAY):
        for at, tick in _ticks(settings, day):
            month.play(at, tick)
    costs = tuple(
        AssetCost(table, _provider(table), month.calls[table])
        for table in TABLES
        if month.calls[table]
    )
    return Budget(plan, costs, max(month.by_hour.values(), default=0))


def _ticks(settings: Settings, day: date) -> list[tuple[datetime, Tick]]:
    return sorted(
        ((at, tick(at)) for cron, tick in scheduled_ticks(settings) for at in ticks(cron, day)),
        key=lambda one: one[0],
    )


class _Month:
    """Counts the calls of ticks in their order, and knows which days they made final."""

    def __init__(self, settings: Settings, plan: Plan, coins_beside: int) -> None:
        self._settings = settings
        self._beside = coins_beside
        self._plan = plan
        # What lies before is there; yesterday is still asked for after midnight.
        self._final_until = settings.clock.today() - 2 * DAY
        self._final: set[tuple[str, date]] = set()
        self._asked_hours: set[date] = set()
        self.calls: Counter[str] = Counter()
        self.by_hour: Counter[datetime] = Counter()

    def play(self, at: datetime, tick: Tick) -> None:
        """Count what one tick asks for."""
        for name in tick.tables:
            if name in FIXED:
                calls = FIXED[name][2]
            elif name in routes.ROUTES:
                asked = list(days(tick.first, tick.last))
                if RECHECK_TAG in tick.tags:
                    calls = self._rechecked(name, asked, at)
                else:
                    calls = self._asked(name, [d for d in asked if self._is_wanted(name, d)], at)
            else:
                continue
            self.calls[name] += calls
            if _provider(name) == coingecko.PROVIDER:
                self.by_hour[at.replace(minute=0)] += calls

    def _is_wanted(self, name: str, day: date) -> bool:
        return day > self._final_until and (name, day) not in self._final

    def _asked(self, name: str, wanted: list[date], at: datetime) -> int:
        calls = 0
        if name == MARKET_CAPS.name:
            closed = day_closed_by_snapshot(at)
            if any(day in wanted for day in (at.date(), closed)):
                tracked = self._settings.universe.tracked
                # And one by name for coins that fell off the pages.
                calls += len(routes.market_snapshot(at.date(), tracked)) + 1
            if closed is not None:
                self._final.add((name, closed))
            wanted = [day for day in wanted if day < at.date() and day != closed]
        ready_after = TABLES[name].ready_after
        self._final |= {(name, d) for d in wanted if is_final(close_of(d), at, ready_after)}
        # A day that was asked for while it ran has its first hours.
        has_cut_hours = at.date() - DAY in self._asked_hours
        if name == OHLC_HOURLY.name and at.hour > 1:
            self._asked_hours.add(at.date())
        a_coin = routes.calls(name, wanted, at, self._plan, has_cut_hours=has_cut_hours)
        return calls + self._coins(name) * len(a_coin)

    def _rechecked(self, name: str, asked: list[date], at: datetime) -> int:
        coins = min(self._settings.restatements.coins_a_day, self._coins(name))
        return coins * len(routes.calls(name, asked, at, self._plan))

    def _coins(self, name: str) -> int:
        universe = self._settings.universe
        if is_headline_only(TABLES[name], self._plan):
            return len(universe.headline)
        return universe.tracked + self._beside


def _provider(table: str) -> str:
    return FIXED[table][0] if table in FIXED else coingecko.PROVIDER


def _advice(settings: Settings, beside: int) -> Iterator[str]:
    """Yield settings, each of which alone would make it fit."""
    yield from next(filter(None, (_rarer(settings, beside, n) for n in _RARER_HOURS)), [])
    fewer = _most_tracked(settings, beside)
    if fewer:
        yield f"universe.tracked: {fewer}"
    present = settings.coingecko.plan
    for name in _PLANS[_PLANS.index(present) + 1 :] if present in _PLANS else ():
        larger = _with(settings, "coingecko", plan=name)
        if _forecast(larger, beside).fits:
            yield f"coingecko.plan: {name}"
            break


def _rarer(settings: Settings, beside: int, hours: int) -> list[str]:
    """Return the schedules that would make it fit if they ran once in so many hours."""
    crons = {
        name: f"{minute} */{hours} * * *" if hours < 24 else f"{minute} 0 * * *"
        for name, minute in (("hourly_candles", 30), ("market_refresh", 0))
    }
    return [
        f"schedules.{name}: '{cron}'"
        for name, cron in crons.items()
        if _forecast(_with(settings, "schedules", **{name: cron}), beside).fits
    ]


def _most_tracked(settings: Settings, beside: int) -> int:
    """Return how many coins fit, by bisection; 0 if not even one does."""
    fits, too_many = 0, settings.universe.tracked
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _forecast(_with(settings, "universe", tracked=middle), beside).fits:
            fits = middle
        else:
            too_many = middle
    return fits


def _with(settings: Settings, section: str, **changes: object) -> Settings:
    changed = getattr(settings, section).model_copy(update=changes)
    return settings.model_copy(update={section: changed})
