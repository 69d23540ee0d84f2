"""ema_signals: trend by pairs of exponential moving averages, from the whole price history."""

from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import asked_days
from crypto_assets.assets.derived import complete_days, derived_rows, refuse_without_inputs
from crypto_assets.assets.platform import Platform
from crypto_assets.calculations import signals
from crypto_assets.periods import wall_now
from crypto_assets.tables import EMA_SIGNALS, MARKET_CAPS, RANKS

# Millions of rows are read much faster with a number than with a text in each.
_COINS = """
CREATE OR REPLACE TEMP TABLE ranked_coins AS
SELECT coin_id, row_number() OVER (ORDER BY coin_id) - 1 AS code
FROM (SELECT DISTINCT coin_id FROM ranks WHERE date BETWEEN $first AND $last)
"""
_HISTORIES = """
SELECT *, (date, code) IN (
    SELECT (date, code) FROM ranks JOIN ranked_coins USING (coin_id)
    WHERE date BETWEEN $first AND $last) AS is_asked
FROM (
    SELECT date, code, price_usd, is_final, observed_at
    FROM market_caps JOIN ranked_coins USING (coin_id) WHERE date <= $last)
"""


def ema_signals(
    context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
) -> pd.DataFrame:
    """Compute the signals of the coins that were ranked on each day asked for.

    Every close before counts, so the result does not depend on which days were written when.
    """
    started_at = wall_now()
    first, last = asked_days(context)
    with platform.warehouse.session("reading price histories"):
        histories = _histories(platform, first, last)
        complete = complete_days(platform, [MARKET_CAPS, RANKS], first, last)
    refuse_without_inputs(histories[histories["is_asked"]], "market_caps and ranks", first, last)
    pairs = [signals.SpanPair(*spans) for spans in platform.settings.signals.span_pairs]
    rows = signals.ema_signals(histories, pairs)
    return derived_rows(rows, EMA_SIGNALS, platform, complete, started_at)


def _histories(platform: Platform, first: date, last: date) -> pd.DataFrame:
    """Return all closes up to `last` of the coins ranked on these days; asked for are those."""
    days = {"first": first, "last": last}
    with platform.warehouse.session("reading price histories") as connection:
        connection.execute(_COINS, days)
        coins = connection.execute("SELECT coin_id FROM ranked_coins ORDER BY code").fetchdf()
        columns = connection.execute(_HISTORIES, days).fetchnumpy()
    columns["coin_id"] = pd.Categorical.from_codes(
        columns.pop("code"),  # type: ignore[arg-type]
        pd.Index(coins["coin_id"]),
    )
    return pd.DataFrame(columns, copy=False)
