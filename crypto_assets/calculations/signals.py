"""Trend signals from exponential moving averages, over whole price histories.

Dense grids of days by coins: one numpy loop over time serves all coins at once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Grid = npt.NDArray[np.float64]

WARM_SLOW_SPANS = 3
VOLATILITY_DAYS = 20


@dataclass(frozen=True)
class SpanPair:
    """Spans of a fast and a slow EMA, in days."""

    fast: int
    slow: int


def ema_signals(prices: pd.DataFrame, pairs: list[SpanPair]) -> pd.DataFrame:
    """Return the EMA signals of every coin on every day it has a price.

    Takes date (datetime64), coin_id, price_usd (a row a coin and day, in any order) and is_final.
    Returns, for each pair, date, coin_id, fast_span, slow_span, price_usd, ema_fast, ema_slow,
    strength, trend_z, state, event (NA unless warm and final) and is_warm. A day without a price
    is passed over: the averages go on with the next close.
    """
    grid = prices.pivot(index="date", columns="coin_id", values="price_usd").sort_index()
    final = (
        prices.assign(is_final=prices["is_final"].astype("float64"))
        .pivot(index="date", columns="coin_id", values="is_final")
        .reindex_like(grid)
    )
    closes = grid.to_numpy(dtype="float64", na_value=np.nan)
    has_price = ~np.isnan(closes)
    is_final = final.to_numpy(dtype="float64") > 0
    volatility = rolling_volatility(closes, VOLATILITY_DAYS)
    averages = {span: ema(closes, span) for pair in pairs for span in (pair.fast, pair.slow)}
    age = np.cumsum(has_price, axis=0) - 1
    day, coin = np.nonzero(has_price)
    frames = []
    for pair in pairs:
        fast, slow = averages[pair.fast], averages[pair.slow]
        state = trend_state(fast, slow)
        warm = age >= WARM_SLOW_SPANS * pair.slow
        event = pd.Series(crossovers(state)[day, coin], dtype="Int64")
        event[~(warm & is_final)[day, coin]] = pd.NA
        frames.append(
            pd.DataFrame(
                {
                    "date": grid.index.to_numpy()[day],
                    "coin_id": grid.columns.to_numpy()[coin],
                    "fast_span": pair.fast,
                    "slow_span": pair.slow,
                    "price_usd": closes[day, coin],
                    "ema_fast": fast[day, coin],
                    "ema_slow": slow[day, coin],
                    "strength": (fast[day, coin] - slow[day, coin]) / slow[day, coin],
                    "trend_z": trend_z(fast, slow, volatility, pair)[day, coin],
                    "state": state[day, coin],
                    "event": event,
                    "is_warm": warm[day, coin],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def ema(values: Grid, span: int) -> Grid:
    """Return the exponential moving average down each column, seeded with its first value.

    alpha = 2 / (span + 1); a NaN leaves the average where it was (pandas `ewm(span, adjust=False,
    ignore_na=True)`, the definition TradingView documents). Written as a step towards the value,
    which keeps the average of an unchanging price exactly that price.
    """
    alpha = 2.0 / (span + 1)
    averages = np.empty_like(values)
    current = np.full(values.shape[1], np.nan)
    for row, value in enumerate(values):
        following = np.where(np.isnan(current), value, current + alpha * (value - current))
        current = np.where(np.isnan(value), current, following)
        averages[row] = current
    return averages


def trend_state(fast: Grid, slow: Grid) -> npt.NDArray[np.int64]:
    """Return +1 where fast is above slow, -1 below; a tie keeps the state, which begins at 0."""
    sign = np.nan_to_num(np.sign(fast - slow)).astype("int64")
    rows = np.arange(len(sign))[:, None]
    last_told = np.maximum.accumulate(np.where(sign != 0, rows, 0), axis=0)
    return np.take_along_axis(sign, last_told, axis=0)


def crossovers(state: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the state where it turned into its opposite, else 0; leaving 0 is no cross."""
    before = np.vstack([np.zeros_like(state[:1]), state[:-1]])
    return np.where(state * before == -1, state, 0)


def trend_z(fast: Grid, slow: Grid, volatility: Grid, pair: SpanPair) -> Grid:
    """Return ln(fast/slow) in standard deviations of what a random walk would show.

    The spread of two EMAs of a random walk with daily volatility s has the standard deviation
    k*s; NaN without volatility.
    """
    scale = spread_scale(pair) * np.where(volatility > 0, volatility, np.nan)
    result: Grid = np.log(fast / slow) / scale
    return result


def spread_scale(pair: SpanPair) -> float:
    """Return k: the standard deviation of fast minus slow EMA of a unit random walk.

    With b = 1 - 2/(span+1): k^2 = bs^2/(1-bs^2) + bf^2/(1-bf^2) - 2*bf*bs/(1-bf*bs).
    """
    fast, slow = (1 - 2 / (span + 1) for span in (pair.fast, pair.slow))
    own = sum(b**2 / (1 - b**2) for b in (fast, slow))
    return float(np.sqrt(own - 2 * fast * slow / (1 - fast * slow)))


def rolling_volatility(closes: Grid, days: int) -> Grid:
    """Return the standard deviation (ddof 1) of the last `days` log returns down each column.

    Daily, not annualised; NaN until there are as many returns, counted over the closes there are.
    """
    result = np.full_like(closes, np.nan)
    for column, prices in enumerate(np.log(closes).T):
        there = np.flatnonzero(~np.isnan(prices))
        result[there[days:], column] = rolling_std(np.diff(prices[there]), days)
    return result


def rolling_std(values: Grid, length: int) -> Grid:
    """Return the standard deviation (ddof 1) of each run of `length` values of an array.

    Each from its own window, where a running sum would carry rounding from all before: a row must
    not depend on how much history was read with it.
    """
    if len(values) < length:
        return np.empty(0)
    runs = np.lib.stride_tricks.sliding_window_view(values, length)
    return np.asarray(runs.std(axis=1, ddof=1), dtype="float64")
