"""Trend signals from exponential moving averages, over whole price histories.

Dense grids of closes by coins: one numpy loop over time serves all coins at once.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Grid = npt.NDArray[np.float64]
States = npt.NDArray[np.int8]
Places = npt.NDArray[np.intp]
Days = npt.NDArray[np.datetime64]
Codes = npt.NDArray[Any]

WARM_SLOW_SPANS = 3
VOLATILITY_DAYS = 20
# As many values as stay in a processor's cache while they are worked on.
_BLOCK_VALUES = 16_384
_COMPUTED = {
    "ema_fast": "float64",
    "ema_slow": "float64",
    "strength": "float64",
    "trend_z": "float64",
    "state": "int8",
    "event": "int8",
    "is_warm": "bool",
}
_READ = ["date", "coin_id", "price_usd", "is_final", "is_asked"]


@dataclass(frozen=True, order=True)
class SpanPair:
    """Spans of a fast and a slow EMA, in days."""

    fast: int
    slow: int


@dataclass(frozen=True)
class _Histories:
    """Closes of many coins side by side, without holes; all end in the last row.

    `grid` has a column a coin, filled up in front with its first close, which moves no average.
    Of each price, `rows` and `columns` are its place there, `ages` how many closes came before it.
    """

    grid: Grid
    rows: Places
    columns: Codes
    ages: Places


def ema_signals(prices: pd.DataFrame, pairs: list[SpanPair]) -> pd.DataFrame:
    """Return the EMA signals of every coin on every day it has a price.

    Takes date (datetime64), coin_id, price_usd (a row a coin and day, in any order) and is_final.
    Where there is a column is_asked, rows without it count but are not returned; other columns are
    carried along. Returns, for each pair, date, coin_id (categories), fast_span, slow_span,
    price_usd, ema_fast, ema_slow, strength, trend_z, state, event (NA unless warm and final) and
    is_warm, sorted by date, coin_id and pair. A day without a price is passed over: the averages go
    on with the next close.
    """
    pairs = sorted(pairs)
    coin_ids = prices["coin_id"].astype("category")
    codes, days = coin_ids.cat.codes.to_numpy(), prices["date"].to_numpy()
    closes = prices["price_usd"].to_numpy(dtype="float64")
    histories = _side_by_side(closes, days, codes, len(coin_ids.cat.categories))
    asked = np.arange(len(prices))
    if "is_asked" in prices:
        asked = np.flatnonzero(prices["is_asked"].to_numpy())
    asked = asked[np.lexsort((codes[asked], days[asked]))]
    computed = _computed(histories, asked, pairs)
    carried = prices.columns.difference(_READ)

    def told(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.repeat(values[asked], len(pairs))

    is_known = computed["is_warm"] & told(prices["is_final"].to_numpy(dtype=bool))
    columns = {
        "date": told(days),
        "coin_id": coin_ids.array.take(asked).repeat(len(pairs)),
        "fast_span": np.tile(np.array([pair.fast for pair in pairs], dtype="int32"), len(asked)),
        "slow_span": np.tile(np.array([pair.slow for pair in pairs], dtype="int32"), len(asked)),
        "price_usd": told(closes),
        **(computed | {"event": pd.arrays.IntegerArray(computed["event"], ~is_known)}),
        **{name: told(prices[name].to_numpy()) for name in carried},
    }
    return pd.DataFrame(columns, copy=False)


def _side_by_side(closes: Grid, days: Days, codes: Codes, coins: int) -> _Histories:
    by_coin = np.lexsort((days, codes))
    lengths = np.bincount(codes, minlength=coins)
    longest = lengths.max(initial=0)
    ages = np.empty(len(codes), dtype="intp")
    ages[by_coin] = np.arange(len(codes)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows = ages + (longest - lengths)[codes]
    firsts = np.ones(coins)
    firsts[codes[ages == 0]] = closes[ages == 0]
    grid = np.tile(firsts, (longest, 1))
    grid[rows, codes] = closes
    return _Histories(grid, rows, codes, ages)


def _computed(
    histories: _Histories, asked: Places, pairs: list[SpanPair]
) -> dict[str, npt.NDArray[Any]]:
    """Return the computed columns of the asked rows, each with a value for each pair in turn."""
    grid, coins = histories.grid, histories.grid.shape[1]
    rows, ages = histories.rows[asked], histories.ages[asked]
    places = rows * coins + histories.columns[asked]
    before = max(0, rows.min(initial=len(grid)) - VOLATILITY_DAYS)
    volatility = rolling_volatility(grid[before:], VOLATILITY_DAYS).ravel()[places - before * coins]
    volatility[ages < VOLATILITY_DAYS] = np.nan
    found = {
        name: np.empty((len(asked), len(pairs)), dtype=dtype) for name, dtype in _COMPUTED.items()
    }
    for number, pair in enumerate(pairs):
        averages = ema(grid, pair.fast), ema(grid, pair.slow)
        state = trend_state(*averages)
        crossed = crossovers(state)
        for at in range(0, len(asked), _BLOCK_VALUES):
            part = slice(at, at + _BLOCK_VALUES)
            fast, slow = (average.ravel()[places[part]] for average in averages)
            of_pair = {
                "ema_fast": fast,
                "ema_slow": slow,
                "strength": (fast - slow) / slow,
                "trend_z": trend_z(fast, slow, volatility[part], pair),
                "state": state.ravel()[places[part]],
                "event": crossed.ravel()[places[part]],
                "is_warm": ages[part] >= WARM_SLOW_SPANS * pair.slow,
            }
            for name, values in of_pair.items():
                found[name][part, number] = values
    return {name: values.ravel() for name, values in found.items()}


def ema(values: Grid, span: int) -> Grid:
    """Return the exponential moving average down each column, seeded with its first value.

    alpha = 2 / (span + 1) (pandas `ewm(span, adjust=False)`, the definition TradingView
    documents). Written as a step towards the value, which keeps the average of an unchanging price
    exactly that price.
    """
    alpha = 2.0 / (span + 1)
    averages = np.empty_like(values)
    averages[:1] = values[:1]
    for value, before, average in zip(values[1:], averages[:-1], averages[1:], strict=True):
        np.subtract(value, before, out=average)
        np.multiply(average, alpha, out=average)
        np.add(average, before, out=average)
    return averages


def trend_state(fast: Grid, slow: Grid) -> States:
    """Return +1 where fast is above slow, -1 below; a tie keeps the state, which begins at 0."""
    states: States = (fast > slow).view("int8") - (fast < slow).view("int8")
    for before, state in pairwise(states):
        np.copyto(state, before, where=state == 0)
    return states


def crossovers(states: States) -> States:
    """Return the state where it turned into its opposite, else 0; leaving 0 is no cross."""
    crossed = np.zeros_like(states)
    np.copyto(crossed[1:], states[1:], where=states[1:] * states[:-1] == -1)
    return crossed


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

    Daily, not annualised; NaN until there are as many returns.
    """
    result = np.full_like(closes, np.nan)
    result[days:] = rolling_std(np.diff(np.log(closes), axis=0), days)
    return result


def rolling_std(values: Grid, length: int) -> Grid:
    """Return the standard deviation (ddof 1) of each run of `length` values down the first axis.

    Each from its own window, where a running sum would carry rounding from all before: a row must
    not depend on how much history was read with it.
    """
    count = max(0, len(values) - length + 1)
    result = np.empty((count, *values.shape[1:]))
    step = max(1, _BLOCK_VALUES * len(values) // max(1, values.size))
    for at in range(0, count, step):
        part = result[at : at + step]
        runs = [values[at + n : at + n + len(part)] for n in range(length)]
        _std(runs, out=part)
    return result


def _std(runs: list[Grid], out: Grid) -> None:
    """Put the standard deviation (ddof 1) across the runs into `out`."""
    mean, deviation = np.zeros_like(out), np.empty_like(out)
    for run in runs:
        mean += run
    mean /= len(runs)
    out[:] = 0
    for run in runs:
        np.subtract(run, mean, out=deviation)
        deviation *= deviation
        out += deviation
    out /= len(runs) - 1
    np.sqrt(out, out=out)
