"""The daily snapshot: what every source says of a coin at one close, on one row."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from crypto_assets.calculations.signals import rolling_std
from crypto_assets.tables import COIN_OF_ETF_ASSET

VOLATILITY_DAYS = 7
DAYS_A_YEAR = 365
"""Crypto trades every day."""


@dataclass(frozen=True)
class SnapshotInputs:
    """What a snapshot is made of; `date` is datetime64 throughout.

    closes: date, coin_id, price_usd, market_cap_usd, is_final, is_point_in_time, observed_at of
    the days asked for and 8 before. ranks: date, coin_id, market_cap_rank, market_share. signals:
    date, coin_id, trend_z, is_warm. candles: date, coin_id, high_usd, low_usd. sessions: date,
    coin_id, session, session_return. fear_greed: date, value. etf_flows: date, asset,
    net_flow_usd, is_final.
    """

    closes: pd.DataFrame
    ranks: pd.DataFrame
    signals: pd.DataFrame
    candles: pd.DataFrame
    sessions: pd.DataFrame
    fear_greed: pd.DataFrame
    etf_flows: pd.DataFrame


def daily_snapshot(inputs: SnapshotInputs) -> pd.DataFrame:
    """Return the content of `daily_snapshot` for each row of `closes`, sorted by date, coin_id."""
    key = ["date", "coin_id"]
    rows = with_change_and_volatility(inputs.closes)
    rows = rows.rename(columns={"price_usd": "close_usd"})
    ranks = inputs.ranks.rename(columns={"market_share": "dominance"})
    for part in (
        ranks[[*key, "market_cap_rank", "dominance"]],
        trend(inputs.signals),
        inputs.candles,
        etf_totals(inputs.etf_flows),
        _session_columns(inputs.sessions),
    ):
        rows = rows.merge(part, on=key, how="left", validate="one_to_one")
    index = inputs.fear_greed.rename(columns={"value": "fear_greed"})[["date", "fear_greed"]]
    rows = rows.merge(index, on="date", how="left", validate="many_to_one")
    return rows.sort_values(key, ignore_index=True)


def with_change_and_volatility(closes: pd.DataFrame) -> pd.DataFrame:
    """Add change_24h and volatility_7d to daily closes of many coins.

    change_24h = P_t / P_{t-1} - 1, NaN unless there is a close exactly a day before.
    volatility_7d = standard deviation (ddof 1) of 7 daily log returns times sqrt(365), NaN unless
    the 8 closes are on consecutive days.
    """
    rows = closes.sort_values(["coin_id", "date"], ignore_index=True)
    by_coin = rows.groupby("coin_id")
    consecutive = by_coin["date"].diff() == pd.Timedelta(days=1)
    ratio = (rows["price_usd"] / by_coin["price_usd"].shift(1)).where(consecutive)
    returns = np.log(ratio.to_numpy())
    # A window that reaches into the coin before meets the NaN of this coin's first close.
    spread = rolling_std(returns, VOLATILITY_DAYS)
    rows["change_24h"] = ratio - 1
    rows["volatility_7d"] = np.nan
    rows.loc[VOLATILITY_DAYS - 1 :, "volatility_7d"] = spread * np.sqrt(DAYS_A_YEAR)
    return rows


def trend(signals: pd.DataFrame) -> pd.DataFrame:
    """Return date, coin_id and trend: the mean of tanh(trend_z) over the warm EMA pairs."""
    warm = signals[signals["is_warm"] & signals["trend_z"].notna()]
    strength = warm.assign(trend=np.tanh(warm["trend_z"].astype("float64")))
    return strength.groupby(["date", "coin_id"], as_index=False).agg(trend=("trend", "mean"))


def etf_totals(flows: pd.DataFrame) -> pd.DataFrame:
    """Return date, coin_id and etf_net_flow_usd (US dollars) of days every fund reported."""
    totals = flows.groupby(["date", "asset"], as_index=False).agg(
        etf_net_flow_usd=("net_flow_usd", "sum"), is_final=("is_final", "all")
    )
    complete = totals[totals["is_final"].astype(bool)]
    return complete.assign(coin_id=complete["asset"].map(COIN_OF_ETF_ASSET))[
        ["date", "coin_id", "etf_net_flow_usd"]
    ]


def _session_columns(sessions: pd.DataFrame) -> pd.DataFrame:
    names = {"Asia": "return_asia", "Europe": "return_europe", "US": "return_us"}
    wide = sessions.pivot(index=["date", "coin_id"], columns="session", values="session_return")
    return wide.reindex(columns=list(names)).rename(columns=names).reset_index()
