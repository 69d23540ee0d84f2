"""Days of unattended running in minutes: the daemon's ticks, with time as the only thing mocked.

Every schedule and sensor is evaluated through the definitions, and what they request is run on a
real Dagster instance against the sandbox over HTTP.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from crypto_assets import periods
from crypto_assets.definitions import build_definitions
from crypto_assets.sandbox import Market, SandboxServer
from crypto_assets.settings import Settings, sandbox_base_urls, ticks, validated
from crypto_assets.warehouse.warehouse import Warehouse

SENSORS = ("dead_runs", "stale_days", "healing", "watch")
# How often the sensors look, instead of every minute and every five.
LOOK_EVERY = timedelta(hours=1)
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class Ran:
    """One run: when, of which job, and how it ended."""

    at: datetime
    job: str
    succeeded: bool


@dataclass
class Simulation:
    """A home, its sandbox and its clock. `play()` goes on to a moment, tick by tick."""

    settings: Settings
    server: SandboxServer
    instance: dg.DagsterInstance
    now: datetime
    runs: list[Ran] = field(default_factory=list)
    on_look: Callable[[], None] = lambda: None
    """Called after each look of the sensors."""

    def __post_init__(self) -> None:
        self.definitions = build_definitions(self.settings)
        self.repository = self.definitions.get_repository_def()
        self._crons = {s.name: str(s.cron_schedule) for s in self.repository.schedule_defs}

    @property
    def warehouse(self) -> Warehouse:
        """The pipeline's own file."""
        return Warehouse.of(self.settings)

    def sql(self, query: str, *values: Any) -> pd.DataFrame:
        """Ask the pipeline's own file."""
        return self.warehouse.query(query, list(values))

    def at(self, moment: datetime) -> None:
        """Let it be this moment, for the platform and for the providers."""
        self.now = moment
        self.server.clock.set(moment)

    def play(self, until: datetime) -> None:
        """Go on to `until` (excluded): each tick of each schedule, each look of each sensor."""
        for moment, names in self._events(self.now, until):
            self.at(moment)
            for name in names:
                self._tick(name, moment)
            if not names:
                for name in SENSORS:
                    self._look(name)
                self.on_look()
        self.at(until)

    def switch_off(self, until: datetime) -> None:
        """Let time pass without the machine; afterwards each schedule catches up once."""
        missed: dict[str, datetime] = {}
        for moment, names in self._events(self.now, until):
            missed |= dict.fromkeys(names, moment)
        self.at(until)
        for name, moment in missed.items():
            self._tick(name, moment)

    def _events(self, first: datetime, until: datetime) -> list[tuple[datetime, list[str]]]:
        by_moment: dict[datetime, list[str]] = {}
        for day in periods.days(first.date(), until.date()):
            for name, cron in self._crons.items():
                for moment in ticks(cron, day):
                    by_moment.setdefault(moment, []).append(name)
        look = first.replace(minute=5)
        while look < until:
            by_moment.setdefault(look, [])
            look += LOOK_EVERY
        return sorted((m, n) for m, n in by_moment.items() if first <= m < until)

    def _tick(self, name: str, moment: datetime) -> None:
        schedule = self.definitions.resolve_schedule_def(name)
        stamp = moment.replace(tzinfo=UTC)
        with dg.build_schedule_context(
            instance=self.instance, scheduled_execution_time=stamp, repository_def=self.repository
        ) as context:
            result = schedule.evaluate_tick(context)
        for request in result.run_requests or ():
            self._run(schedule.job_name, request)

    def _look(self, name: str) -> None:
        sensor = self.definitions.resolve_sensor_def(name)
        with dg.build_sensor_context(
            instance=self.instance, repository_def=self.repository
        ) as context:
            result = sensor.evaluate_tick(context)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        for request in result.run_requests or ():
            self._run(sensor.job_name, request)

    def _run(self, job_name: str, request: dg.RunRequest) -> None:
        job = self.definitions.resolve_job_def(job_name)
        result = job.execute_in_process(
            instance=self.instance,
            asset_selection=request.asset_selection,
            tags=dict(request.tags),
            run_config=_QUIET,
            raise_on_error=False,
        )
        self.runs.append(Ran(self.now, job_name, result.success))


@contextmanager
def open_simulation(
    home: Path,
    market: Market,
    start: datetime,
    monkeypatch: pytest.MonkeyPatch,
    **sections: Any,
) -> Iterator[Simulation]:
    """Yield a simulation that stands at `start`; `sections` are sections of the settings."""
    with (
        SandboxServer(market=market, clock=start) as server,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        tree: dict[str, Any] = sandbox_base_urls(server.url) | {
            "home": home,
            "sandbox": {"seed": server.seed},
            **sections,
        }
        simulation = Simulation(validated(tree), server, instance, start)
        monkeypatch.setattr(periods, "wall_now", lambda: simulation.now)
        yield simulation


def filled(simulation: Simulation, tables: Sequence[str], first: date, last: date) -> None:
    """Fill tables of days, as someone does who starts with a home."""
    from crypto_assets.operations.running import fill

    report = fill(simulation.settings, simulation.instance, tables, (first, last), lambda *_: None)
    assert report.succeeded, report.failures
