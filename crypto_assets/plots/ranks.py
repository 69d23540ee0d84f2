"""Who climbed and who fell by market cap."""

from typing import TYPE_CHECKING

import pandas as pd

from crypto_assets.plots import paper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 8


def rank_moves(frame: pd.DataFrame) -> "Figure | None":
    """Draw the coins that climbed and that fell most places in seven days, eight each.

    Takes date, coin_id, market_cap_rank and rank_change_7d of one day.
    """
    frame = frame.assign(
        moved=paper.numbers(frame["rank_change_7d"]), rank=paper.numbers(frame["market_cap_rank"])
    )
    if not (frame["moved"].fillna(0) != 0).any():
        return None
    figure, panels = paper.new_figure(
        "Places by market cap that changed in seven days", frame["date"], 2
    )
    sides = ((1, "climbed", paper.BLUE), (-1, "fell", paper.ORANGE))
    for axes, (sign, name, colour) in zip(panels, sides, strict=True):
        moved = frame[frame["moved"] * sign > 0].assign(places=lambda rows: rows["moved"].abs())
        most = moved.sort_values(["places", "rank"], ascending=[False, True]).head(MOST)
        _draw_side(axes, most, colour)
        axes.set_title(f"{name} most" if len(most) else f"none {name}")
        axes.set_xlabel(f"places {name}")
    return figure


def _draw_side(axes: "Axes", rows: pd.DataFrame, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    places = range(len(rows))
    axes.barh(places, rows["places"], color=colour, height=0.7)
    axes.set_yticks(places, [paper.label(coin) for coin in rows["coin_id"]])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(MOST - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    for place, rank, moved in zip(places, rows["rank"], rows["moved"], strict=True):
        text = f" {rank + moved:.0f} → {rank:.0f}"
        axes.annotate(text, (abs(moved), place), va="center", fontsize=7.5)
    # Room for the words at the end of the longest bar.
    axes.set_xlim(0, max(1.0, rows["places"].max() * 1.35) if len(rows) else 1.0)
