"""Bands of the Fear & Greed index."""

import numpy as np
import pandas as pd

_UPPER_EDGES = [24, 44, 55, 75]
_BANDS = np.array(["extreme fear", "fear", "neutral", "greed", "extreme greed"], dtype=object)


def fear_greed_band(values: "pd.Series[int]") -> "pd.Series[str]":
    """Return our band of each value 0-100: up to 24, 44, 55, 75, 100.

    The provider moved its own labels over the years, so bands make days comparable.
    """
    place = np.searchsorted(_UPPER_EDGES, values.to_numpy(), side="left")
    return pd.Series(_BANDS[place], index=values.index, dtype="object")
