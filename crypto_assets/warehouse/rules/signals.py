"""Rules of what is calculated: the signals and the daily snapshot.

A row that is older than what it is made of is calculated again by a sensor (`staleness`): it
offends nothing meanwhile, or only rules that settle by that.
"""

from crypto_assets.warehouse.rules.rule import Rule

_SAMPLE_COINS = 5

_SIGNALS_FOLLOW_PRICES = Rule(
    "ema_signals",
    "signals_follow_prices",
    "On a closed day with signals, every ranked coin has them, ending with its stored price.",
    "SELECT r.date, r.coin_id, s.price_usd AS signal_price, m.price_usd "
    "FROM (FROM ranks WHERE date BETWEEN $first AND $last "
    "AND date IN (SELECT date FROM ema_signals WHERE date BETWEEN $first AND $last)) AS r "
    "JOIN (FROM market_caps WHERE date BETWEEN $first AND $last) AS m "
    "ON m.date = r.date AND m.coin_id = r.coin_id "
    "LEFT JOIN (FROM ema_signals WHERE date BETWEEN $first AND $last) AS s "
    "ON s.date = r.date AND s.coin_id = r.coin_id "
    "WHERE m.is_final AND s.price_usd IS DISTINCT FROM m.price_usd",
    settles=True,
)

_SPANS_ARE_THE_SAME = Rule(
    "ema_signals",
    "spans_are_the_same",
    "All coins of a day have signals for the same pairs of spans.",
    """WITH of_coin AS (
        SELECT date, coin_id, bit_xor(hash(fast_span, slow_span)) AS code
        FROM ema_signals WHERE date BETWEEN $first AND $last GROUP BY date, coin_id
    ),
    usual AS (SELECT date, mode(code) AS code FROM of_coin GROUP BY date)
    SELECT date, coin_id,
        string_agg(concat(fast_span, '/', slow_span), ', ' ORDER BY fast_span, slow_span) AS spans
    FROM of_coin JOIN usual USING (date) JOIN ema_signals USING (date, coin_id)
    WHERE of_coin.code <> usual.code GROUP BY date, coin_id""",
)

# In closed form, to share nothing with the loop of calculations.signals: with n prices and
# b = 1 - 2/(span+1), the price of k closes ago weighs (1-b) * b^k, and the first one b^(n-1).
_EMAS_ARE_RIGHT = Rule(
    "ema_signals",
    "emas_are_right",
    f"Recomputed from all prices, the averages of {_SAMPLE_COINS} coins of the last closed day are "
    "the stored ones (within 1e-6).",
    f"""WITH sampled AS (
        SELECT date, coin_id, materialized_at FROM (
            SELECT s.date, s.coin_id, min(s.materialized_at) AS materialized_at
            FROM ema_signals AS s
            JOIN market_caps AS m ON m.date = s.date AND m.coin_id = s.coin_id
            WHERE s.date BETWEEN $first AND $last AND m.is_final
            GROUP BY s.date, s.coin_id
        ) QUALIFY date = max(date) OVER ()
        ORDER BY hash(concat(coin_id, date)) LIMIT {_SAMPLE_COINS}
    ),
    prices AS (
        SELECT coin_id, m.price_usd AS price,
            row_number() OVER (PARTITION BY coin_id ORDER BY m.date DESC) - 1 AS closes_ago,
            row_number() OVER (PARTITION BY coin_id ORDER BY m.date) = 1 AS is_first
        FROM market_caps AS m JOIN sampled USING (coin_id) WHERE m.date <= sampled.date
        -- A stale row is not wrong yet.
        QUALIFY max(m.materialized_at) OVER (PARTITION BY coin_id) <= sampled.materialized_at
    ),
    spans AS (
        SELECT coin_id, date, fast_span, slow_span, ema_fast, ema_slow
        FROM ema_signals JOIN sampled USING (date, coin_id)
    ),
    weighed AS (
        SELECT coin_id, span, sum(price * pow(1 - 2 / (span + 1), closes_ago)
            * CASE WHEN is_first THEN 1 ELSE 2 / (span + 1) END) AS ema
        FROM prices
        JOIN (SELECT coin_id, fast_span AS span FROM spans
            UNION SELECT coin_id, slow_span FROM spans) USING (coin_id)
        GROUP BY coin_id, span
    )
    SELECT date, s.coin_id, fast_span, slow_span, ema_fast, fast.ema AS fast_recomputed,
        ema_slow, slow.ema AS slow_recomputed
    FROM spans AS s
    JOIN weighed AS fast ON fast.coin_id = s.coin_id AND fast.span = s.fast_span
    JOIN weighed AS slow ON slow.coin_id = s.coin_id AND slow.span = s.slow_span
    WHERE abs(ema_fast / fast.ema - 1) > 1e-6 OR abs(ema_slow / slow.ema - 1) > 1e-6""",
)

_SNAPSHOT_FOLLOWS_CLOSES = Rule(
    "daily_snapshot",
    "snapshot_follows_closes",
    "On a closed day with a snapshot, it has each coin of market_caps, with that very close.",
    """WITH made AS (
        SELECT date, min(materialized_at) AS made_at FROM daily_snapshot
        WHERE date BETWEEN $first AND $last GROUP BY date
    ),
    closes AS (
        SELECT m.*, made_at FROM market_caps AS m JOIN made USING (date)
        WHERE date BETWEEN $first AND $last
    ),
    snapshot AS (FROM daily_snapshot WHERE date BETWEEN $first AND $last)
    SELECT coalesce(m.date, s.date) AS date, coalesce(m.coin_id, s.coin_id) AS coin_id,
        s.close_usd, m.price_usd
    FROM snapshot AS s
    FULL JOIN closes AS m ON m.date = s.date AND m.coin_id = s.coin_id
    WHERE coalesce(m.is_final AND m.materialized_at <= made_at, true)
        AND s.close_usd IS DISTINCT FROM m.price_usd""",
)

RULES = (
    _SIGNALS_FOLLOW_PRICES,
    _SPANS_ARE_THE_SAME,
    _EMAS_ARE_RIGHT,
    _SNAPSHOT_FOLLOWS_CLOSES,
)
