"""A platform of its own processes on a home whose providers are in the test's process."""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import requests
import yaml

from crypto_assets.periods import CANDLES_READY_AFTER, wall_now
from crypto_assets.sandbox import Market, SandboxServer
from crypto_assets.settings import load_settings, sandbox_base_urls
from crypto_assets.warehouse.staleness import SETTLING
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets_tests.operations.commands import carrying, command, environment, free_port

COINS, DAYS = 8, 5
NEVER = "0 0 1 1 *"
LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
ENDED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}


def eventually(what: str, seconds: float, look_for: Callable[[], Any]) -> Any:
    """Wait until this returns something, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := look_for()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return found


@dataclass
class Up:
    """One `crypto-assets up` and all that it has started, which carry a mark."""

    home: Path
    port: int
    mark: str
    process: "subprocess.Popen[bytes]"

    @property
    def prints(self) -> str:
        return (self.home.parent / f"{self.mark}.txt").read_text()

    def is_answering(self) -> bool:
        assert self.process.poll() is None, self.prints
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{self.port}/server_info", timeout=5).ok
        return False

    def when_it_answers(self) -> "Up":
        """Wait until the UI is there."""
        eventually("the webserver", 90, self.is_answering)
        return self

    def launch(self, job: str, tables: tuple[str, ...], first: date, last: date) -> str:
        """Launch a run as the UI does, and return its id."""
        bounds = {"start": first, "end": last}
        tags = [
            {"key": f"dagster/asset_partition_range_{name}", "value": str(day)}
            for name, day in bounds.items()
        ]
        asked = {
            "selector": {
                "repositoryLocationName": "crypto_assets.definitions",
                "repositoryName": "__repository__",
                "jobName": job,
                "assetSelection": [{"path": [table]} for table in tables],
            },
            "executionMetadata": {"tags": tags},
            "runConfigData": {},
        }
        body = {"query": LAUNCH, "variables": {"p": asked}}
        url = f"http://127.0.0.1:{self.port}/graphql"
        answer = requests.post(url, json=body, timeout=60).json()
        assert "errors" not in answer, answer
        launched = answer["data"]["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return str(launched["run"]["runId"])

    def kill(self, *pids: int) -> None:
        for pid in pids or (self.process.pid,):
            os.kill(pid, signal.SIGKILL)

    def pid_of(self, program: str) -> int:
        """The process that is this program, on its leash."""
        (found,) = (pid for pid in carrying(self.mark) if program in words(pid))
        return found

    def end(self) -> int:
        """End it as a person does, and whatever is left of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(90)
        for left in carrying(self.mark):
            os.kill(left, signal.SIGKILL)
        return code


def start(home: Path) -> Up:
    """Start the platform of a home; who starts it ends it."""
    port, mark = free_port(), f"mark-{uuid.uuid4()}"
    with (home.parent / f"{mark}.txt").open("w") as prints:
        process = subprocess.Popen(
            command("up", "--home", home, "--port", port),
            cwd=home.parent,
            env=environment({"TEST_MARK": mark}),
            stdout=prints,
            stderr=subprocess.STDOUT,
        )
    return Up(home, port, mark, process)


def words(pid: int) -> list[str]:
    """How a process was started."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


@dataclass
class Site:
    """A home with a live clock, its providers, and the platforms that were started on it."""

    home: Path
    server: SandboxServer
    open: contextlib.ExitStack
    # The last closed day for which everything is out, and that is healing's to bring.
    last: date
    started: list[Up] = field(default_factory=list)

    @property
    def first(self) -> date:
        """The first of the closed days."""
        return self.last - timedelta(days=DAYS - 1)

    def write_settings(self, sections: dict[str, Any] | None = None, **crons: str) -> None:
        """Make it a sandbox home; schedules run by these cron expressions only, if any."""
        tree: dict[str, Any] = sandbox_base_urls(self.server.url)
        tree |= {
            "sandbox": {"seed": self.server.seed},
            "universe": {"tracked": COINS},
            "history": {"start": str(self.first)},
            "fetch": {"threads": 2},
        }
        names = ("market_refresh", "hourly_candles", "fear_greed", "daily_close", "etf_flows")
        upkeep = ("restatements", "backup", "housekeeping", "status_report")
        others = dict.fromkeys((*names, *upkeep), NEVER)
        tree["schedules"] = {"enabled": bool(crons), **others, **crons}
        tree |= sections or {"healing": {"enabled": False}}
        self.home.mkdir(exist_ok=True)
        (self.home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))

    def up(self) -> Up:
        """Start the platform and wait until its UI answers."""
        self.started.append(start(self.home))
        return self.started[-1].when_it_answers()

    def end(self) -> None:
        for started in self.started:
            started.end()

    @property
    def warehouse(self) -> Warehouse:
        """The pipeline's own file."""
        return Warehouse.of(load_settings(self.home))

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """Dagster's history of the home, once a platform was started."""
        return self.open.enter_context(dg.DagsterInstance.from_config(str(self.home)))

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found
        return found

    def worker(self, run_id: str) -> int:
        """Wait until the run shows that it is alive, and return its process."""
        lock = self.home / "runs" / f"{run_id}.lock"
        eventually("the run's process", 90, lock.exists)
        return int(lock.read_text())

    def ended(self, run_id: str, seconds: float) -> dg.DagsterRun:
        """Wait for the end of a run."""
        eventually(f"the end of run {run_id}", seconds, lambda: self.run(run_id).status in ENDED)
        return self.run(run_id)

    def retries(self, run_id: str) -> list[dg.DagsterRun]:
        again = dg.RunsFilter(tags={"dagster/root_run_id": run_id})
        return list(self.instance.get_runs(again))


@contextlib.contextmanager
def open_site(folder: Path, market: Market) -> Iterator[Site]:
    """Yield a site; at the end nothing of what was started on it is left."""
    with SandboxServer(market=market) as server, contextlib.ExitStack() as opened:
        out_by = wall_now() - CANDLES_READY_AFTER - SETTLING
        site = Site(folder / "home", server, opened, out_by.date() - timedelta(days=1))
        try:
            yield site
        finally:
            site.end()
