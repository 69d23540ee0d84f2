"""Rules of market caps, of who is tracked, and of the ranks that follow."""

from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules.rule import Rule

_RANKS_ARE_DENSE = Rule(
    "ranks",
    "ranks_are_1_to_n",
    "The ranks of a day are exactly 1 to n.",
    "SELECT date, count(*) AS coins, min(market_cap_rank) AS first, max(market_cap_rank) AS last "
    "FROM ranks WHERE date BETWEEN $first AND $last GROUP BY date "
    "HAVING first <> 1 OR last <> coins OR count(DISTINCT market_cap_rank) <> coins",
)

# A running day's rows are provisional, and one table may be an hour ahead of the other.
_RANKS_FOLLOW_CAPS = Rule(
    "ranks",
    "ranks_follow_market_caps",
    "On a closed day with ranks, each coin with a market cap is ranked by that very cap.",
    "SELECT coalesce(r.date, m.date) AS date, coalesce(r.coin_id, m.coin_id) AS coin_id, "
    "r.market_cap_usd AS ranked_by, m.market_cap_usd "
    "FROM (FROM ranks WHERE date BETWEEN $first AND $last) AS r "
    "FULL JOIN (FROM market_caps WHERE date BETWEEN $first AND $last "
    "AND date IN (SELECT date FROM ranks WHERE date BETWEEN $first AND $last)) AS m "
    "ON r.date = m.date AND r.coin_id = m.coin_id "
    "WHERE coalesce(m.is_final, true) AND r.market_cap_usd IS DISTINCT FROM m.market_cap_usd",
    settles=True,
)

_LARGER_RANKS_FIRST = Rule(
    "ranks",
    "larger_ranks_first",
    "No coin has a larger market cap than the coin ranked before it.",
    """SELECT date, coin_id, market_cap_rank, market_cap_usd, cap_before FROM (
        SELECT *, lag(market_cap_usd) OVER (PARTITION BY date ORDER BY market_cap_rank)
            AS cap_before
        FROM ranks WHERE date BETWEEN $first AND $last
    ) WHERE market_cap_usd > cap_before""",
)

_SHARES_SUM_TO_ONE = Rule(
    "ranks",
    "shares_sum_to_1",
    "The market shares of a day sum to 1 (within 1e-9).",
    "SELECT date, sum(market_share) AS total FROM ranks WHERE date BETWEEN $first AND $last "
    "GROUP BY date HAVING abs(total - 1) > 1e-9",
)

# Real answers are at most 0.4 % apart, since a price is told in few digits and a cap is some
# minutes old; in the wildest hours that may grow, yet not to 5 %.
_CAP_IS_PRICE_TIMES_SUPPLY = Rule(
    "market_caps",
    "cap_is_price_times_supply",
    "A market cap is the price times the circulating supply, within 5 %.",
    """SELECT date, coin_id, price_usd, circulating_supply, market_cap_usd,
        price_usd * circulating_supply / market_cap_usd - 1 AS deviation
    FROM market_caps WHERE date BETWEEN $first AND $last
        AND market_cap_usd > 0 AND abs(deviation) > 0.05""",
    is_error=False,
)

# Told from the stored rows alone: only a day that is over has final ones. A coin that an outage
# kept away the day before was tracked all the same.
_UNIVERSE_IS_STABLE = Rule(
    "market_caps",
    "universe_is_stable",
    "Of the coins tracked on a closed day, at most 20 % were not tracked the day before.",
    f"""WITH chosen AS (
        SELECT date FROM market_caps
        WHERE date BETWEEN CAST($first AS DATE) - 1 AND $last
        GROUP BY date HAVING bool_and(is_point_in_time) AND bool_or(is_final)
    ),
    tracked AS (
        SELECT date, coin_id FROM market_caps
        WHERE date BETWEEN CAST($first AS DATE) - 1 AND $last
        UNION
        SELECT day, series FROM ({gap_days_sql()}) WHERE table_name = 'market_caps'
    )
    SELECT m.date, count(*) AS coins, count(*) FILTER (before.coin_id IS NULL) AS new_coins,
        string_agg(m.coin_id, ', ' ORDER BY m.coin_id) FILTER (before.coin_id IS NULL) AS which
    FROM market_caps AS m
    LEFT JOIN tracked AS before ON before.date = m.date - 1 AND before.coin_id = m.coin_id
    WHERE m.date BETWEEN $first AND $last
        AND m.date IN (FROM chosen) AND m.date - 1 IN (FROM chosen)
    GROUP BY m.date HAVING new_coins > 0.2 * coins""",
    is_error=False,
)

RULES = (
    _RANKS_ARE_DENSE,
    _RANKS_FOLLOW_CAPS,
    _LARGER_RANKS_FIRST,
    _SHARES_SUM_TO_ONE,
    _CAP_IS_PRICE_TIMES_SUPPLY,
    _UNIVERSE_IS_STABLE,
)
