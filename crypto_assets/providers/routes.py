"""Which endpoint, in which windows, brings the wanted days of which coins with the fewest calls.

Pure: from days to calls, without making one. What CoinGecko offers is data (`ROUTES`); choosing
and cutting follow from it. Does not belong here: how a call is sent (`coingecko`), or which days
are wanted (`assets`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from crypto_assets.periods import DAY, HOUR, close_of, midnight
from crypto_assets.providers.plans import Plan

Endpoint = Literal["markets", "market_chart", "market_chart_range", "ohlc", "ohlc_range"]
Exactness = Literal["exact", "approximate"]
Interval = Literal["hourly", "daily"]

PATHS: dict[Endpoint, str] = {
    "markets": "coins/markets",
    "market_chart": "coins/{id}/market_chart",
    "market_chart_range": "coins/{id}/market_chart/range",
    "ohlc": "coins/{id}/ohlc",
    "ohlc_range": "coins/{id}/ohlc/range",
}
COINS_A_PAGE = 250
FIRST_DAY = date(2013, 4, 28)
FIRST_HOURLY_DAY = date(2018, 2, 9)
# The provider serves its own copy for this long: who asks again sooner gets the same bytes.
SNAPSHOT_KEPT = timedelta(seconds=30)
HISTORY_KEPT = timedelta(minutes=5)


@dataclass(frozen=True)
class Call:
    """One request and what its answer will be used for: days [first, last].

    `days` counts back from now, `start` and `end` name a range, `page` is one of a market snapshot.
    """

    endpoint: Endpoint
    first: date
    last: date
    days: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    interval: Interval | None = None
    exactness: Exactness = "exact"
    page: int | None = None


@dataclass(frozen=True)
class Request:
    """What one coin is asked for: days, and the calls that bring them together."""

    coin: str
    days: tuple[date, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Route:
    """One way to days of history.

    The endpoint takes a range, cut into windows of at most `longest_days`; or it counts back from
    now in one of the sizes `counts_back`, and reaches the last `reach_days` days before today.
    """

    endpoint: Endpoint
    needs: Callable[[Plan], bool] = lambda _: True
    interval: Interval | None = None
    exactness: Exactness = "exact"
    longest_days: int | None = None
    counts_back: tuple[int, ...] = ()
    reach_days: int | None = None
    since: date = FIRST_DAY
    oldest_day_is_cut: bool = False
    """The oldest day it reaches lacks its first hours: the next tier brings them."""
    stamps_are_closes: bool = False
    lead: timedelta = timedelta(0)
    """How long before its first midnight a range begins."""

    def reaches(self, day: date, today: date) -> bool:
        """Tell whether it has a day."""
        return day >= self.since and (
            self.reach_days is None or day >= today - self.reach_days * DAY
        )

    def windows(self, wanted: Sequence[date]) -> list[tuple[date, date]]:
        """Return the fewest windows that hold these days (ascending), cut to what is wanted."""
        if self.longest_days is None:
            return [(wanted[0], wanted[-1])]
        found: list[tuple[date, date]] = []
        for day in wanted:
            if found and (day - found[-1][0]).days < self.longest_days:
                found[-1] = (found[-1][0], day)
            else:
                found.append((day, day))
        return found

    def call(self, first: date, last: date, now: datetime, plan: Plan) -> Call:
        """Return the call for one window."""
        if self.counts_back:
            needed = (now.date() - first).days + 1
            # One of few sizes, so that tomorrow's question is today's where it can be.
            days = next((size for size in self.counts_back if size >= needed), self.counts_back[-1])
            return Call(self.endpoint, first, last, days=days, interval=self.interval)
        start = close_of(first) if self.stamps_are_closes else midnight(first) - self.lead
        if self.lead and plan.history_days:
            start = max(start, now - plan.history_days * DAY)
        return Call(
            self.endpoint,
            first,
            last,
            start=start,
            end=close_of(last),
            interval=self.interval,
            exactness=self.exactness,
        )


def _has_ohlc_range(plan: Plan) -> bool:
    return plan.has_ohlc_range


def _is_paid(plan: Plan) -> bool:
    return plan.is_paid


# Up to 90 days come hourly; some hours before the first day are asked for too, so one day less.
_FROM_HOURLY_PRICES = Route(
    "market_chart_range",
    exactness="approximate",
    longest_days=89,
    # The price before the first midnight opens the first candle; hours are up to 111 minutes apart.
    lead=HOUR + timedelta(minutes=55),
)

# By table, in tiers: the days that no route of a better tier reaches are left to the next one.
# `interval=daily` is always named: 90 days or less would otherwise come as unaligned hours.
ROUTES: Mapping[str, tuple[tuple[Route, ...], ...]] = {
    "market_caps": (
        (
            Route(
                "market_chart",
                interval="daily",
                counts_back=(2, 7, 14, 30, 60, 90, 180, 365),
                reach_days=365,
            ),
            Route("market_chart_range", _is_paid, interval="daily", stamps_are_closes=True),
        ),
    ),
    "ohlc_daily": (
        (
            Route("ohlc_range", _has_ohlc_range, interval="daily", longest_days=180),
            # Candles of 4 hours; the oldest one of an answer is cut off.
            Route("ohlc", counts_back=(7, 14, 30), reach_days=29),
        ),
        (_FROM_HOURLY_PRICES,),
    ),
    "ohlc_hourly": (
        (
            Route(
                "ohlc_range",
                _has_ohlc_range,
                interval="hourly",
                longest_days=31,
                since=FIRST_HOURLY_DAY,
            ),
            # Candles of half an hour, of the last 24 hours.
            Route("ohlc", counts_back=(1,), reach_days=1, oldest_day_is_cut=True),
        ),
        (_FROM_HOURLY_PRICES,),
    ),
}


def reachable_from(table: str, plan: Plan, now: datetime) -> date:
    """Return the first day that the plan's history still holds: its close, or its whole candles."""
    if plan.history_days is None:
        return FIRST_DAY
    oldest = now.date() - plan.history_days * DAY
    return oldest if table == "market_caps" else oldest + DAY


def exact_from(table: str, plan: Plan) -> date | None:
    """Return the first day that can be had exactly at any time; None where no route is for ever.

    An approximate row of such a day is worth asking for again, for instance on a better plan.
    """
    lasting = [
        route.since
        for route in ROUTES[table][0]
        if route.needs(plan) and route.reach_days is None and route.exactness == "exact"
    ]
    return min(lasting, default=None)


def cut_hours(table: str, now: datetime, plan: Plan) -> tuple[datetime, datetime] | None:
    """Return [first, end) of the hours that the best route cuts off its oldest day, if any."""
    for route in ROUTES[table][0]:
        if route.needs(plan) and not route.oldest_day_is_cut:
            return None
    begin = midnight(now.date() - DAY)
    # An hour is whole only after the candle that the answer begins with.
    whole_from = now.replace(minute=0, second=0, microsecond=0) - DAY + 2 * HOUR
    return begin, min(whole_from, begin + DAY)


def calls(
    table: str, wanted: Iterable[date], now: datetime, plan: Plan, *, has_cut_hours: bool = False
) -> list[Call]:
    """Return the fewest calls that bring the wanted days of one coin, ascending.

    Of the routes of a tier the one that reaches most days is taken, then the one with the fewest
    calls, then the first. `has_cut_hours`: what the best route cuts off is stored already.
    """
    left = sorted(set(wanted))
    today = now.date()
    found: list[Call] = []
    for tier in ROUTES[table]:
        options = [
            (route, reached)
            for route in tier
            if route.needs(plan) and (reached := [d for d in left if route.reaches(d, today)])
        ]
        if not options:
            continue
        route, reached = min(options, key=lambda o: (-len(o[1]), len(o[0].windows(o[1]))))
        found += [route.call(*window, now, plan) for window in route.windows(reached)]
        is_cut: set[date] = set()
        if route.oldest_day_is_cut and not has_cut_hours:
            is_cut = {today - (route.reach_days or 0) * DAY}
        left = [day for day in left if day not in reached or day in is_cut]
    return sorted(found, key=lambda call: (call.first, call.last))


def requests(
    table: str,
    wanted: Mapping[str, Iterable[date]],
    now: datetime,
    plan: Plan,
    have_cut_hours: Collection[str] = (),
) -> list[Request]:
    """Return what to ask each coin for, the oldest days first.

    Calls whose days overlap complete each other and stay together. `have_cut_hours` are coins of
    which is stored what the best route cuts off.
    """
    found: list[Request] = []
    # Most coins want the same days.
    known: dict[tuple[tuple[date, ...], bool], list[tuple[tuple[date, ...], tuple[Call, ...]]]] = {}
    for coin, of_coin in wanted.items():
        days, is_cut = tuple(sorted(set(of_coin))), coin in have_cut_hours
        if (days, is_cut) not in known:
            planned = calls(table, days, now, plan, has_cut_hours=is_cut)
            known[days, is_cut] = list(_together(planned, days))
        found += [Request(coin, *part) for part in known[days, is_cut]]
    return sorted(found, key=lambda request: (request.days[0], request.coin))


def _together(
    planned: Sequence[Call], days: Sequence[date]
) -> Iterator[tuple[tuple[date, ...], tuple[Call, ...]]]:
    """Yield calls whose days overlap, with the wanted days that they bring."""
    groups: list[list[Call]] = []
    for call in planned:
        if groups and call.first <= max(known.last for known in groups[-1]):
            groups[-1].append(call)
        else:
            groups.append([call])
    for group in groups:
        first, last = group[0].first, max(call.last for call in group)
        yield tuple(day for day in days if first <= day <= last), tuple(group)


def market_snapshot(today: date, tracked: int) -> list[Call]:
    """Return the pages of a market snapshot; it is the close of the day before at midnight."""
    pages = -(-tracked // COINS_A_PAGE)
    return [Call("markets", today, today, page=page) for page in range(1, pages + 1)]
