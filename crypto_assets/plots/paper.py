"""What all plots are drawn on: a figure, its style, its labels, and how it becomes a small PNG.

The one place that imports matplotlib, and only when something is drawn. No pyplot: its global
state is not made for threads.
"""

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.int64]]

# Okabe and Ito's colours, which people with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, GREY, DARK = "#0072B2", "#D55E00", "#009E73", "#9A9A9A", "#222222"
ORANGE_TINTS, BLUE_TINTS = ("#F6CDB0", "#FBE7DA"), ("#DCECF5", "#B5D7EB")

WIDTH, HEIGHT, DPI = 720, 300, 100
MOST_BYTES = 24 * 1024
SHADES = (8, 3, 1)
"""Into how many steps each colour fades to white, fewer until a PNG is small enough."""
LONGEST_LABEL = 20

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "text.color": DARK,
    "axes.labelcolor": DARK,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "white",
    "figure.dpi": DPI,
}
_LOCK = threading.Lock()


@contextmanager
def style() -> Iterator[None]:
    """Draw as we do, whatever the user's own matplotlibrc says; one thread at a time."""
    with _LOCK:
        matplotlib = _matplotlib()
        given = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
        with matplotlib.rc_context(given | _STYLE):
            yield


@cache
def _matplotlib() -> Any:
    # Where its cache can't be written it uses a temporary folder and says so, as it does while it
    # looks for fonts: nothing that a reader of a run's output can use.
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import matplotlib
        import matplotlib.font_manager

        matplotlib.get_cachedir()
    finally:
        logger.setLevel(before)
    return matplotlib


def new_figure(title: str, days: "pd.Series[Any]", panels: int) -> "tuple[Figure, list[Axes]]":
    """Return a figure with this many panels side by side, whose title names the last day."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    whole = f"{title}, up to {days.max():%Y-%m-%d}"
    figure.suptitle(whole, x=0.01, ha="left", fontsize=9.5, fontweight="bold")
    return figure, list(axes)


def png(figure: "Figure") -> bytes:
    """Render a figure as a small PNG, the same bytes for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    red, green, blue = np.moveaxis(np.asarray(canvas.buffer_rgba())[..., :3].astype(int), -1, 0)
    colours, places = np.unique((red << 16) + (green << 8) + blue, return_inverse=True)
    rendered = b""
    for shades in SHADES:
        palette = _palette(shades)
        nearest = _nearest(colours, palette)[places].reshape(red.shape)
        image = Image.fromarray(nearest.astype(np.uint8))
        image.putpalette(palette.ravel().tolist())
        stream = io.BytesIO()
        image.save(stream, "PNG", optimize=True)
        rendered = stream.getvalue()
        if len(rendered) < MOST_BYTES:
            break
    return rendered


def _palette(shades: int) -> Array:
    # Ours, rather than one that is chosen by the picture and loses what has few pixels.
    colours = [BLUE, ORANGE, GREEN, GREY, DARK, *ORANGE_TINTS, *BLUE_TINTS]
    full = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours])
    faded = [255 + (full - 255) * step / shades for step in range(1, shades + 1)]
    return np.concatenate([np.full((1, 3), 255), *faded]).round().astype(np.int64)


def _nearest(colours: Array, palette: Array) -> Array:
    parts = np.stack([colours >> 16, (colours >> 8) & 255, colours & 255], axis=-1)
    # The squared distances, less what all distances of a colour share.
    distances = (palette**2).sum(axis=1) - 2 * (parts @ palette.T)
    nearest: Array = distances.argmin(axis=1)
    return nearest


def label(text: object) -> str:
    """Return a text that can be shown: short, of glyphs our font has, and never taken as maths."""
    known = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in str(text))
    if len(known) > LONGEST_LABEL:
        known = known[: LONGEST_LABEL - 1] + "…"
    return known.replace("$", r"\$")


@cache
def _glyphs() -> frozenset[int]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(family=["DejaVu Sans"]))).get_charmap())


def numbers(values: "pd.Series[Any]") -> "pd.Series[float]":
    """Return what can be drawn of a column; all else is NaN."""
    drawable = pd.to_numeric(values, errors="coerce").astype("float64")
    return drawable.where(np.isfinite(drawable))


def by_coin(frame: pd.DataFrame, most: int = 3) -> list[tuple[str, pd.DataFrame]]:
    """Return the rows of the first coins, in the order in which the frame has them."""
    return [(str(coin), rows) for coin, rows in frame.groupby("coin_id", sort=False)][:most]


def draw_line(axes: "Axes", days: "pd.Series[Any]", values: "pd.Series[float]", **how: Any) -> None:
    """Draw a line that is broken where days are missing; a day without neighbours is a dot."""
    daily = pd.Series(values.to_numpy(), index=pd.DatetimeIndex(days)).asfreq("D")
    there = daily.notna()
    alone = there & ~there.shift(1, fill_value=False) & ~there.shift(-1, fill_value=False)
    axes.plot(daily.index, daily.to_numpy(), **how)
    if alone.any():
        axes.plot(daily.index[alone], daily[alone], ".", markersize=4, color=how.get("color"))


def label_time(axes: "Axes", times: "pd.Series[Any]", step: pd.Timedelta) -> None:
    """Let the time axis hold just these periods, with few short labels."""
    from matplotlib import dates

    plain: Any = dates  # its classes have no types
    # Never fewer than ten, so that a lone one is not as wide as the plot.
    first = min(times.min(), times.max() - 9 * step)
    axes.set_xlim(first - step / 2, times.max() + step / 2)
    locator = plain.AutoDateLocator(minticks=2, maxticks=5)
    axes.xaxis.set_major_locator(locator)
    formatter = plain.ConciseDateFormatter(
        locator,
        formats=["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M"],
        zero_formats=["%Y", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
        show_offset=False,
    )
    axes.xaxis.set_major_formatter(formatter)


def label_values(axes: "Axes") -> None:
    """Write values as people do, 65,000 or 0.0012; very small and very large ones as powers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 4, 5, 10]))
    ticks = np.asarray(axes.get_yticks(), dtype=float)
    if np.abs(ticks).max() >= 1e6:
        return
    for decimals in range(6):
        if np.allclose(ticks, ticks.round(decimals), rtol=1e-9, atol=0):
            form = f"{{:,.{decimals}f}}".format
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _, form=form: form(value)))
            return
