"""What piles up is cleared away by settings; what anybody still needs stays."""

import os
import re
import sqlite3
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from crypto_assets.automation.maintenance import backup_place, clear_away
from crypto_assets.definitions import build_definitions
from crypto_assets.operations.home import open_instance
from crypto_assets.periods import wall_now
from crypto_assets.providers.raw import RawStore
from crypto_assets.settings import Settings, validated
from crypto_assets.warehouse.backups import list_backups, restore, warehouse_id
from crypto_assets.warehouse.manifests import read_manifest
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames

PARTITIONS = dg.DailyPartitionsDefinition("2026-01-01")
DAY_1, DAY_2 = "2026-01-05", "2026-01-06"


def settings_of(home: Path, **sections: Any) -> Settings:
    return validated({"home": home, "history": {"start": "2026-01-01"}, **sections})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


@pytest.fixture
def instance(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's history of the home, as the command line opens it."""
    monkeypatch.setenv("DAGSTER_HOME", str(settings.home))
    with open_instance(settings) as opened:
        yield opened


def made(instance: dg.DagsterInstance, day: str | None, name: str = "market_caps") -> str:
    """Materialize a table of that name, and return the run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.asset(name=name, partitions_def=PARTITIONS if day else None)
        def asset() -> None:
            return None

    done = dg.materialize([asset], instance=instance, partition_key=day)
    return done.run_id


def runs(instance: dg.DagsterInstance) -> set[str]:
    return {run.run_id for run in instance.get_runs()}


def aged(settings: Settings, days: float, *run_ids: str) -> None:
    """Let runs have been made so many days ago."""
    then = datetime.now(UTC) - timedelta(days=days)
    stamp = then.replace(tzinfo=None).isoformat(sep=" ")
    (file,) = (settings.home / "dagster").rglob("runs.db")
    with sqlite3.connect(file) as connection:
        for run_id in run_ids:
            done = connection.execute(
                "UPDATE runs SET create_timestamp = ? WHERE run_id = ?", (stamp, run_id)
            )
            assert done.rowcount == 1
    connection.close()


# Runs.


@pytest.mark.slow
def test_old_runs_go_unless_they_made_the_newest_of_a_day(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    superseded, newest, other_day = (made(instance, day) for day in (DAY_1, DAY_1, DAY_2))
    recent = made(instance, DAY_2)
    aged(settings, 61, superseded, newest, other_day)
    done = clear_away(settings, instance)
    assert done.runs == 2
    assert runs(instance) == {newest, recent}
    assert instance.get_materialized_partitions(dg.AssetKey("market_caps")) == {DAY_1, DAY_2}
    told = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey("market_caps"), asset_partitions=[DAY_1]), limit=1
    ).records
    assert [record.run_id for record in told] == [newest]


@pytest.mark.slow
def test_a_day_is_told_by_every_table_of_its_own(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    of_ranks, of_moods = made(instance, DAY_1, "ranks"), made(instance, DAY_1, "fear_greed")
    aged(settings, 400, of_ranks, of_moods)
    assert clear_away(settings, instance).runs == 0
    assert runs(instance) == {of_ranks, of_moods}


@pytest.mark.slow
def test_the_newest_of_a_table_without_days_stays_too(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    superseded, newest = made(instance, None, "coin_list"), made(instance, None, "coin_list")
    aged(settings, 61, superseded, newest)
    clear_away(settings, instance)
    assert runs(instance) == {newest}
    assert instance.get_latest_materialization_event(dg.AssetKey("coin_list")) is not None


@pytest.mark.parametrize(
    ("status", "goes"),
    [
        (dg.DagsterRunStatus.SUCCESS, True),
        (dg.DagsterRunStatus.FAILURE, True),
        (dg.DagsterRunStatus.CANCELED, True),
        (dg.DagsterRunStatus.STARTED, False),
        (dg.DagsterRunStatus.STARTING, False),
        (dg.DagsterRunStatus.NOT_STARTED, False),
        (dg.DagsterRunStatus.CANCELING, False),
    ],
)
def test_only_runs_that_ended_go(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus, goes: bool
) -> None:
    run = create_run_for_test(instance, status=status)
    aged(settings, 61, run.run_id)
    assert clear_away(settings, instance).runs == int(goes)
    assert runs(instance) == (set() if goes else {run.run_id})


@pytest.mark.parametrize(("age", "goes"), [(9.9, False), (10.1, True)])
def test_the_setting_says_how_old_is_old(
    settings: Settings, instance: dg.DagsterInstance, age: float, goes: bool
) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.FAILURE)
    aged(settings, age, run.run_id)
    short = settings_of(settings.home, housekeeping={"keep_runs_days": 10})
    assert clear_away(short, instance).runs == int(goes)


def test_nothing_on_the_disk_is_left_of_a_run_that_went(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    superseded, newest = made(instance, DAY_1), made(instance, DAY_1)
    logs = settings.home / "logs" / superseded / "compute_logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "out").write_text("a line")
    aged(settings, 61, superseded, newest)
    clear_away(settings, instance)
    left = [path for path in settings.home.rglob("*") if superseded in path.name]
    assert [str(path) for path in left] == []
    assert [path for path in settings.home.rglob("*") if newest in path.name] != []


def test_an_empty_home_has_nothing_to_clear_away(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    done = clear_away(settings, instance)
    assert (done.runs, done.responses, done.backups, done.bytes_a_run) == (0, 0, 0, 0)


# Responses and backups.


def test_responses_older_than_the_setting_go(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, raw={"keep_days": 30})
    store = RawStore(tmp_path / "raw" / "responses.sqlite")
    kept = [
        store.append(
            provider="coingecko",
            endpoint="coins/list",
            path_params={},
            params={"age": age},
            observed_at=wall_now() - timedelta(days=age),
            body=b"[]",
        )
        for age in (40, 31, 29, 0)
    ]
    store.close()
    with dg.DagsterInstance.ephemeral() as instance:
        assert clear_away(settings, instance).responses == 2
    store = RawStore(tmp_path / "raw" / "responses.sqlite")
    assert {meta.raw_id for meta in store.entries()} == set(kept[2:])
    store.close()


def published(settings: Settings) -> Warehouse:
    """A warehouse with a row and a publication."""
    warehouse = Warehouse.of(settings)
    rows = frames.caps((date(2026, 1, 5), "bitcoin", 2.0), source="coingecko")
    warehouse.write(Batch(rows), frames.to())
    publish_run(settings.home, "run-1")
    return warehouse


def old_backups(folder: Path, home: Path, count: int) -> list[str]:
    """Folders that look like backups of a home, of days long ago."""
    with connect(home) as connection:
        of = warehouse_id(connection)
    names = [f"crypto_assets-{of}-202501{day:02}T031500Z" for day in range(1, count + 1)]
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "manifest.json").write_text("{}")
    return names


def test_all_but_the_newest_backups_go(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, backup={"keep": 2})
    published(settings)
    names = old_backups(tmp_path / "backups", tmp_path, 5)
    with dg.DagsterInstance.ephemeral() as instance:
        assert clear_away(settings, instance).backups == 3
    assert sorted(path.name for path in (tmp_path / "backups").iterdir()) == names[3:]


def test_backups_go_where_the_setting_says(tmp_path: Path) -> None:
    assert backup_place(settings_of(tmp_path)) == str(tmp_path / "backups")
    there = settings_of(tmp_path, backup={"url": "memory://there/backups"})
    assert backup_place(there) == "memory://there/backups"


# The jobs, as Dagster runs them.


def job(settings: Settings, name: str, instance: dg.DagsterInstance) -> list[str]:
    """Run a job of the platform and return what its log says."""
    definition = build_definitions(settings).resolve_job_def(name)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    done = definition.execute_in_process(instance=instance, run_config=quiet)
    assert done.success
    return [entry.user_message for entry in instance.all_logs(done.run_id) if entry.level == 20]


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_backup_job_backs_up_and_keeps_the_newest(tmp_path: Path, form: str) -> None:
    settings = settings_of(tmp_path / "home", backup={"keep": 2, "format": form})
    (tmp_path / "home").mkdir()
    warehouse = published(settings)
    names = old_backups(tmp_path / "home" / "backups", tmp_path / "home", 3)
    with dg.DagsterInstance.ephemeral() as instance:
        told = job(settings, "backup", instance)
    found = list_backups(tmp_path / "home" / "backups")
    assert Path(str(found[0])).name == names[-1]
    assert len(found) == 2
    assert read_manifest(found[1]).format == form
    assert any(str(found[1]) in line and "2 old backups went" in line for line in told)
    restore(str(found[1]), tmp_path / "new" / FILE_NAME)
    again = Warehouse(tmp_path / "new" / FILE_NAME, warehouse.identity)
    assert again.query("SELECT price_usd FROM market_caps")["price_usd"].tolist() == [2.0]


def test_the_backup_job_of_a_home_without_a_publication_fails_in_a_sentence(
    settings: Settings,
) -> None:
    definition = build_definitions(settings).resolve_job_def("backup")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        done = definition.execute_in_process(
            instance=instance, run_config=quiet, raise_on_error=False
        )
    assert not done.success
    (failure,) = [event for event in done.all_events if event.is_step_failure]
    error = failure.step_failure_data.error
    assert error is not None
    while error.cause is not None:
        error = error.cause
    assert "nothing has been published" in error.message


def test_the_housekeeping_job_clears_away_and_tells_sizes(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    superseded, newest = made(instance, DAY_1), made(instance, DAY_1)
    aged(settings, 61, superseded, newest)
    told = job(settings, "housekeeping", instance)
    assert superseded not in runs(instance)
    assert newest in runs(instance)
    (line,) = [text for text in told if text.startswith("Cleared away")]
    assert "1 runs, 0 responses, 0 backups" in line
    assert re.search(r"the home takes \d+ MB", line)


def test_what_a_run_leaves_is_measured(settings: Settings, instance: dg.DagsterInstance) -> None:
    for _ in range(3):
        made(instance, DAY_1)
    done = clear_away(settings, instance)
    folders = (settings.home / "dagster", settings.home / "logs")
    sizes = [path.stat().st_size for f in folders for path in f.rglob("*") if path.is_file()]
    assert done.bytes_a_run == pytest.approx(sum(sizes) / 3, rel=0.2)
    assert done.home_bytes >= sum(sizes)


def test_the_size_of_a_year_of_hourly_runs_is_told(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    """A year of hourly runs must not fill a disk: the job says what it will come to."""
    made(instance, DAY_1)
    (line,) = [
        text for text in job(settings, "housekeeping", instance) if text.startswith("Cleared away")
    ]
    # Each of two every hour, and six every night.
    found = re.search(r"55 runs a day leave ([\d.]+) MB each.* for a year ([\d,]+) MB", line)
    assert found is not None
    a_run, a_year = (float(text.replace(",", "")) for text in found.groups())
    assert a_year == pytest.approx(a_run * 55 * 365, rel=0.2)


def test_what_ticks_printed_long_ago_goes(settings: Settings, instance: dg.DagsterInstance) -> None:
    old, new = (settings.home / "logs" / "repository" / "stale_days" / name for name in "ab")
    for path in (old, new):
        path.mkdir(parents=True)
        (path / "tick.err").write_text("a line")
    then = (datetime.now(UTC) - timedelta(days=61)).timestamp()
    os.utime(old / "tick.err", (then, then))
    clear_away(settings, instance)
    assert not (old / "tick.err").exists()
    assert (new / "tick.err").read_text() == "a line"


# When they run.


def schedule(settings: Settings, name: str) -> dg.ScheduleDefinition:
    found = build_definitions(settings).resolve_schedule_def(f"{name}_schedule")
    assert isinstance(found, dg.ScheduleDefinition)
    return found


@pytest.mark.parametrize(
    ("name", "cron"),
    [
        ("backup", "15 3 * * *"),
        ("housekeeping", "30 3 * * *"),
        ("restatements_check", "45 2 * * *"),
    ],
)
def test_each_has_a_schedule_of_every_night(settings: Settings, name: str, cron: str) -> None:
    found = schedule(settings, name)
    assert found.cron_schedule == cron
    assert found.execution_timezone == "UTC"
    assert found.default_status == dg.DefaultScheduleStatus.RUNNING


def test_schedules_follow_the_settings(tmp_path: Path) -> None:
    changed = settings_of(tmp_path, schedules={"backup": "0 5 * * 0", "enabled": False})
    assert schedule(changed, "backup").cron_schedule == "0 5 * * 0"
    assert schedule(changed, "backup").default_status == dg.DefaultScheduleStatus.STOPPED
    assert schedule(changed, "housekeeping").default_status == dg.DefaultScheduleStatus.STOPPED


@pytest.mark.parametrize("name", ["backup", "housekeeping"])
def test_a_tick_asks_for_one_run(settings: Settings, name: str) -> None:
    with dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 3, 10, 3, 15, tzinfo=UTC),
        repository_def=build_definitions(settings).get_repository_def(),
    ) as context:
        assert len(schedule(settings, name).evaluate_tick(context).run_requests or []) == 1


def recheck_tick(settings: Settings) -> Any:
    with dg.build_schedule_context(
        scheduled_execution_time=datetime(2026, 6, 10, 2, 45, tzinfo=UTC),
        repository_def=build_definitions(settings).get_repository_def(),
    ) as context:
        return schedule(settings, "restatements_check").evaluate_tick(context)


def test_the_recheck_asks_for_the_days_of_the_setting_on_behalf_of_its_day(
    tmp_path: Path,
) -> None:
    (request,) = recheck_tick(settings_of(tmp_path, restatements={"days": 30})).run_requests
    assert request.tags["crypto_assets/recheck"] == "2026-06-10"
    assert request.tags["dagster/asset_partition_range_start"] == "2026-05-11"
    assert request.tags["dagster/asset_partition_range_end"] == "2026-06-09"
    assert {key.path[-1] for key in request.asset_selection} == {"market_caps", "ohlc_daily"}


def test_the_recheck_can_be_switched_off(tmp_path: Path) -> None:
    found = recheck_tick(settings_of(tmp_path, restatements={"coins_a_day": 0}))
    assert not found.run_requests
    assert "restatements.coins_a_day is 0" in found.skip_message
