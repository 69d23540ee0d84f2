"""coin_list, market_caps and ranks: which coins there are, what they are worth, who is larger."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from functools import partial

import dagster as dg
import numpy as np
import pandas as pd

from crypto_assets.assets.assembling import Columns, Filling
from crypto_assets.assets.choice import EVERYTHING, FetchChoice
from crypto_assets.assets.days import asked_days, begun_days
from crypto_assets.assets.deliveries import Listing, Snapshot
from crypto_assets.assets.derived import complete_days, derived_rows, refuse_without_inputs
from crypto_assets.assets.fetching import failure
from crypto_assets.assets.histories import fetch_histories
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import (
    Tracked,
    choose,
    coins_with_rows,
    snapshot_kept,
    tracked_by_day,
    unsettled,
)
from crypto_assets.calculations.coins import merge_coin_list
from crypto_assets.calculations.ranks import rank_by_market_cap
from crypto_assets.periods import DAY, day_closed_by_snapshot
from crypto_assets.providers import routes
from crypto_assets.providers.coingecko import CoinGecko, can_be_named
from crypto_assets.providers.coingecko_frames import MarketsPage
from crypto_assets.providers.errors import ContractError, ProviderError
from crypto_assets.providers.fetched import Fetched
from crypto_assets.tables import COIN_LIST, MARKET_CAPS, RANKS
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.io_manager import READ_AT
from crypto_assets.warehouse.warehouse import Query
from crypto_assets.warehouse.writer import Batch, Batches

RANKED_COLUMNS = ("date", "coin_id", "market_cap_usd", "is_point_in_time", "observed_at")
"""What of `market_caps` the ranks are made of."""

_NOBODY = Tracked(frozenset(), is_point_in_time=False)
# In an answer of a few coins, one that is bad might be all there is.
_ENOUGH_TO_NAME = 100


def coin_list(platform: dg.ResourceParam[Platform]) -> pd.DataFrame:
    """Merge the newest listing into the list of all coins ever seen."""
    try:
        listed = platform.coingecko.coin_list()
    except ProviderError as error:
        raise failure(error) from None
    platform.note(COIN_LIST, Listing(listed.raw_ids))
    return merged_listing(platform.warehouse.query, listed)


def merged_listing(query: Query, listed: Fetched[pd.DataFrame]) -> pd.DataFrame:
    """Return the stored list with a newer listing merged into it."""
    content = ", ".join(COIN_LIST.content_columns)
    merged = merge_coin_list(
        query(f"SELECT {content} FROM coin_list"), listed.data, listed.observed_at
    )
    return merged.assign(source=listed.source, raw_id=listed.raw_id)


def market_caps(
    context: dg.AssetExecutionContext,
    platform: dg.ResourceParam[Platform],
    config: FetchChoice,
) -> Batches:
    """Bring the running day from one market snapshot, closed days from each coin's history."""
    first, last = begun_days(context, platform.clock)
    return Batches(_market_caps(platform, first, last, config))


def ranks(
    context: dg.AssetExecutionContext,
    platform: dg.ResourceParam[Platform],
    market_caps: pd.DataFrame,
) -> pd.DataFrame:
    """Rank the coins of each day; final once every tracked coin of the day is."""
    first, last = asked_days(context)
    ranked = rank_by_market_cap(market_caps)
    ranked = ranked[ranked["date"].between(pd.Timestamp(first), pd.Timestamp(last))]
    refuse_without_inputs(ranked, "market_caps", first, last)
    complete = complete_days(platform, [MARKET_CAPS], first, last)
    return derived_rows(ranked, RANKS, platform, complete, market_caps.attrs[READ_AT])


def _market_caps(
    platform: Platform, first: date, last: date, choice: FetchChoice
) -> Iterator[Batch]:
    now = platform.clock.now()
    snapshot = None
    try:
        if needs_snapshot(platform, first, last, now, choice):
            snapshot = _snapshot(platform, now)
            yield from _from_snapshot(platform, snapshot, first, last)
        with platform.warehouse.session("reading the universe"):
            today = _chosen(platform, snapshot) if snapshot else frozenset()
            known = tracked_by_day(platform.warehouse, first, last, known_today=today)
        choice.refuse_unknown(known)
        closed = {day: tracked for day, tracked in known.items() if day < now.date()}
        yield from fetch_histories(platform, closed, MARKET_CAPS_FILLING, choice)
    except ProviderError as error:
        raise failure(error) from None


def needs_snapshot(
    platform: Platform,
    first: date,
    last: date,
    now: datetime,
    choice: FetchChoice = EVERYTHING,
) -> bool:
    """Tell whether these days need a market snapshot: for their rows, or for their universe.

    A whole snapshot of a moment ago is as good as a new one, unless a new one is forced.
    """
    if choice.force and last >= now.date():
        return True
    with platform.warehouse.session("reading the universe"):
        return _needs_snapshot(platform, first, last, now)


def _needs_snapshot(platform: Platform, first: date, last: date, now: datetime) -> bool:
    known = tracked_by_day(platform.warehouse, first, last)
    if len(known) < (last - first).days + 1:
        return True
    days = {
        day for day in (now.date(), day_closed_by_snapshot(now)) if day and first <= day <= last
    }
    wanted = {day: known[day] for day in days}
    if not all(tracked.is_stored for tracked in wanted.values()):
        return True
    return bool(unsettled(platform.warehouse, MARKET_CAPS, wanted, fresh=snapshot_kept(now)))


def _snapshot(platform: Platform, now: datetime) -> Fetched[MarketsPage]:
    """Fetch the largest coins, and by name those tracked lately that rank lower.

    Once the running day has its coins, just these, which takes no more calls.
    """
    universe, today = platform.settings.universe, now.date()
    with platform.warehouse.session("reading the universe"):
        known = tracked_by_day(platform.warehouse, today - DAY, today)
        told = _told_of(platform, today)
        lately = _lately(platform, today)
    coingecko = platform.resuming(snapshot_kept(now), {today: told})
    chosen = known.get(today, _NOBODY)
    is_settled = chosen.is_stored and chosen.is_point_in_time
    if is_settled and day_closed_by_snapshot(now) is None and _can_be_named(chosen.coins):
        named = _all_named(coingecko, chosen.coins)
        if named is not None:
            return named
    also = {coin for tracked in known.values() for coin in tracked.coins}
    return coingecko.all_markets(universe.tracked, also={*also, *universe.always, *lately})


def _all_named(coingecko: CoinGecko, coins: frozenset[str]) -> Fetched[MarketsPage] | None:
    """Return what is told of these coins; None where an answer is cut short or lacks one."""
    try:
        named = coingecko.markets_of(coins)
    except ContractError:
        return None
    return named if coins <= {*named.data.frame["coin_id"], *named.data.refused} else None


def _can_be_named(coins: frozenset[str]) -> bool:
    return len(coins) >= _ENOUGH_TO_NAME and all(map(can_be_named, coins))


def _told_of(platform: Platform, today: date) -> datetime | None:
    """Return when the running day's coins were last told of."""
    told = platform.warehouse.query(
        "SELECT max(asked_at) AS at FROM coverage WHERE table_name = 'market_caps' AND date = ?",
        [today],
        purpose="reading the universe",
    )["at"][0]
    return None if pd.isna(told) else told.to_pydatetime()


def _lately(platform: Platform, today: date) -> frozenset[str]:
    """Return the coins of the last two days: one that is away now may be back tomorrow."""
    return coins_with_rows(platform.warehouse, today - 2 * DAY, today - DAY)


def _chosen(platform: Platform, snapshot: Fetched[MarketsPage]) -> frozenset[str]:
    """Return the coins to track on the day a snapshot was taken."""
    universe, today = platform.settings.universe, snapshot.observed_at.date()
    return choose(snapshot.data, universe.tracked, universe.always, _lately(platform, today))


def _from_snapshot(
    platform: Platform, snapshot: Fetched[MarketsPage], first: date, last: date
) -> Iterator[Batch]:
    """Yield the running day and, just after midnight, the close of the day before.

    A day's universe is fixed by its first snapshot: what is stored of a day wins. So does a close
    that an earlier snapshot brought.
    """
    today = snapshot.observed_at.date()
    for day in (day_closed_by_snapshot(snapshot.observed_at), today):
        if day is not None and first <= day <= last:
            with platform.warehouse.session("reading the universe"):
                known = tracked_by_day(platform.warehouse, day, day).get(day)
                if known is None or (day == today and not known.is_stored):
                    known = Tracked(_chosen(platform, snapshot), is_point_in_time=day == today)
                closed = unsettled(platform.warehouse, MARKET_CAPS, {day: known})
            part = Snapshot(day, tuple(sorted(closed)), known.is_point_in_time, snapshot.raw_ids)
            platform.note(MARKET_CAPS, part)
            yield replace(
                snapshot_batch(snapshot, part),
                on_refusal=partial(platform.raw.refuse, snapshot.raw_ids),
            )


def snapshot_batch(snapshot: Fetched[MarketsPage], part: Snapshot) -> Batch:
    """Return the rows of a snapshot that are part of one day, and the coins it lacks."""
    frame, day = snapshot.data.frame, part.day
    rows = frame[frame["coin_id"].isin(part.coins) & (frame["price_usd"] > 0)].assign(
        date=pd.Timestamp(day),
        is_point_in_time=part.in_time,
        is_final=snapshot.observed_at.date() > day,
        source=snapshot.source,
    )
    gaps = [
        Gap(coin, day, "missing", snapshot.data.refused.get(coin, "not in the market snapshot"))
        for coin in sorted(set(part.coins) - set(rows["coin_id"]))
    ]
    provenance = ["is_final", "source", "observed_at", "raw_id"]
    # The last page is the newest; what came before it is no news to a later run either.
    checked_at = max([snapshot.observed_at, *frame["observed_at"]])
    return Batch(
        rows[[*MARKET_CAPS.content_columns, *provenance]],
        Inspection({coin: [day] for coin in part.coins}, gaps, checked_at),
    )


def closes_from_chart(chart: pd.DataFrame) -> Columns:
    """Return the daily closes of a market chart: date and values.

    A daily stamp is the close of the day before it; any other stamp is the appended "now".
    """
    stamps = chart["stamp"].to_numpy()
    prices = chart["price_usd"].to_numpy()
    is_close = (stamps.astype("datetime64[D]") == stamps) & (prices > 0)
    return {
        "date": stamps[is_close] - np.timedelta64(DAY),
        "price_usd": prices[is_close],
        "market_cap_usd": chart["market_cap_usd"].to_numpy()[is_close],
        "volume_24h_usd": chart["volume_24h_usd"].to_numpy()[is_close],
    }


def _closes(_: routes.Call, answer: Fetched[pd.DataFrame]) -> Columns:
    return closes_from_chart(answer.data)


MARKET_CAPS_FILLING = Filling(MARKET_CAPS, _closes)
