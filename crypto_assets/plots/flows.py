"""Money that went into funds and out of them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crypto_assets.plots import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASSETS = {"btc": paper.ORANGE, "eth": paper.BLUE, "sol": paper.GREEN}
MILLION = 1e6


def etf_flows(frame: pd.DataFrame) -> "Figure | None":
    """Draw the net flows of each trading day as bars, stacked by asset, in millions of dollars.

    Takes date, asset (btc, eth or sol) and net_flow_usd, a row a day and asset or more.
    """
    known = frame.assign(net_flow_usd=paper.numbers(frame["net_flow_usd"]) / MILLION)
    known = known[known["net_flow_usd"].notna() & known["asset"].isin(list(ASSETS))]
    if known.empty:
        return None
    days = known.pivot_table(index="date", columns="asset", values="net_flow_usd", aggfunc="sum")
    figure, (axes,) = paper.new_figure("Net flow into US funds on a trading day", known["date"], 1)
    # What came in is stacked upwards from zero, what went out downwards.
    above, below = np.zeros(len(days)), np.zeros(len(days))
    for asset, colour in ASSETS.items():
        if asset in days:
            flow = days[asset].fillna(0).to_numpy()
            bottom = np.where(flow >= 0, above, below)
            axes.bar(days.index, flow, bottom=bottom, width=0.8, color=colour, label=asset)
            above, below = above + np.maximum(flow, 0), below + np.minimum(flow, 0)
    total = days.sum(axis=1)
    axes.plot(days.index, total, "D", markersize=2.6, color=paper.DARK, label="together")
    axes.axhline(0, color=paper.DARK, linewidth=0.6)
    axes.set_ylabel("millions of US dollars")
    paper.label_time(axes, days.index.to_series(), pd.Timedelta(days=1))
    paper.label_values(axes)
    figure.legend(loc="outside lower center", ncols=4)
    return figure
