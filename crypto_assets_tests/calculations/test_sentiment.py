"""Bands of the Fear & Greed index at every edge."""

import pandas as pd
import pytest

from crypto_assets.calculations.sentiment import fear_greed_band
from crypto_assets.tables import FEAR_GREED


@pytest.mark.parametrize(
    ("lowest", "highest", "band"),
    [
        (0, 24, "extreme fear"),
        (25, 44, "fear"),
        (45, 55, "neutral"),
        (56, 75, "greed"),
        (76, 100, "extreme greed"),
    ],
)
def test_a_band_reaches_from_edge_to_edge(lowest: int, highest: int, band: str) -> None:
    values = pd.Series(range(lowest, highest + 1))
    assert set(fear_greed_band(values)) == {band}


def test_every_value_has_a_band_of_the_contract_on_its_own_row() -> None:
    values = pd.Series([100, 0, 50], index=[7, 3, 5])
    bands = fear_greed_band(values)
    assert bands.to_dict() == {7: "extreme greed", 3: "extreme fear", 5: "neutral"}
    assert set(fear_greed_band(pd.Series(range(101)))) == set(
        FEAR_GREED.column("band").one_of or ()
    )
    assert fear_greed_band(pd.Series([], dtype="int64")).empty
