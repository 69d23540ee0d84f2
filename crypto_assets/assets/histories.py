"""From wanted days of many coins to batches of rows: plan, fetch, cut, tell what is not there.

Shared by every table that is filled coin by coin. What a row looks like is each table's own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import pandas as pd

from crypto_assets.assets.fetching import Outcome, fail_if_too_much_missing, fetch_each
from crypto_assets.assets.platform import Platform
from crypto_assets.periods import close_of, is_final, windows
from crypto_assets.providers import routes
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.http import Fetched
from crypto_assets.providers.plans import Plan
from crypto_assets.tables import Table
from crypto_assets.warehouse.gaps import Gap, GapState, Inspection
from crypto_assets.warehouse.writer import Batch

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


def fetch_histories(platform: Platform, wanted: WantedDays, route: Route) -> Iterator[Batch]:
    """Yield what the provider has of the wanted days, a batch for each window of days.

    Raises `dagster.Failure` after the last batch when too many coins are missing, and
    `ProviderError` at once when the provider as a whole is out of reach.
    """
    failed: dict[str, ProviderError] = {}
    wanted_days = [day for of_coin in wanted.values() for day in of_coin]
    if not wanted_days:
        return
    for first, last in windows(
        min(wanted_days), max(wanted_days), route.window_days(platform.plan)
    ):
        within = {
            coin: in_window
            for coin, of_coin in wanted.items()
            if (in_window := [day for day in of_coin if first <= day <= last])
        }
        batch, outcome = _fetch_window(platform, within, route)
        failed |= outcome.failed
        yield batch
    fail_if_too_much_missing(
        route.table.name, failed, len(wanted), platform.settings.fetch.max_missing_share
    )


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
    frames: list[pd.DataFrame] = []
    gaps: list[Gap] = []
    for coin, of_coin in wanted.items():
        rows = _rows_of(coin, of_coin, outcome.answered.get(coin, []), route)
        present = set(rows["day"].dt.date) if rows is not None else set()
        if rows is not None:
            frames.append(rows.drop(columns=["day", "ends_at"]))
        gaps += [
            Gap(coin, day, *_why_absent(day, outcome.failed.get(coin), oldest, plan))
            for day in of_coin
            # What is not due yet is no gap.
            if day not in present and is_final(close_of(day), now, route.table.ready_after)
        ]
    found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return Batch(found, Inspection(wanted, gaps)), outcome


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


def _rows_of(
    coin: str, wanted: Sequence[date], answers: Sequence[Answer], route: Route
) -> pd.DataFrame | None:
    """Return a coin's rows of the wanted days with their provenance; none where there are none."""
    frames = []
    for call, answer in answers:
        rows = route.rows(call, answer)
        rows["day"] = rows[route.table.time_column].dt.normalize()
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
    if not frames:
        return None
    joined = pd.concat(frames, ignore_index=True)
    if "exactness" in joined:
        # 'approximate' sorts before 'exact': where both brought a candle, the true one stays.
        joined = joined.sort_values("exactness", kind="stable")
    return joined.drop_duplicates(list(route.table.key), keep="last")


def _why_absent(
    day: date, error: ProviderError | None, oldest: date, plan: Plan
) -> tuple[GapState, str]:
    if day < oldest:
        return "missing", f"older than the {plan.history_days} days of the plan '{plan.name}'"
    if error is not None:
        status = f" (HTTP {error.status})" if error.status else ""
        return "missing", f"{error.problem}{status}"
    return "no_data_at_provider", "the provider has no value"
