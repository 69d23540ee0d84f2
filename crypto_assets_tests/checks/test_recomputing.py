"""The rules that recompute something, against pandas and numpy on prices of any shape."""

from datetime import date, datetime, timedelta

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.sandbox import Market
from crypto_assets.tables import EMA_SIGNALS, MARKET_CAPS, OHLC_DAILY
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.rules import all_rules
from crypto_assets.warehouse.rules.prices import robust_z_sql
from crypto_assets.warehouse.schema import create_table_sql

RULES = {f"{rule.table}.{rule.name}": rule for rule in all_rules()}
EMAS = RULES["ema_signals.emas_are_right"]
START = date(2026, 1, 1)
PRICES = st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=150)
SPANS = st.tuples(st.integers(2, 60), st.integers(3, 300)).filter(lambda s: s[0] < s[1])


def closes(prices: list[float], coin: str = "bitcoin") -> pd.DataFrame:
    days = pd.date_range(START, periods=len(prices))
    return pd.DataFrame({"date": days, "coin_id": coin, "price_usd": prices})


def market_of(*frames: pd.DataFrame) -> duckdb.DuckDBPyConnection:
    """A warehouse of these final closes alone."""
    connection = duckdb.connect()
    for table in (MARKET_CAPS, EMA_SIGNALS):
        connection.execute(create_table_sql(table))
    stamped = pd.concat(frames).assign(is_point_in_time=True, **provenance())
    connection.register("frame", stamped)
    connection.execute("INSERT INTO market_caps BY NAME FROM frame")
    return connection


def provenance() -> dict[str, object]:
    at = pd.Timestamp(datetime(2027, 1, 1))
    return {
        "is_final": True,
        "source": "sandbox/test",
        "observed_at": at,
        "materialized_at": at,
        "run_id": "run",
    }


def last_ema(prices: list[float], span: int) -> float:
    values = pd.Series(prices, dtype="float64").ewm(span=span, adjust=False).mean()
    return float(values.iloc[-1])


def store_signals(
    connection: duckdb.DuckDBPyConnection, prices: list[float], spans: tuple[int, int], off: float
) -> tuple[date, date]:
    """Store the last day's averages as pandas has them, the slow one off by a factor."""
    day = START + timedelta(days=len(prices) - 1)
    fast, slow = (last_ema(prices, span) for span in spans)
    row = closes(prices).tail(1)
    row = row.assign(fast_span=spans[0], slow_span=spans[1], ema_fast=fast, ema_slow=slow * off)
    row = row.assign(strength=0.0, state=0, is_warm=False, **provenance())
    connection.register("signals", row)
    connection.execute("INSERT INTO ema_signals BY NAME FROM signals")
    return (START, day)


@settings(max_examples=60, deadline=None)
@given(PRICES, SPANS)
def test_averages_that_pandas_has_too_are_right(
    prices: list[float], spans: tuple[int, int]
) -> None:
    with market_of(closes(prices)) as connection:
        assert count_offenders(connection, EMAS, store_signals(connection, prices, spans, 1.0)) == 0


@settings(max_examples=30, deadline=None)
@given(PRICES, SPANS, st.sampled_from([0.5, 1 - 3e-6, 1 + 3e-6, 2.0]))
def test_averages_that_are_off_are_found(
    prices: list[float], spans: tuple[int, int], off: float
) -> None:
    with market_of(closes(prices)) as connection:
        assert count_offenders(connection, EMAS, store_signals(connection, prices, spans, off)) == 1


def test_a_day_without_a_price_is_passed_over() -> None:
    prices = [1.0, 5.0, 2.0, 8.0, 3.0]
    frame = closes(prices)
    with market_of(frame.drop(index=2)) as connection:
        kept = prices[:2] + prices[3:]
        days = store_signals(connection, kept, (2, 3), 1.0)
        connection.execute("UPDATE ema_signals SET date = date + 1")
        assert count_offenders(connection, EMAS, (days[0], days[1] + timedelta(days=1))) == 0


def numpy_z(prices: list[float]) -> dict[int, float]:
    """By position of the close: the robust z of its return, where there are 20 before it."""
    returns = np.diff(np.log(prices))
    found = {}
    for n, own in enumerate(returns):
        past = returns[max(0, n - 60) : n]
        if len(past) >= 20:
            middle = np.median(past)
            spread = max(float(np.median(np.abs(past - middle))), 1e-4)
            found[n + 1] = 0.6745 * (own - middle) / spread
    return found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-3, 3), min_size=1, max_size=140).map(lambda r: list(np.exp(np.cumsum(r)))),
    st.integers(0, 140),
)
def test_robust_z_is_numpys(prices: list[float], since: int) -> None:
    first = START + timedelta(days=min(since, len(prices) - 1))
    days = {"first": first, "last": START + timedelta(days=len(prices) - 1)}
    with market_of(closes(prices)) as connection:
        sql = f"SELECT date - DATE '{START}', z FROM ({robust_z_sql('market_caps', 'price_usd')})"
        found = dict(connection.execute(sql, days).fetchall())
    wanted = {n: z for n, z in numpy_z(prices).items() if n >= (first - START).days}
    assert found.keys() == wanted.keys()
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_no_return_is_told_across_a_day_without_a_close() -> None:
    prices = list(np.exp(np.cumsum(np.tile([0.01, -0.01], 20))))
    days = {"first": START, "last": START + timedelta(days=39)}
    sql = f"SELECT date - DATE '{START}' FROM ({robust_z_sql('market_caps', 'price_usd')})"
    with market_of(closes(prices).drop(index=30)) as connection:
        found = {n for (n,) in connection.execute(sql, days).fetchall()}
    assert found == set(range(21, 40)) - {30, 31}


def test_no_honest_return_of_a_fat_tailed_market_needs_a_second_source(market: Market) -> None:
    coins = market.snapshot(pd.Timestamp("2026-03-10"))["coin_id"].head(60)
    first, last = date(2024, 3, 10), date(2026, 3, 9)
    truth = [market.daily(coin, first, last).assign(coin_id=coin) for coin in coins]
    with market_of(*(frame[["date", "coin_id", "price_usd"]] for frame in truth)) as connection:
        judged = connection.execute(
            f"SELECT count(*), max(abs(z)) FROM ({robust_z_sql('market_caps', 'price_usd')})",
            {"first": first, "last": last},
        ).fetchone()
        rule = RULES["market_caps.prices_do_not_jump"]
        connection.execute(create_table_sql(OHLC_DAILY))
        assert count_offenders(connection, rule, (first, last)) == 0
    assert judged
    assert judged[0] > 35_000
    # Beyond ten, so that a figure of ten alone would have raised false alarms.
    assert 10 < judged[1] < 25
