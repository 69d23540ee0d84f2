"""Tables and axes as a reader of a notebook sees them."""

from datetime import date, timedelta

import pandas as pd
import pytest
from lxml import html
from matplotlib.figure import Figure

from crypto_assets.notebooks import label_days, styled


def cells(frame: pd.DataFrame, **formats: str) -> list[list[str]]:
    page = html.fromstring(styled(frame, **formats).to_html())
    return [[cell.text_content() for cell in row.iter("td")] for row in page.iter("tr")][1:]


def test_a_table_shows_days_as_days_and_moments_to_the_minute() -> None:
    days = pd.to_datetime(["2026-03-01", "2026-03-02", None])
    moments = pd.to_datetime(["2026-03-01 00:00:00", "2026-03-02 10:20:59", None])
    assert cells(pd.DataFrame({"day": days, "at": moments})) == [
        ["2026-03-01", "2026-03-01 00:00"],
        ["2026-03-02", "2026-03-02 10:20"],
        ["–", "–"],
    ]


def test_a_table_shows_numbers_so_that_they_can_be_read_and_misses_with_a_dash() -> None:
    frame = pd.DataFrame(
        {
            "rows": pd.Series([1234567, None], dtype="Int64"),
            "price": [0.000012345678, None],
            "change": [0.0125, None],
            "is_final": [True, False],
            "coin": ["bitcoin", None],
        }
    )
    assert cells(frame, change="{:+.1%}") == [
        ["1,234,567", "1.23457e-05", "+1.2%", "True", "bitcoin"],
        ["–", "–", "–", "False", "–"],
    ]


def test_text_stands_to_the_left_and_numbers_do_not() -> None:
    shown = styled(pd.DataFrame({"price": [1.0], "coin": ["a"]})).to_html()
    assert ".col1 {\n  text-align: left" in shown
    assert ".col0 {" not in shown


def test_an_empty_table_is_shown_empty() -> None:
    assert cells(pd.DataFrame({"coin": pd.Series([], dtype=object)})) == []


@pytest.mark.parametrize("days", [1, 2, 3, 10, 69, 180, 1500])
def test_days_are_labelled_without_hours(days: int) -> None:
    figure = Figure(figsize=(9, 3.6))
    axes = figure.subplots()
    first = date(2026, 3, 1)
    axes.bar([first + timedelta(days=n) for n in range(days)], 1, width=1)
    label_days(axes)
    figure.draw_without_rendering()
    ticks = axes.get_xticks()
    assert (ticks % 1 == 0).all()
    low, high = axes.get_xlim()
    inside = [tick for tick in ticks if low <= tick <= high]
    assert 1 <= len(inside) <= 12
    assert not any(":" in label.get_text() for label in axes.get_xticklabels())
