"""The mood of the market: a fear & greed index that follows bitcoin's price. No HTTP."""

from collections.abc import Callable
from datetime import date, timedelta

import numpy as np
import pandas as pd

from crypto_assets.sandbox import noise
from crypto_assets.sandbox.noise import Floats

FIRST_DAY = date(2018, 2, 1)
# The real index lacks the same days.
MISSING_DAYS = frozenset(
    {date(2018, 4, 14), date(2018, 4, 15), date(2018, 4, 16), date(2024, 10, 26)}
)
_BOUNDS = np.array([25, 47, 55, 76])
_LABELS = np.array(["Extreme Fear", "Fear", "Neutral", "Greed", "Extreme Greed"])


def fear_greed(
    seed: int, prices: Callable[[str, date, date], Floats], first: date, last: date
) -> pd.DataFrame:
    """Index values of the days first..last: date (datetime64[ns]), value (0-100), label (str).

    A day's value knows prices up to its 00:00. On a few days the label is that of the neighbouring
    band: the provider moved its bounds over the years, so labels are facts of their own.
    """
    begin = max(first, FIRST_DAY)
    days = pd.date_range(begin, last, freq="D") if last >= begin else pd.DatetimeIndex([])
    if not len(days):
        return _frame(days, np.empty(0, dtype=np.int64), np.empty(0, dtype=object))
    closes = np.log(prices("bitcoin", begin - timedelta(days=29), last))
    window = np.convolve(closes, np.ones(30) / 30, mode="valid")
    numbers = (days.to_numpy() - np.datetime64("1970-01-01")) // np.timedelta64(1, "D")
    shake = noise.uniform(noise.key(seed, "mood"), numbers)[0]
    mood = 50 + 42 * np.tanh(4 * (closes[29:] - window)) + 16 * (shake - 0.5)
    values = np.clip(np.rint(mood), 3, 97).astype(np.int64)
    moved = noise.uniform(noise.key(seed, "bounds"), numbers)[0] < 0.15
    labels = _LABELS[np.searchsorted(_BOUNDS, values - np.where(moved, 1, 0), side="right")]
    kept = ~pd.Index(days.date).isin(list(MISSING_DAYS))
    return _frame(days[kept], values[kept], labels[kept].astype(object))


def _frame(days: pd.DatetimeIndex, values: object, labels: object) -> pd.DataFrame:
    return pd.DataFrame({"date": days.astype("datetime64[ns]"), "value": values, "label": labels})
