"""ohlc_hourly and ohlc_daily: candles of the tracked coins, true ones where the plan has them."""

from collections.abc import Callable, Iterator
from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.assembling import Columns, Filling
from crypto_assets.assets.choice import FetchChoice
from crypto_assets.assets.days import begun_days
from crypto_assets.assets.fetching import failure
from crypto_assets.assets.histories import fetch_histories
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.universe import Tracked, choose, snapshot_kept, tracked_by_day
from crypto_assets.calculations import candles
from crypto_assets.providers import routes
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.fetched import Fetched
from crypto_assets.providers.plans import Plan
from crypto_assets.tables import OHLC_DAILY, OHLC_HOURLY, Table
from crypto_assets.warehouse.writer import Batch, Batches


def ohlc_daily(
    context: dg.AssetExecutionContext,
    platform: dg.ResourceParam[Platform],
    config: FetchChoice,
) -> Batches:
    """Bring the daily candles of every tracked coin."""
    first, last = begun_days(context, platform.clock)
    return Batches(_candles(platform, first, last, DAILY_FILLING, config))


def ohlc_hourly(
    context: dg.AssetExecutionContext,
    platform: dg.ResourceParam[Platform],
    config: FetchChoice,
) -> Batches:
    """Bring the hourly candles of every tracked coin, or of the headline coins on free plans."""
    first, last = begun_days(context, platform.clock)
    return Batches(_candles(platform, first, last, HOURLY_FILLING, config))


def _candles(
    platform: Platform, first: date, last: date, filling: Filling, choice: FetchChoice
) -> Iterator[Batch]:
    try:
        universe = platform.settings.universe
        known_today: frozenset[str] | None = None
        if is_universe_unknown(platform, first, last):
            now = platform.clock.now()
            coingecko = platform.resuming(snapshot_kept(now), {now.date(): None})
            markets = coingecko.all_markets(universe.tracked, also=universe.always)
            known_today = choose(markets.data, universe.tracked, universe.always)
        tracked = tracked_for(platform, filling.table, first, last, known_today)
        choice.refuse_unknown(tracked)
        yield from fetch_histories(platform, tracked, filling, choice)
    except ProviderError as error:
        raise failure(error) from None


def is_universe_unknown(platform: Platform, first: date, last: date) -> bool:
    """Tell whether some of these days has no universe yet, as in an empty warehouse."""
    known = tracked_by_day(platform.warehouse, first, last)
    return len(known) < (last - first).days + 1


def is_headline_only(table: Table, plan: Plan) -> bool:
    """Tell whether a table is for few coins: a call a coin and hour eats a free plan's month."""
    return table is OHLC_HOURLY and not plan.is_paid


def tracked_for(
    platform: Platform,
    table: Table,
    first: date,
    last: date,
    known_today: frozenset[str] | None = None,
) -> dict[date, Tracked]:
    """Return, by day, the coins a table is fetched for; headline coins only where no more fit."""
    tracked = tracked_by_day(platform.warehouse, first, last, known_today=known_today)
    if is_headline_only(table, platform.plan):
        headline = frozenset(platform.settings.universe.headline)
        return {day: Tracked(headline, t.is_point_in_time) for day, t in tracked.items()}
    return tracked


def _rows_with(
    time_column: str, length: candles.Interval
) -> Callable[[routes.Call, Fetched[pd.DataFrame]], Columns]:
    def rows(call: routes.Call, answer: Fetched[pd.DataFrame]) -> Columns:
        found = candles_from(call, answer, length)
        times = found["open_time"].to_numpy()
        return {time_column: times, **{name: found[name].to_numpy() for name in candles.OHLC}}

    return rows


def _with_session(rows: pd.DataFrame) -> pd.DataFrame:
    rows["session"] = candles.session_of(rows["open_time"])
    return rows


def candles_from(
    call: routes.Call, answer: Fetched[pd.DataFrame], length: candles.Interval
) -> pd.DataFrame:
    """Return at least open_time and open, high, low, close (US dollars) from any answer."""
    observed_at = pd.Timestamp(answer.observed_at)
    if call.endpoint == "market_chart_range":
        built = candles.approximate(answer.data, length)
        return candles.closed_by(built, observed_at, length)
    found = answer.data
    if call.endpoint == "ohlc_range":
        return found
    part = "30min" if call.days == 1 else "4h"
    # The oldest candle is cut off where the provider's window begins.
    whole = found.sort_values("open_time").iloc[1:]
    return candles.aggregate(candles.closed_by(whole, observed_at, part), part, length)


DAILY_FILLING = Filling(OHLC_DAILY, _rows_with("date", "1D"))
HOURLY_FILLING = Filling(OHLC_HOURLY, _rows_with("open_time", "1h"), _with_session)
