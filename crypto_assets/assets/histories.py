"""From wanted days of many coins to batches of rows: plan, fetch, note, a slice at a time.

Shared by every table that is filled coin by coin. What comes of the answers: `assembling`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from functools import partial

import dagster as dg
import pandas as pd

from crypto_assets.assets.assembling import UNKNOWN, Answer, Filling, history_batch
from crypto_assets.assets.choice import EVERYTHING, FetchChoice
from crypto_assets.assets.deliveries import Asked, Histories, Refusal
from crypto_assets.assets.fetching import Outcome, fail_if_too_much_missing, fetch_slices
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import (
    Fresh,
    KnownDays,
    Tracked,
    coins_with_hours,
    final_days,
    unsettled,
)
from crypto_assets.periods import intervals, midnight
from crypto_assets.providers import routes
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.fetched import Fetched
from crypto_assets.providers.replay import Probe
from crypto_assets.providers.routes import Call, Request
from crypto_assets.tables import Table
from crypto_assets.warehouse.writer import Batch

# Older than any answer, so that each is news.
_NEVER = midnight(date(1970, 1, 1))
# What is fetched and written at once: small in memory, long enough for few transactions.
SLICE_ROWS = 480_000


@dataclass(frozen=True)
class Needed:
    """What has to be asked for: requests, and days that the plan does not reach, by coin.

    `again` are days that are final and asked for all the same.
    """

    requests: list[Request] = field(default_factory=list)
    known: Mapping[str, KnownDays] = field(default_factory=dict)
    unreachable: Mapping[str, list[date]] = field(default_factory=dict)
    again: Mapping[str, frozenset[date]] = field(default_factory=dict)

    def only(self, coins: Collection[str]) -> "Needed":
        """Return what of it is to be asked for some coins."""
        return replace(self, requests=[r for r in self.requests if r.coin in coins])


def needed(
    platform: Platform,
    tracked: Mapping[date, Tracked],
    table: Table,
    now: datetime,
    choice: FetchChoice = EVERYTHING,
) -> Needed:
    """Return what has to be asked for to settle the tracked days of all coins; makes no call.

    Where the choice is to force it, the final days of the chosen coins are asked for again.
    """
    with platform.warehouse.session(f"planning {table.name}"):
        return _needed(platform, tracked, table, now, choice)


def _needed(
    platform: Platform,
    tracked: Mapping[date, Tracked],
    table: Table,
    now: datetime,
    choice: FetchChoice,
) -> Needed:
    if platform.recheck_on is not None:
        known = _to_recheck(platform, tracked, table, platform.recheck_on)
    else:
        known = unsettled(
            platform.warehouse,
            table,
            tracked,
            exact_from=routes.exact_from(table.name, platform.plan),
            fresh=None if choice.force else _fresh(table, now),
        )
    again = _final_days(platform, tracked, table, choice) if choice.force and tracked else {}
    for coin, of_coin in again.items():
        # No answer that is stored already is news.
        known[coin] = {**known.get(coin, {}), **dict.fromkeys(of_coin, now)}
    return _requested(platform, table, now, known, again)


def _final_days(
    platform: Platform, tracked: Mapping[date, Tracked], table: Table, choice: FetchChoice
) -> dict[str, frozenset[date]]:
    coins = sorted(choice.of(tracked))
    final = final_days(
        platform.warehouse, table, coins, min(tracked), max(tracked), exact_only=False
    )
    return {
        coin: frozenset(day for day in of_coin if day in tracked and coin in tracked[day].coins)
        for coin, of_coin in final.items()
    }


def _requested(
    platform: Platform,
    table: Table,
    now: datetime,
    known: dict[str, KnownDays],
    again: Mapping[str, frozenset[date]],
) -> Needed:
    plan = platform.plan
    oldest = routes.reachable_from(table.name, plan, now)
    reachable = {coin: [d for d in of_coin if d >= oldest] for coin, of_coin in known.items()}
    # Those are told of once: no later run can do better, but on another plan.
    unreachable = {
        coin: [d for d, known_at in of_coin.items() if d < oldest and known_at is None]
        for coin, of_coin in known.items()
    }
    cut = routes.cut_hours(table.name, now, plan)
    have = coins_with_hours(platform.warehouse, table, *cut) if cut else ()
    return Needed(
        routes.requests(table.name, reachable, now, plan, have),
        known,
        {coin: of_coin for coin, of_coin in unreachable.items() if of_coin},
        again,
    )


def fetch_histories(
    platform: Platform,
    tracked: Mapping[date, Tracked],
    filling: Filling,
    choice: FetchChoice = EVERYTHING,
) -> Iterator[Batch]:
    """Yield what the provider has of the tracked days that are not settled, a slice at a time.

    Where the choice is to force it, of the days that are final, too. Raises `dagster.Failure`
    after the last batch when too many of the coins are missing, before the first call where all
    that is forced is too old for the plan, and `ProviderError` at once when the provider as a
    whole is out of reach.
    """
    table, now = filling.table, platform.clock.now()
    coins = choice.of(tracked)
    ask_for = needed(platform, tracked, table, now, choice)
    asked = ask_for.only(coins)
    in_time = tuple(intervals(day for day, t in tracked.items() if t.is_point_in_time))
    told = _Teller(platform, filling, now, in_time, platform.recheck_on is not None, asked.again)
    if ask_for.unreachable:
        yield told.unreachable(ask_for.unreachable)
    _tell_too_old(platform, table, now, asked)
    slices = list(_slices(asked.requests, table.rows_a_day))
    if len(slices) > 1 or len(asked.requests) < len(ask_for.requests):
        # A day must not look whole while some of its coins were not asked for; and the stored
        # coins of a day in market_caps are its universe.
        yield told.not_asked_yet(ask_for)
    failed: dict[str, ProviderError] = {}
    yield from _answers(told, asked.known, slices, failed)
    fail_if_too_much_missing(
        table.name, failed, len(coins), platform.settings.fetch.max_missing_share
    )


def _tell_too_old(platform: Platform, table: Table, now: datetime, asked: Needed) -> None:
    """Say how many of the forced days are beyond the plan. Raises where that is all of them."""
    plan = platform.plan
    oldest = routes.reachable_from(table.name, plan, now)
    too_old = sum(day < oldest for of_coin in asked.again.values() for day in of_coin)
    if not too_old:
        return
    told = (
        f"{table.name}: {too_old} final days of coins are older than the {plan.history_days} "
        f"days of the plan '{plan.name}' and can't be asked for again; they stay as they are"
    )
    if not asked.requests:
        raise dg.Failure(told, allow_retries=False)
    platform.tell(told)


def _answers(
    told: "_Teller",
    known: Mapping[str, KnownDays],
    slices: Sequence[Sequence[Request]],
    failed: dict[str, ProviderError],
) -> Iterator[Batch]:
    """Yield what came of the requests, a slice at a time; who failed is added to `failed`."""
    platform, table = told.platform, told.filling.table
    fresh = _fresh(table, told.now)

    def fetch(request: Request) -> list[Answer]:
        of_coin = known[request.coin]
        return [
            (call, ask(platform.resuming(fresh, _of_call(of_coin, call)), request.coin, call))
            for call in request.calls
        ]

    meter = platform.meter(table.name, sum(map(len, slices))) if slices else None
    with closing(fetch_slices(slices, fetch, platform.threads, meter)) as outcomes:
        for requests, outcome in zip(slices, outcomes, strict=True):
            # A coin the provider does not know is that coin's end, not a failure to fetch.
            failed |= {r.coin: e for r, e in outcome.failed.items() if e.status != UNKNOWN}
            yield told.batch(requests, outcome)


def is_answered(
    platform: Platform, table: Table, now: datetime, ask_for: Needed, coin: str, call: Call
) -> bool:
    """Tell whether a call need not be made, because a run before was given its answer."""
    known = _of_call(ask_for.known[coin], call)
    try:
        ask(platform.probing(_fresh(table, now), known), coin, call)
    except Probe.Told as told:
        return told.is_answered
    raise AssertionError("a probe never answers")


def _to_recheck(
    platform: Platform, tracked: Mapping[date, Tracked], table: Table, on: date
) -> dict[str, KnownDays]:
    """Return the final days of the coins whose turn it is: every coin's, as the days go on."""
    coins = sorted({coin for of_day in tracked.values() for coin in of_day.coins})
    a_day = platform.settings.restatements.coins_a_day
    turn = [coins[(on.toordinal() * a_day + n) % len(coins)] for n in range(a_day)] if coins else []
    known = final_days(platform.warehouse, table, turn, min(tracked), max(tracked))
    # Unchanged rows keep when they were observed; an answer of an earlier turn is no news of this.
    since = midnight(on)
    return {
        coin: {day: max(at or since, since) for day, at in of_coin.items()}
        for coin, of_coin in known.items()
    }


def _fresh(table: Table, now: datetime) -> Fresh:
    return Fresh(now, routes.HISTORY_KEPT, table.ready_after)


def _of_call(known: KnownDays, call: Call) -> KnownDays:
    return {day: at for day, at in known.items() if call.first <= day <= call.last}


def _slices(requests: Iterable[Request], rows_a_day: int) -> Iterator[list[Request]]:
    found: list[Request] = []
    rows = 0
    for request in requests:
        found.append(request)
        rows += len(request.days) * rows_a_day
        if rows >= SLICE_ROWS:
            yield found
            found, rows = [], 0
    if found:
        yield found


@dataclass(frozen=True)
class _Teller:
    """Turns what came of requests into batches, each noted in the raw store before it is used."""

    platform: Platform
    filling: Filling
    now: datetime
    in_time: tuple[tuple[date, date], ...]
    is_recheck: bool
    again: Mapping[str, frozenset[date]]

    def unreachable(self, by_coin: Mapping[str, list[date]]) -> Batch:
        plan = self.platform.plan
        refusal = Refusal(f"older than the {plan.history_days} days of the plan '{plan.name}'")
        asked = [
            Asked(coin, tuple(intervals(of_coin)), (), (), refusal)
            for coin, of_coin in sorted(by_coin.items())
        ]
        return self._noted(asked, [[] for _ in asked])

    def not_asked_yet(self, ask_for: Needed) -> Batch:
        """Return the days that were never told of as missing, for as long as nothing is known."""
        refusal = Refusal("not fetched yet")
        asked = []
        for request in ask_for.requests:
            known = ask_for.known[request.coin]
            untold = [day for day in request.days if known[day] is None]
            asked.append(Asked(request.coin, tuple(intervals(untold)), (), (), refusal))
        return self._noted(asked, [[] for _ in asked], checked_at=_NEVER)

    def batch(self, requests: Sequence[Request], outcome: Outcome[Request, list[Answer]]) -> Batch:
        asked, answers = [], []
        for request in requests:
            answered = outcome.answered.get(request, [])
            error = outcome.failed.get(request)
            asked.append(
                Asked(
                    request.coin,
                    tuple(intervals(request.days)),
                    request.calls,
                    tuple(raw_id for _, answer in answered for raw_id in answer.raw_ids),
                    Refusal.of(error) if error else None,
                    tuple(intervals(self.again.get(request.coin, frozenset()) & {*request.days})),
                )
            )
            answers.append(answered)
        return self._noted(asked, answers)

    def _noted(
        self,
        asked: Sequence[Asked],
        answers: Sequence[Sequence[Answer]],
        checked_at: datetime | None = None,
    ) -> Batch:
        platform = self.platform
        # All of it was observed by now, so that no later run takes these answers for news.
        checked_at = checked_at or platform.clock.now()
        histories = Histories(
            self.now,
            checked_at,
            platform.plan.name,
            self.in_time,
            tuple(asked),
            is_recheck=self.is_recheck,
        )
        platform.note(self.filling.table, histories)
        raw_ids = [raw_id for of_coin in asked for raw_id in of_coin.raw_ids]
        return replace(
            history_batch(histories, answers, self.filling),
            on_refusal=partial(platform.raw.refuse, raw_ids),
        )


def ask(coingecko: CoinGecko, coin: str, call: Call) -> Fetched[pd.DataFrame]:
    """Send one planned call."""
    if call.endpoint == "market_chart":
        return coingecko.market_chart(coin, call.days or 1, interval=call.interval)
    if call.endpoint == "ohlc":
        return coingecko.ohlc(coin, call.days or 1)
    if call.start is None or call.end is None:
        raise ValueError(f"{call} needs a start and an end")
    if call.endpoint == "ohlc_range" and call.interval:
        return coingecko.ohlc_range(coin, call.start, call.end, interval=call.interval)
    return coingecko.market_chart_range(coin, call.start, call.end, interval=call.interval)


def answers_again(
    histories: Histories, coingecko: Callable[[Iterable[str]], CoinGecko]
) -> list[list[Answer]]:
    """Return the stored answers behind noted histories; `coingecko` reads them back in order."""
    found = []
    for asked in histories.asked:
        recorded = coingecko(asked.raw_ids)
        answered = asked.calls if asked.raw_ids else ()
        found.append([(call, ask(recorded, asked.coin, call)) for call in answered])
    return found
