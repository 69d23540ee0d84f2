"""The checks as data: a query that returns the rows that should not be there.

Rules of single rows are enforced before the commit (`warehouse.validation`); here belongs what
only the stored whole can tell. `$first` and `$last` are the days under check.
"""

from dataclasses import dataclass
from datetime import date

from crypto_assets.tables import TABLES, Table, partitioned
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import within

# Tables whose series can be missing by themselves; calculated ones follow their inputs.
_WITH_SERIES = ("market_caps", "ohlc_hourly", "ohlc_daily", "etf_flows")


@dataclass(frozen=True)
class Rule:
    """One check: the table it is about and the query of offending rows."""

    table: str
    name: str
    description: str
    offenders: str
    is_error: bool = True
    """ERROR withholds publication; otherwise it warns."""

    def parameters(self, days: tuple[date, date]) -> dict[str, date]:
        """Return what the query binds for the days [first, last]."""
        return {"first": days[0], "last": days[1]} if "$first" in self.offenders else {}


def all_rules() -> list[Rule]:
    """Return every check, those generated from the contracts first."""
    return [
        *(_keys_unique(table) for table in TABLES.values()),
        *(_source_fits(table) for table in partitioned()),
        *(_complete(TABLES[name]) for name in _WITH_SERIES),
        _RANKS_ARE_DENSE,
        _RANKS_FOLLOW_CAPS,
        _SIGNALS_FOLLOW_PRICES,
        _DAYS_AGREE_WITH_HOURS,
    ]


def _keys_unique(table: Table) -> Rule:
    key = ", ".join(map(quoted, table.key))
    where = f"WHERE {within(table, '$first', '$last')}" if table.time_column else ""
    return Rule(
        table.name,
        "keys_unique",
        f"No two rows share {', '.join(table.key)}.",
        f"SELECT {key}, count(*) AS rows FROM {quoted(table.name)} {where} "
        f"GROUP BY {key} HAVING count(*) > 1",
    )


def _source_fits(table: Table) -> Rule:
    return Rule(
        table.name,
        "source_fits_home",
        "Sandbox data is in a sandbox home, and nowhere else.",
        f"SELECT {', '.join(map(quoted, table.key))}, source FROM {quoted(table.name)} "
        f"WHERE {within(table, '$first', '$last')} "
        "AND starts_with(source, 'sandbox') <> (SELECT is_sandbox FROM warehouse_info)",
    )


def _complete(table: Table) -> Rule:
    return Rule(
        table.name,
        "complete",
        "Everything tracked is there on each day; what is missing is in the table gaps.",
        "SELECT date, series_missing, missing FROM coverage "
        f"WHERE table_name = '{table.name}' AND series_missing > 0 "
        "AND date BETWEEN $first AND $last ORDER BY date DESC",
        is_error=False,
    )


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
    "AND date IN (SELECT date FROM ranks)) AS m ON r.date = m.date AND r.coin_id = m.coin_id "
    "WHERE coalesce(m.is_final, true) AND r.market_cap_usd IS DISTINCT FROM m.market_cap_usd",
)

_SIGNALS_FOLLOW_PRICES = Rule(
    "ema_signals",
    "signals_follow_prices",
    "On a closed day with signals, every ranked coin has them, ending with its stored price.",
    "SELECT r.date, r.coin_id, s.price_usd AS signal_price, m.price_usd "
    "FROM (FROM ranks WHERE date BETWEEN $first AND $last "
    "AND date IN (SELECT date FROM ema_signals)) AS r "
    "JOIN market_caps AS m ON m.date = r.date AND m.coin_id = r.coin_id "
    "LEFT JOIN ema_signals AS s ON s.date = r.date AND s.coin_id = r.coin_id "
    "WHERE m.is_final AND s.price_usd IS DISTINCT FROM m.price_usd",
)

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
    "WHERE d.is_final AND d.exactness = 'exact' AND ("
    "abs(h.open / d.open - 1) > 0.01 OR abs(h.close / d.close - 1) > 0.01 "
    "OR abs(h.high / d.high - 1) > 0.01 OR abs(h.low / d.low - 1) > 0.01)",
    is_error=False,
)
