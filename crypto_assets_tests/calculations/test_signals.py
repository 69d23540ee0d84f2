"""EMA signals against the published and library numbers of quant.md and plain-Python models."""

import math
import random
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.calculations import signals
from crypto_assets.calculations.signals import SpanPair, ema_signals
from crypto_assets.tables import EMA_SIGNALS

# fmt: off
CLOSES = [
    100, 101.5, 99.8, 102.3, 104.1, 103.7, 105.9, 108.2, 107.4, 109.6, 111.3, 110.1, 108.8, 106.5,
    107.9, 104.2, 101.7, 103.3, 99.6, 97.4, 98.8, 101.2, 103.9, 106.7, 108.5, 110.9, 113.2, 112.6,
    115.4, 117.8,
]
# fmt: on
GOLDEN_STATES = [0] + [1] * 15 + [-1] * 7 + [1] * 7
PAIR = SpanPair(5, 12)
WARM = 36
FIRST = pd.Timestamp("2024-01-01")

prices_of_a_coin = st.lists(
    st.one_of(st.none(), st.floats(0.5, 2.0)), min_size=1, max_size=60
).filter(lambda prices: any(price is not None for price in prices))


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype="float64").reshape(-1, 1)


def closes_of(**coins: list[float | None]) -> pd.DataFrame:
    """A row for each price of each coin, on consecutive days; None is a day without a price."""
    rows = [
        (FIRST + pd.Timedelta(days=day), coin, price, True)
        for coin, prices in coins.items()
        for day, price in enumerate(prices)
        if price is not None
    ]
    return pd.DataFrame(rows, columns=["date", "coin_id", "price_usd", "is_final"])


def of_coin(found: pd.DataFrame, coin: str) -> pd.DataFrame:
    rows = found[found["coin_id"] == coin].astype({"coin_id": "object"})
    return rows.sort_values(["fast_span", "date"], ignore_index=True)


def plain_ema(prices: list[float], span: int) -> list[float]:
    alpha, averages = 2 / (span + 1), prices[:1]
    for price in prices[1:]:
        averages.append(alpha * price + (1 - alpha) * averages[-1])
    return averages


# --- the averages


@pytest.mark.parametrize(
    ("span", "index", "expected"),
    [
        (3, 3, 101.287500000000),
        (3, 29, 115.691696685366),
        (5, 29, 113.912122335549),
        (12, 29, 109.996952140915),
        (26, 29, 107.056983941824),
    ],
)
def test_an_ema_is_seeded_with_the_first_price(span: int, index: int, expected: float) -> None:
    assert signals.ema(column(CLOSES), span)[index, 0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("span", "index", "talib"),
    [(3, 3, 101.366666666667), (5, 29, 113.912104265245), (26, 29, 107.436872093624)],
)
def test_an_ema_is_not_seeded_with_a_simple_average(span: int, index: int, talib: float) -> None:
    assert abs(signals.ema(column(CLOSES), span)[index, 0] - talib) > 1e-5


@settings(deadline=None, max_examples=50)
@given(st.lists(prices_of_a_coin, min_size=1, max_size=4), st.integers(2, 30))
def test_averages_are_those_of_pandas_also_with_holes(
    coins: list[list[float | None]], span: int
) -> None:
    closes = closes_of(**{f"coin-{n}": prices for n, prices in enumerate(coins)})
    found = ema_signals(closes, [SpanPair(span, span + 1)])
    for number, prices in enumerate(coins):
        whole = pd.Series(prices, dtype="float64")
        expected = whole.ewm(span=span, adjust=False, ignore_na=True).mean()[whole.notna()]
        averages = of_coin(found, f"coin-{number}")["ema_fast"]
        np.testing.assert_allclose(averages, expected, rtol=1e-12)


# --- state and events


def test_the_golden_series_has_the_golden_states_and_crossovers() -> None:
    fast, slow = signals.ema(column(CLOSES), 5), signals.ema(column(CLOSES), 12)
    state = signals.trend_state(fast, slow)
    assert state[:, 0].tolist() == GOLDEN_STATES
    crossed = signals.crossovers(state)[:, 0]
    assert {index: int(crossed[index]) for index in np.flatnonzero(crossed)} == {16: -1, 23: 1}


def test_the_golden_events_are_told_once_warm() -> None:
    # 36 closes at the first price leave the seed as it is and warm the slow span.
    found = ema_signals(closes_of(btc=[100.0] * WARM + CLOSES), [PAIR])
    assert found["event"].isna().tolist() == [True] * WARM + [False] * 30
    events = found["event"].dropna().astype(int)
    assert {index - WARM: event for index, event in events.items() if event} == {16: -1, 23: 1}
    assert found["state"].tolist() == [0] * WARM + GOLDEN_STATES


def test_the_golden_series_alone_is_too_short_for_an_event() -> None:
    found = ema_signals(closes_of(btc=CLOSES), [PAIR])
    assert found["event"].isna().all()
    assert not found["is_warm"].any()
    assert found["state"].tolist() == GOLDEN_STATES


def test_a_row_is_warm_from_three_slow_spans_on() -> None:
    found = ema_signals(closes_of(btc=[100.0 + n % 7 for n in range(100)]), [PAIR, SpanPair(3, 20)])
    for pair, warm_from in ((PAIR, 36), (SpanPair(3, 20), 60)):
        of_pair = found[found["slow_span"] == pair.slow]
        assert of_pair["is_warm"].tolist() == [n >= warm_from for n in range(100)]


def test_a_hole_does_not_warm_a_series() -> None:
    prices = [100.0 + n % 7 for n in range(40)]
    found = ema_signals(closes_of(btc=[*prices[:20], None, None, *prices[20:]]), [PAIR])
    assert found["is_warm"].tolist() == [n >= 36 for n in range(40)]


def test_a_close_that_is_not_final_has_values_but_no_event() -> None:
    closes = closes_of(btc=[100.0] * WARM + CLOSES)
    crossed = closes["date"] == FIRST + pd.Timedelta(days=WARM + 23)
    found = ema_signals(closes.assign(is_final=~crossed), [PAIR])
    told = found[crossed.to_numpy()].iloc[0]
    assert pd.isna(told["event"])
    assert (told["state"], told["is_warm"]) == (1, True)
    assert not pd.isna(told["ema_fast"])
    assert found["event"].iloc[WARM:].isna().sum() == 1


def test_a_tie_keeps_the_state() -> None:
    fast = column([1, 2, 1, 0, 1, 1, 2])
    slow = column([1, 1, 1, 1, 1, 1, 1])
    assert signals.trend_state(fast, slow)[:, 0].tolist() == [0, 1, 1, -1, -1, -1, 1]


def test_a_cross_through_a_tie_is_told_when_the_other_side_is_reached() -> None:
    state = signals.trend_state(column([2, 1, 1, 0]), column([1, 1, 1, 1]))
    crossed = signals.crossovers(state)
    assert crossed[:, 0].tolist() == [0, 0, 0, -1]


@given(
    st.sampled_from([SpanPair(5, 12), SpanPair(12, 26), SpanPair(20, 50), SpanPair(50, 200)]),
    st.floats(1e-9, 1e6),
)
@settings(deadline=None, max_examples=50)
def test_a_price_that_never_moved_has_no_trend(pair: SpanPair, price: float) -> None:
    """Averages of one price are that price: a state out of rounding would be invented."""
    found = ema_signals(closes_of(usdt=[price] * 30), [pair])
    assert found["state"].tolist() == [0] * 30
    assert found["ema_fast"].tolist() == [price] * 30


# --- strength and scaled trend


def test_strength_is_the_golden_spread() -> None:
    found = ema_signals(closes_of(btc=CLOSES), [PAIR])
    assert found["strength"].iloc[29] == pytest.approx(0.03559344253119423, abs=1e-12)


@pytest.mark.parametrize(
    ("fast", "slow", "k"),
    [
        (12, 26, 1.1373682837),
        (20, 50, 1.7937391115),
        (50, 200, 4.7436536551),
        (5, 12, 0.8559194116362154),
    ],
)
def test_the_scale_of_a_spread_is_the_golden_k(fast: int, slow: int, k: float) -> None:
    assert signals.spread_scale(SpanPair(fast, slow)) == pytest.approx(k, abs=1e-10)


def test_the_scale_of_a_spread_is_that_of_a_random_walk() -> None:
    walk = np.random.default_rng(1).standard_normal((4_000, 50)).cumsum(axis=0)
    spread = (signals.ema(walk, 12) - signals.ema(walk, 26))[500:]
    assert signals.spread_scale(SpanPair(12, 26)) == pytest.approx(spread.std(), rel=0.02)


def test_the_scaled_trend_is_golden_and_needs_twenty_returns() -> None:
    found = ema_signals(closes_of(btc=CLOSES), [PAIR])
    assert found["trend_z"].isna().tolist() == [True] * 20 + [False] * 10
    assert found["trend_z"].iloc[29] == pytest.approx(1.8612278683507617, abs=1e-12)
    volatility = signals.rolling_volatility(column(CLOSES), 20)
    assert volatility[29, 0] == pytest.approx(0.021954360483455185, abs=1e-15)


def test_a_trend_without_volatility_is_unknown() -> None:
    found = ema_signals(closes_of(usdt=[1.0] * 30), [PAIR])
    assert found["trend_z"].isna().all()


# --- many coins, holes, histories


@settings(deadline=None, max_examples=50)
@given(st.lists(prices_of_a_coin, min_size=1, max_size=4), st.randoms())
def test_interleaved_coins_in_any_order_have_the_signals_of_each_alone(
    coins: list[list[float | None]], order: random.Random
) -> None:
    """The `groupby().ewm()` trap: values must not land on another coin's row."""
    closes = closes_of(**{f"coin-{n}": prices for n, prices in enumerate(coins)})
    rows = list(range(len(closes)))
    order.shuffle(rows)
    found = ema_signals(closes.iloc[rows], [PAIR, SpanPair(2, 3)])
    for number, prices in enumerate(coins):
        known = [price for price in prices if price is not None]
        mine = of_coin(found, f"coin-{number}")
        assert len(mine) == 2 * len(known)
        for pair in (PAIR, SpanPair(2, 3)):
            rows_of_pair = mine[mine["fast_span"] == pair.fast]
            fast, slow = plain_ema(known, pair.fast), plain_ema(known, pair.slow)
            assert rows_of_pair["price_usd"].tolist() == known
            assert rows_of_pair["ema_fast"].tolist() == pytest.approx(fast, rel=1e-12)
            assert rows_of_pair["ema_slow"].tolist() == pytest.approx(slow, rel=1e-12)
            assert rows_of_pair["strength"].tolist() == pytest.approx(
                [(f - s) / s for f, s in zip(fast, slow, strict=True)], abs=1e-12
            )


def plain_trend_z(prices: list[float], pair: SpanPair, k: float) -> float:
    returns = [math.log(b / a) for a, b in pairwise(prices[-21:])]
    mean = sum(returns) / 20
    sigma = math.sqrt(sum((r - mean) ** 2 for r in returns) / 19)
    return math.log(plain_ema(prices, pair.fast)[-1] / plain_ema(prices, pair.slow)[-1]) / k / sigma


def test_scaled_trends_of_many_coins_are_those_of_each_alone() -> None:
    rng = random.Random(3)
    coins = {f"coin-{n}": [math.exp(rng.gauss(0, 0.05)) for _ in range(40)] for n in range(5)}
    found = ema_signals(closes_of(**coins).sample(frac=1, random_state=1), [SpanPair(12, 26)])
    for coin, prices in coins.items():
        mine = of_coin(found, coin)["trend_z"].tolist()
        assert mine[20:] == pytest.approx(
            [plain_trend_z(prices[: n + 1], SpanPair(12, 26), 1.1373682837) for n in range(20, 40)],
            rel=1e-8,
        )


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.5, 2.0), min_size=40, max_size=80),
    st.lists(st.floats(0.5, 2.0), min_size=1, max_size=80),
    st.integers(1, 39),
)
def test_later_days_and_other_coins_change_no_earlier_row(
    prices: list[float], other: list[float], known: int
) -> None:
    pairs = [SpanPair(2, 3), PAIR]
    before = ema_signals(closes_of(btc=prices[:known]), pairs)
    after = of_coin(ema_signals(closes_of(btc=prices, eth=other), pairs), "btc")
    after = after[after["date"] <= before["date"].max()].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_coin(before, "btc"), after, check_exact=True)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.5, 2.0), min_size=2, max_size=60), st.data())
def test_a_changed_price_changes_nothing_before_it(
    prices: list[float], data: st.DataObject
) -> None:
    changed = data.draw(st.integers(0, len(prices) - 1))
    restated = [*prices[:changed], prices[changed] * 1.5, *prices[changed + 1 :]]
    before = ema_signals(closes_of(btc=prices), [SpanPair(2, 3)])
    after = ema_signals(closes_of(btc=restated), [SpanPair(2, 3)])
    pd.testing.assert_frame_equal(before[:changed], after[:changed], check_exact=True)
    assert (before["ema_fast"] != after["ema_fast"])[changed]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.5, 2.0), min_size=37, max_size=80), st.data())
def test_a_hole_in_a_series_is_passed_over(prices: list[float], data: st.DataObject) -> None:
    """The averages and crossovers of the closes that are there, on their own days."""
    at = data.draw(st.integers(1, len(prices) - 1))
    holed = [*prices[:at], None, None, *prices[at:]]
    # Another coin trades on those days, so the days themselves are there.
    found = of_coin(ema_signals(closes_of(btc=holed, eth=[1.0] * len(holed)), [PAIR]), "btc")
    whole = of_coin(ema_signals(closes_of(btc=prices), [PAIR]), "btc")
    values = whole.columns.drop("date")
    pd.testing.assert_frame_equal(found[values], whole[values], rtol=1e-12)
    days = pd.date_range("2024-01-01", periods=len(holed)).delete([at, at + 1])
    assert found["date"].tolist() == days.tolist()


@settings(deadline=None, max_examples=50)
@given(st.lists(prices_of_a_coin, min_size=1, max_size=4), st.data())
def test_what_is_asked_for_changes_no_row(
    coins: list[list[float | None]], data: st.DataObject
) -> None:
    """A day alone has the very bits it has among all days, whatever the other rows are."""
    closes = closes_of(**{f"coin-{n}": prices for n, prices in enumerate(coins)})
    pairs = [SpanPair(2, 3), PAIR]
    count = len(closes)
    is_asked = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    since = FIRST + pd.Timedelta(days=data.draw(st.integers(0, 60)))
    some = closes.assign(is_asked=is_asked & (closes["date"] >= since))
    keys = some.loc[some["is_asked"], ["date", "coin_id"]]
    everything = ema_signals(closes, pairs).astype({"coin_id": "object"})
    expected = everything.merge(keys, on=["date", "coin_id"])
    found = ema_signals(some, pairs).astype({"coin_id": "object"})
    pd.testing.assert_frame_equal(found, expected, check_exact=True)


def test_rows_come_by_day_coin_and_pair_with_what_else_they_had() -> None:
    closes = closes_of(b=[1.0, None, 2.0], a=[3.0, 4.0]).assign(observed_at=[10, 12, 20, 21])
    found = ema_signals(closes.iloc[[3, 1, 0, 2]], [PAIR, SpanPair(2, 3)])
    days = (found["date"] - FIRST).dt.days
    told = zip(days, found["coin_id"], found["slow_span"], found["observed_at"], strict=True)
    assert list(told) == [
        (day, coin, slow, at)
        for day, coin, at in [(0, "a", 20), (0, "b", 10), (1, "a", 21), (2, "b", 12)]
        for slow in (3, PAIR.slow)
    ]


def test_each_of_very_many_rows_is_that_of_its_coin_alone() -> None:
    """More rows than are worked on at once."""
    walks = np.exp(np.random.default_rng(2).normal(0, 0.05, (300, 100)).cumsum(axis=1))
    closes = closes_of(**{f"coin-{n:03}": list(walk) for n, walk in enumerate(walks)})
    found = ema_signals(closes, [SpanPair(2, 3), PAIR])
    assert len(found) == 2 * len(closes)
    for coin in ("coin-000", "coin-157", "coin-299"):
        alone = ema_signals(closes[closes["coin_id"] == coin], [SpanPair(2, 3), PAIR])
        pd.testing.assert_frame_equal(of_coin(found, coin), of_coin(alone, coin), check_exact=True)


@pytest.mark.parametrize("shape", [(40_000,), (500, 70), (30, 20_000), (19, 3), (20, 3)])
def test_deviations_of_runs_are_those_of_pandas(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(4).normal(0.001, 0.03, shape)
    found = signals.rolling_std(values, 20)
    columns = pd.DataFrame(values.reshape(len(values), -1))
    expected = columns.rolling(20).std().iloc[19:].to_numpy()
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-9)


def test_a_coin_that_is_listed_late_begins_with_its_own_first_price() -> None:
    late: list[float | None] = [None] * 10
    found = of_coin(ema_signals(closes_of(btc=[5.0] * 40, new=late + CLOSES), [PAIR]), "new")
    assert found["date"].iloc[0] == pd.Timestamp("2024-01-11")
    assert found["ema_fast"].iloc[29] == pytest.approx(113.912122335549, abs=1e-9)
    assert found["state"].tolist() == GOLDEN_STATES


def test_no_prices_give_no_signals() -> None:
    none = closes_of(btc=[1.0]).iloc[:0]
    found = ema_signals(none, [PAIR])
    assert found.empty
    assert list(found) == list(EMA_SIGNALS.content_columns)


def test_a_signal_that_trades_the_next_day_earns_the_drift_only() -> None:
    """The look-ahead trap: on a random walk the state of a close must not know its own return."""
    returns = np.random.default_rng(5).normal(0, 0.03, (1_500, 60))
    prices = np.exp(returns.cumsum(axis=0))
    state = signals.trend_state(signals.ema(prices, 12), signals.ema(prices, 26))
    same_bar = (state * returns)[100:].mean() * 365
    lagged = (state[:-1] * returns[1:])[100:].mean() * 365
    assert same_bar > 0.3
    assert abs(lagged) < 0.1
