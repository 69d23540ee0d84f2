"""What the notebooks beside this file share: finding the home, saying a sentence, labelling days.

Belongs here: what each of them would have to repeat. Does not belong here: queries and plots,
which are what a reader of a notebook wants to see.
"""

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.settings import load_settings
from crypto_assets.warehouse.publishing import LINK_NAME

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


def _home_in_force(base: Path) -> Path:
    # Settings files and relative homes count from the working directory.
    with chdir(base):
        return load_settings().home


def _names(home: Path, base: Path) -> bool:
    """Tell whether somebody chose this home, rather than left it at what it is by default."""
    return home != base / "data"
