"""What becomes of runs whose process died: noticed by their locks, marked failed, tried once more.

Only the server that started a run knows when its process dies; where both died (a kill, a power
cut, no memory left) the run would stay "started", and its job wait for it, for hours.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.monitoring import liveness
from crypto_assets.settings import Settings

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.retries import RetryMode

NO_RETRY = {"dagster/max_retries": "0"}
"""Tags of a run that only the process that made it can do."""


class _Showing(dg.Executor):
    """Executes as another executor does, and shows meanwhile that the run is alive."""

    def __init__(self, inner: dg.Executor, home: Path) -> None:
        self._inner = inner
        self._home = home

    @property
    def retries(self) -> "RetryMode":
        return self._inner.retries

    def execute(
        self, plan_context: "PlanOrchestrationContext", execution_plan: "ExecutionPlan"
    ) -> Iterator[dg.DagsterEvent]:
        with liveness.held(self._home, plan_context.run_id):
            yield from self._inner.execute(plan_context, execution_plan)


def in_process_executor(home: Path) -> dg.ExecutorDefinition:
    """Return Dagster's executor for one process a run; its runs show that they are alive."""
    dagsters = dg.in_process_executor

    def make(context: dg.InitExecutorContext) -> dg.Executor:
        if dagsters.executor_creation_fn is None:
            raise TypeError("Dagster's own executor can't be made")
        return _Showing(dagsters.executor_creation_fn(context), home)

    return dg.ExecutorDefinition(
        name=dagsters.name,
        config_schema=dagsters.config_schema.as_field(),
        executor_creation_fn=make,
        description=dagsters.description,
    )


def build_dead_runs_sensor(settings: Settings) -> dg.SensorDefinition:
    """Return the sensor; it works where schedules are off as well, since any run can die."""

    @dg.sensor(
        name="dead_runs",
        description="Marks runs as failed whose process died, so that they are tried once more.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        found = bury(settings.home, context.instance)
        return dg.SkipReason(
            f"Marked as failed: {', '.join(found)}." if found else "No run is dead."
        )

    return dead_runs_sensor


def bury(home: Path, instance: dg.DagsterInstance) -> list[str]:
    """Mark the runs of dead processes as failed and return their ids."""
    found = []
    for run_id in liveness.left_behind(home):
        run = instance.get_run_by_id(run_id)
        # One that is starting or being canceled is ended by Dagster's own run monitoring.
        if run is not None and run.status == dg.DagsterRunStatus.STARTED:
            instance.report_run_failed(run, message=_what_happened(run))
            found.append(run_id)
        liveness.forget(home, run_id)
    return found


def _what_happened(run: dg.DagsterRun) -> str:
    what = "The process of this run died before it ended (a kill, a restart, or no memory left); "
    if run.tags.items() >= NO_RETRY.items():
        return f"{what}it was started from the command line: give the command again."
    return f"{what}it is tried once more, and takes up what it had fetched."
