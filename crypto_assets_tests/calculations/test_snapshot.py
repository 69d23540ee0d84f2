"""The daily snapshot: golden change and volatility, and what stays open without its part."""

import math
import statistics
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.calculations.snapshot import (
    SnapshotInputs,
    daily_snapshot,
    etf_totals,
    trend,
    with_change_and_volatility,
)
from crypto_assets.tables import DAILY_SNAPSHOT
from crypto_assets_tests.calculations.test_signals import CLOSES

FIRST = pd.Timestamp("2024-02-20")
# Coin -> day -> price.
Prices = dict[str, dict[int, float]]

series = st.dictionaries(st.integers(0, 25), st.floats(0.5, 2.0), min_size=1, max_size=26)


def closes(prices: Prices) -> pd.DataFrame:
    rows = [
        (FIRST + pd.Timedelta(days=day), coin, price)
        for coin, of_coin in prices.items()
        for day, price in of_coin.items()
    ]
    return pd.DataFrame(rows, columns=["date", "coin_id", "price_usd"]).assign(
        market_cap_usd=1e9, is_final=True, is_point_in_time=True, observed_at=FIRST
    )


def table(columns: str, *rows: tuple[object, ...]) -> pd.DataFrame:
    """Typed like what DuckDB gives, also without rows."""
    found = pd.DataFrame(list(rows), columns=columns.split())
    kinds = {"date": "datetime64[us]", "is_warm": bool, "is_final": bool}
    kinds |= dict.fromkeys(("trend_z", "net_flow_usd", "session_return"), "float64")
    return found.astype({name: kind for name, kind in kinds.items() if name in found})


def inputs(prices: Prices) -> SnapshotInputs:
    return SnapshotInputs(
        closes=closes(prices),
        ranks=table("date coin_id market_cap_rank market_share"),
        signals=table("date coin_id trend_z is_warm"),
        candles=table("date coin_id high_usd low_usd"),
        sessions=table("date coin_id session session_return"),
        fear_greed=table("date value"),
        etf_flows=table("date asset net_flow_usd is_final"),
    )


def cell(rows: pd.DataFrame, coin: str, day: int, column: str) -> float:
    row = rows[(rows["coin_id"] == coin) & (rows["date"] == FIRST + pd.Timedelta(days=day))]
    assert len(row) == 1
    return float(row[column].iloc[0])


def cells(rows: pd.DataFrame, column: str) -> dict[tuple[str, int], float]:
    days = (rows["date"] - FIRST).dt.days
    return dict(zip(zip(rows["coin_id"], days, strict=True), rows[column], strict=True))


GOLDEN = dict(enumerate(float(close) for close in CLOSES))
BTC: Prices = {"bitcoin": {0: 100.0}}


# --- change and volatility


def test_the_golden_closes_have_the_golden_change_and_volatility() -> None:
    rows = with_change_and_volatility(closes({"bitcoin": GOLDEN}))
    assert cell(rows, "bitcoin", 29, "change_24h") == pytest.approx(0.020797227036394972, abs=1e-15)
    assert cell(rows, "bitcoin", 29, "volatility_7d") == pytest.approx(
        0.2049009657484141, abs=1e-13
    )


def test_the_first_close_has_no_change_and_the_first_seven_no_volatility() -> None:
    rows = with_change_and_volatility(closes({"bitcoin": GOLDEN}))
    assert rows["change_24h"].isna().tolist() == [True] + [False] * 29
    assert rows["volatility_7d"].isna().tolist() == [True] * 7 + [False] * 23


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from("abc"), series, min_size=1))
def test_change_needs_the_day_before_and_volatility_eight_days_in_a_row(prices: Prices) -> None:
    shuffled = closes(prices).sample(frac=1, random_state=2)
    rows = with_change_and_volatility(shuffled)
    assert len(rows) == len(shuffled)
    changes, volatilities = cells(rows, "change_24h"), cells(rows, "volatility_7d")
    for coin, of_coin in prices.items():
        for day, price in of_coin.items():
            change, volatility = changes[coin, day], volatilities[coin, day]
            if day - 1 in of_coin:
                assert change == pytest.approx(price / of_coin[day - 1] - 1, abs=1e-12)
            else:
                assert math.isnan(change)
            if all(day - n in of_coin for n in range(8)):
                returns = [math.log(of_coin[d] / of_coin[d - 1]) for d in range(day - 6, day + 1)]
                expected = statistics.stdev(returns) * math.sqrt(365)
                assert volatility == pytest.approx(expected, rel=1e-9, abs=1e-12)
            else:
                assert math.isnan(volatility)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.5, 2.0), min_size=9, max_size=40),
    st.dictionaries(st.sampled_from("ac"), series),
    st.integers(0, 31),
)
def test_a_row_does_not_depend_on_what_else_is_read_with_it(
    prices: list[float], others: Prices, skipped: int
) -> None:
    mine = dict(enumerate(prices))
    skipped = min(skipped, len(prices) - 8)
    recent = {day: price for day, price in mine.items() if day >= skipped}
    whole = with_change_and_volatility(closes(others | {"b": mine}))
    alone = with_change_and_volatility(closes({"b": recent}))
    for column, days_before in (("change_24h", 1), ("volatility_7d", 7)):
        with_others, by_itself = cells(whole, column), cells(alone, column)
        for day in range(skipped + days_before, len(prices)):
            assert with_others["b", day] == by_itself["b", day]


# --- the parts


def test_a_snapshot_has_the_columns_of_its_contract() -> None:
    rows = daily_snapshot(inputs(BTC))
    assert set(DAILY_SNAPSHOT.content_columns) <= set(rows)
    assert rows["close_usd"].tolist() == [100.0]


def test_without_any_other_part_a_snapshot_is_a_close() -> None:
    rows = daily_snapshot(inputs({"bitcoin": {0: 100.0, 1: 101.0}, "eth": {1: 5.0}}))
    assert rows[["date", "coin_id"]].to_numpy().tolist() == [
        [FIRST, "bitcoin"],
        [FIRST + pd.Timedelta(days=1), "bitcoin"],
        [FIRST + pd.Timedelta(days=1), "eth"],
    ]
    others = (
        "high_usd low_usd market_cap_rank dominance trend fear_greed etf_net_flow_usd return_asia "
        "return_europe return_us"
    )
    assert rows[others.split()].isna().to_numpy().all()


def test_no_closes_make_no_snapshot() -> None:
    assert daily_snapshot(replace(inputs(BTC), closes=closes(BTC).iloc[:0])).empty


def test_each_part_lands_on_its_own_day_and_coin() -> None:
    second = FIRST + pd.Timedelta(days=1)
    rows = daily_snapshot(
        replace(
            inputs({"bitcoin": {0: 100.0, 1: 101.0}, "ethereum": {0: 7.0, 1: 8.0}}),
            ranks=table(
                "date coin_id market_cap_rank market_share",
                (second, "ethereum", 2, 0.25),
                (FIRST, "bitcoin", 1, 0.75),
            ),
            candles=table("date coin_id high_usd low_usd", (second, "bitcoin", 102.0, 99.0)),
            fear_greed=table("date value", (second, 55)),
        )
    )
    assert cell(rows, "bitcoin", 0, "dominance") == 0.75
    assert cell(rows, "ethereum", 1, "market_cap_rank") == 2
    assert math.isnan(cell(rows, "bitcoin", 1, "dominance"))
    assert cell(rows, "bitcoin", 1, "high_usd") == 102.0
    assert math.isnan(cell(rows, "ethereum", 1, "high_usd"))
    assert cell(rows, "bitcoin", 1, "fear_greed") == cell(rows, "ethereum", 1, "fear_greed") == 55
    assert rows["fear_greed"].isna().sum() == 2


def test_the_trend_is_the_mean_tanh_over_the_warm_pairs() -> None:
    signals = table(
        "date coin_id trend_z is_warm",
        (FIRST, "bitcoin", 0.5, True),
        (FIRST, "bitcoin", -2.0, True),
        (FIRST, "bitcoin", 9.0, False),
        (FIRST, "bitcoin", None, True),
        (FIRST, "ethereum", 3.0, False),
        (FIRST, "solana", None, True),
    )
    found = trend(signals)
    assert found["coin_id"].tolist() == ["bitcoin"]
    # (tanh 0.5 + tanh -2) / 2
    assert found["trend"].tolist() == pytest.approx([(0.46211715726 - 0.96402758008) / 2])


def test_etf_flows_are_summed_once_every_fund_is_final() -> None:
    second = FIRST + pd.Timedelta(days=1)
    totals = etf_totals(
        table(
            "date asset net_flow_usd is_final",
            (FIRST, "btc", 750.4e6, True),
            (FIRST, "btc", -95.1e6, True),
            (FIRST, "eth", 10e6, True),
            (FIRST, "eth", 5e6, False),
            (second, "sol", 0.0, True),
        )
    )
    assert totals.set_index(["date", "coin_id"])["etf_net_flow_usd"].to_dict() == {
        (FIRST, "bitcoin"): pytest.approx(655.3e6),
        (second, "solana"): 0.0,
    }


def test_a_coin_without_funds_has_no_flow() -> None:
    flows = table("date asset net_flow_usd is_final", (FIRST, "btc", 1e6, True))
    rows = daily_snapshot(
        replace(inputs({"bitcoin": {0: 1.0}, "dogecoin": {0: 1.0}}), etf_flows=flows)
    )
    assert cell(rows, "bitcoin", 0, "etf_net_flow_usd") == 1e6
    assert math.isnan(cell(rows, "dogecoin", 0, "etf_net_flow_usd"))


@pytest.mark.parametrize("there", [(), ("US",), ("Asia", "US"), ("Asia", "Europe", "US")])
def test_sessions_that_are_not_there_are_left_open(there: tuple[str, ...]) -> None:
    returns = {"Asia": 0.01, "Europe": -0.02, "US": 0.03}
    sessions = table(
        "date coin_id session session_return",
        *((FIRST, "bitcoin", session, returns[session]) for session in there),
    )
    rows = daily_snapshot(replace(inputs(BTC), sessions=sessions))
    found = {name: cell(rows, "bitcoin", 0, f"return_{name.lower()}") for name in returns}
    assert {name: value for name, value in found.items() if not math.isnan(value)} == {
        session: returns[session] for session in there
    }
