"""Candles from what providers give: their own candles, shorter ones, or spaced prices.

Every frame here is one coin's and stamps candles by `open_time`; turning a provider's close stamp
into an open time is done where it is parsed.
"""

from typing import Literal

import numpy as np
import pandas as pd

from crypto_assets.periods import SESSIONS

Interval = Literal["1h", "1D"]
OHLC = ["open", "high", "low", "close"]


def closed_by(candles: pd.DataFrame, observed_at: pd.Timestamp, length: str) -> pd.DataFrame:
    """Drop the candle that was still forming when it was fetched."""
    return candles[candles["open_time"] + pd.Timedelta(length) <= observed_at]


def aggregate(candles: pd.DataFrame, part: str, whole: Interval) -> pd.DataFrame:
    """Join shorter candles of length `part` into candles of length `whole`.

    Takes open_time and open, high, low, close; keeps only wholes that have all their parts, since
    a missing part could hold the high or the low. Returns the same columns, ascending.
    """
    ordered = candles.sort_values("open_time")
    buckets = ordered.groupby(ordered["open_time"].dt.floor(whole))
    joined = buckets.agg(
        open=("open", "first"),
        high=("high", "max"),
        low=("low", "min"),
        close=("close", "last"),
        parts=("open_time", "nunique"),
    )
    complete = joined[joined["parts"] == pd.Timedelta(whole) // pd.Timedelta(part)]
    return complete[OHLC].rename_axis("open_time").reset_index()


def approximate(prices: pd.DataFrame, length: Interval) -> pd.DataFrame:
    """Rebuild candles from prices spaced about an hour apart; their extremes are missed.

    Takes stamp and price_usd. A candle opens where the one right before it closed (after a hole,
    with its own first price) and spans the prices inside it, its end included: a price on the
    boundary closes one candle and opens the next. Returns open_time and open, high, low, close
    for each period with a price inside, ascending.
    """
    ordered = prices.sort_values("stamp", ignore_index=True)
    # A price at the very start belongs to the period that it closes.
    open_time = (ordered["stamp"] - pd.Timedelta(1, "ns")).dt.floor(length)
    inside = ordered.groupby(open_time)["price_usd"].agg(["first", "max", "min", "last"])
    previous_close = inside["last"].shift(1)
    opened = previous_close.where(_follows(inside.index, length), inside["first"])
    return pd.DataFrame(
        {
            "open_time": inside.index,
            "open": opened.to_numpy(),
            "high": np.maximum(inside["max"].to_numpy(), opened.to_numpy()),
            "low": np.minimum(inside["min"].to_numpy(), opened.to_numpy()),
            "close": inside["last"].to_numpy(),
        }
    )


def session_of(open_time: "pd.Series[pd.Timestamp]") -> "pd.Series[str]":
    """Return the trading session of each hourly candle, as categories."""
    hour = open_time.to_numpy().astype("datetime64[h]").astype(np.int64) % 24
    place = hour // (24 // len(SESSIONS))
    found = pd.Categorical.from_codes(place, pd.Index(SESSIONS))  # type: ignore[arg-type]
    return pd.Series(found, index=open_time.index)


def _follows(open_times: pd.Index, length: Interval) -> "pd.Series[bool]":
    """Tell which period comes right after the one before it in the index."""
    starts = pd.Series(open_times, index=open_times)
    return starts.diff() == pd.Timedelta(length)
