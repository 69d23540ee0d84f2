"""What looks like damage and is none: each rule's exceptions, on real rows changed accordingly."""

from datetime import date

import duckdb
import pytest

from crypto_assets.sandbox.etf import FUNDS
from crypto_assets.sandbox.sentiment import MISSING_DAYS
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.rules import DOUBTED, all_rules
from crypto_assets.warehouse.rules import sentiment_and_flows as known
from crypto_assets_tests.checks.damages import (
    DAMAGES,
    MONDAY,
    NEW_COINS,
    SUNDAY,
    fewer_and_more,
    stands_still,
    told_by_snapshot,
)

RULES = {f"{rule.table}.{rule.name}": rule for rule in all_rules()}
JUMP = "UPDATE market_caps SET price_usd = 3 * price_usd WHERE date = '2026-03-09' AND "
STALE = DAMAGES["market_caps.prices_are_fresh"][0].sql
WRONG_EMA = "UPDATE ema_signals SET ema_slow = 2 * ema_slow WHERE date = '2026-03-09'"
WRONG_CLOSE = "UPDATE daily_snapshot SET close_usd = 1 WHERE date = '2026-03-09'"
NO_IBIT = "DELETE FROM etf_flows WHERE date = '2026-03-09' AND ticker = 'IBIT'"
HALF = {table: fewer_and_more(table)[0].sql for table in ("market_caps", "etf_flows")}
NEWER = "materialized_at = materialized_at + INTERVAL 1 DAY"


def gap(table: str, series: str, state: str = "no_data_at_provider") -> str:
    return (
        f"INSERT INTO gaps VALUES ('{table}', '{series}', '2026-03-08', '2026-03-09', '{state}', "
        "'a test', '2026-03-10')"
    )


FINE = {
    "a day like fewer than seven before it": (
        "market_caps.row_count_is_usual",
        HALF["market_caps"] + "; DELETE FROM market_caps WHERE date < '2026-03-03'",
    ),
    "a running day with half of its rows": (
        "market_caps.row_count_is_usual",
        HALF["market_caps"] + "; UPDATE market_caps SET observed_at = '2026-03-09 12:00' "
        "WHERE date = '2026-03-09'",
    ),
    "rows at 70 % of what is usual": (
        "market_caps.row_count_is_usual",
        "DELETE FROM market_caps WHERE date = '2026-03-09' "
        "AND coin_id IN ('bitcoin', 'solana', 'tether')",
    ),
    "funds that report late": (
        "etf_flows.row_count_is_usual",
        HALF["etf_flows"] + "; UPDATE etf_flows SET is_final = false WHERE date = '2026-03-09'",
    ),
    "a page of funds that is late as a whole": (
        "etf_flows.row_count_is_usual",
        "DELETE FROM etf_flows WHERE date = '2026-03-09' AND asset = 'btc'; "
        + gap("etf_flows", "btc", "missing"),
    ),
    "a supply nobody knows": (
        "market_caps.cap_is_price_times_supply",
        "UPDATE market_caps SET circulating_supply = NULL",
    ),
    "a cap nobody knows": (
        "market_caps.cap_is_price_times_supply",
        "UPDATE market_caps SET circulating_supply = 1, market_cap_usd = NULL",
    ),
    "a cap 4 % behind its price": (
        "market_caps.cap_is_price_times_supply",
        "UPDATE market_caps SET circulating_supply = 1.04 * market_cap_usd / price_usd",
    ),
    "equal caps": (
        "ranks.larger_ranks_first",
        "UPDATE ranks SET market_cap_usd = 5 WHERE date = '2026-03-09'",
    ),
    "a fifth of new coins": (
        "market_caps.universe_is_stable",
        NEW_COINS.format("'bitcoin', 'solana'"),
    ),
    "coins chosen later": (
        "market_caps.universe_is_stable",
        NEW_COINS.format("'bitcoin', 'solana', 'tether'")
        + "; UPDATE market_caps SET is_point_in_time = false WHERE date = '2026-03-08'",
    ),
    "a running day with many new coins": (
        "market_caps.universe_is_stable",
        NEW_COINS.format("'bitcoin', 'solana', 'tether'")
        + "; UPDATE market_caps SET is_final = false WHERE date = '2026-03-09'",
    ),
    "coins an outage kept away the day before": (
        "market_caps.universe_is_stable",
        NEW_COINS.format("'bitcoin', 'solana', 'tether'")
        + "".join(
            "; " + gap("market_caps", f"new-{coin}", "missing")
            for coin in ("bitcoin", "solana", "tether")
        ),
    ),
    "a close 9 % above the candle": (
        "market_caps.close_within_candle",
        told_by_snapshot("1.09 * c.high"),
    ),
    "a close off the candle that the history told": (
        "market_caps.close_within_candle",
        told_by_snapshot("2 * c.high")
        + "; UPDATE market_caps SET source = 'sandbox/coingecko/coins/{id}/market_chart'",
    ),
    "a price of the running day off the candle": (
        "market_caps.close_within_candle",
        told_by_snapshot("2 * c.high") + "; UPDATE market_caps SET is_final = false",
    ),
    "a close off a candle that is not final": (
        "market_caps.close_within_candle",
        told_by_snapshot("2 * c.high") + "; UPDATE ohlc_daily SET is_final = false",
    ),
    "a jump the candle confirms": (
        "market_caps.prices_do_not_jump",
        JUMP + "coin_id = 'bitcoin'; UPDATE ohlc_daily SET close = 3.1 * close "
        "WHERE date = '2026-03-09' AND coin_id = 'bitcoin'",
    ),
    "a jump a quarter of the other coins share": (
        "market_caps.prices_do_not_jump",
        JUMP + "coin_id IN ('bitcoin', 'solana', 'ripple', 'cardano')",
    ),
    "a jump away from a candle that is not final": (
        "market_caps.prices_do_not_jump",
        "UPDATE market_caps SET price_usd = 1.4 * price_usd WHERE date = '2026-03-09' "
        "AND coin_id = 'bitcoin'; UPDATE ohlc_daily SET is_final = false WHERE date = '2026-03-09'",
    ),
    "a jump of a price of the running day": (
        "market_caps.prices_do_not_jump",
        JUMP + "coin_id = 'bitcoin'; UPDATE market_caps SET is_final = false "
        "WHERE date = '2026-03-09'",
    ),
    "a jump of a coin with 19 returns": (
        "market_caps.prices_do_not_jump",
        JUMP + "coin_id = 'bitcoin'; DELETE FROM market_caps WHERE date < '2026-02-17'",
    ),
    "a price that comes back after a day away": (
        "market_caps.prices_do_not_jump",
        JUMP + "coin_id = 'bitcoin'; DELETE FROM market_caps WHERE date = '2026-03-08'",
    ),
    "a dollar coin 20 % off": (
        "market_caps.prices_do_not_jump",
        "UPDATE market_caps SET price_usd = 0.81 * price_usd "
        "WHERE date = '2026-03-09' AND coin_id = 'tether'",
    ),
    "closes that stand still once a coin is gone": (
        "market_caps.prices_are_fresh",
        STALE + "; UPDATE coin_list SET is_active = false WHERE coin_id IN ('bitcoin', 'solana')",
    ),
    "prices that stand still while a day runs": (
        "market_caps.prices_are_fresh",
        STALE + "; UPDATE market_caps SET is_final = false WHERE date = '2026-03-09'",
    ),
    "prices that stand still, of which no volume is known": (
        "market_caps.prices_are_fresh",
        STALE + "; UPDATE market_caps SET volume_24h_usd = NULL",
    ),
    "five hours at one price": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 03:00", "2026-03-09 07:00"),
    ),
    "six hours at two prices": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 03:00", "2026-03-09 05:00")
        + "; "
        + stands_still("2026-03-09 06:00", "2026-03-09 08:00", 6.0),
    ),
    "six hours at one price with a break": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 03:00", "2026-03-09 05:00")
        + "; "
        + stands_still("2026-03-09 07:00", "2026-03-09 09:00"),
    ),
    "a dollar coin at a dollar": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 00:00", "2026-03-09 23:00", 1.0),
    ),
    "hours that are no true candles": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 00:00", "2026-03-09 23:00")
        + "; UPDATE ohlc_hourly SET exactness = 'approximate'",
    ),
    "hours that stand still once a coin is gone": (
        "ohlc_hourly.prices_are_fresh",
        stands_still("2026-03-09 00:00", "2026-03-09 23:00")
        + "; UPDATE coin_list SET is_active = false WHERE coin_id = 'bitcoin'",
    ),
    "averages older than a price": (
        "ema_signals.emas_are_right",
        f"{WRONG_EMA}; UPDATE market_caps SET {NEWER} WHERE date = '2026-02-01'",
    ),
    "averages of a day that runs": (
        "ema_signals.emas_are_right",
        f"{WRONG_EMA}; UPDATE market_caps SET is_final = false WHERE date = '2026-03-09'",
    ),
    "a snapshot older than the closes": (
        "daily_snapshot.snapshot_follows_closes",
        f"{WRONG_CLOSE}; UPDATE market_caps SET {NEWER} WHERE date = '2026-03-09'",
    ),
    "a snapshot of a day that runs": (
        "daily_snapshot.snapshot_follows_closes",
        f"{WRONG_CLOSE}; UPDATE market_caps SET is_final = false WHERE date = '2026-03-09'",
    ),
    "a day without a snapshot": (
        "daily_snapshot.snapshot_follows_closes",
        "DELETE FROM daily_snapshot WHERE date = '2026-03-09'",
    ),
    "a day without a candle and a gap that says so": (
        "ohlc_daily.no_silent_holes",
        "DELETE FROM ohlc_daily WHERE date = '2026-03-09' AND coin_id = 'solana'; "
        + gap("ohlc_daily", "solana"),
    ),
    "no candles after a coin's death": (
        "ohlc_daily.no_silent_holes",
        "DELETE FROM ohlc_daily WHERE date >= '2026-03-08' AND coin_id = 'solana'",
    ),
    "no candles before a coin's listing": (
        "ohlc_daily.no_silent_holes",
        "DELETE FROM ohlc_daily WHERE date <= '2026-03-09' AND coin_id = 'solana'",
    ),
    "no candle of a coin not tracked that day": (
        "ohlc_daily.no_silent_holes",
        "DELETE FROM ohlc_daily WHERE date = '2026-03-09' AND coin_id = 'solana'; "
        "DELETE FROM market_caps WHERE date = '2026-03-09' AND coin_id = 'solana'",
    ),
    "no candle of a day that is not due": (
        "ohlc_daily.no_silent_holes",
        "DELETE FROM ohlc_daily WHERE date = '2026-03-09' AND coin_id = 'solana'; "
        "UPDATE ohlc_daily SET observed_at = '2026-03-10 00:34'",
    ),
    "no hours where a free plan brings few coins'": (
        "ohlc_hourly.no_silent_holes",
        "DELETE FROM ohlc_hourly WHERE coin_id = 'tether'",
    ),
    "no hours while a free plan was in force for weeks": (
        "ohlc_hourly.no_silent_holes",
        "DELETE FROM ohlc_hourly WHERE coin_id = 'tether' "
        "AND open_time >= '2026-02-20' AND open_time < '2026-03-10'",
    ),
    "days before the first index stored": (
        "fear_greed.no_unknown_holes",
        "DELETE FROM fear_greed WHERE date <= '2026-03-09'",
    ),
    "days after the last index stored": (
        "fear_greed.no_unknown_holes",
        "DELETE FROM fear_greed WHERE date >= '2026-03-09'",
    ),
    "a holiday without flows": (
        "etf_flows.active_funds_report",
        "DELETE FROM etf_flows WHERE date = '2026-03-09'",
    ),
    "a fund that is late": (
        "etf_flows.active_funds_report",
        f"{NO_IBIT}; UPDATE etf_flows SET is_final = false WHERE date = '2026-03-09'",
    ),
    "a fund that did not report of late": (
        "etf_flows.active_funds_report",
        f"{NO_IBIT}; DELETE FROM etf_flows WHERE date = '2026-03-04' AND ticker = 'IBIT'",
    ),
    "a fund that began four trading days ago": (
        "etf_flows.active_funds_report",
        f"{NO_IBIT}; DELETE FROM etf_flows WHERE date < '2026-03-03' AND ticker = 'IBIT'",
    ),
    "a fund under its new name": (
        "etf_flows.active_funds_report",
        "UPDATE etf_flows SET ticker = 'CETH' WHERE ticker = 'TETH' AND date < '2026-03-09'",
    ),
    "a known fund under its old name": (
        "etf_flows.funds_are_known",
        "UPDATE etf_flows SET ticker = 'CETH' WHERE ticker = 'TETH'",
    ),
}


@pytest.mark.parametrize("case", FINE)
def test_what_is_fine_raises_no_alarm(stored: duckdb.DuckDBPyConnection, case: str) -> None:
    name, sql = FINE[case]
    stored.execute(sql)
    assert count_offenders(stored, RULES[name], (SUNDAY, MONDAY)) == 0


def test_a_jump_that_nothing_can_confirm_yet_needs_more(stored: duckdb.DuckDBPyConnection) -> None:
    rule = RULES["market_caps.prices_do_not_jump"]
    stored.execute("DELETE FROM ohlc_daily WHERE date = '2026-03-09'")
    found = {}
    for factor in (1.5, 6.0):
        price = stored.execute(
            "SELECT price_usd FROM market_caps WHERE date = '2026-03-08' AND coin_id = 'bitcoin'"
        ).fetchone()
        assert price
        stored.execute(
            "UPDATE market_caps SET price_usd = ? WHERE date = '2026-03-09' "
            "AND coin_id = 'bitcoin'",
            [price[0] * factor],
        )
        found[factor] = count_offenders(stored, rule, (MONDAY, MONDAY))
    # Bitcoin moves 2 to 3 % a day: half as much again is some 20 robust deviations.
    assert found == {1.5: 0, 6.0: 1}


def test_the_days_the_index_itself_lacks_are_known(stored: duckdb.DuckDBPyConnection) -> None:
    assert set(known.MISSING_FEAR_GREED_DAYS) == MISSING_DAYS
    rule = RULES["fear_greed.no_unknown_holes"]
    for first, last, holes in (
        (date(2018, 4, 10), date(2018, 4, 20), 0),
        (date(2024, 10, 20), date(2024, 10, 30), 0),
        (date(2024, 10, 25), date(2024, 10, 27), 1),
    ):
        if holes:
            stored.execute("DELETE FROM fear_greed WHERE date = '2024-10-25'")
            stored.execute("DELETE FROM fear_greed WHERE date < '2024-10-25'")
            stored.execute(
                "INSERT INTO fear_greed SELECT * REPLACE (DATE '2024-10-24' AS date) "
                "FROM fear_greed WHERE date = '2026-03-09'"
            )
        else:
            stored.execute(
                "INSERT INTO fear_greed SELECT f.* REPLACE (CAST(day AS DATE) AS date) "
                "FROM fear_greed AS f, "
                "range(CAST($first AS TIMESTAMP), CAST($last AS TIMESTAMP) + INTERVAL 1 DAY, "
                "INTERVAL 1 DAY) AS days(day) WHERE f.date = '2026-03-09' "
                "AND CAST(day AS DATE) NOT IN (SELECT unnest($missing))",
                {"first": first, "last": last, "missing": sorted(MISSING_DAYS)},
            )
        assert count_offenders(stored, rule, (first, last)) == holes


def test_the_sandboxs_funds_are_known_with_their_first_days_and_old_names() -> None:
    funds = {(f.asset, f.ticker): f for f in known.FUNDS}
    assert len(funds) == len(known.FUNDS)
    for asset, listed in FUNDS.items():
        for fund in listed:
            assert funds[asset, fund.ticker].first_day == fund.first_day
            if fund.old_ticker:
                assert funds[asset, fund.old_ticker].now_called == fund.ticker
                assert funds[asset, fund.old_ticker].first_day == fund.first_day


def test_closes_to_look_at_again_are_told_by_the_rules_own_condition(
    stored: duckdb.DuckDBPyConnection,
) -> None:
    stored.execute(told_by_snapshot("1.2 * c.high"))
    days = {"first": MONDAY, "last": MONDAY}
    found = stored.execute(f"FROM ({DOUBTED['market_caps']}) ORDER BY 1", days).fetchall()
    assert found == [("bitcoin", MONDAY), ("solana", MONDAY)]
