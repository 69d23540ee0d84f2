"""What Dagster's history of a home tells of its newest runs."""

from pathlib import Path

import dagster as dg


def step_seconds(home: Path, step: str) -> float:
    """Return how long a step of the newest run that has it took: fetch, validation, store."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for run in instance.get_runs(limit=10):
            for event in instance.all_logs(run.run_id, dg.DagsterEventType.STEP_SUCCESS):
                found = event.dagster_event
                if found and found.step_key == step:
                    return float(found.step_success_data.duration_ms) / 1000
    raise LookupError(f"no run of {home} had a step {step} that ended well")
