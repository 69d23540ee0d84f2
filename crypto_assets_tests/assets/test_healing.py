"""Days as they go on: what was late, absent or wrong at one time and is there at another."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.staleness import recalculation
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
TOMORROW = TODAY + timedelta(days=1)
CAPS = ["market_caps", "ranks", "ema_signals"]


def fault_on(lab: Lab, kind: str, *coins: str, **rule: object) -> None:
    lab.server.faults.add(*({"kind": kind, "coin_id": coin, **rule} for coin in coins))


@pytest.mark.slow
def test_a_provider_that_is_late_is_asked_again(lab: Lab) -> None:
    chart = {"endpoint": "coins/{id}/market_chart"}
    lab.server.faults.add({"kind": "missing_day", "date": str(YESTERDAY), "match": chart})
    lab.at(datetime(2026, 3, 10, 1, 0)).run(CAPS, YESTERDAY)
    told = lab.sql("SELECT DISTINCT state, reason FROM gaps")
    assert told.to_numpy().tolist() == [["missing", "not at the provider yet"]]
    lab.server.faults.clear()
    assert lab.at(NOON).run(CAPS, YESTERDAY).rows_changed["market_caps"] == 10
    assert lab.sql("SELECT is_final FROM coverage WHERE date = ?", YESTERDAY)["is_final"].all()
    assert lab.sql("FROM gaps").empty


def test_a_hole_that_later_days_have_passed_is_not_asked_for_again(lab: Lab) -> None:
    hole = YESTERDAY - timedelta(days=3)
    lab.server.faults.add({"kind": "missing_day", "coin_id": "ethereum", "date": str(hole)})
    lab.run(["market_caps"], hole - timedelta(days=1), YESTERDAY)
    told = lab.sql("SELECT series, first_day, last_day, state FROM gaps")
    stamp = pd.Timestamp(hole)
    assert told.to_numpy().tolist() == [["ethereum", stamp, stamp, "no_data_at_provider"]]
    lab.server.reset()
    lab.run(["market_caps"], hole - timedelta(days=1), YESTERDAY)
    assert lab.server.stats()["total"] == 0


@pytest.mark.slow
def test_a_provider_stuck_for_days_is_not_taken_for_coins_without_data(lab: Lab) -> None:
    days = [YESTERDAY - timedelta(days=n) for n in range(4)]
    lab.server.faults.add(*({"kind": "missing_day", "date": str(day)} for day in days))
    lab.run(["market_caps"], days[-1] - timedelta(days=1), YESTERDAY)
    told = lab.sql("SELECT DISTINCT state, reason FROM gaps")
    assert told.to_numpy().tolist() == [["missing", "not at the provider yet"]]
    lab.server.faults.clear()
    lab.run(["market_caps"], days[-1], YESTERDAY)
    assert len(lab.sql("FROM market_caps WHERE is_final")) == 50
    assert lab.sql("FROM gaps").empty


@pytest.mark.slow
def test_a_coin_the_provider_no_longer_knows_holds_up_its_days_for_two_days_only(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 25}) as lab:
        lab.run(CAPS, TODAY)
        lab.server.faults.add(
            {"kind": "status", "code": 404, "shape": "error", "match": {"coin_id": "cardano"}}
        )
        assert lab.at(datetime(2026, 3, 11, 1, 0)).run(CAPS, TODAY).succeeded
        final = "SELECT is_final FROM coverage WHERE table_name = 'ranks' AND date = ?"
        assert not lab.sql(final, TODAY)["is_final"][0]
        assert lab.at(datetime(2026, 3, 13, 1, 0)).run(CAPS, TODAY).succeeded
        # Its provisional row of the running day stays, and stays provisional.
        row = lab.sql("FROM market_caps WHERE coin_id = 'cardano'")
        assert list(row["is_final"]) == [False]
        assert lab.sql(final, TODAY)["is_final"][0]
        assert recalculation(lab.warehouse, lab.now, lab.settings.signals.span_pairs) is None or (
            lab.fill(CAPS, TODAY).succeeded
            and recalculation(lab.warehouse, lab.now, lab.settings.signals.span_pairs) is None
        )


@pytest.mark.slow
def test_a_second_run_of_closed_hours_makes_no_call(lab: Lab) -> None:
    lab.run(["market_caps", "ohlc_hourly"], YESTERDAY - timedelta(days=2), YESTERDAY)
    lab.server.reset()
    lab.run(["ohlc_hourly"], YESTERDAY - timedelta(days=2), YESTERDAY)
    assert lab.server.stats()["calls"].get("coingecko/coins/{id}/ohlc/range") is None


@pytest.mark.slow
def test_coins_at_the_edge_of_the_universe_come_and_go_without_gaps(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 250}) as lab:
        for n in range(4):
            lab.at(datetime(2026, 3, 10 + n, 12, 0))
            assert lab.run(["market_caps"], lab.now.date()).succeeded
        gaps = lab.sql("FROM gaps")
        assert gaps.empty
        sizes = lab.sql("SELECT date, count(*) AS n FROM market_caps GROUP BY date")
        assert set(sizes["n"]) == {250}


@pytest.mark.slow
def test_a_coin_that_was_away_all_day_is_healed_after_midnight(lab: Lab) -> None:
    lab.run(CAPS, YESTERDAY)
    lab.at(datetime(2026, 3, 9, 12, 0)).run(CAPS, YESTERDAY)
    fault_on(lab, "vanish", "tether", match={"endpoint": "coins/markets"})
    lab.at(datetime(2026, 3, 10, 9, 0)).run(CAPS, TODAY)
    lab.at(datetime(2026, 3, 11, 0, 1)).run(CAPS, TODAY, TOMORROW)
    day = lab.sql("FROM coverage WHERE table_name = 'market_caps' AND date = ?", TODAY)
    assert not day["is_final"][0]
    assert list(day["missing"][0]) == ["tether"]
    lab.server.faults.clear()
    lab.at(datetime(2026, 3, 11, 1, 0)).run(CAPS, TODAY)
    healed = lab.sql("FROM market_caps WHERE coin_id = 'tether' AND date = ?", TODAY)
    assert healed["price_usd"][0] == lab.market.price("tether", datetime(2026, 3, 11))
    assert lab.sql("FROM coverage WHERE table_name = 'ranks' AND date = ?", TODAY)["is_final"][0]


@pytest.mark.slow
def test_coins_that_the_first_snapshot_of_a_day_lacks_stay_tracked(
    tmp_path: Path, market: Market
) -> None:
    away = ["binancecoin", "ripple", "tether"]
    with open_lab(tmp_path, market, universe={"tracked": 40}) as lab:
        lab.run(["market_caps"], TODAY)
        before = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
        fault_on(lab, "vanish", *away, match={"endpoint": "coins/markets"})
        lab.at(datetime(2026, 3, 11, 2, 0)).run(["market_caps"], TOMORROW)
        day = lab.sql("FROM coverage WHERE date = ?", TOMORROW)
        assert list(day["missing"][0]) == away
        lab.server.faults.clear()
        lab.at(datetime(2026, 3, 11, 3, 0)).run(["market_caps"], TOMORROW)
        after = set(lab.sql("SELECT coin_id FROM market_caps WHERE date = ?", TOMORROW)["coin_id"])
        assert set(away) <= after
        assert len(after) == len(before)


@pytest.mark.slow
def test_one_dead_coin_does_not_stop_the_others(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 40}) as lab:
        lab.run(CAPS, TODAY)
        fault_on(lab, "vanish", "cardano", match={"endpoint": "coins/markets"})
        gone = {"code": 404, "shape": "error", "match": {"coin_id": "cardano"}}
        lab.server.faults.add({"kind": "status", **gone})
        lab.at(datetime(2026, 3, 11, 0, 1))
        assert lab.run(CAPS, TODAY, TOMORROW).succeeded
        assert lab.at(datetime(2026, 3, 11, 1, 0)).run(CAPS, TODAY).succeeded
        final = lab.sql("FROM market_caps WHERE date = ? AND is_final", TODAY)
        assert len(final) == 39


@pytest.mark.slow
def test_three_coins_unknown_to_the_provider_are_not_taken_for_an_outage(
    tmp_path: Path, market: Market
) -> None:
    unknown = ["no-such-a", "no-such-b", "no-such-c"]
    universe = {"tracked": 60, "always": unknown}
    with open_lab(tmp_path, market, universe=universe) as lab:
        assert lab.run(["ohlc_daily"], YESTERDAY).succeeded
        assert len(lab.sql("FROM ohlc_daily")) == 60
        told = lab.sql("SELECT series FROM gaps ORDER BY 1")
        assert list(told["series"]) == unknown


@pytest.mark.slow
def test_the_first_snapshot_after_midnight_is_the_close_and_a_second_changes_nothing(
    lab: Lab,
) -> None:
    lab.run(CAPS, TODAY)
    lab.at(datetime(2026, 3, 11, 0, 0, 30)).run(CAPS, TODAY, TOMORROW)
    first = lab.sql("FROM market_caps WHERE date = ? ORDER BY coin_id", TODAY)
    lab.at(datetime(2026, 3, 11, 0, 8)).run(CAPS, TODAY, TOMORROW)
    second = lab.sql("FROM market_caps WHERE date = ? ORDER BY coin_id", TODAY)
    pd.testing.assert_frame_equal(first, second)
    assert lab.sql("FROM restatements").empty


@pytest.mark.slow
def test_a_day_that_lacks_hours_is_not_settled(lab: Lab) -> None:
    lab.run(["ohlc_hourly"], YESTERDAY)
    with lab.warehouse.session("a hole") as connection:
        connection.execute(
            "DELETE FROM ohlc_hourly WHERE coin_id = 'bitcoin' AND hour(open_time) BETWEEN 5 AND 8"
        )
    lab.run(["ohlc_hourly"], YESTERDAY)
    counts = lab.sql("SELECT coin_id, count(*) AS n FROM ohlc_hourly GROUP BY coin_id")
    assert set(counts["n"]) == {24}


def test_hours_the_provider_does_not_have_yet_make_the_day_incomplete(lab: Lab) -> None:
    off = {"kind": "missing_day", "date": str(YESTERDAY), "coin_id": "ethereum"}
    lab.server.faults.add(off)
    lab.run(["ohlc_hourly"], YESTERDAY)
    day = lab.sql("FROM coverage WHERE table_name = 'ohlc_hourly' AND date = ?", YESTERDAY)
    assert list(day["missing"][0]) == ["ethereum"]
    assert not day["is_final"][0]
    lab.server.faults.clear()
    lab.run(["ohlc_hourly"], YESTERDAY)
    day = lab.sql("FROM coverage WHERE table_name = 'ohlc_hourly' AND date = ?", YESTERDAY)
    assert day["is_final"][0]


@pytest.mark.slow
def test_a_snapshot_is_final_only_when_the_slowest_source_is(lab: Lab) -> None:
    friday = date(2026, 3, 6)
    finality = []
    for at in (datetime(2026, 3, 7, 1, 5), NOON):
        lab.at(at).run(list(TABLES), friday)
        row = lab.sql("FROM daily_snapshot WHERE coin_id = 'bitcoin' AND date = ?", friday)
        finality.append((bool(row["is_final"][0]), bool(row["etf_net_flow_usd"].isna()[0])))
    # The funds of a day report until the morning after it, some of them a day late.
    assert finality == [(False, True), (True, False)]


def test_an_outage_of_the_fund_pages_makes_no_stored_day_unfinal(lab: Lab) -> None:
    first, last = date(2026, 3, 2), date(2026, 3, 6)
    lab.run(["etf_flows"], first, last)
    before = lab.sql("FROM coverage WHERE table_name = 'etf_flows' ORDER BY date")
    challenge = {"kind": "challenge", "match": {"provider": "farside"}}
    lab.server.faults.add(challenge)
    assert not lab.at(NOON + timedelta(hours=1)).run(["etf_flows"], first, last).succeeded
    after = lab.sql("FROM coverage WHERE table_name = 'etf_flows' ORDER BY date")
    pd.testing.assert_frame_equal(before, after)


def test_a_renamed_fund_does_not_count_twice(lab: Lab) -> None:
    first, last = date(2026, 3, 2), date(2026, 3, 6)
    lab.run(["etf_flows"], first, last)
    total = "SELECT sum(net_flow_usd) AS usd FROM etf_flows WHERE asset = 'eth' AND is_final"
    before = lab.sql(total)["usd"][0]
    rename = {"kind": "etf_renamed_column", "ticker": "ETHW", "to": "EWNEW"}
    lab.server.faults.add(rename)
    assert lab.at(NOON + timedelta(hours=1)).run(["etf_flows"], first, last).succeeded
    assert lab.sql(total)["usd"][0] == before
    told = lab.sql("FROM restatements WHERE column_name = '(row)'")
    assert (told["key"].str.contains("ETHW")).all()
    assert len(told)


@pytest.mark.slow
def test_a_plan_with_true_candles_replaces_guessed_ones(tmp_path: Path, market: Market) -> None:
    free = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
    first = YESTERDAY - timedelta(days=50)
    with open_lab(tmp_path, market, coingecko=free, universe={"tracked": 2}) as lab:
        lab.run(["ohlc_daily"], first, first + timedelta(days=4))
        assert set(lab.sql("FROM ohlc_daily")["exactness"]) == {"approximate"}
        lab._overrides["coingecko"] = {}
        lab.run(["ohlc_daily"], first, first + timedelta(days=4))
        stored = lab.sql("FROM ohlc_daily WHERE coin_id = 'bitcoin' ORDER BY date")
        start = pd.Timestamp(first).to_pydatetime()
        truth = market.candles("bitcoin", "1D", start, start + timedelta(days=5))
        assert set(stored["exactness"]) == {"exact"}
        np.testing.assert_allclose(stored["close"], truth["close"], rtol=1e-9)
        assert lab.sql("FROM restatements").empty


def test_a_universe_of_many_years_is_told_from_the_days_asked_for_alone(lab: Lab) -> None:
    lab.run(["market_caps"], YESTERDAY - timedelta(days=20), TODAY)
    from crypto_assets.assets.universe import tracked_by_day

    only = tracked_by_day(lab.warehouse, TODAY, TODAY)
    assert set(only) == {TODAY}
    assert only[TODAY].is_point_in_time
    later = tracked_by_day(lab.warehouse, TODAY + timedelta(days=5), TODAY + timedelta(days=5))
    ((_, tracked),) = later.items()
    assert tracked.coins == only[TODAY].coins
    assert tracked.is_point_in_time
    assert not tracked.is_stored
