"""Rules of prices over time and across sources: jumps, standstill, closes against candles."""

from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules.rule import Rule

# A close that the history told is final by itself: only a snapshot's is settled by a second look,
# and where the history has no word on it nothing would ever end the withholding.
CLOSE_WITHIN_CANDLE = Rule(
    "market_caps",
    "close_within_candle",
    "A close told by a market snapshot lies within the day's candle, give or take 10 %.",
    f"""SELECT close.date, close.coin_id, close.price_usd, candle.low, candle.high,
        candle.exactness
    FROM market_caps AS close
    JOIN ohlc_daily AS candle ON candle.date = close.date AND candle.coin_id = close.coin_id
    ANTI JOIN (FROM ({gap_days_sql()}) WHERE table_name = 'market_caps'
        AND state = 'no_data_at_provider') AS mute
        ON mute.series = close.coin_id AND mute.day = close.date
    WHERE close.date BETWEEN $first AND $last AND close.is_final AND candle.is_final
        AND ends_with(close.source, 'coins/markets')
        AND close.price_usd NOT BETWEEN 0.9 * candle.low AND 1.1 * candle.high""",
)

_TRAILING_DAYS = 60
_LEAST_RETURNS = 20
# A coin that hardly ever moves has no spread to measure by: 0.01 % a day is the least.
_LEAST_MAD = 1e-4


def robust_z_sql(table: str, price: str) -> str:
    """Return a query of the log returns since the day before and their robust z.

    date, coin_id, price, log_return, returns, z = 0.6745 * (log_return - median) / MAD, over the
    `returns` of the coin in the 60 days before. Final closes of [$first, $last] only.
    """
    return f"""
    SELECT date, coin_id, price, log_return, count(log_return) OVER past AS returns,
        0.6745 * (log_return - median(log_return) OVER past)
            / greatest(mad(log_return) OVER past, {_LEAST_MAD!r}) AS z
    FROM (
        SELECT date, coin_id, {price} AS price,
            CASE WHEN lag(date) OVER closes = date - 1
                THEN ln({price} / lag({price}) OVER closes) END AS log_return
        FROM {table}
        WHERE date BETWEEN CAST($first AS DATE) - {_TRAILING_DAYS + 1} AND $last
            AND is_final AND {price} > 0
        WINDOW closes AS (PARTITION BY coin_id ORDER BY date)
    )
    WINDOW past AS (PARTITION BY coin_id ORDER BY date
        RANGE BETWEEN INTERVAL {_TRAILING_DAYS} DAY PRECEDING AND INTERVAL 1 DAY PRECEDING)
    QUALIFY date >= $first AND returns >= {_LEAST_RETURNS} AND log_return IS NOT NULL"""


def _prices_do_not_jump(table: str, price: str, other: str, other_price: str) -> Rule:
    """Doubt a jump that neither the other table nor the rest of the market knows of.

    Returns are so fat-tailed that a z of 10 comes by honestly now and then (in the sandbox, whose
    shocks are Student-t with 4 degrees of freedom, twice in 10,000 coin-days, and never beyond 24):
    it tells of wrong data only where a second source is there and does not confirm it. As long as
    there is none, as in the hour before the candles come, it takes a z that no market makes.
    """
    return Rule(
        table,
        "prices_do_not_jump",
        "No price jumps by a quarter and ten robust deviations (25 while there is no second "
        f"source), unless {other} or a quarter of the other coins confirm it.",
        f"""WITH judged AS ({robust_z_sql(table, price)}),
        crowd AS (
            SELECT date, count(*) AS coins, count(*) FILTER (z > 4) AS rising,
                count(*) FILTER (z < -4) AS falling
            FROM judged GROUP BY date
        )
        SELECT date, coin_id, price, exp(log_return) - 1 AS change, z,
            other.{other_price} AS other_source
        FROM judged JOIN crowd USING (date)
        LEFT JOIN (FROM {other} WHERE is_final) AS other USING (date, coin_id)
        WHERE abs(log_return) > ln(1.25)
            AND abs(z) > CASE WHEN other.coin_id IS NULL THEN 25 ELSE 10 END
            AND NOT coalesce(abs(price / other.{other_price} - 1) <= 0.05, false)
            AND NOT (coins > 1
                AND CASE WHEN z > 0 THEN rising ELSE falling END - 1 >= 0.25 * (coins - 1))""",
        is_error=False,
    )


_PRICES_ARE_FRESH = Rule(
    "market_caps",
    "prices_are_fresh",
    "No coin closes with the price, market cap and volume of the day before.",
    """SELECT today.date, today.coin_id, today.price_usd, today.market_cap_usd,
        today.volume_24h_usd
    FROM market_caps AS today
    JOIN market_caps AS before
        ON before.coin_id = today.coin_id AND before.date = today.date - 1
    ANTI JOIN (FROM coin_list WHERE NOT is_active) AS gone ON gone.coin_id = today.coin_id
    WHERE today.date BETWEEN $first AND $last
        AND before.date BETWEEN CAST($first AS DATE) - 1 AND $last
        AND today.is_final AND before.is_final
        AND today.price_usd = before.price_usd AND today.volume_24h_usd = before.volume_24h_usd
        AND today.market_cap_usd IS NOT DISTINCT FROM before.market_cap_usd""",
    is_error=False,
)

RULES = (
    CLOSE_WITHIN_CANDLE,
    _prices_do_not_jump("market_caps", "price_usd", "ohlc_daily", "close"),
    _prices_do_not_jump("ohlc_daily", "close", "market_caps", "price_usd"),
    _PRICES_ARE_FRESH,
)
