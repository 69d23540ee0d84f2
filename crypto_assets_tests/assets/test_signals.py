from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from crypto_assets_tests.lab import NOON, Lab

TODAY = NOON.date()
FIRST = TODAY - timedelta(days=60)
TABLES = ["market_caps", "ranks", "ema_signals"]


def recomputed(lab: Lab, span: int) -> "pd.Series[float]":
    """The EMA of each coin from the market model itself, coin by coin."""
    frames = []
    for coin in sorted(set(lab.sql("SELECT coin_id FROM ema_signals")["coin_id"])):
        truth = lab.market.daily(coin, FIRST, TODAY - timedelta(days=1))
        ema = truth["price_usd"].ewm(span=span, adjust=False).mean()
        frames.append(pd.DataFrame({"date": truth["date"], "coin_id": coin, "ema": ema}))
    return pd.concat(frames).set_index(["date", "coin_id"])["ema"].sort_index()


def stored(lab: Lab, column: str, span: str, value: int) -> "pd.Series[float]":
    rows = lab.sql(
        f"SELECT DISTINCT date, coin_id, {column} AS ema FROM ema_signals "
        f"WHERE {span} = ? AND date < ? ORDER BY date, coin_id",
        value,
        TODAY,
    )
    return rows.set_index(["date", "coin_id"])["ema"]


def test_signals_equal_an_independent_computation_over_the_whole_history(lab: Lab) -> None:
    lab.run(TABLES, FIRST, TODAY)
    for column, span, value in (("ema_fast", "fast_span", 12), ("ema_slow", "slow_span", 200)):
        ours, theirs = stored(lab, column, span, value), recomputed(lab, value)
        assert ours.index.tolist() == theirs.index.tolist()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.slow
def test_days_written_in_several_runs_and_out_of_order_end_up_the_same(lab: Lab) -> None:
    cuts = [FIRST, FIRST + timedelta(20), FIRST + timedelta(41), TODAY + timedelta(1)]
    parts = [(a, b - timedelta(1)) for a, b in pairwise(cuts)]
    for first, last in (parts[2], parts[0], parts[1]):
        assert lab.fill(TABLES, first, last).succeeded
    for column, span, value in (("ema_fast", "fast_span", 20), ("ema_slow", "slow_span", 50)):
        ours, theirs = stored(lab, column, span, value), recomputed(lab, value)
        assert ours.index.tolist() == theirs.index.tolist()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.slow
def test_a_restated_close_changes_signals_from_that_day_on_and_nothing_before(lab: Lab) -> None:
    last = TODAY - timedelta(1)
    lab.run(TABLES, FIRST, last)
    before = lab.sql("FROM ema_signals WHERE coin_id = 'bitcoin' ORDER BY ALL")
    restated: date = TODAY - timedelta(10)
    with lab.warehouse.session("restating") as connection:
        connection.execute(
            "UPDATE market_caps SET price_usd = 2 * price_usd, materialized_at = now()::TIMESTAMP "
            "WHERE coin_id = 'bitcoin' AND date = ?",
            [restated],
        )
    lab.fill(["ranks"], last)
    after = lab.sql("FROM ema_signals WHERE coin_id = 'bitcoin' ORDER BY ALL")
    earlier = before["date"] < pd.Timestamp(restated)
    values = ["date", "fast_span", "ema_fast", "ema_slow", "trend_z", "state", "event"]
    pd.testing.assert_frame_equal(before.loc[earlier, values], after.loc[earlier, values])
    assert (before.loc[~earlier, "ema_fast"] != after.loc[~earlier, "ema_fast"]).all()


@pytest.mark.slow
def test_the_running_day_has_values_but_no_event(lab: Lab) -> None:
    lab._overrides["signals"] = {"span_pairs": [[2, 3]]}
    lab.run(TABLES, FIRST, TODAY)
    running = lab.sql("FROM ema_signals WHERE date = ?", TODAY)
    assert running["is_warm"].all()
    assert running["ema_fast"].notna().all()
    assert running["event"].isna().all()
    assert not running["is_final"].any()
    closed = lab.sql("FROM ema_signals WHERE is_warm AND date < ?", TODAY)
    assert closed["event"].notna().all()
    assert set(closed["event"]) == {-1, 0, 1}


def test_without_prices_the_step_says_what_to_materialize_first(lab: Lab) -> None:
    report = lab.run(["ema_signals"], TODAY)
    assert not report.succeeded
    assert "nothing of market_caps and ranks is stored" in report.failures["ema_signals"]
    assert lab.sql("SELECT count(*) AS n FROM ema_signals")["n"][0] == 0


@pytest.mark.slow
def test_signals_are_those_of_the_coins_ranked_that_day(lab: Lab) -> None:
    lab.run(TABLES, FIRST, TODAY)
    ranked = lab.sql("SELECT date, coin_id FROM ranks ORDER BY ALL")
    signalled = lab.sql("SELECT DISTINCT date, coin_id FROM ema_signals ORDER BY ALL")
    pd.testing.assert_frame_equal(ranked, signalled)


@pytest.mark.parametrize("pair", [(12, 26), (20, 50), (50, 200)])
def test_strength_is_the_relative_spread(lab: Lab, pair: tuple[int, int]) -> None:
    lab.run(TABLES, TODAY - timedelta(30), TODAY)
    rows = lab.sql("FROM ema_signals WHERE fast_span = ?", pair[0])
    np.testing.assert_allclose(
        rows["strength"], rows["ema_fast"] / rows["ema_slow"] - 1, atol=1e-12
    )


@pytest.mark.slow
def test_other_span_pairs_make_the_stored_signals_stale(lab: Lab) -> None:
    last = TODAY - timedelta(1)
    lab.fill(TABLES, last - timedelta(5), last)
    lab._overrides["signals"] = {"span_pairs": [[2, 3], [5, 9]]}
    lab.fill(["ranks"], last)
    pairs = lab.sql("SELECT DISTINCT fast_span, slow_span FROM ema_signals ORDER BY ALL")
    assert pairs.to_numpy().tolist() == [[2, 3], [5, 9]]
    days = lab.sql("SELECT count(DISTINCT date) AS n FROM ema_signals")
    assert days["n"][0] == 6
