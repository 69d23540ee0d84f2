"""Bits of Markdown as GitHub renders it."""

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; what would end a cell is escaped."""
    lines = [header, ["---"] * len(header), *([_cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: object) -> str:
    """Return text as inline code, nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def fenced(text: str, language: str = "") -> str:
    """Return a block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def link(title: str, file: str = "") -> str:
    """Return a link to a heading, of another file if one is named."""
    return f"[{title}]({file}#{anchor(title)})"


def anchor(title: str) -> str:
    """Return the name that GitHub gives a heading."""
    words = re.sub(r"[^\w\- ]", "", title.strip().lower())
    return words.replace(" ", "-")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
