"""What breaks each rule on one day, and how many rows then offend it."""

from dataclasses import dataclass
from datetime import date

FRIDAY, SUNDAY, MONDAY = date(2026, 3, 6), date(2026, 3, 8), date(2026, 3, 9)
ONE = "coin_id = 'bitcoin'"
ON_MONDAY = "date = '2026-03-09'"


@dataclass(frozen=True)
class Damage:
    """What breaks a rule on Monday, and how many rows then offend it."""

    sql: str
    offenders: int = 1


def doubled(table: str, rows: int, day: str = "date") -> Damage:
    on = f"WHERE CAST({day} AS DATE) = '2026-03-09'" if day else ""
    return Damage(f"INSERT INTO {table} SELECT * FROM {table} {on} LIMIT {rows}", rows)


def mislabelled(table: str, where: str, rows: int, day: str = "date") -> Damage:
    return Damage(
        f"UPDATE {table} SET source = 'live' WHERE CAST({day} AS DATE) = '2026-03-09' AND {where}",
        rows,
    )


def lost(table: str, series: str) -> Damage:
    return Damage(
        f"INSERT INTO gaps VALUES ('{table}', '{series}', '2026-03-09', '2026-03-09', 'missing', "
        "'a test', '2026-03-10')"
    )


def changed(table: str, to: str, where: str = ONE, rows: int = 1) -> Damage:
    return Damage(f"UPDATE {table} SET {to} WHERE {ON_MONDAY} AND {where}", rows)


def removed(table: str, where: str = ONE, rows: int = 1) -> Damage:
    return Damage(f"DELETE FROM {table} WHERE {ON_MONDAY} AND {where}", rows)


def fewer_and_more(table: str, day: str = "date") -> list[Damage]:
    """Half of the day's rows, and two and a half times as many."""
    on = f"CAST({day} AS DATE) = '2026-03-09'"
    count = f"(SELECT count(*) // 2 FROM {table} WHERE {on})"
    half = f"SELECT rowid FROM {table} WHERE {on} ORDER BY rowid LIMIT {count}"
    whole = f"SELECT t.* FROM {table} AS t, range(2) WHERE {on}"
    return [
        Damage(f"DELETE FROM {table} WHERE rowid IN ({half})"),
        Damage(f"INSERT INTO {table} {whole}"),
    ]


def stands_still(first: str, last: str, price: float = 5.0) -> str:
    return (
        f"UPDATE ohlc_hourly SET open = {price}, high = {price}, low = {price}, close = {price} "
        f"WHERE open_time BETWEEN '{first}' AND '{last}' AND {ONE}"
    )


def told_by_snapshot(price: str) -> str:
    return (
        f"UPDATE market_caps SET price_usd = {price}, source = 'sandbox/coingecko/coins/markets' "
        f"FROM ohlc_daily AS c WHERE c.date = '2026-03-09' AND market_caps.{ON_MONDAY} "
        "AND c.coin_id = market_caps.coin_id AND c.coin_id IN ('bitcoin', 'solana')"
    )


# Some of Monday's coins under names that were not there on Sunday, all days chosen in time.
NEW_COINS = """UPDATE market_caps SET is_point_in_time = true;
    UPDATE market_caps SET coin_id = 'new-' || coin_id
    WHERE date = '2026-03-09' AND coin_id IN ({})"""

DAMAGES = {
    "coin_list.keys_unique": [doubled("coin_list", 7, day="")],
    "market_caps.keys_unique": [doubled("market_caps", 7)],
    "ranks.keys_unique": [doubled("ranks", 7)],
    "ema_signals.keys_unique": [doubled("ema_signals", 7)],
    "ohlc_hourly.keys_unique": [doubled("ohlc_hourly", 30, day="open_time")],
    "ohlc_daily.keys_unique": [doubled("ohlc_daily", 7)],
    "fear_greed.keys_unique": [doubled("fear_greed", 1)],
    "etf_flows.keys_unique": [doubled("etf_flows", 7)],
    "daily_snapshot.keys_unique": [doubled("daily_snapshot", 7)],
    "coin_list.source_fits_home": [
        Damage(f"UPDATE coin_list SET source = 'live' WHERE {ONE}"),
    ],
    "market_caps.source_fits_home": [mislabelled("market_caps", ONE, 1)],
    "ranks.source_fits_home": [mislabelled("ranks", ONE, 1)],
    "ema_signals.source_fits_home": [mislabelled("ema_signals", ONE, 3)],
    "ohlc_hourly.source_fits_home": [mislabelled("ohlc_hourly", ONE, 24, "open_time")],
    "ohlc_daily.source_fits_home": [mislabelled("ohlc_daily", ONE, 1)],
    "fear_greed.source_fits_home": [mislabelled("fear_greed", "true", 1)],
    "etf_flows.source_fits_home": [mislabelled("etf_flows", "ticker = 'IBIT'", 1)],
    "daily_snapshot.source_fits_home": [mislabelled("daily_snapshot", ONE, 1)],
    "market_caps.complete": [lost("market_caps", "solana")],
    "ohlc_hourly.complete": [lost("ohlc_hourly", "solana")],
    "ohlc_daily.complete": [lost("ohlc_daily", "solana")],
    "fear_greed.complete": [lost("fear_greed", "fear_greed")],
    "etf_flows.complete": [lost("etf_flows", "sol")],
    "coin_list.contract_holds": [
        Damage(
            "ALTER TABLE coin_list ALTER COLUMN symbol DROP NOT NULL; "
            f"UPDATE coin_list SET symbol = NULL WHERE {ONE}"
        ),
    ],
    "market_caps.contract_holds": [
        changed("market_caps", "price_usd = -1"),
        changed("market_caps", "price_usd = 0, volume_24h_usd = -1"),
        changed("market_caps", "market_cap_usd = 'inf'", "true", rows=10),
    ],
    "ranks.contract_holds": [changed("ranks", "market_share = 1.5")],
    "ema_signals.contract_holds": [changed("ema_signals", "fast_span = slow_span", rows=3)],
    "ohlc_hourly.contract_holds": [
        Damage(f"UPDATE ohlc_hourly SET low = high * 2 WHERE open_time = '2026-03-09 05:00' "
               f"AND {ONE}"),
        Damage(f"UPDATE ohlc_hourly SET open_time = '2026-03-09 05:30' "
               f"WHERE open_time = '2026-03-09 05:00' AND {ONE}"),
        Damage("UPDATE ohlc_hourly SET session = 'Mars' "
               f"WHERE CAST(open_time AS DATE) = '2026-03-09' AND {ONE}", 24),
    ],
    "ohlc_daily.contract_holds": [
        changed("ohlc_daily", "high = 'nan'"),
        changed("ohlc_daily", "high = close / 2"),
        changed("ohlc_daily", "open = low / 2"),
    ],
    "fear_greed.contract_holds": [
        changed("fear_greed", "value = 101", "true"),
        changed("fear_greed", "value = -1", "true"),
    ],
    "etf_flows.contract_holds": [changed("etf_flows", "asset = 'doge'", "ticker = 'IBIT'")],
    "daily_snapshot.contract_holds": [changed("daily_snapshot", "trend = 2")],
    "market_caps.row_count_is_usual": fewer_and_more("market_caps"),
    "ranks.row_count_is_usual": fewer_and_more("ranks"),
    "ema_signals.row_count_is_usual": fewer_and_more("ema_signals"),
    "ohlc_hourly.row_count_is_usual": fewer_and_more("ohlc_hourly", "open_time"),
    "ohlc_daily.row_count_is_usual": fewer_and_more("ohlc_daily"),
    "etf_flows.row_count_is_usual": fewer_and_more("etf_flows"),
    "daily_snapshot.row_count_is_usual": fewer_and_more("daily_snapshot"),
    "ranks.ranks_are_1_to_n": [
        removed("ranks", "market_cap_rank = 1"),
        removed("ranks", "market_cap_rank = 4"),
        changed("ranks", "market_cap_rank = 3", "market_cap_rank = 4"),
    ],
    "ranks.ranks_follow_market_caps": [
        changed("ranks", "market_cap_usd = 1"),
        removed("ranks"),
        removed("market_caps"),
    ],
    "ranks.larger_ranks_first": [
        changed("ranks", "market_cap_usd = 1e15", "market_cap_rank = 4"),
        changed("ranks", "market_cap_usd = 1", "market_cap_rank = 4"),
        changed("ranks", "market_cap_rank = 7 - market_cap_rank", "market_cap_rank IN (3, 4)"),
    ],
    "ranks.shares_sum_to_1": [
        changed("ranks", "market_share = market_share + 2e-9"),
        removed("ranks", "market_cap_rank = 10"),
    ],
    "market_caps.cap_is_price_times_supply": [
        changed("market_caps", "circulating_supply = 1.06 * market_cap_usd / price_usd"),
        changed("market_caps", "circulating_supply = 0"),
        changed("market_caps", "circulating_supply = 0.94 * market_cap_usd / price_usd",
                "coin_id IN ('bitcoin', 'solana')", rows=2),
    ],
    "market_caps.universe_is_stable": [
        Damage(NEW_COINS.format("'bitcoin', 'solana', 'tether'")),
    ],
    "market_caps.close_within_candle": [
        Damage(told_by_snapshot("1.11 * c.high"), 2),
        Damage(told_by_snapshot("0.89 * c.low"), 2),
    ],
    "market_caps.prices_do_not_jump": [
        changed("market_caps", "price_usd = 3 * price_usd", "coin_id IN ('bitcoin', 'solana')",
                rows=2),
        changed("market_caps", "price_usd = 0.7 * price_usd", "coin_id = 'tether'"),
    ],
    "ohlc_daily.prices_do_not_jump": [
        changed("ohlc_daily", "close = 3 * close, high = 3 * high"),
        changed("ohlc_daily", "close = close / 100, low = low / 100"),
    ],
    "market_caps.prices_are_fresh": [
        Damage("UPDATE market_caps AS m SET price_usd = b.price_usd, "
               "market_cap_usd = b.market_cap_usd, volume_24h_usd = b.volume_24h_usd "
               "FROM market_caps AS b WHERE b.date = '2026-03-08' AND m.date = '2026-03-09' "
               "AND b.coin_id = m.coin_id AND m.coin_id IN ('bitcoin', 'solana')", 2),
    ],
    "ema_signals.signals_follow_prices": [
        changed("ema_signals", "price_usd = 1", f"fast_span = 12 AND {ONE}"),
        removed("ema_signals"),
    ],
    "ema_signals.spans_are_the_same": [
        removed("ema_signals", f"fast_span = 12 AND {ONE}"),
        changed("ema_signals", "slow_span = 27", "fast_span = 12 AND coin_id IN "
                "('bitcoin', 'solana')", rows=2),
    ],
    "ema_signals.emas_are_right": [
        # All rows of five of the ten coins, for three pairs of spans.
        changed("ema_signals", "ema_slow = ema_slow * 1.000002", "true", rows=15),
        changed("ema_signals", "ema_fast = ema_fast * 0.999998", "fast_span = 12", rows=5),
        Damage("UPDATE market_caps SET price_usd = 1.1 * price_usd WHERE date = '2026-03-08'", 15),
    ],
    "daily_snapshot.snapshot_follows_closes": [
        changed("daily_snapshot", "close_usd = close_usd * 1.0001"),
        removed("daily_snapshot"),
        removed("market_caps"),
    ],
    "ohlc_hourly.hours_agree_with_day": [
        changed("ohlc_daily", "high = high * 1.05"),
        Damage("UPDATE ohlc_hourly SET close = close * 1.05, high = high * 1.05 "
               f"WHERE open_time = '2026-03-09 23:00' AND {ONE}"),
    ],
    "ohlc_daily.no_silent_holes": [
        removed("ohlc_daily"),
        removed("ohlc_daily", "true", rows=10),
    ],
    "ohlc_hourly.no_silent_holes": [
        Damage(f"DELETE FROM ohlc_hourly WHERE open_time = '2026-03-09 05:00' AND {ONE}"),
        Damage("DELETE FROM ohlc_hourly WHERE CAST(open_time AS DATE) = '2026-03-09'", 10),
    ],
    "ohlc_hourly.prices_are_fresh": [
        Damage(stands_still("2026-03-09 03:00", "2026-03-09 08:00")),
        Damage(stands_still("2026-03-08 21:00", "2026-03-09 02:00")),
    ],
    "fear_greed.no_unknown_holes": [removed("fear_greed", "true")],
    "etf_flows.no_weekend_rows": [
        Damage("INSERT INTO etf_flows SELECT * REPLACE (DATE '2026-03-07' AS date) FROM etf_flows "
               "WHERE date = '2026-03-09' AND asset = 'sol'", 3),
    ],
    "etf_flows.active_funds_report": [
        removed("etf_flows", "ticker = 'IBIT'"),
        removed("etf_flows", "ticker LIKE 'E%'", rows=7),
        changed("etf_flows", "ticker = 'NEWS'", "ticker = 'GBTC'"),
    ],
    "etf_flows.funds_are_known": [
        changed("etf_flows", "ticker = 'NEWS'", "ticker = 'GBTC'"),
        # Staked ether's fund began three days later; bitcoin has no fund called ETHA.
        changed("etf_flows", "ticker = 'ETHB'", "ticker = 'ETHA'"),
        changed("etf_flows", "ticker = 'ETHA'", "ticker = 'IBIT'"),
    ],
}  # fmt: skip
# Days other than Monday that a rule is broken on.
DAYS = {"etf_flows.no_weekend_rows": date(2026, 3, 7)}
