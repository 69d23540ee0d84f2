"""What Dagster's runs tell: what is running, and whose last run failed for good."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from crypto_assets.periods import wall_now

BY_HAND = ("__ASSET_JOB", "everything")
"""Jobs that no schedule starts: Dagster's button "Materialize" and the command line."""
LAPSING = (*BY_HAND, "healing_refresh", "derived_refresh")
"""Jobs that run when there is something to do, so that no later run need ever follow."""
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_WILL_RETRY = "dagster/will_retry"
_NEWS = timedelta(days=1)
# Enough to look past runs that wait for their retry.
_LOOKED_AT = 5


@dataclass(frozen=True)
class RunState:
    """One run: its job, status and since when it has that status, by the machine's clock (UTC)."""

    job: str
    run_id: str
    status: str
    since: datetime
    reason: str = ""
    """Why it failed, in the platform's own words."""


def unfinished_runs(instance: dg.DagsterInstance) -> list[RunState]:
    """Return the runs that are queued or running, newest first."""
    records = instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED))
    return [_state(record) for record in records]


def failed_jobs(
    instance: dg.DagsterInstance, jobs: Iterable[str], lapsing: Collection[str] = ()
) -> list[RunState]:
    """Return, for each job whose last ended run failed and is not tried again, that run.

    What failed of `lapsing` jobs is no news after a day: nobody has to run them again.
    """
    found = []
    for job in jobs:
        filters = dg.RunsFilter(job_name=job, statuses=_ENDED)
        records = instance.get_run_records(filters, limit=_LOOKED_AT)
        settled = [r for r in records if r.dagster_run.tags.get(_WILL_RETRY) != "true"]
        if settled and settled[0].dagster_run.status == dg.DagsterRunStatus.FAILURE:
            failed = _state(settled[0], why(instance, settled[0].dagster_run.run_id))
            if job not in lapsing or wall_now() - failed.since < _NEWS:
                found.append(failed)
    return found


def why(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return why a run failed: what its first failed step said, else what ended it."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run_id, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            error = getattr(event.event_specific_data, "error", None) if event else None
            step = f"{event.step_key}: " if event and event.step_key else ""
            if error:
                return step + innermost(error)
            if event and event.message:
                return step + event.message
    return "unknown"


def innermost(error: Any) -> str:
    """Return what the platform said, without the frameworks it passed through."""
    if error is None:
        return "unknown"
    while error.cause is not None:
        error = error.cause
    text = error.message.strip()
    return str(text.split(": ", 1)[1] if ": " in text.splitlines()[0] else text)


def _state(record: dg.RunRecord, reason: str = "") -> RunState:
    run = record.dagster_run
    stamp = record.end_time or record.start_time
    moment = (
        datetime.fromtimestamp(stamp, UTC).replace(tzinfo=None)
        if stamp
        else record.create_timestamp.astimezone(UTC).replace(tzinfo=None)
    )
    return RunState(run.job_name, run.run_id, run.status.value, moment, reason)
