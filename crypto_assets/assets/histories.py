"""From wanted days of many coins to batches of rows: plan, fetch, cut, tell what is not there.

Shared by every table that is filled coin by coin. What a row looks like is each table's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from crypto_assets.assets.fetching import Outcome, fail_if_too_much_missing, fetch_each
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import Tracked, unsettled
from crypto_assets.periods import close_of, is_final, windows
from crypto_assets.providers import routes
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.http import Fetched
from crypto_assets.providers.plans import Plan
from crypto_assets.tables import Table
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.writer import Batch

# How long a provider may be late before a day is taken for one it does not have.
GRACE = timedelta(hours=48)
# As many coins without a day are a provider that is late.
_SILENCE = 3
# The HTTP status for a coin that the provider does not know, or not any more.
_UNKNOWN = 404

WantedDays = Mapping[str, Sequence[date]]
Answer = tuple[routes.Call, Fetched[pd.DataFrame]]


@dataclass(frozen=True)
class Route:
    """How the days of one table are fetched.

    plan: from a coin's days to calls. rows: from one call's answer to rows with the table's
    content columns but coin_id, and `ends_at`, the end of the row's period. window_days: how
    many days are fetched and written at once on a plan.
    """

    table: Table
    plan: Callable[[Sequence[date], datetime, Plan], list[routes.Call]]
    rows: Callable[[routes.Call, Fetched[pd.DataFrame]], pd.DataFrame]
    window_days: Callable[[Plan], int]


def fetch_histories(
    platform: Platform, tracked: Mapping[date, Tracked], route: Route
) -> Iterator[Batch]:
    """Yield what the provider has of the tracked days that are not settled, a window at a time.

    Raises `dagster.Failure` after the last batch when too many of the tracked coins are missing,
    and `ProviderError` at once when the provider as a whole is out of reach.
    """
    wanted = unsettled(
        platform.warehouse, route.table, tracked, wants_exact=platform.plan.has_ohlc_range
    )
    wanted_days = [day for of_coin in wanted.values() for day in of_coin]
    if not wanted_days:
        return
    failed: dict[str, ProviderError] = {}
    first, last = min(wanted_days), max(wanted_days)
    for start, end in windows(first, last, route.window_days(platform.plan)):
        within = {
            coin: in_window
            for coin, of_coin in wanted.items()
            if (in_window := [day for day in of_coin if start <= day <= end])
        }
        batch, outcome = _fetch_window(platform, within, route)
        # A coin the provider does not know is that coin's end, not a failure to fetch.
        failed |= {c: error for c, error in outcome.failed.items() if error.status != _UNKNOWN}
        yield batch
    coins = {coin for of_day in tracked.values() for coin in of_day.coins}
    fail_if_too_much_missing(
        route.table.name, failed, len(coins), platform.settings.fetch.max_missing_share
    )


@dataclass
class _Found:
    """What one coin's answers brought: its rows, and until when the provider has anything."""

    rows: pd.DataFrame | None = None
    seen_until: datetime | None = None

    def whole_days(self, table: Table) -> set[date]:
        """Return the days that have all their rows."""
        if self.rows is None:
            return set()
        counts = self.rows.groupby("day").size()
        return {stamp.date() for stamp in counts.index[counts >= table.rows_a_day]}


def _fetch_window(
    platform: Platform, wanted: WantedDays, route: Route
) -> tuple[Batch, Outcome[list[Answer]]]:
    now, plan = platform.clock.now(), platform.plan
    oldest = routes.reachable_from(plan, now)
    reachable = {
        coin: [day for day in of_coin if day >= oldest] for coin, of_coin in wanted.items()
    }

    def fetch(coin: str) -> list[Answer]:
        calls = route.plan(reachable[coin], now, plan)
        return [(call, ask(platform.coingecko, coin, call)) for call in calls]

    asked = [coin for coin, of_coin in reachable.items() if of_coin]
    outcome = fetch_each(asked, fetch, platform.settings.fetch.threads)
    found = {
        coin: _found(coin, wanted[coin], outcome.answered.get(coin, []), route) for coin in wanted
    }
    reached = max((of.seen_until for of in found.values() if of.seen_until), default=None)
    inspected: dict[str, list[date]] = {}
    gaps: list[Gap] = []
    for coin, of_coin in found.items():
        whole = of_coin.whole_days(route.table)
        # What is not due yet is neither there nor missing: what is known of it stays.
        due = [day for day in wanted[coin] if is_final(close_of(day), now, route.table.ready_after)]
        inspected[coin] = sorted(whole | set(due))
        error = outcome.failed.get(coin)
        for day in set(due) - whole:
            if day < oldest:
                gaps.append(Gap(coin, day, "missing", _older(plan)))
                continue
            # Where no coin at all reaches the day, the provider is at fault rather than they.
            stuck = len(asked) >= _SILENCE and (reached is None or reached < close_of(day))
            is_young = now - close_of(day) < GRACE
            gaps.append(_gap(coin, day, error, may_come=is_young or stuck, is_young=is_young))
    frames = [
        of.rows.drop(columns=["day", "ends_at"]) for of in found.values() if of.rows is not None
    ]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return Batch(rows, Inspection(inspected, gaps, now)), outcome


def ask(coingecko: CoinGecko, coin: str, call: routes.Call) -> Fetched[pd.DataFrame]:
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


def _found(coin: str, wanted: Sequence[date], answers: Sequence[Answer], route: Route) -> _Found:
    """Return a coin's rows of the wanted days with their provenance."""
    found = _Found()
    frames = []
    for call, answer in answers:
        rows = route.rows(call, answer)
        rows["day"] = rows[route.table.time_column].dt.normalize()
        if len(rows):
            until = rows["ends_at"].max().to_pydatetime()
            found.seen_until = max(found.seen_until or until, until)
        # An answer reaches beyond its days, where it is cut off or another call knows better.
        mine = [day for day in wanted if call.first <= day <= call.last]
        rows = rows[rows["day"].isin(pd.to_datetime(mine))]
        ready_at = rows["ends_at"] + pd.Timedelta(route.table.ready_after)
        frames.append(
            rows.assign(
                coin_id=coin,
                is_final=ready_at <= pd.Timestamp(answer.observed_at),
                source=answer.source,
                observed_at=pd.Timestamp(answer.observed_at),
                raw_id=answer.raw_id,
            )
        )
    frames = [frame for frame in frames if len(frame)]
    if frames:
        joined = pd.concat(frames, ignore_index=True)
        if "exactness" in joined:
            # 'approximate' sorts before 'exact': where both brought a candle, the true one stays.
            joined = joined.sort_values("exactness", kind="stable")
        found.rows = joined.drop_duplicates(list(route.table.key), keep="last")
    return found


def _gap(
    coin: str, day: date, error: ProviderError | None, *, may_come: bool, is_young: bool
) -> Gap:
    """Say whether a day that is not there may still come, or will not."""
    if error is None:
        if may_come:
            return Gap(coin, day, "missing", "not at the provider yet")
    elif error.status != _UNKNOWN or is_young:
        return Gap(coin, day, "missing", _told(error))
    return Gap(coin, day, "no_data_at_provider", "the provider has no value")


def _older(plan: Plan) -> str:
    return f"older than the {plan.history_days} days of the plan '{plan.name}'"


def _told(error: ProviderError) -> str:
    status = f" (HTTP {error.status})" if error.status else ""
    return f"{error.problem}{status}"
