"""Links of the Markdown lead somewhere."""

from pathlib import Path

import pytest

from crypto_assets_tests.docs.pages import DOCS, PAGES, anchors, links

OUTSIDE = ("http://", "https://", "mailto:")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    broken = []
    for link in links(page):
        if link.startswith(OUTSIDE):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_page_of_the_folder_can_be_reached_from_the_readme() -> None:
    reached, left = set(), [PAGES[0]]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
        left += [target for target in targets if target.suffix == ".md" and target.exists()]
    assert set(DOCS.glob("*.md")) <= reached
