"""The README's screenshots: there, small, and described."""

import re
from pathlib import Path

import pytest
from PIL import Image

from crypto_assets_tests.end_to_end.browser import VIEWPORT
from crypto_assets_tests.end_to_end.screenshots import IMAGES, SCREENSHOTS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
MOST_BYTES = 200_000


def test_each_screenshot_is_shown_in_the_readme_with_words_for_those_who_do_not_see_it() -> None:
    folder = IMAGES.relative_to(REPOSITORY)
    shown = re.findall(rf"!\[([^]]*)\]\({folder}/(\w+)\.png\)", README)
    assert {name for _, name in shown} == set(SCREENSHOTS)
    assert all(len(words.split()) >= 5 for words, _ in shown)


def test_no_picture_is_there_that_is_not_taken_again() -> None:
    assert {path.stem for path in IMAGES.glob("*.png")} == set(SCREENSHOTS)


@pytest.mark.parametrize("name", SCREENSHOTS)
def test_a_screenshot_is_as_large_as_the_window_and_no_larger_than_needed(name: str) -> None:
    path = IMAGES / f"{name}.png"
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as image:
        assert image.width == VIEWPORT["width"]
        assert 0 <= image.height - VIEWPORT["height"] <= 50
