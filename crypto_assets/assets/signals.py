"""ema_signals: trend by pairs of exponential moving averages, from the whole price history."""

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import asked_days
from crypto_assets.assets.derived import complete_days, derived_rows, refuse_without_inputs
from crypto_assets.assets.platform import Platform
from crypto_assets.calculations import signals
from crypto_assets.periods import wall_now
from crypto_assets.tables import EMA_SIGNALS, MARKET_CAPS, RANKS

_HISTORY = """
SELECT date, coin_id, price_usd, is_final, observed_at
FROM market_caps
WHERE date <= $last AND coin_id IN (
    SELECT coin_id FROM ranks WHERE date BETWEEN $first AND $last)
"""
_MEMBERS = "SELECT date, coin_id FROM ranks WHERE date BETWEEN $first AND $last"


def ema_signals(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> pd.DataFrame:
    """Compute the signals of the coins that were ranked on each day asked for.

    Every close before counts, so the result does not depend on which days were written when.
    """
    started_at = wall_now()
    first, last = asked_days(context)
    asked = {"first": first, "last": last}
    history = platform.warehouse.query(_HISTORY, asked, purpose="reading price histories")
    members = platform.warehouse.query(_MEMBERS, asked, purpose="reading ranks")
    pairs = [signals.SpanPair(*spans) for spans in platform.settings.signals.span_pairs]
    refuse_without_inputs(members, "market_caps and ranks", first, last)
    computed = signals.ema_signals(history, pairs)
    rows = computed.merge(members, on=["date", "coin_id"])
    rows = rows.merge(history[["date", "coin_id", "observed_at"]])
    complete = complete_days(platform, [MARKET_CAPS, RANKS], first, last)
    return derived_rows(rows, EMA_SIGNALS, platform).assign(
        is_final=rows["date"].isin(complete), materialized_at=started_at
    )
