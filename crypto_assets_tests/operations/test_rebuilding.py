"""The warehouse made again from the raw store: the same in every value, without one call."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from crypto_assets import connect
from crypto_assets.assets.deliveries import Index, dumped
from crypto_assets.assets.platform import Platform
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.rebuilding import RebuildReport, rebuild
from crypto_assets.providers.raw import Delivery, RawStore
from crypto_assets.sandbox import Market
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.publishing import is_behind
from crypto_assets_tests.lab import Lab, open_lab

# Whole platforms over many days: the second tier.
pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
FREE = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
EVERYTHING = list(TABLES)
# Who wrote a row and when; all else has to be the same.
OF_THE_WRITE = {"run_id", "materialized_at", "restated_at"}
CLOSE = ["market_caps", "ranks", "ema_signals", "ohlc_hourly", "ohlc_daily", "daily_snapshot"]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}")


def day(text: str) -> date:
    return date.fromisoformat(f"2026-{text}")


def dump(connection: duckdb.DuckDBPyConnection) -> dict[str, pd.DataFrame]:
    found = {}
    for table in (*TABLES, "gaps", "restatements", "coverage"):
        rows = connection.execute(f"FROM {table} LIMIT 0").fetchdf()
        columns = ", ".join(f'"{name}"' for name in rows.columns if name not in OF_THE_WRITE)
        found[table] = connection.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchdf()
    return found


def stored(lab: Lab) -> dict[str, pd.DataFrame]:
    with lab.warehouse.session("dumping") as connection:
        return dump(connection)


def assert_same(before: dict[str, pd.DataFrame], after: dict[str, pd.DataFrame]) -> None:
    for table, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[table], obj=table)


def again(lab: Lab, **options: Any) -> RebuildReport:
    return rebuild(lab.settings, lab.instance, lambda *_: None, **options)


@contextmanager
def few_coins(folder: Path, market: Market, **overrides: Any) -> Iterator[Lab]:
    folder.mkdir(exist_ok=True)
    universe = {"tracked": 4, "always": ["bitcoin"], "headline": ["bitcoin", "ethereum"]}
    with open_lab(folder, market, universe=universe, **overrides) as lab:
        yield lab


def live_through_some_days(lab: Lab) -> None:
    """Two midnights with closes by snapshot, a coin away and back, a fund that is restated."""
    first, faults = day("03-05"), lab.server.faults
    sources = ["coin_list", "market_caps", "fear_greed", "etf_flows"]
    candles = ["ohlc_daily", "ohlc_hourly"]
    lab.at(moment("03-08T12:20")).run([*sources, *candles], first, day("03-08"))
    faults.add(
        {"kind": "drop_coin", "coin_id": "tether"},
        {"kind": "status", "code": 404, "shape": "error", "match": {"coin_id": "tether"}},
        {"kind": "etf_revised_row", "ticker": "IBIT", "date": "2026-03-05", "value": 123.4},
    )
    lab.at(moment("03-09T00:00:20")).run(["market_caps"], day("03-08"), day("03-09"))
    lab.at(moment("03-09T01:00")).run(["market_caps", *candles], day("03-06"), day("03-08"))
    lab.at(moment("03-09T09:30")).run(["etf_flows"], first, day("03-08"))
    faults.clear()
    lab.at(moment("03-09T13:00")).run([*sources, *candles], day("03-07"), day("03-09"))
    faults.add(
        {"kind": "challenge", "match": {"provider": "farside"}},
        {"kind": "missing_day", "coin_id": "ethereum", "date": "2026-03-09"},
    )
    lab.at(moment("03-10T00:00:20")).run(["market_caps"], day("03-09"), day("03-10"))
    lab.at(moment("03-10T01:00")).run(candles, day("03-08"), day("03-09"))
    assert (
        not lab.at(moment("03-10T09:30")).run(["etf_flows"], day("03-08"), day("03-09")).succeeded
    )
    lab.at(moment("03-10T12:20"))
    assert lab.run(["ranks", "ema_signals", "daily_snapshot"], first, day("03-10")).succeeded


@pytest.fixture(scope="module")
def lived(
    market: Market, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, dict[str, pd.DataFrame]]]:
    """A lab that some days went by in; tests work on copies of its home."""
    with few_coins(tmp_path_factory.mktemp("lived") / "home", market) as lab:
        live_through_some_days(lab)
        yield lab, stored(lab)


@pytest.fixture
def old(
    lived: tuple[Lab, dict[str, pd.DataFrame]], tmp_path: Path
) -> tuple[Lab, dict[str, pd.DataFrame]]:
    """The same lab in a copy of its home."""
    lab, before = lived
    lab.server.reset()
    home = shutil.copytree(lab.home, tmp_path / "copy", symlinks=True)
    copy = Lab(home, lab.server, lab.instance, **lab._overrides)
    return copy.at(moment("03-10T12:20")), before


def test_days_with_closes_healing_and_restatements_come_back_the_same(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    # What this is about has to be in it.
    assert (before["restatements"]["new_value"] == "123400000.0").any()
    assert set(before["gaps"]["state"]) >= {"no_data_at_provider"}
    final = before["market_caps"][before["market_caps"]["is_final"]]
    assert set(final["source"].str.rsplit("/").str[-1]) == {"markets", "market_chart"}
    report = again(lab)
    assert lab.server.stats()["total"] == 0
    assert report.skipped == []
    assert report.derived.succeeded
    assert report.rows == {
        name: len(before[name]) for name, table in TABLES.items() if not table.derived
    }
    assert_same(before, stored(lab))
    with connect(lab.home) as published:
        assert_same(before, dump(published))
    with duckdb.connect(str(report.kept_as), read_only=True) as kept:
        assert_same(before, dump(kept))


def test_a_lost_warehouse_is_made_again_and_goes_on_as_the_old_one_would(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    (lab.home / "warehouse.duckdb").unlink()
    again(lab)
    assert_same(before, stored(lab))
    lab.run(["market_caps", "ohlc_daily", "ohlc_hourly"], day("03-05"), day("03-08"))
    assert lab.server.stats()["total"] == 0
    lab.at(moment("03-10T13:00"))
    assert lab.run(["market_caps", "ohlc_hourly"], day("03-09"), day("03-10")).succeeded


def test_what_a_crash_left_does_not_matter_nor_what_a_rebuild_before_left(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    again(lab)
    (lab.home / "warehouse.rebuilt.duckdb").write_bytes(b"half a file")
    (lab.home / "warehouse.rebuilt.duckdb.wal").write_bytes(b"half a log")
    assert (lab.home / "warehouse.before-rebuild.duckdb").exists()
    again(lab)
    assert_same(before, stored(lab))
    assert not (lab.home / "warehouse.rebuilt.duckdb").exists()


def test_a_pruned_raw_store_is_refused_with_nothing_changed_unless_the_loss_is_accepted(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    with closing(RawStore(lab.home / "raw" / "responses.sqlite")) as raw:
        assert raw.prune(moment("03-09T00:00")) > 0
    warehouse = lab.home / "warehouse.duckdb"
    looks = (warehouse.read_bytes(), (lab.home / "crypto.duckdb").resolve())
    with pytest.raises(OperationError) as told:
        again(lab)
    sentence = str(told.value)
    assert "rows of ohlc_daily" in sentence
    assert "responses before 2026-03-09 were pruned" in sentence
    assert "--accept-loss" in sentence
    assert "nothing was changed" in sentence
    assert len(sentence.splitlines()) == 1
    assert (warehouse.read_bytes(), (lab.home / "crypto.duckdb").resolve()) == looks
    assert not (lab.home / "warehouse.before-rebuild.duckdb").exists()
    report = again(lab, accept_loss=True)
    after = stored(lab)
    assert 0 < len(after["ohlc_daily"]) < len(before["ohlc_daily"])
    keys = ["date", "coin_id"]
    kept = after["market_caps"].merge(before["market_caps"][[*keys, "price_usd"]], on=keys)
    assert (kept["price_usd_x"] == kept["price_usd_y"]).all()
    with duckdb.connect(str(report.kept_as), read_only=True) as connection:
        assert_same(before, dump(connection))


# Kills itself before or after the swap of the files; the settings come as JSON.
KILLED = """
import json, os, pathlib, signal, sys
import dagster as dg
from crypto_assets.operations.rebuilding import rebuild
from crypto_assets.settings import validated

swap = pathlib.Path.replace
def killed(self, target):
    if sys.argv[1] == "after":
        swap(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.replace = killed
with dg.DagsterInstance.ephemeral() as instance:
    rebuild(validated(json.load(sys.stdin)), instance, lambda *_: None)
"""


def rebuild_and_kill(lab: Lab, at: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, at],
        input=lab.settings.model_dump_json(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_between_link_and_swap_the_old_warehouse_stays_and_is_used_on(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    warehouse, kept = lab.home / "warehouse.duckdb", lab.home / "warehouse.before-rebuild.duckdb"
    rebuild_and_kill(lab, "before")
    assert (lab.home / "warehouse.rebuilt.duckdb").exists()
    assert kept.samefile(warehouse)
    assert_same(before, stored(lab))
    with connect(lab.home) as published:
        assert_same(before, dump(published))
    # It is worked with as ever, and the next rebuild ends what this one began.
    lab.at(moment("03-11T01:00"))
    assert lab.run(["ohlc_daily"], day("03-10")).succeeded
    derived = [name for name, table in TABLES.items() if table.derived]
    assert lab.run(derived, day("03-05"), day("03-10")).succeeded
    went_on = stored(lab)
    assert len(went_on["ohlc_daily"]) > len(before["ohlc_daily"])
    calls = lab.server.stats()["total"]
    assert again(lab).skipped == []
    assert lab.server.stats()["total"] == calls
    assert not kept.samefile(warehouse)
    assert not (lab.home / "warehouse.rebuilt.duckdb").exists()
    assert_same(went_on, stored(lab))
    with duckdb.connect(str(kept), read_only=True) as connection:
        assert_same(went_on, dump(connection))


def test_killed_right_after_the_swap_the_new_warehouse_has_the_derived_rows_already(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    inode = (lab.home / "warehouse.duckdb").stat().st_ino
    rebuild_and_kill(lab, "after")
    assert (lab.home / "warehouse.before-rebuild.duckdb").stat().st_ino == inode
    assert (lab.home / "warehouse.duckdb").stat().st_ino != inode
    for name, table in TABLES.items():
        assert len(before[name]) or not table.derived
    assert_same(before, stored(lab))
    with connect(lab.home) as published:
        assert_same(before, dump(published))


def test_a_damaged_old_warehouse_is_told_in_one_sentence_with_nothing_changed(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    warehouse = lab.home / "warehouse.duckdb"
    warehouse.write_bytes(b"no database" * 1_000)
    for accept_loss in (False, True):
        with pytest.raises(OperationError) as told:
            again(lab, accept_loss=accept_loss)
        sentence = str(told.value)
        assert str(warehouse) in sentence
        assert "damaged, move it away and rebuild again; nothing was changed" in sentence
        assert len(sentence.splitlines()) == 1
        assert warehouse.read_bytes() == b"no database" * 1_000
        assert not (lab.home / "warehouse.before-rebuild.duckdb").exists()
        with connect(lab.home) as published:
            assert_same(before, dump(published))
    # What it says to do helps.
    warehouse.rename(lab.home / "elsewhere.duckdb")
    again(lab)
    assert_same(before, stored(lab))


def test_restatements_that_would_be_lost_are_told_and_kept_unless_the_loss_is_accepted(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    with lab.warehouse.session("one that no response tells of") as connection:
        connection.execute(
            "INSERT INTO restatements BY NAME "
            "SELECT * REPLACE ('0.5' AS new_value) FROM restatements LIMIT 1"
        )
    with pytest.raises(OperationError, match="can't bring back 1 restatements: nothing was"):
        again(lab)
    assert len(stored(lab)["restatements"]) == len(before["restatements"]) + 1
    again(lab, accept_loss=True)
    assert_same(before, stored(lab))


def test_tables_without_any_close_are_published_too(tmp_path: Path, market: Market) -> None:
    with few_coins(tmp_path / "home", market) as lab:
        lab.at(moment("03-10T12:20"))
        assert lab.run(["fear_greed", "coin_list"], day("03-05"), day("03-09")).succeeded
        before = stored(lab)
        assert before["market_caps"].empty
        looks = (lab.home / "crypto.duckdb").resolve()
        report = again(lab)
        assert report.derived.succeeded
        assert_same(before, stored(lab))
        assert (lab.home / "crypto.duckdb").resolve() != looks
        assert not is_behind(lab.home)
        with connect(lab.home) as published:
            assert_same(before, dump(published))


def test_answers_of_a_sandbox_are_never_used_in_a_live_home(
    old: tuple[Lab, dict[str, pd.DataFrame]], tmp_path: Path
) -> None:
    lab, _ = old
    live = tmp_path / "live"
    shutil.copytree(lab.home / "raw", live / "raw")
    settings = validated({"home": live, "history": {"start": "2026-01-01"}})
    assert not settings.is_sandbox
    report = rebuild(settings, lab.instance, lambda *_: None)
    assert lab.server.stats()["total"] == 0
    assert set(report.rows.values()) == {0}
    tables = {told.partition(" of ")[0] for told in report.skipped}
    assert tables == set(report.rows)
    for told in report.skipped:
        assert told.endswith("UTC: its responses were pruned")


def test_an_empty_raw_store_is_refused_with_nothing_changed(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, before = old
    shutil.rmtree(lab.home / "raw")
    for accept_loss in (False, True):
        with pytest.raises(OperationError, match="holds nothing to rebuild from"):
            again(lab, accept_loss=accept_loss)
    assert_same(before, stored(lab))


def test_a_home_without_anything_is_refused_in_one_sentence(lab: Lab) -> None:
    with pytest.raises(OperationError, match="nothing was changed"):
        again(lab)
    assert not lab.warehouse.path.exists()


def test_a_delivery_that_can_not_be_read_any_more_is_left_out_and_told(
    old: tuple[Lab, dict[str, pd.DataFrame]],
) -> None:
    lab, _ = old
    before = stored(lab)
    with closing(Platform(lab.settings)) as platform:
        # As if this version read the index otherwise than the one that accepted the answer.
        body = b'{"data": [], "metadata": {"error": null}}'
        asked = {"endpoint": "fng/", "path_params": {}, "params": {"limit": 1}}
        at = moment("03-11T01:00")
        raw_id = platform.raw.append(
            provider="alternative_me", observed_at=at, body=body, sandbox=True, **asked
        )
        details = dumped(Index(day("03-10"), day("03-10"), (raw_id,)))
        platform.raw.deliver(Delivery("fear_greed", "run-x", at, details))
    report = again(lab)
    (told,) = report.skipped
    assert "fear_greed of 2026-03-11 01:00 UTC" in told
    assert "at least one day" in told
    pd.testing.assert_frame_equal(before["fear_greed"], stored(lab)["fear_greed"])


def test_approximate_candles_of_a_free_plan_come_back_the_same(
    tmp_path: Path, market: Market
) -> None:
    with few_coins(tmp_path / "home", market, coingecko=FREE) as lab:
        lab.at(moment("03-10T12:20"))
        tables = ["market_caps", "ohlc_daily", "ohlc_hourly"]
        # The last thirty days come exactly; before that candles are rebuilt from prices.
        lab.run(tables, day("02-06"), day("02-10"))
        lab.run(["ohlc_hourly"], day("03-09"), day("03-10"))
        derived = ["ranks", "ema_signals", "daily_snapshot"]
        lab.fill(derived, day("02-06"), day("02-10"))
        before = stored(lab)
        assert set(before["ohlc_daily"]["exactness"]) == {"approximate", "exact"}
        assert set(before["ohlc_hourly"]["exactness"]) == {"approximate", "exact"}
        assert "approximate" in set(before["gaps"]["state"])
        lab.server.reset()
        again(lab)
        assert lab.server.stats()["total"] == 0
        assert_same(before, stored(lab))
