"""Candlesticks."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crypto_assets.plots import paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PRICES = ["open", "high", "low", "close"]
# Told apart by their filling, too.
LOOKS = (("rose", paper.BLUE, "white"), ("fell", paper.ORANGE, paper.ORANGE))


def daily_candles(frame: pd.DataFrame) -> "Figure | None":
    """Draw the candles of days of up to three coins: date, coin_id, open, high, low, close."""
    return _candles(frame, "date", pd.Timedelta(days=1), "Daily candles")


def hourly_candles(frame: pd.DataFrame) -> "Figure | None":
    """Draw the candles of hours of up to three coins: open_time, coin_id, open, high, low, close.

    Times are UTC.
    """
    return _candles(frame, "open_time", pd.Timedelta(hours=1), "Hourly candles, UTC")


def _candles(frame: pd.DataFrame, time: str, step: pd.Timedelta, title: str) -> "Figure | None":
    from matplotlib.patches import Patch

    frame = frame.assign(**{name: paper.numbers(frame[name]) for name in PRICES})
    coins = paper.by_coin(frame.dropna(subset=PRICES))
    if not coins:
        return None
    figure, panels = paper.new_figure(title, frame[time], len(coins))
    for axes, (coin, rows) in zip(panels, coins, strict=True):
        _draw_coin(axes, rows, rows[time], step)
        axes.set_title(paper.label(coin))
    panels[0].set_ylabel("US dollars")
    handles = [Patch(label=name, edgecolor=edge, facecolor=face) for name, edge, face in LOOKS]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(LOOKS))
    return figure


def _draw_coin(
    axes: "Axes", rows: pd.DataFrame, times: "pd.Series[pd.Timestamp]", step: pd.Timedelta
) -> None:
    rising = rows["close"] >= rows["open"]
    for chosen, (name, edge, face) in zip((rising, ~rising), LOOKS, strict=True):
        some, at = rows[chosen], times[chosen]
        lower, upper = np.minimum(some["open"], some["close"]), some[["open", "close"]].max(axis=1)
        axes.vlines(at, some["low"], lower, color=edge, linewidth=0.7)
        axes.vlines(at, upper, some["high"], color=edge, linewidth=0.7)
        axes.bar(
            at,
            upper - lower,
            bottom=lower,
            width=step / pd.Timedelta(days=1) * 0.7,
            label=name,
            facecolor=face,
            edgecolor=edge,
            linewidth=0.7,
        )
    paper.label_time(axes, times, step)
    low, high = float(rows["low"].min()), float(rows["high"].max())
    # Bars pull an axis to zero, where prices have no reason to begin.
    space = (high - low or abs(high) or 1.0) * 0.05
    axes.set_ylim(low - space, high + space)
    paper.label_values(axes)
