"""daily_snapshot: one row a coin and day with what every other table says of it."""

from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import asked_days
from crypto_assets.assets.derived import complete_days, derived_rows, refuse_without_inputs
from crypto_assets.assets.platform import Platform
from crypto_assets.calculations.snapshot import (
    VOLATILITY_DAYS,
    SnapshotInputs,
)
from crypto_assets.calculations.snapshot import (
    daily_snapshot as snapshot_of,
)
from crypto_assets.periods import DAY, wall_now
from crypto_assets.tables import DAILY_SNAPSHOT
from crypto_assets.warehouse.staleness import INPUTS

_SOURCES = [needed.table for needed in INPUTS[DAILY_SNAPSHOT.name]]
_CLOSES = """
SELECT date, coin_id, price_usd, market_cap_usd, is_final, is_point_in_time, observed_at
FROM market_caps WHERE date BETWEEN $before AND $last
"""
_RANKS = "SELECT date, coin_id, market_cap_rank, market_share FROM ranks"
_SIGNALS = "SELECT date, coin_id, trend_z, is_warm FROM ema_signals"
_CANDLES = "SELECT date, coin_id, high AS high_usd, low AS low_usd FROM ohlc_daily"
_FEAR_GREED = "SELECT date, value FROM fear_greed"
_ETF_FLOWS = "SELECT date, asset, net_flow_usd, is_final FROM etf_flows"
# A session's return is told once all its hours are there.
_SESSIONS = """
SELECT CAST(open_time AS DATE) AS date, coin_id, session,
    last(close ORDER BY open_time) / first(open ORDER BY open_time) - 1 AS session_return
FROM ohlc_hourly WHERE CAST(open_time AS DATE) BETWEEN $first AND $last
GROUP BY ALL HAVING count(*) = 8
"""


def daily_snapshot(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> pd.DataFrame:
    """Join what all tables say of the days asked for."""
    started_at = wall_now()
    first, last = asked_days(context)
    with platform.warehouse.session("reading the snapshot's inputs"):
        inputs = _inputs(platform, first, last)
        complete = complete_days(platform, _SOURCES, first, last)
    rows = snapshot_of(inputs)
    rows = rows[rows["date"] >= pd.Timestamp(first)]
    refuse_without_inputs(rows, "market_caps", first, last)
    return derived_rows(rows, DAILY_SNAPSHOT, platform, complete, started_at)


def _inputs(platform: Platform, first: date, last: date) -> SnapshotInputs:
    asked = {"first": first, "last": last}
    within = " WHERE date BETWEEN $first AND $last"
    with platform.warehouse.session("reading the snapshot's inputs") as connection:

        def read(sql: str, values: dict[str, date]) -> pd.DataFrame:
            return connection.execute(sql, values).fetchdf()

        before = first - (VOLATILITY_DAYS + 1) * DAY
        return SnapshotInputs(
            closes=read(_CLOSES, {"before": before, "last": last}),
            ranks=read(_RANKS + within, asked),
            signals=read(_SIGNALS + within, asked),
            candles=read(_CANDLES + within, asked),
            sessions=read(_SESSIONS, asked),
            fear_greed=read(_FEAR_GREED + within, asked),
            etf_flows=read(_ETF_FLOWS + within, asked),
        )
