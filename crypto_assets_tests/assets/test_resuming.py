"""What was answered once is not asked again, and what was answered badly is."""

import threading
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crypto_assets.assets.platform import Platform
from crypto_assets.operations.forecasting import forecast
from crypto_assets.providers.raw import RawStore
from crypto_assets.sandbox import Market
from crypto_assets.tables import MARKET_CAPS
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write, WriteReport
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
DAY = timedelta(days=1)
YESTERDAY = TODAY - DAY
HISTORIES = ["market_caps", "ohlc_daily", "ohlc_hourly"]
FREE = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
NOT_CONTENT = "run_id, materialized_at"


def lose_warehouse(lab: Lab) -> None:
    (lab.home / "warehouse.duckdb").unlink()


def asked(lab: Lab) -> dict[str, int]:
    """How often each endpoint was asked since the last look."""
    found = {
        endpoint.removeprefix("coingecko/"): sum(by_status.values())
        for endpoint, by_status in lab.server.stats()["calls"].items()
    }
    faults = lab.server.faults.rules()
    lab.server.reset()
    lab.server.faults.add(
        *(
            {name: value for name, value in rule.items() if name not in ("seen", "hits")}
            for rule in faults
        )
    )
    return found


def histories(lab: Lab) -> int:
    return sum(n for endpoint, n in asked(lab).items() if "{id}" in endpoint)


def content(lab: Lab) -> dict[str, pd.DataFrame]:
    found = {
        table: lab.sql(f"SELECT * EXCLUDE ({NOT_CONTENT}) FROM {table} ORDER BY ALL")
        for table in HISTORIES
    }
    found["gaps"] = lab.sql("SELECT * EXCLUDE (checked_at) FROM gaps ORDER BY ALL")
    found["coverage"] = lab.sql(
        "SELECT * EXCLUDE (observed_at, asked_at) FROM coverage ORDER BY ALL"
    )
    return found


def assert_same(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]) -> None:
    for table, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[table], obj=table)


@pytest.mark.parametrize("coingecko", [{}, FREE], ids=["unlimited", "demo"])
@pytest.mark.slow
def test_a_lost_warehouse_is_filled_again_without_asking_for_a_history(
    tmp_path: Path, market: Market, coingecko: dict[str, Any]
) -> None:
    universe = {"tracked": 5, "headline": ["bitcoin"]}
    with open_lab(tmp_path, market, coingecko=coingecko, universe=universe) as lab:
        first = TODAY - 33 * DAY
        assert lab.run(HISTORIES, first, YESTERDAY).succeeded
        before = content(lab)
        assert len(before["market_caps"]) == 33 * 5
        assert histories(lab) > 0
        lose_warehouse(lab)
        assert lab.run(HISTORIES, first, YESTERDAY).succeeded
        assert asked(lab) == {}
        assert_same(before, content(lab))


@pytest.mark.slow
def test_hours_later_only_the_universe_is_asked_for(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 5}) as lab:
        first = TODAY - 10 * DAY
        lab.run(HISTORIES, first, YESTERDAY)
        before = content(lab)
        asked(lab)
        lose_warehouse(lab)
        lab.at(NOON + timedelta(hours=3)).run(HISTORIES, first, YESTERDAY)
        # A snapshot of hours ago tells nothing of today.
        assert asked(lab) == {"coins/markets": 1}
        assert_same(before, content(lab))


@pytest.mark.slow
def test_an_interrupted_fill_goes_on_where_it_stopped(
    tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_assets.assets.histories.SLICE_ROWS", 30)
    universe = {"tracked": 12, "always": []}
    with open_lab(tmp_path, market, universe=universe, fetch={"threads": 1}) as lab:
        first = TODAY - 10 * DAY
        lab.run(["market_caps"], TODAY)
        asked(lab)
        chart = {"endpoint": "coins/{id}/market_chart"}
        key_is_gone = {"kind": "status", "code": 401, "after": 7, "match": chart}
        lab.server.faults.add(key_is_gone)
        assert not lab.run(["market_caps"], first, YESTERDAY).succeeded
        by_status = lab.server.stats()["calls"]["coingecko/coins/{id}/market_chart"]
        assert by_status["200"] == 7
        stored = lab.sql("SELECT count(DISTINCT coin_id) AS n FROM market_caps WHERE is_final")
        # Slices of three coins are written whole; the seventh answer waits in the raw store.
        assert stored["n"][0] in (3, 6)
        lab.server.reset()
        assert lab.run(["market_caps"], first, YESTERDAY).succeeded
        assert asked(lab) == {"coins/{id}/market_chart": 12 - 7}
        whole = lab.sql("FROM market_caps WHERE is_final")
        assert len(whole) == 12 * 10
        row = whole[(whole["coin_id"] == "bitcoin") & (whole["date"] == pd.Timestamp(YESTERDAY))]
        assert row["price_usd"].item() == market.price("bitcoin", datetime(2026, 3, 10))


@pytest.mark.slow
def test_a_first_fill_that_is_interrupted_knows_its_whole_universe(
    tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_assets.assets.histories.SLICE_ROWS", 30)
    universe = {"tracked": 12, "always": []}
    with open_lab(tmp_path, market, universe=universe, fetch={"threads": 1}) as lab:
        first = TODAY - 10 * DAY
        chart = {"endpoint": "coins/{id}/market_chart"}
        lab.server.faults.add({"kind": "status", "code": 401, "after": 7, "match": chart})
        # Of no day it is known yet which coins it tracks, and the first slice has only three.
        assert not lab.run(["market_caps"], first, YESTERDAY).succeeded
        stored = set(lab.sql("SELECT DISTINCT coin_id FROM market_caps")["coin_id"])
        assert len(stored) in (3, 6)
        told = lab.sql("FROM gaps WHERE table_name = 'market_caps' ORDER BY series")
        assert list(told["series"]) == sorted(
            set(market.snapshot(NOON)["coin_id"].head(12)) - stored
        )
        assert set(told["first_day"]) == {pd.Timestamp(first)}
        assert set(told["last_day"]) == {pd.Timestamp(YESTERDAY)}
        assert set(told["state"]) == {"missing"}
        assert set(told["reason"]) == {"not fetched yet"}
        assert set(told["checked_at"]) == {pd.Timestamp("1970-01-01")}
        for day in lab.sql("FROM coverage WHERE table_name = 'market_caps'").itertuples():
            assert not day.is_final
            assert set(day.missing) == set(told["series"])
        # Hours later nothing that was answered is asked for, and nobody is forgotten.
        lab.server.reset()
        lab.at(NOON + timedelta(hours=3))
        assert lab.run(["market_caps"], first, YESTERDAY).succeeded
        assert asked(lab) == {"coins/{id}/market_chart": 12 - 7}
        assert len(lab.sql("FROM market_caps WHERE is_final")) == 12 * 10
        assert lab.sql("FROM gaps").empty


@pytest.mark.slow
def test_a_write_that_fails_ends_the_calls(
    tmp_path: Path, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crypto_assets.assets.histories.SLICE_ROWS", 120)
    universe = {"tracked": 72, "always": []}
    with open_lab(tmp_path, market, universe=universe, fetch={"threads": 1}) as lab:
        lab.run(["market_caps"], TODAY)
        asked(lab)
        lab.server.faults.add({"kind": "slow_drip", "seconds": 0.05})
        at_failure: list[int] = []
        write = Warehouse.write

        def full(warehouse: Warehouse, batch: Batch, to: Write) -> WriteReport:
            if len(batch.rows):
                at_failure.append(lab.server.stats()["total"])
                raise OSError(28, "No space left on device")
            return write(warehouse, batch, to)

        monkeypatch.setattr(Warehouse, "write", full)
        report = lab.run(["market_caps"], TODAY - 10 * DAY, YESTERDAY)
        assert "No space left" in report.failures["market_caps"]
        assert len(at_failure) == 1
        # What was on its way came back; of the slices of twelve coins that waited nothing was sent.
        ended = lab.server.stats()["total"]
        assert ended <= at_failure[0] + 2
        # Nobody is left who could send more.
        assert not [one.name for one in threading.enumerate() if one.name.startswith("fetch")]
        assert lab.server.stats()["total"] == ended < 2 * 12 + 2


@pytest.mark.slow
def test_the_raw_store_is_pruned_by_a_run_that_received_answers_and_not_by_looking(
    tmp_path: Path, market: Market
) -> None:
    keep = {"keep_days": 1}
    with open_lab(tmp_path, market, raw=keep, universe={"tracked": 3, "always": []}) as lab:

        def responses() -> int:
            with closing(RawStore(lab.home / "raw" / "responses.sqlite")) as raw:
                return raw.count()

        assert lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY).succeeded
        assert responses() == 4
        lab.at(NOON + 3 * DAY)
        # Neither a run that asks for nothing nor a look ahead takes anything away.
        forecast(lab.settings, ["market_caps"], (TODAY - 5 * DAY, YESTERDAY))
        assert responses() == 4
        lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
        assert asked(lab) == {"coins/markets": 1, "coins/{id}/market_chart": 3}
        assert responses() == 4
        lab.run(["coin_list"], TODAY + 3 * DAY)
        assert asked(lab) == {"coins/list": 1}
        assert responses() == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", HISTORIES)
def test_a_second_run_of_closed_days_makes_no_call(lab: Lab, table: str) -> None:
    lab.run(["market_caps"], TODAY)
    lab.run([table], TODAY - 5 * DAY, YESTERDAY)
    asked(lab)
    lab.run([table], TODAY - 5 * DAY, YESTERDAY)
    lab.at(NOON + timedelta(hours=5)).run([table], TODAY - 5 * DAY, YESTERDAY)
    assert asked(lab) == {}


@pytest.mark.slow
def test_an_answer_with_a_hole_is_asked_for_again(lab: Lab) -> None:
    hole = {"kind": "missing_day", "coin_id": "ethereum", "date": str(YESTERDAY)}
    chart = {"endpoint": "coins/{id}/market_chart"}
    lab.run(["market_caps"], TODAY)
    lab.server.faults.add({**hole, "match": chart})
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    asked(lab)
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    assert asked(lab) == {"coins/{id}/market_chart": 1}
    lab.server.faults.clear()
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    assert asked(lab) == {"coins/{id}/market_chart": 1}
    healed = lab.sql("FROM market_caps WHERE coin_id = 'ethereum' AND date = ?", YESTERDAY)
    assert healed["price_usd"].item() == lab.market.price("ethereum", datetime(2026, 3, 10))
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    assert asked(lab) == {}


def test_a_hole_taken_from_the_raw_store_is_asked_for_afterwards(lab: Lab) -> None:
    hole = {"kind": "missing_day", "coin_id": "ethereum", "date": str(YESTERDAY)}
    lab.server.faults.add({**hole, "match": {"endpoint": "coins/{id}/market_chart"}})
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    lab.server.faults.clear()
    lose_warehouse(lab)
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    day = lab.sql("FROM coverage WHERE table_name = 'market_caps' AND date = ?", YESTERDAY)
    assert day["is_final"].all()
    assert lab.sql("FROM gaps").empty


@pytest.mark.slow
def test_answers_that_were_refused_are_asked_for_again(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY - 5 * DAY, YESTERDAY)
    lab.run(["ohlc_daily"], TODAY - 5 * DAY, YESTERDAY)
    behind = lab.sql("SELECT DISTINCT raw_id FROM ohlc_daily WHERE coin_id = 'ethereum'")
    with lab.warehouse.session("test") as connection:
        connection.execute("DELETE FROM ohlc_daily")
    with closing(Platform(lab.settings)) as platform:
        platform.raw.refuse(behind["raw_id"])
    asked(lab)
    assert lab.run(["ohlc_daily"], TODAY - 5 * DAY, YESTERDAY).succeeded
    # The other nine are taken from the raw store.
    assert asked(lab) == {"coins/{id}/ohlc/range": 1}
    assert len(lab.sql("FROM ohlc_daily WHERE is_final")) == 5 * 10


def test_a_batch_that_breaks_its_contract_refuses_the_answers_behind_it(lab: Lab) -> None:
    refused: list[str] = []
    day = pd.Timestamp(YESTERDAY)
    bad = pd.DataFrame({"date": [day], "coin_id": ["ethereum"], "price_usd": [-1.0]})
    rows = bad.assign(
        is_point_in_time=True, is_final=True, observed_at=day, source="test", raw_id=None
    )
    batch = Batch(rows, on_refusal=lambda: refused.append("told"))
    with pytest.raises(ContractViolationError):
        lab.warehouse.write(batch, Write(MARKET_CAPS, "run-1"))
    assert refused == ["told"]


@pytest.mark.slow
def test_hours_of_the_running_day_are_asked_for_again_once_the_provider_has_newer_ones(
    lab: Lab,
) -> None:
    lab.run(["market_caps"], TODAY)
    lab.run(["ohlc_hourly"], TODAY)
    assert asked(lab)["coins/{id}/ohlc/range"] == 10
    lab.at(NOON + timedelta(minutes=4)).run(["ohlc_hourly"], TODAY)
    assert asked(lab) == {}
    lab.at(NOON + timedelta(minutes=6)).run(["ohlc_hourly"], TODAY)
    assert asked(lab) == {"coins/{id}/ohlc/range": 10}


@pytest.mark.slow
def test_a_snapshot_is_asked_for_again_after_half_a_minute(lab: Lab) -> None:
    lab.run(["market_caps"], TODAY)
    asked(lab)
    lab.at(NOON + timedelta(seconds=20)).run(["market_caps"], TODAY)
    assert asked(lab) == {}
    lab.at(NOON + timedelta(seconds=40)).run(["market_caps"], TODAY)
    assert asked(lab) == {"coins/markets": 1}
    row = lab.sql("FROM market_caps WHERE coin_id = 'bitcoin'")
    assert row["price_usd"].item() == lab.market.price("bitcoin", lab.now)


@pytest.mark.slow
def test_a_day_that_was_running_when_it_was_answered_is_asked_for_once_it_is_over(
    lab: Lab,
) -> None:
    lab.run(["market_caps"], TODAY)
    lab.run(["ohlc_daily"], YESTERDAY, TODAY)
    lose_warehouse(lab)
    tomorrow: date = TODAY + DAY
    lab.at(datetime(2026, 3, 11, 1, 0)).run(["ohlc_daily"], YESTERDAY, TODAY)
    days = lab.sql("SELECT DISTINCT date, is_final FROM ohlc_daily ORDER BY 1")
    assert list(days["date"].dt.date) == [YESTERDAY, tomorrow - DAY]
    assert days["is_final"].all()
