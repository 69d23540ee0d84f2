from datetime import date, timedelta

import dagster as dg
import pytest

from crypto_assets.monitoring.runs import failed_jobs, unfinished_runs
from crypto_assets.periods import wall_now
from crypto_assets_tests.lab import Lab

JOB = "daily_close"
S = dg.DagsterRunStatus
DAY = date(2026, 3, 9)


def add(
    instance: dg.DagsterInstance, status: S, *, will_retry: bool = False, job: str = JOB
) -> str:
    tags = {"dagster/will_retry": "true"} if will_retry else {}
    return instance.add_run(dg.DagsterRun(job, status=status, tags=tags)).run_id


def failed(instance: dg.DagsterInstance, *jobs: str) -> list[str]:
    return [run.run_id for run in failed_jobs(instance, jobs or [JOB])]


def test_a_job_without_runs_does_not_fail() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert failed(instance) == []


def test_a_job_fails_from_its_failed_run_to_its_next_success() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add(instance, S.SUCCESS)
        assert failed(instance) == []
        run_id = add(instance, S.FAILURE)
        assert failed(instance) == [run_id]
        # What runs, or was cancelled, says nothing yet.
        add(instance, S.STARTED)
        add(instance, S.CANCELED)
        assert failed(instance) == [run_id]
        add(instance, S.SUCCESS)
        assert failed(instance) == []


def test_a_failed_run_that_waits_for_its_retry_is_none_and_the_retry_that_fails_is_one() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add(instance, S.FAILURE, will_retry=True)
        assert failed(instance) == []
        add(instance, S.STARTED)
        assert failed(instance) == []
        retry = add(instance, S.FAILURE)
        assert failed(instance) == [retry]


def test_a_retry_that_succeeds_leaves_nothing_to_tell() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        add(instance, S.FAILURE, will_retry=True)
        add(instance, S.SUCCESS)
        assert failed(instance) == []


def test_a_failure_before_one_that_waits_for_its_retry_is_still_told() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = add(instance, S.FAILURE)
        add(instance, S.FAILURE, will_retry=True)
        assert failed(instance) == [first]


def test_jobs_are_told_apart() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        first = add(instance, S.FAILURE)
        add(instance, S.SUCCESS, job="backup")
        other = add(instance, S.FAILURE, job="everything")
        assert set(failed(instance, JOB, "backup", "everything")) == {first, other}


@pytest.mark.parametrize(
    ("status", "is_told"),
    [
        (S.NOT_STARTED, True),
        (S.STARTING, True),
        (S.STARTED, True),
        (S.CANCELING, True),
        (S.SUCCESS, False),
        (S.FAILURE, False),
        (S.CANCELED, False),
    ],
)
def test_what_is_queued_or_running_is_unfinished(status: S, is_told: bool) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = add(instance, status)
        told = [(run.run_id, run.job, run.status) for run in unfinished_runs(instance)]
        assert told == ([(run_id, JOB, status.value)] if is_told else [])


def test_a_failed_run_says_which_step_failed_and_why_in_the_words_of_the_platform(
    lab: Lab,
) -> None:
    lab.server.faults.add({"kind": "status", "code": 404, "match": {"endpoint": "fng"}})
    before = wall_now()
    assert not lab.run(["fear_greed"], DAY).succeeded
    (run,) = failed_jobs(lab.instance, ["everything"])
    assert run.reason.startswith("fear_greed: ")
    assert "404" in run.reason
    assert "Traceback" not in run.reason
    assert "dagster._core" not in run.reason
    assert before - timedelta(seconds=1) <= run.since <= wall_now()
    lab.server.faults.clear()
    assert lab.run(["fear_greed"], DAY).succeeded
    assert failed_jobs(lab.instance, ["everything"]) == []
