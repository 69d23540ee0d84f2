"""Dagster's history as we keep it, against Dagster's own storage of the same files."""

import queue
import sqlite3
import threading
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crypto_assets.operations.history import EventLog, History

FIRST, LAST, DAYS = "2026-01-01", "2026-01-30", 30
partitions = dg.DailyPartitionsDefinition(FIRST, end_date="2026-02-01")


def daily(function: Any) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        policy = dg.BackfillPolicy.single_run()
        return dg.asset(function, partitions_def=partitions, backfill_policy=policy)


@daily
def numbers(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    for key in context.partition_keys:
        context.add_asset_metadata({"rows": int(key[-2:])}, partition_key=key)
    return dg.MaterializeResult(data_version=dg.DataVersion("one"))


@daily
def broken() -> None:
    raise ValueError("broken on purpose")


@dg.asset_check(asset=numbers)
def are_right() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset_check(asset=numbers)
def are_pretty() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False)


def job() -> dg.JobDefinition:
    definitions = dg.Definitions(
        assets=[numbers, broken],
        asset_checks=[are_right, are_pretty],
        jobs=[dg.define_asset_job("everything")],
        executor=dg.in_process_executor,
    )
    return definitions.resolve_job_def("everything")


@contextmanager
def opened(folder: Path, *, stock: bool) -> Iterator[dg.DagsterInstance]:
    place = {"base_dir": str(folder / "dagster")}
    ours = {"module": History.__module__, "class": History.__name__, "config": place}
    storage = {"sqlite": place} if stock else {"custom": ours}
    folder.mkdir(exist_ok=True)
    tree = {"telemetry": {"enabled": False}, "storage": storage}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(tree))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


def run(instance: dg.DagsterInstance, last: str = LAST) -> str:
    bounds = {"start": FIRST, "end": last}
    result = job().execute_in_process(
        instance=instance,
        tags={f"dagster/asset_partition_range_{name}": day for name, day in bounds.items()},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    assert not result.success
    return result.run_id


def rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return sorted(connection.execute(sql).fetchall(), key=str)


def index_of(folder: Path) -> Path:
    return folder / "dagster" / "history" / "runs" / "index.db"


EVENTS = "SELECT dagster_event_type, step_key, asset_key, partition FROM event_logs"
TAGS = "SELECT asset_key, key, value FROM asset_event_tags WHERE key <> 'dagster/data_version'"
ASSETS = """SELECT asset_key, last_run_id IS NULL, last_materialization_timestamp IS NULL,
    json_extract(last_materialization, '$.event_log_entry.dagster_event.event_specific_data.'
        || 'materialization.partition') FROM asset_keys"""
CHECKS = """SELECT asset_key, check_name, partition, execution_status
    FROM asset_check_executions WHERE execution_status <> 'PLANNED'"""


@pytest.mark.parametrize("together", [True, False])
def test_a_run_leaves_the_same_history_as_in_dagsters_own_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    folders = {"stock": tmp_path / "stock", "ours": tmp_path / "ours"}
    ids = {}
    with opened(folders["stock"], stock=True) as instance:
        ids["stock"] = run(instance)
    if together:
        monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "7")
    with opened(folders["ours"], stock=False) as instance:
        ids["ours"] = run(instance)
    stock, ours = (
        {
            **{sql: rows(index_of(folder), sql) for sql in (EVENTS, TAGS, ASSETS, CHECKS)},
            "run": rows(index_of(folder).with_name(f"{ids[name]}.db"), EVENTS),
        }
        for name, folder in folders.items()
    )
    assert ours == stock
    assert len([e for e in ours["run"] if e[0] == "ASSET_MATERIALIZATION"]) == DAYS
    assert len([e for e in ours["run"] if e[0] == "ASSET_MATERIALIZATION_PLANNED"]) == 2 * DAYS
    assert ('["numbers"]', 0, 0, LAST) in ours[ASSETS]


def test_events_that_the_index_refused_at_first_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    stock = EventLog._store_asset_event_tags

    def refused(self: EventLog, *arguments: Any) -> None:
        if len(arguments[1]) > 1:
            raise sqlite3.OperationalError("database is locked")
        stock(self, *arguments)

    monkeypatch.setattr(EventLog, "_store_asset_event_tags", refused)
    with opened(tmp_path / "ours", stock=False) as instance:
        run_id = run(instance)
    assert "database is locked" in capsys.readouterr().err
    file = index_of(tmp_path / "ours")
    for of_run in (file, file.with_name(f"{run_id}.db")):
        kinds = [event[0] for event in rows(of_run, EVENTS)]
        assert kinds.count("ASSET_MATERIALIZATION") == DAYS
        assert kinds.count("ASSET_MATERIALIZATION_PLANNED") == 2 * DAYS
        assert kinds.count("ASSET_CHECK_EVALUATION_PLANNED") == 2
    checks = rows(file, "SELECT check_name, execution_status FROM asset_check_executions")
    assert checks == [("are_pretty", "FAILED"), ("are_right", "SUCCEEDED")]


def test_a_wiped_history_is_gone_for_who_has_it_open(tmp_path: Path) -> None:
    with opened(tmp_path / "ours", stock=False) as instance:
        run_id = run(instance, last=FIRST)
        instance.wipe()
        assert instance.all_logs(run_id) == []


def test_either_storage_reads_what_the_other_one_wrote(tmp_path: Path) -> None:
    key = dg.AssetKey("numbers")
    for stock in (True, False):
        folder = tmp_path / f"stock-{stock}"
        with opened(folder, stock=stock) as instance:
            run_id = run(instance)
            events = [entry.message for entry in instance.all_logs(run_id)]
        with opened(folder, stock=not stock) as instance:
            again = [entry.message for entry in instance.all_logs(run_id)]
            assert again == events
            assert len(instance.get_materialized_partitions(key)) == DAYS
            (found,) = instance.get_run_records()
            assert found.dagster_run.status == dg.DagsterRunStatus.FAILURE
            run(instance, last=FIRST)
            newest = instance.get_latest_materialization_event(key)
            assert newest is not None
            assert newest.get_dagster_event().partition == FIRST


def test_a_check_of_a_range_is_planned_once_and_answered(tmp_path: Path) -> None:
    with opened(tmp_path / "ours", stock=False) as instance:
        run_id = run(instance)
    found = rows(
        index_of(tmp_path / "ours"),
        "SELECT check_name, partition, execution_status, run_id FROM asset_check_executions",
    )
    assert found == [
        ("are_pretty", None, "FAILED", run_id),
        ("are_right", None, "SUCCEEDED", run_id),
    ]


def test_who_watches_a_run_is_told_of_each_event_at_once(tmp_path: Path) -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    with (
        opened(tmp_path / "ours", stock=False) as watching,
        opened(tmp_path / "ours", stock=False) as running,
    ):
        made = running.create_run_for_job(job(), tags={"dagster/partition": FIRST})
        may_end = threading.Event()
        watching.watch_event_logs(made.run_id, None, lambda entry, _: heard.put(entry.message))
        said = []

        def report() -> None:
            for number in range(3):
                running.report_engine_event(f"event {number}", made)
                assert may_end.wait(30)
                may_end.clear()

        reporting = threading.Thread(target=report)
        reporting.start()
        for _ in range(3):
            # The next one is not there before this one was heard.
            while not (message := heard.get(timeout=30)).startswith("event"):
                pass
            said.append(message)
            may_end.set()
        reporting.join()
        watching.end_watch_event_logs(made.run_id, lambda *_: None)
    assert said == ["event 0", "event 1", "event 2"]


def test_few_files_stay_open_and_none_in_the_end(tmp_path: Path) -> None:
    with opened(tmp_path / "ours", stock=False) as instance:
        ids = [run(instance, last=FIRST) for _ in range(9)]
        for run_id in ids:
            assert instance.all_logs(run_id)
        assert len(open_files(tmp_path)) <= 8
    assert open_files(tmp_path) == []


def open_files(folder: Path) -> list[Path]:
    found = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    return [file for file in found if file.is_relative_to(folder) and file.suffix == ".db"]
