"""CoinGecko's series: market charts and candles with the quirks of their stamps. No HTTP.

The truth is market.py's; what is bent here is only where points lie, which are missing, and which
come too early, too late or in the wrong order.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from crypto_assets.sandbox import noise
from crypto_assets.sandbox.clock import seconds_since_epoch
from crypto_assets.sandbox.market import (
    CANDLE_STEPS,
    STEP_SECONDS,
    STEPS_PER_DAY,
    Ints,
    Market,
    to_candles,
)
from crypto_assets.sandbox.noise import Floats
from crypto_assets.sandbox.reply import day_start, last_ready_midnight

DAY_SECONDS = 86_400
RANGE_READY_MINUTES = 35  # market_chart/range, ohlc, ohlc/range and history
CHART_READY_MINUTES = 10  # market_chart

Row = tuple[float, ...]


@dataclass(frozen=True)
class Window:
    """Stamps asked for, UNIX seconds, both ends included."""

    first: float
    last: float

    @property
    def days(self) -> float:
        """Length in days."""
        return (self.last - self.first) / DAY_SECONDS


def automatic_granularity(days: float) -> str:
    """The spacing market charts pick by the length of their window in days."""
    if days <= 1:
        return "5m"
    return "hourly" if days <= 90 else "daily"


def market_chart(
    market: Market,
    coin_id: str,
    window: Window,
    granularity: str,
    now: datetime,
    ready_minutes: int,
) -> dict[str, Any]:
    """`{prices, market_caps, total_volumes}` as lists of [stamp in ms, value]."""
    coin, row = market.coin(coin_id), market.index[coin_id]
    if not coin.is_priced or is_renamed(market, coin_id, now):
        return {"prices": [], "market_caps": [], "total_volumes": []}
    present = seconds_since_epoch(now)
    window = Window(window.first, min(window.last, present))
    if granularity == "daily":
        stamps = _daily_stamps(market, row, window, now, ready_minutes)
    else:
        stamps = _loose_stamps(market, row, window, granularity)
    alive = _alive_steps(market, row)
    if window.last == present and alive[0] < int(present // STEP_SECONDS) <= alive[1]:
        stamps = np.append(stamps, int(present * 1_000))
        stamps = _shuffled_tail(market, row, stamps, now)
    return _series(market, row, stamps)


def is_renamed(market: Market, coin_id: str, now: datetime) -> bool:
    """Whether the id is an old one by now: it still answers, with nothing."""
    row = market.index[coin_id]
    step = seconds_since_epoch(now) // STEP_SECONDS
    return market.entries[row].renamed_to is not None and step > _alive_steps(market, row)[1]


def _daily_stamps(
    market: Market, row: int, window: Window, now: datetime, ready_minutes: int
) -> Ints:
    ready = seconds_since_epoch(last_ready_midnight(now, ready_minutes)) // DAY_SECONDS
    first = max(-(-window.first // DAY_SECONDS), market.listed[row] + 1)
    last = min(window.last // DAY_SECONDS, market.died[row], ready)
    days = np.arange(int(first), int(last) + 1)
    missing = [
        np.datetime64(day, "D").astype(np.int64) + 1 for day in market.entries[row].missing_days
    ]
    kept: Ints = days[~np.isin(days, missing)] * (DAY_SECONDS * 1_000)
    return kept


def _loose_stamps(market: Market, row: int, window: Window, granularity: str) -> Ints:
    """Stamps in ms a little after each grid point, never twice the same distance apart."""
    spacing, spread = (3_600, 3_000) if granularity == "hourly" else (300, 100)
    alive = _alive_steps(market, row)
    first = max(window.first, (alive[0] + 1) * STEP_SECONDS)
    last = min(window.last, alive[1] * STEP_SECONDS)
    slots = np.arange(int(first // spacing) - 1, int(last // spacing) + 1)
    key = noise.key(market.seed, "stamps", market.entries[row].coin_id, granularity)
    delays = (noise.uniform(key, slots)[0] * spread * 1_000).astype(np.int64)
    stamps = slots * (spacing * 1_000) + delays
    kept: Ints = stamps[(stamps >= first * 1_000) & (stamps <= last * 1_000)]
    return kept


def _shuffled_tail(market: Market, row: int, stamps: Ints, now: datetime) -> Ints:
    """On one day in eight the last two points of a coin come in the wrong order."""
    name = market.entries[row].coin_id
    chance = noise.single_uniform(noise.key(market.seed, "tail"), name, now.date())
    if len(stamps) < 2 or chance >= 1 / 8:
        return stamps
    return np.concatenate([stamps[:-2], stamps[:-3:-1]])


def _series(market: Market, row: int, stamps: Ints) -> dict[str, Any]:
    if not len(stamps):
        return {"prices": [], "market_caps": [], "total_volumes": []}
    steps = stamps // (STEP_SECONDS * 1_000)
    prices = _prices(market, row, steps)
    caps = market.market_caps(row, prices, steps // STEPS_PER_DAY)
    volumes = market.volumes_at(row, steps)
    return {
        "prices": _points(stamps, prices),
        "market_caps": _points(*_thinned(market, row, stamps, caps, 29)),
        "total_volumes": _points(*_thinned(market, row, stamps, volumes, 31)),
    }


def _prices(market: Market, row: int, steps: Ints) -> Floats:
    inside = steps % STEPS_PER_DAY
    if len(steps) > 2 and not inside[:-2].any():
        # Daily points need no 5-minute path; only the last two may lie inside a day.
        days = steps // STEPS_PER_DAY
        first = int(days.min())
        prices = market.closes(row, first, int(days.max()))[days - first]
        for place in np.flatnonzero(inside):
            prices[place] = market.path(row, int(steps[place]), int(steps[place]))[0]
        return prices
    first_step = int(steps.min())
    return market.path(row, first_step, int(steps.max()))[steps - first_step]


def _thinned(
    market: Market, row: int, stamps: Ints, values: Floats, every: int
) -> tuple[Ints, Floats]:
    """A ragged coin lacks some points in one array that another one has."""
    if not market.entries[row].is_ragged:
        return stamps, values
    kept = stamps // 3_600_000 % every != 0
    return stamps[kept], values[kept]


def _points(stamps: Ints, values: Floats) -> list[tuple[int, float | None]]:
    numbers: list[Any] = values.tolist()
    if np.isnan(values).any():
        numbers = [None if number != number else number for number in numbers]
    return list(zip(stamps.tolist(), numbers, strict=True))


def _alive_steps(market: Market, row: int) -> tuple[int, int]:
    return int(market.listed[row]) * STEPS_PER_DAY, int(market.died[row]) * STEPS_PER_DAY


def automatic_candle(days: int) -> str:
    """The candle `/ohlc` picks by its `days`."""
    if days <= 2:
        return "30min"
    return "4h" if days <= 30 else "4D"


def recent_candles(market: Market, coin_id: str, days: int, now: datetime) -> list[Row]:
    """`/ohlc` without interval: the first candle holds only what lies in the window, the last only
    what has happened; each is stamped at its close.
    """
    present = seconds_since_epoch(now)
    size = CANDLE_STEPS[automatic_candle(days)]
    begin = int(-(-(present - days * DAY_SECONDS) // STEP_SECONDS))
    end = int(present // STEP_SECONDS)
    return _candles(market, coin_id, size, (begin, end), now, with_running=True)


def stored_candles(
    market: Market, coin_id: str, interval: str, window: Window, now: datetime
) -> list[Row]:
    """Hourly or daily candles whose close stamps lie in the window, both ends included; the running
    one too if the window reaches to now or beyond. Stamped at the close.

    The daily candle of a day just over is either not there yet or still as it was at 23:30, until
    35 minutes after midnight.
    """
    size = CANDLE_STEPS["1D" if interval == "daily" else "1h"]
    seconds = size * STEP_SECONDS
    begin = (-(-int(window.first) // seconds) - 1) * size
    present = int(seconds_since_epoch(now) // STEP_SECONDS)
    with_running = window.last >= seconds_since_epoch(now)
    end = present if with_running else int(window.last // seconds) * size
    midnight = present // STEPS_PER_DAY * STEPS_PER_DAY
    is_late = now - day_start(now) < timedelta(minutes=RANGE_READY_MINUTES)
    if interval == "daily" and is_late and end >= midnight:
        with_running = is_stale_kind(market, coin_id)
        end = midnight - 6 if with_running else midnight - size
    return _candles(market, coin_id, size, (begin, end), now, with_running)


def is_stale_kind(market: Market, coin_id: str) -> bool:
    """Whether a late daily candle of the coin shows as an unfinished one rather than not at all."""
    return noise.single_uniform(noise.key(market.seed, "late"), coin_id) < 0.5


def _candles(
    market: Market,
    coin_id: str,
    size: int,
    span: tuple[int, int],
    now: datetime,
    with_running: bool,
) -> list[Row]:
    """Candles of `size` steps over a span of steps, cut at both ends of it."""
    row = market.index[coin_id]
    if not market.entries[row].is_priced or is_renamed(market, coin_id, now):
        return []
    born, died = _alive_steps(market, row)
    begin, end = max(span[0], born), min(span[1], died)
    first = begin // size * size
    # An instant on the grid ends one candle and begins the next, which then has a single price.
    has_running = with_running and span[1] < died
    last = (end // size + 1) * size if has_running else -(-end // size) * size
    if last <= first or end < begin:
        return []
    known = market.path(row, first, end)
    path = np.concatenate([known, np.full(last - end, known[-1])])
    path[: begin - first] = path[begin - first]
    opens, highs, lows, closes = to_candles(path, size)
    stamps = (np.arange(first + size, last + size, size) * (STEP_SECONDS * 1_000)).tolist()
    columns = (opens.tolist(), highs.tolist(), lows.tolist(), closes.tolist())
    return list(zip(stamps, *columns, strict=True))
