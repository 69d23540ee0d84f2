"""The Fear & Greed index."""

from typing import TYPE_CHECKING

import pandas as pd

from crypto_assets.plots import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Up to which value each band reaches, and its shade: from orange over white to blue.
BANDS = {
    "extreme fear": (24, paper.ORANGE_TINTS[0]),
    "fear": (44, paper.ORANGE_TINTS[1]),
    "neutral": (55, "#FFFFFF"),
    "greed": (75, paper.BLUE_TINTS[0]),
    "extreme greed": (100, paper.BLUE_TINTS[1]),
}


def fear_greed(frame: pd.DataFrame) -> "Figure | None":
    """Draw the index as a line over its bands. Takes date, value (0 to 100), by date."""
    known = frame.assign(value=paper.numbers(frame["value"]))
    known = known[known["value"].notna()]
    if known.empty:
        return None
    last = known.iloc[-1]
    title = f"Fear & Greed index: {last['value']:.0f} at last"
    figure, (axes,) = paper.new_figure(title, known["date"], 1)
    paper.label_time(axes, known["date"], pd.Timedelta(days=1))
    lower = 0.0
    for band, (value, shade) in BANDS.items():
        # Values are whole numbers: a band ends halfway to the next.
        upper = 100.0 if value == 100 else value + 0.5
        axes.axhspan(lower, upper, color=shade, linewidth=0, zorder=0)
        middle = (lower + upper) / 2
        axes.annotate(
            band,
            (1.01, middle),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
        lower = upper
    paper.draw_line(axes, known["date"], known["value"], color=paper.DARK, linewidth=1.2)
    axes.plot([last["date"]], [last["value"]], "o", markersize=5, color=paper.DARK, clip_on=False)
    axes.set_ylim(0, 100)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.set_ylabel("0 fear, 100 greed")
    return figure
