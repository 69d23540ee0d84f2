"""Rules of candles: hours against days, holes in the series, candles that stand still."""

from crypto_assets.tables import OHLC_DAILY, OHLC_HOURLY, Table
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules.rule import Rule
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of

HOURS_CONTRADICT_DAY = """
    abs(h.open / d.open - 1) > 0.01 OR abs(h.close / d.close - 1) > 0.01
    OR abs(h.high / d.high - 1) > 0.01 OR abs(h.low / d.low - 1) > 0.01
"""
"""When hours, put together as `h`, are not those of the daily candle `d`."""

_DAYS_AGREE_WITH_HOURS = Rule(
    "ohlc_hourly",
    "hours_agree_with_day",
    "Exact hours of a whole day span the exact candle of the day.",
    "SELECT d.date, d.coin_id, d.open, h.open AS hourly_open, d.high, h.high AS hourly_high, "
    "d.low, h.low AS hourly_low, d.close, h.close AS hourly_close "
    "FROM (SELECT CAST(open_time AS DATE) AS date, coin_id, "
    "first(open ORDER BY open_time) AS open, max(high) AS high, min(low) AS low, "
    "last(close ORDER BY open_time) AS close FROM ohlc_hourly "
    "WHERE exactness = 'exact' AND is_final "
    "AND open_time >= $first AND open_time < CAST($last AS DATE) + 1 "
    "GROUP BY ALL HAVING count(*) = 24) AS h "
    "JOIN ohlc_daily AS d ON d.date = h.date AND d.coin_id = h.coin_id "
    f"WHERE d.is_final AND d.exactness = 'exact' AND ({HOURS_CONTRADICT_DAY})",
    is_error=False,
)


def _no_silent_holes(table: Table, nearby_days: int | None = None) -> Rule:
    """Look between a coin's first and last candle, or only where it has some `nearby_days` off.

    Whether a day is due is told by the newest candle seen of any coin, so no clock is needed.
    """
    name, day = quoted(table.name), day_of(table)
    due = f"INTERVAL 1 DAY + INTERVAL {int(table.ready_after.total_seconds())} SECOND"
    near = ""
    if nearby_days:
        near = (
            f"AND tracked.date - (SELECT max(n.day) FROM counted AS n "
            "WHERE n.coin_id = tracked.coin_id AND n.day < tracked.date) "
            f"<= {nearby_days} AND (SELECT min(n.day) FROM counted AS n "
            "WHERE n.coin_id = tracked.coin_id AND n.day > tracked.date) - tracked.date "
            f"<= {nearby_days}"
        )
    reach = nearby_days or 0
    return Rule(
        table.name,
        "no_silent_holes",
        "Between its first and last candle a tracked coin has all candles of each day, or an entry "
        "in the table gaps that says why not.",
        f"""WITH lives AS (
            SELECT coin_id, CAST(min({table.time_column}) AS DATE) AS first_day,
                CAST(max({table.time_column}) AS DATE) AS last_day
            FROM {name} GROUP BY coin_id
        ),
        seen AS (SELECT max(observed_at) AS until FROM {name}),
        counted AS (
            SELECT coin_id, {day} AS day, count(*) AS rows FROM {name}
            WHERE {table.time_column} >= CAST($first AS DATE) - {reach}
                AND {table.time_column} < CAST($last AS DATE) + {reach + 1}
            GROUP BY ALL
        ),
        gap_days AS ({gap_days_sql()}),
        tracked AS (
            SELECT date, coin_id FROM market_caps WHERE date BETWEEN $first AND $last
            UNION
            SELECT day, series FROM gap_days
            WHERE table_name = 'market_caps' AND day BETWEEN $first AND $last
        )
        SELECT tracked.date, tracked.coin_id, coalesce(counted.rows, 0) AS candles
        FROM tracked JOIN lives USING (coin_id) CROSS JOIN seen
        LEFT JOIN counted ON counted.coin_id = tracked.coin_id AND counted.day = tracked.date
        ANTI JOIN gap_days ON gap_days.table_name = '{table.name}'
            AND gap_days.series = tracked.coin_id AND gap_days.day = tracked.date
        WHERE tracked.date > first_day AND tracked.date < last_day
            AND tracked.date + {due} <= until
            AND coalesce(counted.rows, 0) < {table.rows_a_day} {near}""",
        is_error=False,
    )


# A dollar coin told in three digits stands still by itself.
_HOURS_MOVE = Rule(
    "ohlc_hourly",
    "prices_are_fresh",
    "No coin's exact candles stand at one price for six hours or more, but a dollar coin's.",
    """SELECT coin_id, close, count(*) AS hours, min(open_time) AS since, max(open_time) AS until
    FROM (
        SELECT open_time, coin_id, close, open_time - INTERVAL 1 HOUR * row_number() OVER (
            PARTITION BY coin_id, close ORDER BY open_time) AS run
        FROM ohlc_hourly
        WHERE open_time >= CAST($first AS DATE) - 1 AND open_time < CAST($last AS DATE) + 1
            AND exactness = 'exact' AND open = close AND high = close AND low = close
            AND close NOT BETWEEN 0.99 AND 1.01
    )
    ANTI JOIN (FROM coin_list WHERE NOT is_active) AS gone USING (coin_id)
    GROUP BY coin_id, close, run HAVING hours >= 6 AND until >= $first""",
    is_error=False,
)

RULES = (
    _DAYS_AGREE_WITH_HOURS,
    _no_silent_holes(OHLC_DAILY),
    # A free plan, for however long it was in force, has brought headline coins only.
    _no_silent_holes(OHLC_HOURLY, nearby_days=7),
    _HOURS_MOVE,
)
