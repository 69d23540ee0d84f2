"""Take the screenshots of the README again: `python -m crypto_assets_tests.end_to_end.screenshots`.

They show Dagster's UI on a demo home, as a person sees it.
"""

import argparse
import io
import re
import shutil
import tempfile
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import duckdb
from PIL import Image
from playwright.sync_api import expect

from crypto_assets.plots import PLOTS
from crypto_assets_tests.end_to_end.browser import (
    BACKGROUND,
    LONG,
    VIEWPORT,
    Person,
    open_browser,
    open_page,
)
from crypto_assets_tests.end_to_end.platforms import start
from crypto_assets_tests.operations.commands import call

IMAGES = Path(__file__).parents[2] / "crypto_assets" / "docs" / "images"
COLOURS = 256


def take_all(home: Path, folder: Path) -> None:
    """Take each screenshot of a home, which is changed by that, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    last = _break_a_price(home)
    up = start(home)
    try:
        up.when_it_answers()
        with open_browser() as browser:
            for name, show in SCREENSHOTS.items():
                with open_page(browser, f"http://127.0.0.1:{up.port}") as person:
                    show(person, last)
                    # Nothing is under the mouse, and no cursor blinks.
                    shot = person.page.screenshot(animations="disabled", caret="hide")
                (folder / f"{name}.png").write_bytes(_small(shot))
    finally:
        up.end()


def show_graph(person: Person, last: date) -> None:
    """All assets, and what depends on what."""
    person.visit("/asset-groups")
    person.show_all_groups()
    person.page.get_by_role("button", name="Hide navigation").click()
    person.page.get_by_label("panel_show_right").last.click()
    # From top to bottom all nodes fit into the window, after a double click on the background.
    person.choose_in_graph("Change graph to vertical orientation")
    person.page.mouse.dblclick(*BACKGROUND)
    expect(person.page.get_by_text("Materialized").first).to_be_visible()
    person.settle()
    # All but the title of the topmost group: a little more room, and the graph drawn down by it.
    person.page.set_viewport_size({"width": VIEWPORT["width"], "height": VIEWPORT["height"] + 50})
    x, y = BACKGROUND
    person.page.mouse.move(x, y)
    person.page.mouse.down()
    person.page.mouse.move(x, y + 60, steps=4)
    person.page.mouse.up()
    person.settle()


def show_plot(person: Person, last: date) -> None:
    """An asset with the plot of its newest materialization."""
    person.visit("/assets/ema_signals")
    person.metadata("plot").get_by_text("[Show Markdown]").click()
    expect(person.dialog.get_by_role("img", name=PLOTS["ema_signals"].alt)).to_be_visible()


def show_metadata(person: Person, last: date) -> None:
    """What a materialization tells of itself."""
    person.visit(f"/assets/market_caps?view=partitions&partition={last}")
    expect(person.metadata("missing_share")).to_be_visible()


def show_failed_check(person: Person, last: date) -> None:
    """A check that failed, how many rows offend it."""
    person.open_check("market_caps", "contract_holds")
    person.button("Execute").click()
    expect(person.metadata("offending_rows")).to_contain_text(re.compile("1$"), timeout=LONG)


def show_backfill(person: Person, last: date) -> None:
    """The dialog in which days are chosen."""
    person.choose_days("ohlc_daily", f"[{last - timedelta(days=29)}...{last}]")
    expect(person.dialog).to_contain_text("30 partitions")


SCREENSHOTS: dict[str, Callable[[Person, date], None]] = {
    "graph": show_graph,
    "plot": show_plot,
    "metadata": show_metadata,
    "backfill": show_backfill,
    "failed_check": show_failed_check,
}


def _break_a_price(home: Path) -> date:
    """Give one row a price that no rule allows; return its day, the last that is closed."""
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        found = connection.execute("SELECT max(date) FROM market_caps WHERE is_final").fetchone()
        (last,) = found or ()
        assert isinstance(last, date)
        connection.execute(
            "UPDATE market_caps SET price_usd = -price_usd WHERE coin_id = 'solana' AND date = ?",
            [last],
        )
    return last


def _small(png: bytes) -> bytes:
    image = Image.open(io.BytesIO(png)).convert("RGB")
    stream = io.BytesIO()
    reduced = image.quantize(COLOURS, dither=Image.Dither.NONE)
    reduced.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def main() -> None:
    """Take the screenshots of a copy of a home, or of a demo that is made for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=IMAGES, help="folder of the PNGs")
    parser.add_argument("--home", type=Path, help="a demo home, which is copied")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "demo"
        if given.home:
            shutil.copytree(given.home, home, symlinks=True)
        else:
            made = call("demo", "--home", home)
            assert made.code == 0, made.err
        take_all(home, given.to)


if __name__ == "__main__":
    main()
