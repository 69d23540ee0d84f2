"""Running assets for days, in this process, on the home's persistent Dagster instance."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date
from difflib import get_close_matches

import dagster as dg

from crypto_assets.assets.planning import over_budget
from crypto_assets.assets.platform import Platform
from crypto_assets.automation import jobs
from crypto_assets.automation.dead_runs import NO_RETRY
from crypto_assets.automation.schedules import CATCH_UP_DAYS, range_tags
from crypto_assets.definitions import build_definitions
from crypto_assets.monitoring import liveness
from crypto_assets.monitoring.runs import innermost
from crypto_assets.operations.errors import OperationError
from crypto_assets.periods import DAY
from crypto_assets.settings import Settings
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.coverage import unfinished_days
from crypto_assets.warehouse.staleness import recalculation
from crypto_assets.warehouse.warehouse import Warehouse

Progress = Callable[[str, int, int], None]
"""Called with the step that runs, how many have ended and how many there are."""

_POLL_SECONDS = 0.5
_ENDS = {dg.DagsterEventType.STEP_SUCCESS, dg.DagsterEventType.STEP_FAILURE}


@dataclass
class RunReport:
    """What a run did: by table, how long and how many rows changed; what failed and why."""

    run_id: str
    succeeded: bool
    seconds: dict[str, float] = field(default_factory=dict)
    rows_changed: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    checks_passed: int = 0
    checks_failed: list[str] = field(default_factory=list)

    def add(self, other: "RunReport") -> None:
        """Take in the report of a later run."""
        self.succeeded = self.succeeded and other.succeeded
        for table, seconds in other.seconds.items():
            self.seconds[table] = self.seconds.get(table, 0.0) + seconds
        for table, rows in other.rows_changed.items():
            self.rows_changed[table] = self.rows_changed.get(table, 0) + rows
        self.failures |= other.failures
        self.checks_passed += other.checks_passed
        self.checks_failed += other.checks_failed


def unfinished(settings: Settings) -> tuple[date, date] | None:
    """Return the first and last day on which any table lacks something it could have by now."""
    warehouse = Warehouse.of(settings)
    clock = settings.clock
    if not warehouse.path.exists():
        return settings.history.start, clock.today()
    left = unfinished_days(warehouse, settings.history.start, clock.now())
    return (left[0], left[-1]) if left else None


def refresh_range(settings: Settings) -> tuple[date, date]:
    """Return the days a refresh asks for: from the first unfinished one of the last week to today.

    Older days are for a backfill, which may cost many calls.
    """
    today = settings.clock.today()
    found = unfinished(settings)
    first = max(found[0] if found else today, today - CATCH_UP_DAYS * DAY)
    return max(first, settings.history.start), today


def fill(
    settings: Settings,
    instance: dg.DagsterInstance,
    tables: Sequence[str],
    days: tuple[date, date],
    progress: Progress,
) -> RunReport:
    """Materialize tables for days [first, last], then what was calculated from what changed."""
    report = run(settings, instance, tables, days, progress)
    if not report.succeeded:
        return report
    needed = recalculation(
        Warehouse.of(settings), settings.clock.now(), settings.signals.span_pairs
    )
    if needed:
        days = (needed.first, needed.last)
        report.add(run(settings, instance, needed.tables, days, progress))
    return report


def refuse_beyond_budget(
    settings: Settings, tables: Sequence[str], days: tuple[date, date]
) -> None:
    """Raise `OperationError` where filling needs more credits than the month has left."""
    refuse_impossible(settings, tables, days)
    with closing(Platform(settings)) as platform:
        problem = over_budget(platform, tables, *days)
    if problem:
        raise OperationError(problem)


def run(
    settings: Settings,
    instance: dg.DagsterInstance,
    tables: Sequence[str],
    days: tuple[date, date],
    progress: Progress,
) -> RunReport:
    """Materialize tables for days [first, last] in one run. Never raises for a failed step."""
    refuse_impossible(settings, tables, days)
    job = build_definitions(settings).resolve_job_def(jobs.EVERYTHING.name)
    run_id = str(uuid.uuid4())
    alive = liveness.held(settings.home, run_id)
    with alive, _watched(instance, run_id, len(tables), progress):
        result = job.execute_in_process(
            instance=instance,
            run_id=run_id,
            asset_selection=[dg.AssetKey(table) for table in tables],
            tags={**range_tags(*days), jobs.JOB_TAG: jobs.EVERYTHING.name, **NO_RETRY},
            # What went wrong is told once, by whoever called; the whole log is in the UI.
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    return _report(result)


def refuse_impossible(settings: Settings, tables: Sequence[str], days: tuple[date, date]) -> None:
    """Raise `OperationError` for assets or days that this home can't have."""
    unknown = [table for table in tables if table not in TABLES]
    if unknown or not tables:
        close = [found for name in unknown for found in get_close_matches(name, TABLES, n=1)]
        hint = f"did you mean {' '.join(close)}? " if close else ""
        raise OperationError(
            f"there is no asset {', '.join(unknown) or 'named'}: {hint}choose from "
            f"{', '.join(TABLES)}"
        )
    first, last = days
    start, today = settings.history.start, settings.clock.today()
    if not start <= first <= last <= today:
        order = "the first day comes after the last, " if first > last else ""
        raise OperationError(
            f"can't fill {first} to {last}: {order}this home begins on {start} (setting "
            f"history.start) and today is {today} UTC; choose --from and --to within"
        )


@contextmanager
def _watched(
    instance: dg.DagsterInstance, run_id: str, tables: int, progress: Progress
) -> Iterator[None]:
    """Report progress from the run's own event log while the run goes on in this thread."""
    ended = threading.Event()
    # Each table is a step of its own and one of its checks.
    steps = 2 * tables

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            done, current = _steps_so_far(instance, run_id)
            progress(current, done, steps)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _steps_so_far(instance: dg.DagsterInstance, run_id: str) -> tuple[int, str]:
    records = instance.get_records_for_run(
        run_id, of_type={dg.DagsterEventType.STEP_START, *_ENDS}
    ).records
    events = [record.event_log_entry.dagster_event for record in records]
    ended = [e.step_key for e in events if e and e.event_type in _ENDS]
    running = [e.step_key for e in events if e and e.step_key not in ended]
    return len(ended), (running[-1] if running else None) or "starting"


def _report(result: dg.ExecuteInProcessResult) -> RunReport:
    report = RunReport(result.run_id, result.success)
    if not result.success:
        for event in result.all_events:
            if event.event_type == dg.DagsterEventType.RUN_FAILURE:
                error = getattr(event.event_specific_data, "error", None)
                report.failures["the run"] = innermost(error) if error else event.message or ""
    for event in result.all_node_events:
        step = event.step_key or ""
        if event.is_step_success and step in TABLES:
            report.seconds[step] = event.step_success_data.duration_ms / 1000
        elif event.is_step_failure:
            report.failures[step] = innermost(event.step_failure_data.error)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            said = event.asset_check_evaluation_data
            name = f"{said.asset_key.path[-1]}: {said.check_name} ({said.severity.value})"
            if said.passed:
                report.checks_passed += 1
            else:
                report.checks_failed.append(name)
        elif event.is_step_materialization:
            changed = event.materialization.metadata.get("rows_changed")
            # A range has one materialization a day, each with the same total.
            report.rows_changed[step] = int(changed.value) if changed else 0  # type: ignore[arg-type]
    if len(report.failures) > 1:
        # A step says it better than the run that failed by it.
        report.failures.pop("the run", None)
    return report
