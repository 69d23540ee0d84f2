"""What `dagster.yaml` is there for, proven by what a real daemon does with its keys.

The file is the shipped one, with shorter seconds. The jobs are of a small code location of their
own: they hang or hold a pool's only slot until a file says that they may end.
"""

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crypto_assets.monitoring.daemons import Seen, observe
from crypto_assets_tests.end_to_end.platforms import ENDED, eventually
from crypto_assets_tests.operations.commands import carrying, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SHIPPED = Path(__file__).parents[2] / "dagster.yaml"
SHORTER = {
    "poll_interval_seconds: 60": "poll_interval_seconds: 1",
    "max_runtime_seconds: 43200": "max_runtime_seconds: 12",
    "free_slots_after_run_end_seconds: 60": "free_slots_after_run_end_seconds: 1",
    "dequeue_interval_seconds: 5": "dequeue_interval_seconds: 1",
}
JOBS = """
import os, time
from pathlib import Path
import dagster as dg

HERE = Path(os.environ["DAGSTER_HOME"])

def until_told(context):
    (HERE / "pids" / context.run.run_id).write_text(str(os.getpid()))
    while not (HERE / "may_end").exists():
        time.sleep(0.1)

@dg.op
def hang(context):
    until_told(context)

@dg.op(pool="the_only_one")
def hold(context):
    until_told(context)

@dg.job(executor_def=dg.in_process_executor, tags={"crypto_assets/job": "hangs"})
def hangs():
    hang()

@dg.job(executor_def=dg.in_process_executor)
def holds():
    hold()

@dg.sensor(
    jobs=[hangs, holds],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def asked(context):
    for path in sorted((HERE / "asked").iterdir()):
        yield dg.RunRequest(run_key=path.name, job_name=path.name.split("-")[0])

defs = dg.Definitions(jobs=[hangs, holds], sensors=[asked])
"""


@dataclass
class Place:
    """A home with the shipped settings and the jobs above, and what is known of its runs."""

    home: Path
    mark: str
    instance: dg.DagsterInstance

    def daemon(self, *code: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", *code],
            cwd=self.home,
            env=environment({"DAGSTER_HOME": str(self.home), "TEST_MARK": self.mark}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ask_for(self, job: str) -> None:
        (self.home / "asked" / f"{job}-{uuid.uuid4()}").touch()

    def may_end(self, allowed: bool) -> None:
        path = self.home / "may_end"
        path.touch() if allowed else path.unlink(missing_ok=True)

    def runs(self, job: str) -> list[dg.DagsterRun]:
        """The runs of a job, the first one first."""
        return list(self.instance.get_runs(dg.RunsFilter(job_name=job), ascending=True))

    def statuses(self, job: str) -> list[str]:
        return [run.status.value for run in self.runs(job)]

    def pid(self, run: dg.DagsterRun) -> int:
        path = self.home / "pids" / run.run_id
        return int(eventually("the run's process", 60, lambda: path.exists() and path.read_text()))

    def messages(self, run: dg.DagsterRun) -> str:
        events = [entry.dagster_event for entry in self.instance.all_logs(run.run_id)]
        return "\n".join(event.message or "" for event in events if event)


@contextlib.contextmanager
def open_place(home: Path, changes: Mapping[str, str]) -> Iterator[Place]:
    """Yield a place whose daemon runs; `changes` are made to the shipped settings."""
    text = SHIPPED.read_text()
    for shipped, changed in changes.items():
        assert text.count(f" {shipped}\n") == 1, shipped
        text = text.replace(f" {shipped}\n", f" {changed}\n")
    (home / "dagster.yaml").write_text(text.replace("base_dir: data", f"base_dir: {home}"))
    (home / "jobs.py").write_text(JOBS)
    for folder in ("asked", "pids"):
        (home / folder).mkdir()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.event_log_storage.set_concurrency_slots("the_only_one", 1)
        opened = Place(home, f"mark-{uuid.uuid4()}", instance)
        daemon = opened.daemon("-f", "jobs.py")
        try:
            yield opened
        finally:
            for left in [daemon.pid, *carrying(opened.mark)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)
            daemon.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with open_place(tmp_path_factory.mktemp("place"), SHORTER) as opened:
        yield opened


def run_of(place: Place, job: str, number: int) -> dg.DagsterRun:
    eventually(f"run {number} of {job}", 60, lambda: len(place.runs(job)) > number)
    return place.runs(job)[number]


def ended(place: Place, job: str, number: int) -> str:
    run_of(place, job, number)
    eventually("its end", 60, lambda: place.runs(job)[number].status in ENDED)
    return place.statuses(job)[number]


def kill_who_holds_the_slot(place: Place) -> None:
    place.may_end(False)
    place.ask_for("holds")
    os.kill(place.pid(run_of(place, "holds", 0)), signal.SIGKILL)
    place.may_end(True)
    assert ended(place, "holds", 0) == "FAILURE"
    assert ended(place, "holds", 1) == "SUCCESS"  # its retry
    place.ask_for("holds")
    assert ended(place, "holds", 2) == "SUCCESS"


def test_a_slot_of_a_pool_comes_back_from_a_killed_worker(place: Place) -> None:
    kill_who_holds_the_slot(place)


def test_it_does_where_pools_are_counted_by_op_as_well(tmp_path: Path) -> None:
    by_op = {**SHORTER, "granularity: run": "granularity: op"}
    with open_place(tmp_path, by_op) as place:
        kill_who_holds_the_slot(place)


def test_a_run_that_hangs_is_ended_and_its_job_is_free_again(place: Place) -> None:
    place.may_end(False)
    place.ask_for("hangs")
    hung = run_of(place, "hangs", 0)
    pid = place.pid(hung)
    place.ask_for("hangs")
    assert ended(place, "hangs", 0) == "FAILURE"
    assert "exceeding maximum runtime of 12 seconds" in place.messages(hung)
    eventually("the end of its process", 20, lambda: not Path(f"/proc/{pid}").exists())
    place.may_end(True)
    # The one that was asked for, and the retry of the one that hung.
    assert {ended(place, "hangs", number) for number in (1, 2)} == {"SUCCESS"}
    first, *others = place.instance.get_run_records(dg.RunsFilter(job_name="hangs"), ascending=True)
    assert len(others) == 2
    assert all((other.start_time or 0) >= (first.end_time or 1) for other in others)


def test_two_daemons_on_one_home_are_told(place: Place) -> None:
    (place.home / "empty.yaml").write_text(yaml.safe_dump({"load_from": []}))
    look = looking(place)
    assert not look()
    second = place.daemon("-w", "empty.yaml")
    try:
        eventually("the second daemon to be told", 90, look)
    finally:
        second.kill()
        second.wait()


def looking(place: Place) -> Callable[[], Any]:
    seen = Seen()

    def look() -> bool:
        nonlocal seen
        statuses = place.instance.get_daemon_statuses().values()
        seen, is_two = observe(statuses, seen)
        return is_two

    return look
