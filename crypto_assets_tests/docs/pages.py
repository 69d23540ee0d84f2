"""The Markdown of the project as tests read it: blocks, links, headings, tables."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "crypto_assets" / "docs"
PAGES = [REPOSITORY / "README.md", *sorted(DOCS.glob("*.md"))]
_FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the heading it stands under, its language tag and its text."""

    page: Path
    heading: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}, {self.heading}: {self.text.splitlines()[0]}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCED.finditer(text):
        before = _headings(text[: match.start()])
        heading = before[-1][1] if before else ""
        found.append(Block(page, heading, match[1].strip(), match[2]))
    return found


def all_blocks() -> list[Block]:
    """The fenced blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def section(page: Path, heading: str) -> list[Block]:
    """The blocks under a heading and the headings below it."""
    text = page.read_text(encoding="utf-8")
    names: list[str] = []
    level = 0
    for depth, name in _headings(text):
        if name == heading:
            level, names = depth, [name]
        elif level and depth > level:
            names.append(name)
        elif level:
            break
    assert names, f"{page.name} has no heading '{heading}'"
    return [block for block in blocks(page) if block.heading in names]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """The targets of a page's links and images."""
    return re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings; a second one of a name is numbered."""
    found: set[str] = set()
    for _, heading in _headings(page.read_text(encoding="utf-8")):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (numbered := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(numbered)
    return found


def cells(page: Path) -> Iterator[list[str]]:
    """The rows of a page's tables, without their lines of dashes."""
    for line in prose(page).splitlines():
        if line.startswith("|") and not line.startswith(("| ---", "|---")):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _headings(text: str) -> list[tuple[int, str]]:
    plain = _FENCED.sub("", text)
    return [(len(m[1]), m[2].strip()) for m in re.finditer(r"^(#+) (.+)$", plain, re.MULTILINE)]
