"""Places by market cap, day by day."""

import numpy as np
import pandas as pd


def rank_by_market_cap(market_caps: pd.DataFrame) -> pd.DataFrame:
    """Rank the coins of each day by market cap and tell how far each climbed.

    Takes date (datetime64), coin_id, market_cap_usd (US dollars, may be NaN) and any other
    columns, which are carried along. Returns a row for each coin with a cap: coin_id (categories),
    market_cap_rank (1..n each day, ties by coin_id), market_share (of the day's coins),
    rank_change_1d and rank_change_7d (places climbed, NA where the earlier rank is unknown); sorted
    by date and rank.
    """
    # Categories compare much faster than texts, and in the same order.
    capped = market_caps[market_caps["market_cap_usd"] > 0].astype({"coin_id": "category"})
    ranked = capped.sort_values(
        ["date", "market_cap_usd", "coin_id"], ascending=[True, False, True], ignore_index=True
    )
    ranked["market_cap_rank"] = ranked.groupby("date").cumcount() + 1
    total = ranked.groupby("date")["market_cap_usd"].transform("sum")
    ranked["market_share"] = ranked["market_cap_usd"] / total
    for days in (1, 7):
        ranked[f"rank_change_{days}d"] = _places_climbed(ranked, days)
    return ranked


def _places_climbed(ranked: pd.DataFrame, days: int) -> "pd.Series[int]":
    coins = ranked["coin_id"].cat
    coin, rank = coins.codes.to_numpy(), ranked["market_cap_rank"].to_numpy()
    day = ranked["date"].to_numpy().astype("datetime64[D]").astype("int64")
    day -= day.min(initial=day.max(initial=0))
    # Where each coin stood so many days before; 0 where it had no place.
    before = np.zeros((day.max(initial=0) + days + 1, len(coins.categories)), dtype="int64")
    before[day + days, coin] = rank
    stood = before[day, coin]
    return pd.Series(pd.arrays.IntegerArray(stood - rank, stood == 0), index=ranked.index)
