"""The notebooks where there is little or nothing yet: they say what is lacking."""

from pathlib import Path

import pytest
from nbclient.exceptions import CellExecutionError

from crypto_assets_tests.notebooks.conftest import Run

LACKING = {
    "tour": "There are no candles yet",
    "screener": "No coin can be scored",
    "etf_flows": "No trading day of the BTC funds is complete yet",
    "point_in_time": "it takes three final days in a row",
    "restatements": "No provider has changed a final value",
}
LACKING_ALL = LACKING | {
    "tour": "There are no ranks of a final day yet",
    "point_in_time": "No day is final yet",
    "restatements": "Nothing was ever final here",
}


def test_a_notebook_runs_where_only_the_sentiment_is_stored(run: Run, bare_home: Path) -> None:
    notebook = run("screener", bare_home, "ranking", "periods")
    assert notebook["ranking"].empty
    assert notebook["periods"].empty
    assert notebook.says(LACKING["screener"])
    assert notebook.says("Too little history to tell")
    assert notebook.plots == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", LACKING)
def test_on_the_first_days_it_says_what_is_lacking(
    run: Run, first_day_home: Path, name: str
) -> None:
    assert run(name, first_day_home).says(LACKING[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(LACKING_ALL) - {"screener"}))
def test_without_a_market_it_says_what_is_lacking(run: Run, bare_home: Path, name: str) -> None:
    assert run(name, bare_home).says(LACKING_ALL[name])


@pytest.mark.slow
def test_without_a_publication_the_first_cell_says_what_to_do(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CellExecutionError, match=r"nothing has been published in .*/none yet: run"):
        run("tour", tmp_path / "none")
