"""Which columns each column of a calculated table is made of, as data."""

import dagster as dg

from crypto_assets.tables import DAILY_SNAPSHOT, EMA_SIGNALS, RANKS

_CAP, _PRICE = "market_caps.market_cap_usd", "market_caps.price_usd"
_HOURS = ("ohlc_hourly.open", "ohlc_hourly.close")

COLUMN_INPUTS: dict[str, dict[str, tuple[str, ...]]] = {
    RANKS.name: {
        "date": ("market_caps.date",),
        "coin_id": ("market_caps.coin_id",),
        "market_cap_rank": (_CAP, "market_caps.coin_id"),
        "market_cap_usd": (_CAP,),
        "market_share": (_CAP,),
        "rank_change_1d": (_CAP,),
        "rank_change_7d": (_CAP,),
        "is_point_in_time": ("market_caps.is_point_in_time",),
    },
    EMA_SIGNALS.name: {
        "date": ("ranks.date",),
        "coin_id": ("ranks.coin_id",),
        # Of the settings, not of another table.
        "fast_span": (),
        "slow_span": (),
        "price_usd": (_PRICE,),
        "ema_fast": (_PRICE,),
        "ema_slow": (_PRICE,),
        "strength": (_PRICE,),
        "trend_z": (_PRICE,),
        "state": (_PRICE,),
        "event": (_PRICE, "market_caps.is_final"),
        "is_warm": ("market_caps.date",),
    },
    DAILY_SNAPSHOT.name: {
        "date": ("market_caps.date",),
        "coin_id": ("market_caps.coin_id",),
        "close_usd": (_PRICE,),
        "high_usd": ("ohlc_daily.high",),
        "low_usd": ("ohlc_daily.low",),
        "change_24h": (_PRICE,),
        "volatility_7d": (_PRICE,),
        "market_cap_usd": (_CAP,),
        "market_cap_rank": ("ranks.market_cap_rank",),
        "dominance": ("ranks.market_share",),
        "trend": ("ema_signals.trend_z", "ema_signals.is_warm"),
        "fear_greed": ("fear_greed.value",),
        "etf_net_flow_usd": ("etf_flows.net_flow_usd", "etf_flows.is_final"),
        "return_asia": _HOURS,
        "return_europe": _HOURS,
        "return_us": _HOURS,
        "is_point_in_time": ("market_caps.is_point_in_time",),
    },
}


def column_lineage(table_name: str) -> dg.TableColumnLineage | None:
    """Return where the columns of a calculated table come from, as Dagster shows it."""
    if table_name not in COLUMN_INPUTS:
        return None
    return dg.TableColumnLineage(
        {
            column: [_dependency(source) for source in sources]
            for column, sources in COLUMN_INPUTS[table_name].items()
        }
    )


def _dependency(source: str) -> dg.TableColumnDep:
    table, column = source.split(".")
    return dg.TableColumnDep(dg.AssetKey(table), column)
