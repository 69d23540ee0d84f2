"""What the notebooks beside this file share: finding the home, showing tables and sentences.

Belongs here: what each of them would have to repeat. Does not belong here: queries and plots,
which are what a reader of a notebook wants to see.
"""

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crypto_assets.settings import load_settings
from crypto_assets.warehouse.publishing import LINK_NAME

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from pandas.io.formats.style import Styler

_CLONE = Path(__file__).parents[2]


def find_home(home: Path | str | None = None) -> Path:
    """Return the folder of the warehouse to look at, as an absolute path.

    A relative `home` counts from the working directory, else from the clone, since a notebook
    runs in its own folder. Without `home` the settings in force decide, likewise; where they name
    none, it is the first of `data` and `data/demo` that holds a publication. Whether anything is
    published there is for `connect()` to say. Raises `SettingsError`.
    """
    # Only a clone has settings and homes beside the package.
    is_clone = (_CLONE / "pyproject.toml").exists()
    bases = [Path.cwd(), _CLONE] if is_clone else [Path.cwd()]
    if home is None:
        in_force = [_home_in_force(base) for base in bases]
        wanted = [named for named, base in zip(in_force, bases, strict=True) if _names(named, base)]
        wanted = wanted or [base / name for name in ("data", "data/demo") for base in bases]
    else:
        wanted = [base / Path(home).expanduser() for base in bases]
    published = [folder for folder in wanted if (folder / LINK_NAME).exists()]
    return published[0] if published else wanted[-1]


def say(text: str) -> None:
    """Show a sentence (Markdown) below a cell: what the data told, or what it lacks."""
    from IPython.display import Markdown, display  # comes with the kernel

    display(Markdown(text))  # type: ignore[no-untyped-call]


def show(frame: "pd.DataFrame", **formats: str) -> None:
    """Show a table; `formats` are Python's, by column, where the usual ones do not do."""
    from IPython.display import display

    display(styled(frame, **formats))  # type: ignore[no-untyped-call]


def styled(frame: "pd.DataFrame", **formats: str) -> "Styler":
    """Return a table as people read it: days without hours, text to the left, a dash for NULL."""
    usual = {name: _usual_format(frame[name]) for name in frame.columns}
    texts = [name for name in frame.columns if frame[name].dtype == object]
    left: Any = {name: [{"selector": "", "props": [("text-align", "left")]}] for name in texts}
    told: dict[Any, Any] = {name: text for name, text in (usual | formats).items() if text}
    return frame.style.hide().format(told, na_rep="–").set_table_styles(left)


def label_days(axes: "Axes") -> None:
    """Label the x axis by days or more, never by hours, however few days are drawn on it."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    first, last = axes.get_xlim()
    locator = AutoDateLocator(minticks=min(5, max(1, int(last - first))))  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator,
        # A day alone is written as one: by default it would be the hour at which it begins.
        zero_formats=["", "%Y", "%b", *["%d %b"] * 3],
        offset_formats=["", "%Y", "%Y-%b", *["%Y"] * 3],
    )
    axes.xaxis.set_major_formatter(formatter)


def _usual_format(column: "pd.Series") -> str | None:
    from pandas.api import types

    if types.is_datetime64_any_dtype(column):
        is_day = bool((column.dropna() == column.dropna().dt.normalize()).all())
        return "{:%Y-%m-%d}" if is_day else "{:%Y-%m-%d %H:%M}"
    if types.is_integer_dtype(column):
        return "{:,}"
    return "{:,.6g}" if types.is_float_dtype(column) else None


def _home_in_force(base: Path) -> Path:
    # Settings files and relative homes count from the working directory.
    with chdir(base):
        return load_settings().home


def _names(home: Path, base: Path) -> bool:
    """Tell whether somebody chose this home, rather than left it at what it is by default."""
    return home != base / "data"
