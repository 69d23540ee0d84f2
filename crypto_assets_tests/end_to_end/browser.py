"""Dagster's UI as a person has it before them: Debian's Chromium, driven by Playwright."""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

SHORT, LONG = 30_000, 120_000
"""How long one waits for the page, and for what the daemon does: milliseconds."""
VIEWPORT = {"width": 1400, "height": 900}
BACKGROUND = (1000, 850)
"""A place of the graph where no node is."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield the browser; tell how to install it where it is missing."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.fail("There is no browser: install the package chromium (apt-get install chromium).")
    # Chromium refuses to sandbox itself for root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    # A busy machine takes longer than Playwright's five seconds to show a page.
    expect.set_options(timeout=SHORT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """Somebody in front of one page of the UI."""

    page: Page
    url: str
    strangers: list[str] = field(default_factory=list)
    """What the page asked for elsewhere."""

    def visit(self, path: str) -> None:
        """Open a page of the UI."""
        self.page.goto(self.url + path)

    def button(self, name: str, within: Locator | None = None) -> Locator:
        """Return the button with just these words."""
        there = (within or self.page).get_by_role("button")
        return there.filter(has_text=re.compile(f"^{re.escape(name)}$"))

    def keep(self, folder: Path) -> str:
        """Store what the page shows and return where."""
        self.page.screenshot(path=folder / "page.png")
        (folder / "page.txt").write_text(self.page.locator("body").inner_text())
        return f"{folder / 'page.png'} and page.txt beside it"

    @property
    def dialog(self) -> Locator:
        """The dialog on top."""
        return self.page.get_by_role("dialog").last

    def choose_days(self, table: str, days: str) -> None:
        """Open the dialog that materializes a table and choose its days there."""
        self.visit(f"/assets/{table}")
        self.button("Materialize…").click()
        expect(self.dialog).to_contain_text(f"Launch runs to materialize {table}")
        partitions = self.dialog.get_by_role("textbox")
        partitions.fill(days)
        partitions.press("Enter")

    def follow(self, told: str) -> None:
        """Go where the message that tells of this leads to."""
        message = self.page.locator("section[aria-live] li, [role=status], [data-sonner-toast]")
        of_it = message.filter(has_text=told)
        of_it.get_by_role("button", name="View").or_(of_it.get_by_text("View")).first.click()

    def open_check(self, table: str, check: str) -> None:
        """Open one check of a table."""
        self.visit(f"/assets/{table}?view=checks&checkDetail={check}")
        expect(self.button("Execute")).to_be_enabled(timeout=SHORT)

    def metadata(self, label: str) -> Locator:
        """Return the row of a table of metadata."""
        exactly = re.compile(rf"^\s*{re.escape(label)}\s*$")
        cell = self.page.get_by_role("cell").filter(has_text=exactly)
        return self.page.get_by_role("row").filter(has=cell).first

    def show_all_groups(self) -> None:
        """Open the groups of the graph that is before them."""
        self.page.get_by_label("unfold_more").first.wait_for()
        self.choose_in_graph("Expand all groups")
        expect(self.page.locator("svg").get_by_text("daily_snapshot").last).to_be_visible()

    def settle(self) -> None:
        """Wait until the graph moves no more."""
        node = self.page.locator("svg foreignObject").last
        before = None
        while (now := node.bounding_box()) != before:
            before = now
            self.page.evaluate("() => new Promise(done => requestAnimationFrame(done))")

    def choose_in_graph(self, name: str) -> None:
        """Choose from the menu of the graph's background."""
        self.page.mouse.click(*BACKGROUND, button="right")
        self.page.get_by_role("menuitem", name=name).click()

    def edges(self, expected: set[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return which nodes of a graph are joined by its arrows, by where these begin and end.

        A graph is laid out anew while it loads: it is read until it shows what is expected, and
        given up after a while.
        """
        deadline = time.monotonic() + SHORT / 1000
        while True:
            found = {(start, end) for start, end in self.page.evaluate(EDGES)}
            if found == expected or time.monotonic() > deadline:
                return found
            self.page.evaluate("() => new Promise(done => requestAnimationFrame(done))")

    def nodes(self) -> set[str]:
        """Return the assets that a graph shows."""
        return set(self.page.evaluate(NODES))


# A node is as wide as the arrows need to reach it; groups are nodes that hold others.
NODES = """() => [...document.querySelectorAll('svg foreignObject[width="320"]')]
    .map(node => node.textContent.match(/^[a-z_]*/)[0])"""
EDGES = """() => {
    const nodes = [...document.querySelectorAll('svg foreignObject[width="320"]')].map(node => {
        const [x, y, height] = ['x', 'y', 'height'].map(name => Number(node.getAttribute(name)));
        return {name: node.textContent.match(/^[a-z_]*/)[0], left: x, right: x + 320,
                top: y, bottom: y + height};
    });
    const at = (side, x, y) => nodes.find(node =>
        Math.abs(node[side] - x) <= 10 && node.top <= y && y <= node.bottom)?.name ?? `${x},${y}`;
    return [...document.querySelectorAll('svg path[stroke]')].map(path => {
        const [x1, y1, ...rest] = path.getAttribute('d').match(/-?[\\d.]+/g).map(Number);
        const [x2, y2] = rest.slice(-2);
        return [at('right', x1, y1), at('left', x2, y2)];
    });
}"""


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Person]:
    """Yield a person before an empty page.

    At the end the page must have asked nobody but the platform for anything.
    """
    context = browser.new_context(viewport=VIEWPORT)  # type: ignore[arg-type]
    context.set_default_timeout(SHORT)
    person = Person(context.new_page(), url)

    def refuse(route: Route) -> None:
        person.strangers.append(route.request.url)
        route.abort()

    context.route(lambda asked: urlsplit(asked).hostname != urlsplit(url).hostname, refuse)
    try:
        yield person
        assert person.strangers == []
    finally:
        context.close()
