"""Final values looked at again: what a provider changed is written, logged, and followed up."""

import shutil
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest

from crypto_assets.operations.rebuilding import rebuild
from crypto_assets.providers.raw import RawStore
from crypto_assets.sandbox import Market
from crypto_assets.tables import ETF_FLOWS, MARKET_CAPS, TABLES
from crypto_assets.warehouse.as_of import known_at
from crypto_assets.warehouse.comparing import compare
from crypto_assets.warehouse.staleness import stale_days
from crypto_assets.warehouse.verifying import verify
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
FIRST = TODAY - timedelta(days=8)
DAY = TODAY - timedelta(days=5)
NIGHT = datetime(2026, 3, 12, 2, 45)
RECHECKED = ("market_caps", "ohlc_daily")
FREE = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
ALL = {"coins_a_day": 10}
FEW = {"tracked": 4, "always": []}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A home with a week of caps, candles, ranks and signals, and the responses behind them."""
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market) as made:
        assert made.fill([*RECHECKED, "ranks", "ema_signals"], FIRST, YESTERDAY).succeeded
    return home


@pytest.fixture
def lab(tmp_path: Path, filled: Path, market: Market) -> Iterator[Lab]:
    """A lab with such a home, in which every coin has its turn each night."""
    home = shutil.copytree(filled, tmp_path / "home", symlinks=True)
    with open_lab(home, market, restatements=ALL) as opened:
        yield opened


def recheck(
    lab: Lab,
    first: date = FIRST,
    last: date = YESTERDAY,
    tables: Sequence[str] = RECHECKED,
) -> dg.ExecuteInProcessResult:
    """Do what the schedule of this night asks for."""
    return lab.recheck(tables, first, last)


def restate(lab: Lab, coin: str, day: date, factor: float) -> None:
    lab.server.faults.add({"kind": "restate", "coin_id": coin, "date": str(day), "factor": factor})


def close(market: Market, coin: str, day: date) -> float:
    return market.price(coin, datetime.combine(day + timedelta(days=1), datetime.min.time()))


def everything(lab: Lab) -> dict[str, pd.DataFrame]:
    return {
        name: lab.sql(f"FROM {name} ORDER BY ALL") for name in (*TABLES, "gaps", "restatements")
    }


def same(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]) -> None:
    for name, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[name], obj=name)


def problems(lab: Lab) -> list[str]:
    with lab.warehouse.session("test") as connection:
        return [f"{v.table}: {v.told}" for v in verify(connection) if not v.is_fine]


# What changed.


def test_a_restated_close_is_written_logged_and_known_before_and_after(lab: Lab) -> None:
    before = lab.sql("FROM market_caps WHERE coin_id = 'bitcoin' AND date = ?", DAY)
    old = close(lab.market, "bitcoin", DAY)
    assert before["price_usd"][0] == pytest.approx(old, rel=1e-12)
    restate(lab, "bitcoin", DAY, 1.25)
    assert recheck(lab.at(NIGHT)).success
    row = lab.sql("FROM market_caps WHERE coin_id = 'bitcoin' AND date = ?", DAY)
    assert row["price_usd"][0] == pytest.approx(old * 1.25, rel=1e-9)
    assert row["first_final_at"][0] == before["first_final_at"][0] == before["observed_at"][0]
    assert row["observed_at"][0] >= NIGHT
    assert row["is_final"][0]
    told = lab.sql("FROM restatements WHERE table_name = 'market_caps' ORDER BY column_name")
    assert list(told["column_name"]) == ["market_cap_usd", "price_usd"]
    assert set(told["key"]) == {f'{{"date":"{DAY}","coin_id":"bitcoin"}}'}
    assert float(told["old_value"][1]) == pytest.approx(old, rel=1e-12)
    assert float(told["new_value"][1]) == pytest.approx(old * 1.25, rel=1e-9)
    assert list(told["old_observed_at"]) == [before["observed_at"][0]] * 2
    with lab.warehouse.session("test") as connection:
        for at, factor in ((NOON + timedelta(hours=1), 1.0), (NIGHT + timedelta(hours=1), 1.25)):
            known = known_at(connection, MARKET_CAPS, at)
            known = known[(known["coin_id"] == "bitcoin") & (known["date"] == pd.Timestamp(DAY))]
            assert list(known["price_usd"]) == [pytest.approx(old * factor, rel=1e-9)]
    # Calculated from the value before: withheld until they are calculated again.
    assert [problem.split(":")[0] for problem in problems(lab)] == ["ranks", "ema_signals"]


@pytest.mark.slow
def test_a_restated_candle_is_logged_value_by_value(lab: Lab) -> None:
    restate(lab, "ethereum", DAY, 0.5)
    assert recheck(lab.at(NIGHT)).success
    told = lab.sql("FROM restatements WHERE table_name = 'ohlc_daily' ORDER BY column_name")
    assert list(told["column_name"]) == ["close", "high", "low", "open"]
    truth = lab.market.candles("ethereum", "1D", DAY, DAY + timedelta(days=1))
    for name, old, new in told[["column_name", "old_value", "new_value"]].to_numpy():
        assert float(old) == pytest.approx(truth[name][0], rel=1e-9)
        assert float(new) == pytest.approx(truth[name][0] * 0.5, rel=1e-9)
    assert list(
        lab.sql("FROM ohlc_daily WHERE date = ? AND coin_id = 'ethereum'", DAY)["exactness"]
    ) == ["exact"]


def test_only_the_restated_day_of_the_restated_coin_changes(lab: Lab) -> None:
    others = "FROM {} WHERE NOT (coin_id = 'bitcoin' AND date = ?) ORDER BY ALL"
    before = [lab.sql(others.format(table), DAY) for table in RECHECKED]
    restate(lab, "bitcoin", DAY, 1.25)
    recheck(lab.at(NIGHT))
    after = [lab.sql(others.format(table), DAY) for table in RECHECKED]
    for one, other in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_restated_value_is_traced_to_its_response(lab: Lab) -> None:
    restate(lab, "bitcoin", DAY, 1.25)
    recheck(lab.at(NIGHT))
    row = lab.sql("FROM market_caps WHERE coin_id = 'bitcoin' AND date = ?", DAY)
    store = RawStore(lab.home / "raw" / "responses.sqlite")
    meta, body = store.read(row["raw_id"][0])
    store.close()
    assert meta.path_params["id"] == "bitcoin"
    assert meta.observed_at >= NIGHT
    assert repr(row["price_usd"][0].item()).encode() in body


@pytest.mark.slow
def test_what_the_provider_takes_back_is_a_restatement_too(lab: Lab) -> None:
    old = close(lab.market, "bitcoin", DAY)
    restate(lab, "bitcoin", DAY, 1.25)
    recheck(lab.at(NIGHT))
    lab.server.faults.clear()
    recheck(lab.at(NIGHT + timedelta(days=1)))
    told = lab.sql("FROM restatements WHERE column_name = 'price_usd' ORDER BY new_observed_at")
    assert [float(value) / old for value in told["new_value"]] == pytest.approx([1.25, 1.0])
    row = lab.sql("FROM market_caps WHERE coin_id = 'bitcoin' AND date = ?", DAY)
    assert row["price_usd"][0] == pytest.approx(old, rel=1e-9)
    assert row["first_final_at"][0] < pd.Timestamp(NIGHT)


@pytest.mark.slow
def test_days_downstream_become_stale_and_are_calculated_again(lab: Lab) -> None:
    before = lab.sql("FROM ema_signals WHERE date < ? ORDER BY ALL", DAY)
    pairs = lab.settings.signals.span_pairs
    assert stale_days(lab.warehouse, lab.now, pairs) == {}
    restate(lab, "bitcoin", DAY, 0.001)
    recheck(lab.at(NIGHT))
    stale = stale_days(lab.warehouse, lab.now, pairs)
    later = [DAY + timedelta(days=n) for n in range((YESTERDAY - DAY).days + 1)]
    assert set(later) <= set(stale["ranks"])
    assert set(stale["ema_signals"]) == set(later)
    assert lab.fill(["ranks"], YESTERDAY).succeeded
    left = stale_days(lab.warehouse, lab.now, pairs)
    assert not {"ranks", "ema_signals"} & set(left)
    pd.testing.assert_frame_equal(
        before, lab.sql("FROM ema_signals WHERE date < ? ORDER BY ALL", DAY)
    )
    # Independent of the platform: pandas' own recursion over the model's closes.
    days = pd.date_range(FIRST, YESTERDAY)
    closes = pd.Series([close(lab.market, "bitcoin", day.date()) for day in days], days)
    closes = closes.where(closes.index != pd.Timestamp(DAY), closes * 0.001)
    signals = lab.sql("FROM ema_signals WHERE coin_id = 'bitcoin' AND slow_span = 26 ORDER BY date")
    np.testing.assert_allclose(
        signals["ema_fast"], closes.ewm(span=12, adjust=False).mean(), rtol=1e-9
    )
    places = lab.sql("SELECT date, market_cap_rank FROM ranks WHERE coin_id = 'bitcoin'")
    is_day = places["date"] == pd.Timestamp(DAY)
    assert (places.loc[is_day, "market_cap_rank"] > 1).all()
    assert (places.loc[~is_day, "market_cap_rank"] == 1).all()
    assert problems(lab) == []


# What did not.


@pytest.mark.slow
def test_unchanged_values_change_nothing_but_are_asked_for(lab: Lab) -> None:
    before = everything(lab)
    assert recheck(lab.at(NIGHT)).success
    assert lab.server.stats()["total"] == 2 * 10
    same(before, everything(lab))
    assert stale_days(lab.warehouse, lab.now, lab.settings.signals.span_pairs) == {}


def test_a_run_without_the_mark_asks_for_nothing_that_is_final(lab: Lab) -> None:
    restate(lab, "bitcoin", DAY, 1.25)
    before = everything(lab)
    assert lab.at(NIGHT).run(RECHECKED, FIRST, YESTERDAY).succeeded
    assert lab.server.stats()["total"] == 0
    same(before, everything(lab))


@pytest.mark.slow
def test_each_night_asks_again_also_where_the_request_is_the_same(
    tmp_path: Path, market: Market
) -> None:
    """The answer of the last look must not stand for that of this one."""
    with open_lab(
        tmp_path, market, restatements=ALL, coingecko=FREE, plan="demo", universe=FEW
    ) as lab:
        days = [TODAY - timedelta(days=n) for n in range(28, 0, -1)]
        assert lab.run(RECHECKED, days[0], days[-1]).succeeded
        for night in (1, 2):
            lab.server.reset()
            lab.at(NOON + timedelta(days=night))
            shift = timedelta(days=night)
            assert recheck(lab, days[0] + shift, YESTERDAY + shift).success
            asked = lab.server.stats()["calls"]
            assert asked["coingecko/coins/{id}/market_chart"] == {"200": 4}, night
            candles = [sum(n.values()) for name, n in asked.items() if "ohlc" in name]
            assert sum(candles) >= 4, (night, asked)
        restate(lab, "bitcoin", DAY, 1.25)
        lab.at(NOON + timedelta(days=3))
        assert recheck(lab, days[3], YESTERDAY + timedelta(days=3)).success
        assert set(lab.sql("FROM restatements")["table_name"]) == {"market_caps", "ohlc_daily"}


@pytest.mark.slow
def test_a_close_that_a_midnight_snapshot_told_is_not_flagged(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    tomorrow = TODAY + timedelta(days=1)
    lab.at(datetime(2026, 3, 11, 0, 6)).run(["market_caps"], TODAY, tomorrow)
    told = lab.sql("FROM market_caps WHERE date = ? ORDER BY coin_id", TODAY)
    assert set(told["source"]) == {"sandbox/coingecko/coins/markets"}
    assert told["is_final"].all()
    # Another moment than that of the history: its values differ.
    history = [close(lab.market, coin, TODAY) for coin in told["coin_id"]]
    assert (told["price_usd"] != history).any()
    assert recheck(lab.at(NIGHT), FIRST, TODAY).success
    assert lab.sql("FROM restatements").empty
    pd.testing.assert_frame_equal(
        told, lab.sql("FROM market_caps WHERE date = ? ORDER BY coin_id", TODAY)
    )


@pytest.mark.slow
def test_a_day_that_does_not_come_again_is_not_missing(lab: Lab) -> None:
    lab.server.faults.add({"kind": "missing_day", "date": str(DAY)})
    before = everything(lab)
    assert recheck(lab.at(NIGHT)).success
    same(before, everything(lab))


@pytest.mark.slow
def test_a_coin_the_provider_no_longer_knows_keeps_its_rows_and_has_no_gaps(lab: Lab) -> None:
    lab.server.faults.add({"kind": "vanish", "coin_id": "cardano"})
    before = everything(lab)
    assert recheck(lab.at(NIGHT)).success
    same(before, everything(lab))


@pytest.mark.slow
def test_known_gaps_stay_as_they_are(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, restatements=ALL) as lab:
        lab.server.faults.add({"kind": "missing_day", "coin_id": "ethereum", "date": str(DAY)})
        lab.run(RECHECKED, FIRST, YESTERDAY)
        gaps = lab.sql("FROM gaps ORDER BY ALL")
        assert set(gaps["series"]) == {"ethereum"}
        lab.server.faults.clear()
        recheck(lab.at(NIGHT))
        pd.testing.assert_frame_equal(gaps, lab.sql("FROM gaps ORDER BY ALL"))
        assert lab.sql("FROM market_caps WHERE coin_id = 'ethereum' AND date = ?", DAY).empty


def test_a_provider_that_is_down_fails_the_run_and_changes_nothing(lab: Lab) -> None:
    before = everything(lab)
    lab.server.faults.add({"kind": "status", "code": 503})
    assert not recheck(lab.at(NIGHT), tables=["market_caps"]).success
    same(before, everything(lab))


@pytest.mark.slow
def test_candles_that_become_exact_are_no_restatement(tmp_path: Path, market: Market) -> None:
    day = TODAY - timedelta(days=40)
    with open_lab(tmp_path, market, plan="demo", coingecko=FREE) as lab:
        assert lab.run(["ohlc_daily"], day, day + timedelta(days=2)).succeeded
        before = lab.sql("FROM ohlc_daily ORDER BY ALL")
        assert set(before["exactness"]) == {"approximate"}
        # A recheck leaves them alone: another request is needed to do better.
        lab.server.reset()
        assert recheck(lab.at(NIGHT), day, day + timedelta(days=2), ["ohlc_daily"]).success
        assert not [name for name in lab.server.stats()["calls"] if "{id}" in name]
        pd.testing.assert_frame_equal(before, lab.sql("FROM ohlc_daily ORDER BY ALL"))
    with open_lab(tmp_path, market) as paid:
        assert paid.at(NIGHT).run(["ohlc_daily"], day, day + timedelta(days=2)).succeeded
        after = paid.sql("FROM ohlc_daily ORDER BY ALL")
        assert set(after["exactness"]) == {"exact"}
        assert (after["high"] != before["high"]).any()
        assert paid.sql("FROM restatements").empty
        # Before that nobody knew the exact values, so `as_of` must not tell them earlier.
        assert set(after["first_final_at"]) == {pd.Timestamp(NIGHT)}


# Whose turn it is.


@pytest.mark.slow
def test_over_the_days_every_coin_has_its_turn(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, restatements={"coins_a_day": 3}) as lab:
        lab.run(["market_caps"], FIRST, YESTERDAY)
        coins = set(lab.sql("SELECT DISTINCT coin_id FROM market_caps")["coin_id"])
        assert len(coins) == 10
        seen: list[int] = []
        for night in range(4):
            lab.server.reset()
            for coin in coins:
                restate(lab, coin, DAY, 1.25)
            assert recheck(lab.at(NIGHT + timedelta(days=night)), tables=["market_caps"]).success
            assert lab.server.stats()["total"] == 3
            told = lab.sql("SELECT DISTINCT key FROM restatements")
            seen.append(len(told))
        assert seen == [3, 6, 9, 10]


@pytest.mark.slow
def test_with_more_turns_than_coins_each_is_asked_for_once(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, restatements={"coins_a_day": 50}, universe=FEW) as lab:
        lab.run(["market_caps"], FIRST, YESTERDAY)
        lab.server.reset()
        assert recheck(lab.at(NIGHT), tables=["market_caps"]).success
        assert lab.server.stats()["total"] == 4


def test_an_empty_home_has_nothing_to_look_at_again(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, restatements=ALL) as lab:
        assert recheck(lab, tables=["market_caps"]).success
        assert lab.sql("FROM market_caps").empty


# Made again from the raw store.


def rebuilt_and_before(lab: Lab, folder: Path) -> list[str]:
    """Rebuild, and return the tables that are not what they were."""
    folder.mkdir()
    before = folder / "before.duckdb"
    before.write_bytes(lab.warehouse.path.read_bytes())
    report = rebuild(lab.settings, lab.instance, lambda *_: None)
    assert report.skipped == []
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{before}' AS a (READ_ONLY)")
        connection.execute(f"ATTACH '{lab.warehouse.path}' AS b (READ_ONLY)")
        return [found.table for found in compare(connection) if not found.is_equal]


LOG = (
    # When a row that was taken back had been written is the machine's clock.
    "SELECT table_name, day, key, column_name, new_value, "
    "old_observed_at, new_observed_at, run_id, "
    "CASE column_name WHEN '(row)' THEN '' ELSE old_value END AS old_value "
    "FROM restatements ORDER BY ALL"
)


@pytest.mark.slow
def test_a_rebuilt_warehouse_is_equal_and_knows_the_same_history(lab: Lab, tmp_path: Path) -> None:
    restate(lab, "bitcoin", DAY, 1.25)
    lab.server.faults.add({"kind": "missing_day", "coin_id": "tron", "date": str(DAY)})
    recheck(lab.at(NIGHT))
    lab.fill(["ranks"], YESTERDAY)
    log, finals = lab.sql(LOG), "SELECT date, coin_id, first_final_at FROM market_caps ORDER BY ALL"
    first = lab.sql(finals)
    gaps = lab.sql("FROM gaps")
    assert rebuilt_and_before(lab, tmp_path / "kept") == []
    pd.testing.assert_frame_equal(log, lab.sql(LOG))
    pd.testing.assert_frame_equal(first, lab.sql(finals))
    pd.testing.assert_frame_equal(gaps, lab.sql("FROM gaps"))
    assert problems(lab) == []


@pytest.mark.slow
def test_a_fund_that_was_renamed_is_told_under_its_old_name_before_that(
    tmp_path: Path, market: Market
) -> None:
    """Also by a sandbox whose clock is not the wall's, and by a warehouse that was rebuilt."""
    first, last = date(2026, 3, 2), date(2026, 3, 5)
    (tmp_path / "home").mkdir()
    with open_lab(tmp_path / "home", market) as lab:
        lab.run(["etf_flows"], first, last)
        lab.server.faults.add({"kind": "etf_renamed_column", "ticker": "GBTC", "to": "NEW"})
        lab.at(NIGHT).run(["etf_flows"], first, last)

        def funds(at: datetime) -> set[str]:
            with lab.warehouse.session("test") as connection:
                known = known_at(connection, ETF_FLOWS, at)
            return {t for t in known["ticker"] if t in ("GBTC", "NEW")}

        assert funds(NOON + timedelta(hours=1)) == {"GBTC"}
        assert funds(NIGHT + timedelta(hours=1)) == {"NEW"}
        log = lab.sql(LOG)
        assert rebuilt_and_before(lab, tmp_path / "kept") == []
        assert funds(NOON + timedelta(hours=1)) == {"GBTC"}
        assert funds(NIGHT + timedelta(hours=1)) == {"NEW"}
        pd.testing.assert_frame_equal(log, lab.sql(LOG))
