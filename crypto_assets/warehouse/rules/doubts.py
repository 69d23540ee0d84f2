"""Final rows to have a second look at, because other rows contradict them.

The provider has the last word on them: asked again, it settles the matter either way.
"""

from crypto_assets.warehouse.rules.candles import DAYS_AGREE_WITH_HOURS
from crypto_assets.warehouse.rules.prices import SNAPSHOT_CLOSE_OUTSIDE_CANDLE
from crypto_assets.warehouse.rules.sentiment_and_flows import ACTIVE_FUNDS_REPORT, FUNDS_ARE_KNOWN

_EVER = {"$first": "DATE '1970-01-01'", "$last": "DATE '9999-01-01'"}


def _ever(sql: str) -> str:
    for name, day in _EVER.items():
        sql = sql.replace(name, day)
    return sql


_CLOSES = f"""
SELECT close.coin_id AS series, close.date AS day FROM market_caps AS close
JOIN ohlc_daily AS candle ON candle.date = close.date AND candle.coin_id = close.coin_id
WHERE {SNAPSHOT_CLOSE_OUTSIDE_CANDLE}
"""

# A day that was restated since its hours were read: nobody looks at hours again by itself.
_HOURS = f"""
SELECT coin_id AS series, date AS day FROM ({DAYS_AGREE_WITH_HOURS.offenders})
SEMI JOIN (SELECT day AS date, key->>'coin_id' AS coin_id FROM restatements
    WHERE table_name = 'ohlc_daily') AS restated USING (date, coin_id)
"""

# A known fund gone and an unknown one there: a column that was misread, or has a new name.
_FUNDS = f"""
SELECT DISTINCT asset AS series, date AS day FROM ({ACTIVE_FUNDS_REPORT.offenders})
SEMI JOIN ({FUNDS_ARE_KNOWN.offenders}) AS strange USING (date, asset)
"""

DOUBTED: dict[str, str] = {
    "market_caps": _CLOSES,
    "ohlc_hourly": _ever(_HOURS),
    "etf_flows": _ever(_FUNDS),
}
"""By table, a query of the series and days to ask for again."""
