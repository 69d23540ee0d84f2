from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_assets.definitions import build_definitions
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)


def truth_of(market: Market, coins: list[str], first: date, last: date) -> pd.DataFrame:
    frames = [market.daily(coin, first, last).assign(coin_id=coin) for coin in coins]
    return pd.concat(frames).sort_values(["date", "coin_id"], ignore_index=True)


def test_the_close_of_a_day_is_the_price_at_the_next_midnight(lab: Lab) -> None:
    lab.run(["market_caps"], YESTERDAY - timedelta(days=4), YESTERDAY)
    stored = lab.sql("SELECT date, price_usd FROM market_caps WHERE coin_id = 'bitcoin'")
    for row in stored.itertuples():
        midnight = row.date + pd.Timedelta(days=1)
        assert row.price_usd == lab.market.price("bitcoin", midnight.to_pydatetime())


def test_closed_days_equal_the_market_model_in_every_column(lab: Lab) -> None:
    first = YESTERDAY - timedelta(days=30)
    assert lab.run(["market_caps"], first, YESTERDAY).succeeded
    stored = lab.sql("FROM market_caps ORDER BY date, coin_id")
    truth = truth_of(lab.market, sorted(set(stored["coin_id"])), first, YESTERDAY)
    assert len(stored) == 31 * 10
    for column in ("price_usd", "market_cap_usd", "volume_24h_usd"):
        np.testing.assert_allclose(stored[column], truth[column], rtol=1e-9)
    assert list(stored["date"]) == list(truth["date"])
    assert stored["is_final"].all()


def test_a_short_range_is_asked_for_by_day_lest_it_comes_by_the_hour(lab: Lab) -> None:
    # Without interval=daily the provider answers 90 days or less with unaligned hours.
    first = YESTERDAY - timedelta(days=9)
    lab.run(["market_caps"], first, YESTERDAY)
    counts = lab.sql("SELECT coin_id, count(*) AS n FROM market_caps GROUP BY coin_id")
    assert (counts["n"] == 10).all()


def test_the_appended_now_point_is_not_taken_for_a_close(lab: Lab) -> None:
    lab.run(["market_caps"], YESTERDAY, TODAY)
    closes = lab.sql(
        "SELECT date, price_usd, is_final FROM market_caps WHERE coin_id = 'ethereum' ORDER BY date"
    )
    assert list(closes["date"].dt.date) == [YESTERDAY, TODAY]
    now_price = lab.market.price("ethereum", NOON)
    assert closes["price_usd"][0] == lab.market.price("ethereum", datetime(2026, 3, 10))
    assert closes["price_usd"][1] == now_price != closes["price_usd"][0]
    assert list(closes["is_final"]) == [True, False]


def test_a_price_that_comes_as_an_integer_is_a_price(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    price = lab.sql("SELECT price_usd FROM market_caps WHERE coin_id = 'bitcoin'")["price_usd"][0]
    assert price == lab.market.price("bitcoin", NOON)
    assert float(price).is_integer()  # the sandbox serves bitcoin in whole dollars


def test_the_running_day_carries_supply_and_the_providers_rank(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    stored = lab.sql("FROM market_caps ORDER BY coin_id")
    truth = lab.market.snapshot(NOON).set_index("coin_id").loc[stored["coin_id"]]
    np.testing.assert_allclose(stored["circulating_supply"], truth["circulating_supply"], rtol=1e-9)
    assert list(stored["provider_rank"]) == list(truth["market_cap_rank"])
    assert stored["is_point_in_time"].all()
    assert set(stored["source"]) == {"sandbox/coingecko/coins/markets"}


def test_a_snapshot_just_after_midnight_is_the_close_and_needs_one_call(lab: Lab) -> None:
    lab.at(datetime(2026, 3, 10, 23, 0)).run(["market_caps"], TODAY)
    lab.at(datetime(2026, 3, 11, 0, 0))
    lab.server.reset()
    tomorrow = TODAY + timedelta(days=1)
    lab.run(["market_caps"], TODAY, tomorrow)
    assert lab.server.stats()["total"] == 1
    closed = lab.sql("FROM market_caps WHERE date = ?", TODAY)
    assert closed["is_final"].all()
    assert closed["is_point_in_time"].all()
    truth = lab.market.snapshot(datetime(2026, 3, 11)).set_index("coin_id")
    np.testing.assert_allclose(
        closed["price_usd"], truth.loc[closed["coin_id"], "price_usd"], rtol=1e-9
    )


def test_healing_from_a_history_keeps_the_supply_that_a_snapshot_brought(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    before = lab.sql("SELECT coin_id, circulating_supply FROM market_caps ORDER BY coin_id")
    lab.at(datetime(2026, 3, 11, 9, 0)).run(["market_caps"], TODAY)
    after = lab.sql("FROM market_caps ORDER BY coin_id")
    assert after["is_final"].all()
    assert set(after["source"]) == {"sandbox/coingecko/coins/{id}/market_chart"}
    pd.testing.assert_series_equal(before["circulating_supply"], after["circulating_supply"])


def test_days_before_the_first_live_one_say_that_their_universe_was_chosen_later(lab: Lab) -> None:
    lab.run(["market_caps"], YESTERDAY, TODAY)
    flags = lab.sql("SELECT DISTINCT date, is_point_in_time FROM market_caps ORDER BY date")
    assert list(flags["is_point_in_time"]) == [False, True]


def test_the_tracked_set_of_a_day_stays_when_ranks_move_later_that_day(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    morning = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
    lab._overrides["universe"] = {"tracked": 5}
    lab.at(NOON + timedelta(hours=2)).run(["market_caps"], TODAY)
    assert set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"]) == morning


def test_the_coins_of_the_running_day_take_one_call_for_250_wherever_they_rank_by_now(
    tmp_path: Path, market: Market
) -> None:
    later = NOON + timedelta(hours=9)
    largest = market.snapshot(later).nlargest(250, "market_cap_usd")["coin_id"]
    with open_lab(tmp_path, market, universe={"tracked": 250, "always": []}) as lab:
        assert lab.run(["market_caps"], TODAY).succeeded
        of_noon = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
        assert of_noon != set(largest)
        lab.at(later).server.reset()
        assert lab.run(["market_caps"], TODAY).succeeded
        assert lab.server.stats()["total"] == 1
        seen = lab.sql("SELECT coin_id, price_usd, observed_at FROM market_caps")
    assert set(seen["coin_id"]) == of_noon
    assert (seen["observed_at"] == later).all()
    truth = market.snapshot(later).set_index("coin_id")["price_usd"]
    np.testing.assert_allclose(seen["price_usd"], truth[seen["coin_id"]], rtol=1e-9)


def test_few_coins_and_such_as_cannot_be_named_come_with_a_page(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lab.run(["market_caps"], TODAY).succeeded
    asked: list[str] = []

    def noted(self: CoinGecko, coins: object) -> None:
        asked.append("by name")
        raise AssertionError

    monkeypatch.setattr(CoinGecko, "markets_of", noted)
    assert lab.at(NOON + timedelta(hours=1)).run(["market_caps"], TODAY).succeeded
    assert not asked
    monkeypatch.setattr("crypto_assets.assets.market._ENOUGH_TO_NAME", 5)
    monkeypatch.setattr("crypto_assets.assets.market.can_be_named", lambda name: name != "bitcoin")
    assert lab.at(NOON + timedelta(hours=2)).run(["market_caps"], TODAY).succeeded
    assert not asked


@pytest.mark.slow
def test_a_second_run_of_closed_days_makes_no_call(lab: Lab) -> None:
    first = YESTERDAY - timedelta(days=20)
    lab.run(["market_caps"], first, YESTERDAY)
    lab.run(["market_caps"], TODAY)
    lab.server.reset()
    again = lab.run(["market_caps"], first, YESTERDAY)
    assert again.rows_changed == {"market_caps": 0}
    assert lab.server.stats()["total"] == 0


@pytest.mark.slow
def test_pages_that_move_while_they_are_read_lose_and_double_nobody(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 400}) as lab:
        lab.run(["market_caps", "ranks"], TODAY)
        known = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
        # From now on a coin is on two pages and another one on none.
        lab.server.faults.add({"kind": "moving_pages"})
        lab.at(NOON + timedelta(hours=1))
        assert lab.run(["market_caps", "ranks"], TODAY).succeeded
        stored = lab.sql("FROM market_caps")
        assert stored["coin_id"].is_unique
        assert set(stored["coin_id"]) == known
        assert (stored["observed_at"] == pd.Timestamp(lab.now)).all()
        ranks = sorted(lab.sql("SELECT market_cap_rank FROM ranks")["market_cap_rank"])
        assert ranks == list(range(1, len(ranks) + 1))


@pytest.mark.slow
def test_three_coins_that_fail_keep_their_rows_and_the_day_is_not_final(
    tmp_path: Path, market: Market
) -> None:
    failing = ["solana", "ripple", "cardano"]
    with open_lab(tmp_path, market, universe={"tracked": 100}) as lab:
        lab.run(["market_caps"], TODAY)
        kept = lab.sql("FROM market_caps WHERE list_contains(?, coin_id)", failing)
        lab.at(datetime(2026, 3, 11, 9, 0))
        for coin in failing:
            lab.server.faults.add({"kind": "status", "code": 500, "match": {"coin_id": coin}})
        report = lab.run(["market_caps", "ranks"], TODAY)
        assert report.succeeded
        after = lab.sql("FROM market_caps WHERE list_contains(?, coin_id)", failing)
        pd.testing.assert_frame_equal(kept, after)
        others = lab.sql("FROM market_caps WHERE NOT list_contains(?, coin_id)", failing)
        assert others["is_final"].all()
        day = lab.sql("FROM coverage WHERE table_name = 'market_caps' AND date = ?", TODAY)
        assert not day["is_final"][0]
        assert list(day["missing"][0]) == sorted(failing)
        assert not lab.sql("SELECT is_final FROM ranks")["is_final"].any()
        assert "market_caps: complete (WARN)" in report.checks_failed
        lab.server.faults.clear()
        lab.run(["market_caps", "ranks"], TODAY)
        assert lab.sql("FROM coverage WHERE table_name = 'ranks'")["is_final"].all()
        assert lab.sql("SELECT count(*) AS n FROM gaps WHERE state = 'missing'")["n"][0] == 0


def test_too_many_missing_coins_fail_the_step_and_what_came_is_stored(lab: Lab) -> None:
    for coin in ("solana", "ripple"):
        lab.server.faults.add({"kind": "status", "code": 500, "match": {"coin_id": coin}})
    report = lab.run(["market_caps"], YESTERDAY)
    assert not report.succeeded
    assert "ripple, solana" in report.failures["market_caps"]
    stored = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
    assert "bitcoin" in stored
    assert not stored & {"solana", "ripple"}


def test_a_wrong_key_ends_the_step_with_what_to_set(tmp_path: Path, market: Market) -> None:
    key = "canary-8f31"
    plan = {"plan": "demo", "api_key": key, "calls_per_minute": 1000}
    with open_lab(tmp_path, market, plan="demo", keeps_history=True, coingecko=plan) as lab:
        report = lab.run(["coin_list", "fear_greed"], TODAY)
        assert "CRYPTO_ASSETS_COINGECKO__API_KEY" in report.failures["coin_list"]
        assert "coins/list" in report.failures["coin_list"]
        assert "fear_greed" in report.seconds  # other sources go on
        events = lab.instance.all_logs(report.run_id)
        assert key not in "".join(map(str, events)) + str(report)
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        assert key.encode() not in file.read_bytes(), file


def test_a_day_that_has_not_begun_is_refused_by_name(lab: Lab) -> None:
    # Dagster's partitions follow the wall clock; a home's own clock may stand earlier.
    lab.run(["fear_greed"], TODAY)
    job = build_definitions(lab.settings).resolve_job_def("fear_greed_refresh")
    result = job.execute_in_process(
        instance=lab.instance, partition_key="2026-03-11", raise_on_error=False
    )
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "2026-03-11 has not begun" in str(failed.step_failure_data.error)


def test_the_coin_list_never_shrinks(lab: Lab) -> None:
    lab.run(["coin_list"], TODAY)
    listed = len(lab.sql("FROM coin_list"))
    lab.server.faults.add({"kind": "drop_coin", "coin_id": "solana"})
    lab.at(NOON + timedelta(days=1)).run(["coin_list"], TODAY)
    assert len(lab.sql("FROM coin_list")) >= listed
    gone = lab.sql("FROM coin_list WHERE coin_id = 'solana'")
    assert not gone["is_active"][0]
    assert gone["last_seen_at"][0] == pd.Timestamp(NOON)


def test_ranks_are_dense_and_follow_the_caps(lab: Lab) -> None:
    lab.run(["market_caps", "ranks"], YESTERDAY - timedelta(days=9), TODAY)
    for day, of_day in lab.sql("FROM ranks ORDER BY date, market_cap_rank").groupby("date"):
        assert list(of_day["market_cap_rank"]) == list(range(1, len(of_day) + 1)), day
        assert of_day["market_cap_usd"].is_monotonic_decreasing
        assert of_day["market_share"].sum() == pytest.approx(1)


def test_a_rank_change_looks_back_beyond_the_days_asked_for(lab: Lab) -> None:
    lab.run(["market_caps", "ranks"], YESTERDAY - timedelta(days=9), YESTERDAY)
    whole = lab.sql("FROM ranks WHERE date = ? ORDER BY coin_id", YESTERDAY)
    lab.run(["ranks"], YESTERDAY)
    alone = lab.sql("FROM ranks WHERE date = ? ORDER BY coin_id", YESTERDAY)
    assert whole["rank_change_7d"].notna().all()
    pd.testing.assert_series_equal(whole["rank_change_7d"], alone["rank_change_7d"])
