"""What the sensor does with runs that left a lock behind; real kills are in end_to_end."""

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets.automation.dead_runs import NO_RETRY, bury, in_process_executor
from crypto_assets.definitions import build_definitions
from crypto_assets.monitoring import liveness
from crypto_assets.settings import validated


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    retries = {"run_retries": {"enabled": True, "max_retries": 1}}
    with dg.DagsterInstance.ephemeral(settings=retries) as opened:
        yield opened


def started(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    @dg.job
    def some_job() -> None: ...

    run = instance.create_run_for_job(some_job, tags=tags)
    instance.handle_new_event(_event(run, dg.DagsterEventType.RUN_START))
    return _again(instance, run)


def _event(run: dg.DagsterRun, kind: dg.DagsterEventType) -> dg.EventLogEntry:
    return dg.EventLogEntry(
        error_info=None,
        level="debug",
        user_message="",
        run_id=run.run_id,
        timestamp=1000.0,
        dagster_event=dg.DagsterEvent(kind.value, run.job_name),
    )


def _again(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found


def leave_behind(home: Path, run_id: str) -> None:
    (home / "runs").mkdir(exist_ok=True)
    (home / "runs" / f"{run_id}.lock").write_text("0\n")


def message(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    (entry,) = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert entry.dagster_event
    return entry.dagster_event.message or ""


def test_a_dead_run_is_marked_failed_and_told_what_follows(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = started(instance)
    assert run.status == dg.DagsterRunStatus.STARTED
    leave_behind(tmp_path, run.run_id)
    assert bury(tmp_path, instance) == [run.run_id]
    assert _again(instance, run).status == dg.DagsterRunStatus.FAILURE
    assert "died before it ended" in message(instance, run)
    assert "tried once more" in message(instance, run)
    assert bury(tmp_path, instance) == []
    assert list((tmp_path / "runs").iterdir()) == []


def test_who_gave_a_command_is_told_to_give_it_again(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = started(instance, **NO_RETRY)
    leave_behind(tmp_path, run.run_id)
    assert bury(tmp_path, instance) == [run.run_id]
    assert "give the command again" in message(instance, run)
    assert _again(instance, run).tags["dagster/will_retry"] == "false"


def test_a_living_run_is_left_alone(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    run = started(instance)
    with liveness.held(tmp_path, run.run_id):
        assert bury(tmp_path, instance) == []
    assert _again(instance, run).status == dg.DagsterRunStatus.STARTED


def test_a_run_that_never_showed_itself_is_left_alone(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = started(instance)
    assert bury(tmp_path, instance) == []
    assert _again(instance, run).status == dg.DagsterRunStatus.STARTED


def test_a_lock_of_a_run_that_ended_or_was_deleted_is_only_removed(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run = started(instance)
    instance.report_run_canceled(run)
    leave_behind(tmp_path, run.run_id)
    leave_behind(tmp_path, "deleted")
    assert bury(tmp_path, instance) == []
    assert _again(instance, run).status == dg.DagsterRunStatus.CANCELED
    assert list((tmp_path / "runs").iterdir()) == []


def test_the_sensor_says_what_it_did(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    definitions = build_definitions(validated({"home": tmp_path}))
    sensor = definitions.resolve_sensor_def("dead_runs")
    run = started(instance)
    leave_behind(tmp_path, run.run_id)
    with dg.build_sensor_context(instance=instance) as context:
        assert run.run_id in (sensor.evaluate_tick(context).skip_message or "")
        assert sensor.evaluate_tick(context).skip_message == "No run is dead."


def looks() -> dg.JobDefinition:
    home = Path(os.environ["TEST_HOME"])

    @dg.op
    def look(context: dg.OpExecutionContext) -> None:
        assert liveness.is_alive(home, context.run.run_id)

    @dg.job(executor_def=in_process_executor(home))
    def looks() -> None:
        look()

    return looks


def test_every_run_shows_itself_while_its_steps_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_HOME", str(tmp_path))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert dg.execute_job(dg.reconstructable(looks), instance).success
    assert list((tmp_path / "runs").iterdir()) == []
