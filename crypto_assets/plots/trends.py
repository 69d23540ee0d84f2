"""Prices, their moving averages, and where those cross."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crypto_assets.plots import paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UP, DOWN = "crossed up", "crossed down"


def ema_crosses(frame: pd.DataFrame) -> "Figure | None":
    """Draw the price and both EMAs of up to three coins, and mark where the EMAs cross.

    Takes date, coin_id, fast_span, slow_span (the same pair in all rows), price_usd, ema_fast,
    ema_slow and event, a row a coin and day, by date.
    """
    frame = frame.assign(price_usd=paper.numbers(frame["price_usd"]))
    coins = paper.by_coin(frame[frame["price_usd"].notna()])
    if not coins:
        return None
    fast, slow = (int(frame[name].iloc[0]) for name in ("fast_span", "slow_span"))
    figure, panels = paper.new_figure(
        f"Price and its EMAs of {fast} and {slow} days", frame["date"], len(coins)
    )
    for axes, (coin, rows) in zip(panels, coins, strict=True):
        _draw_coin(axes, rows)
        axes.set_title(paper.label(coin))
    panels[0].set_ylabel("US dollars")
    handles, names = panels[0].get_legend_handles_labels()
    named = [name.format(fast=fast, slow=slow) for name in names]
    figure.legend(handles, named, loc="outside lower center", ncols=len(named))
    return figure


def _draw_coin(axes: "Axes", rows: pd.DataFrame) -> None:
    lines = [
        ("price_usd", "price", paper.GREY, 0.9),
        ("ema_fast", "EMA {fast}", paper.BLUE, 1.3),
        ("ema_slow", "EMA {slow}", paper.ORANGE, 1.3),
    ]
    for column, name, colour, width in lines:
        values = paper.numbers(rows[column])
        paper.draw_line(axes, rows["date"], values, label=name, color=colour, linewidth=width)
    events = paper.numbers(rows["event"])
    for event, name, marker, face in ((1, UP, "^", paper.BLUE), (-1, DOWN, "v", paper.ORANGE)):
        crossed = rows[np.equal(events, event)]
        axes.plot(
            crossed["date"],
            paper.numbers(crossed["ema_slow"]),
            label=name,
            linestyle="none",
            marker=marker,
            markersize=6,
            color=face,
            markeredgecolor=paper.DARK,
            markeredgewidth=0.7,
        )
    paper.label_time(axes, rows["date"], pd.Timedelta(days=1))
    paper.label_values(axes)
