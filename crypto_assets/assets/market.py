"""coin_list, market_caps and ranks: which coins there are, what they are worth, who is larger."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import asked_days, begun_days
from crypto_assets.assets.derived import complete_days, derived_rows, refuse_without_inputs
from crypto_assets.assets.fetching import failure
from crypto_assets.assets.histories import Route, fetch_histories
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import (
    Tracked,
    choose,
    coins_with_rows,
    tracked_by_day,
    unsettled,
)
from crypto_assets.calculations.coins import merge_coin_list
from crypto_assets.calculations.ranks import rank_by_market_cap
from crypto_assets.periods import DAY, day_closed_by_snapshot
from crypto_assets.providers import routes
from crypto_assets.providers.coingecko_frames import MarketsPage
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.http import Fetched
from crypto_assets.tables import COIN_LIST, MARKET_CAPS, RANKS
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.io_manager import READ_AT
from crypto_assets.warehouse.writer import Batch, Batches

# One call brings a coin's whole history, so all days are fetched and written at once.
_ALL_DAYS = 100 * 365


def coin_list(platform: dg.ResourceParam[Platform]) -> pd.DataFrame:
    """Merge the newest listing into the list of all coins ever seen."""
    try:
        listed = platform.coingecko.coin_list()
    except ProviderError as error:
        raise failure(error) from None
    content = ", ".join(COIN_LIST.content_columns)
    stored = platform.warehouse.query(f"SELECT {content} FROM coin_list")
    merged = merge_coin_list(stored, listed.data, listed.observed_at)
    return merged.assign(source=listed.source, raw_id=listed.raw_id)


def market_caps(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> dg.MaterializeResult[Batches]:
    """Bring the running day from one market snapshot, closed days from each coin's history."""
    first, last = begun_days(context, platform.clock)
    return dg.MaterializeResult(value=Batches(_market_caps(platform, first, last)))


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
    return derived_rows(ranked, RANKS, platform).assign(
        is_final=ranked["date"].isin(complete), materialized_at=market_caps.attrs[READ_AT]
    )


def _market_caps(platform: Platform, first: date, last: date) -> Iterator[Batch]:
    now = platform.clock.now()
    try:
        known = tracked_by_day(platform.warehouse, first, last)
        all_known = len(known) == (last - first).days + 1
        snapshot_days = {now.date(), day_closed_by_snapshot(now)}
        if not all_known or any(day and first <= day <= last for day in snapshot_days):
            snapshot = _snapshot(platform, now.date())
            yield from _from_snapshot(platform, snapshot, first, last)
            today = _chosen(platform, snapshot)
            known = tracked_by_day(platform.warehouse, first, last, known_today=today)
        closed = {day: tracked for day, tracked in known.items() if day < now.date()}
        yield from fetch_histories(platform, closed, _history_route(known))
    except ProviderError as error:
        raise failure(error) from None


def _snapshot(platform: Platform, today: date) -> Fetched[MarketsPage]:
    """Fetch the largest coins, and by name those tracked lately that rank lower."""
    universe = platform.settings.universe
    known = tracked_by_day(platform.warehouse, today - DAY, today)
    also = {coin for tracked in known.values() for coin in tracked.coins}
    also |= {*universe.always, *_lately(platform, today)}
    return platform.coingecko.all_markets(universe.tracked, also=also)


def _lately(platform: Platform, today: date) -> frozenset[str]:
    """Return the coins of the last two days: one that is away now may be back tomorrow."""
    return coins_with_rows(platform.warehouse, today - 2 * DAY, today - DAY)


def _chosen(platform: Platform, snapshot: Fetched[MarketsPage]) -> frozenset[str]:
    """Return the coins to track on the day a snapshot was taken."""
    universe, today = platform.settings.universe, snapshot.observed_at.date()
    return choose(snapshot.data.frame, universe.tracked, universe.always, _lately(platform, today))


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
            known = tracked_by_day(platform.warehouse, day, day).get(day)
            if known is None or (day == today and not known.is_stored):
                known = Tracked(_chosen(platform, snapshot), is_point_in_time=day == today)
            closed = unsettled(platform.warehouse, MARKET_CAPS, {day: known})
            yield _snapshot_batch(snapshot, day, replace(known, coins=frozenset(closed)))


def _snapshot_batch(snapshot: Fetched[MarketsPage], day: date, tracked: Tracked) -> Batch:
    frame = snapshot.data.frame
    rows = frame[frame["coin_id"].isin(tracked.coins) & (frame["price_usd"] > 0)].assign(
        date=pd.Timestamp(day),
        is_point_in_time=tracked.is_point_in_time,
        is_final=snapshot.observed_at.date() > day,
        source=snapshot.source,
    )
    coins = sorted(tracked.coins)
    gaps = [
        Gap(coin, day, "missing", snapshot.data.refused.get(coin, "not in the market snapshot"))
        for coin in sorted(tracked.coins - set(rows["coin_id"]))
    ]
    provenance = ["is_final", "source", "observed_at", "raw_id"]
    return Batch(
        rows[[*MARKET_CAPS.content_columns, *provenance]],
        Inspection({coin: [day] for coin in coins}, gaps, snapshot.observed_at),
    )


def _history_route(tracked: dict[date, Tracked]) -> Route:
    def rows(_: routes.Call, answer: Fetched[pd.DataFrame]) -> pd.DataFrame:
        closes = closes_from_chart(answer.data)
        in_time = [
            day in tracked and tracked[day].is_point_in_time for day in closes["date"].dt.date
        ]
        return closes.assign(is_point_in_time=in_time)

    return Route(MARKET_CAPS, routes.market_history, rows, lambda _: _ALL_DAYS)


def closes_from_chart(chart: pd.DataFrame) -> pd.DataFrame:
    """Return the daily closes of a market chart: date, values and `ends_at`.

    A daily stamp is the close of the day before it; any other stamp is the appended "now".
    """
    daily = chart[chart["stamp"] == chart["stamp"].dt.normalize()]
    daily = daily[daily["price_usd"] > 0]
    return pd.DataFrame(
        {
            "date": daily["stamp"] - pd.Timedelta(DAY),
            "price_usd": daily["price_usd"],
            "market_cap_usd": daily["market_cap_usd"],
            "volume_24h_usd": daily["volume_24h_usd"],
            "ends_at": daily["stamp"],
        }
    )
