"""Places by market cap, day by day."""

import pandas as pd


def rank_by_market_cap(market_caps: pd.DataFrame) -> pd.DataFrame:
    """Rank the coins of each day by market cap and tell how far each climbed.

    Takes date (datetime64), coin_id, market_cap_usd (US dollars, may be NaN) and any other
    columns, which are carried along. Returns a row for each coin with a cap: market_cap_rank (1..n
    each day, ties by coin_id), market_share (of the day's coins), rank_change_1d and
    rank_change_7d (places climbed, NA where the earlier rank is unknown); sorted by date and rank.
    """
    capped = market_caps[market_caps["market_cap_usd"] > 0]
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
    earlier = ranked[["date", "coin_id", "market_cap_rank"]].assign(
        date=ranked["date"] + pd.Timedelta(days=days)
    )
    joined = ranked[["date", "coin_id"]].merge(earlier, on=["date", "coin_id"], how="left")
    before = joined["market_cap_rank"].astype("Int64")
    return (before - ranked["market_cap_rank"].astype("Int64")).rename(None)
