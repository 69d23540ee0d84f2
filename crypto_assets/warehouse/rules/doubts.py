"""Final rows to have a second look at, because other rows contradict them.

The provider has the last word on them: asked again, it settles the matter either way.
"""

from crypto_assets.warehouse.rules.candles import HOURS_CONTRADICT_DAY
from crypto_assets.warehouse.rules.prices import CLOSE_WITHIN_CANDLE
from crypto_assets.warehouse.rules.sentiment_and_flows import ACTIVE_FUNDS_REPORT, FUNDS_ARE_KNOWN

_CLOSES = f"SELECT coin_id AS series, date AS day FROM ({CLOSE_WITHIN_CANDLE.offenders})"

# A day that was restated since its hours were read: nobody looks at hours again by itself. Few days
# are, so that the hours of all others are not even read.
_RESTATED = (
    "(SELECT DISTINCT day AS date, key->>'coin_id' AS coin_id FROM restatements "
    "WHERE table_name = 'ohlc_daily' AND day BETWEEN $first AND $last)"
)
_HOURS = f"""
SELECT coin_id AS series, date AS day FROM (
    SELECT hour.coin_id, restated.date, min(low) AS low, max(high) AS high,
        first(open ORDER BY open_time) AS open, last(close ORDER BY open_time) AS close
    FROM ohlc_hourly AS hour JOIN {_RESTATED} AS restated
        ON hour.coin_id = restated.coin_id AND open_time >= restated.date
        AND open_time < restated.date + INTERVAL 1 DAY
    WHERE exactness = 'exact' AND is_final
    GROUP BY ALL HAVING count(*) = 24
) AS h JOIN ohlc_daily AS d USING (date, coin_id)
WHERE d.is_final AND d.exactness = 'exact' AND ({HOURS_CONTRADICT_DAY})
"""

# A known fund gone and an unknown one there: a column that was misread, or has a new name.
_FUNDS = f"""
SELECT DISTINCT asset AS series, date AS day FROM ({ACTIVE_FUNDS_REPORT.offenders})
SEMI JOIN ({FUNDS_ARE_KNOWN.offenders}) AS strange USING (date, asset)
"""

DOUBTED: dict[str, str] = {
    "market_caps": _CLOSES,
    "ohlc_hourly": _HOURS,
    "etf_flows": _FUNDS,
}
"""By table, a query of the series and days to ask for again, of the days [$first, $last]."""
