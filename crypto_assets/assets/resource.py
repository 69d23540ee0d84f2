"""The platform as a Dagster resource: opened for a run, told no where the run costs too much.

Belongs here: what a run's tags and selection say. Does not belong here: the platform itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from pydantic import ValidationError

from crypto_assets.assets.choice import FetchChoice
from crypto_assets.assets.planning import over_budget
from crypto_assets.assets.platform import Platform
from crypto_assets.settings import Settings
from crypto_assets.warehouse.io_manager import RANGE_TAGS

RECHECK_TAG = "crypto_assets/recheck"
"""A run with it fetches the final days of a few coins again; its value is the day it is done on."""

_PARTITION_TAG = "dagster/partition"


def platform_resource(
    settings: Settings, tables_of_job: Mapping[str, Sequence[str]]
) -> dg.ResourceDefinition:
    """Return the resource that opens a platform for each run and closes it at its end.

    Where a run needs more credits than the month has, its first step that would ask CoinGecko
    fails: a failure here would be taken for a dead worker, and the run be started again.
    """

    @dg.resource(description="Settings, clock, warehouse and providers of this home.")
    def platform(context: dg.InitResourceContext) -> Iterator[Platform]:
        run = context.run
        opened = Platform(settings, run.run_id if run else "", context.log)
        try:
            if run is not None:
                told = run.tags.get(RECHECK_TAG)
                opened.recheck_on = date.fromisoformat(told) if told else None
                opened.refusal = _beyond_budget(opened, run, tables_of_job)
            yield opened
            opened.bound_raw_store()
        finally:
            opened.close()

    return platform


def _beyond_budget(
    platform: Platform, run: dg.DagsterRun, tables_of_job: Mapping[str, Sequence[str]]
) -> str | None:
    today = platform.clock.today()
    first, last = _days(run) or (today, today)
    if run.asset_selection:
        tables: Sequence[str] = sorted(key.path[-1] for key in run.asset_selection)
    else:
        tables = tables_of_job.get(run.job_name, ())
    last = min(last, today)
    if first > last:
        return None
    return over_budget(platform, tables, first, last, _choices(run))


def _choices(run: dg.DagsterRun) -> dict[str, FetchChoice]:
    """Return what the run's configuration chooses for its assets."""
    steps: Any = run.run_config.get("ops", {})
    told = {name: step.get("config") for name, step in steps.items()}
    return {name: _choice(config) for name, config in told.items() if config}


def _choice(config: Mapping[str, Any]) -> FetchChoice:
    try:
        return FetchChoice(**config)
    except ValidationError:
        # Only the step can read it, as where the environment has it: so the most it may ask for.
        return FetchChoice(force=True)


def _days(run: dg.DagsterRun) -> tuple[date, date] | None:
    first, last = (run.tags.get(tag, run.tags.get(_PARTITION_TAG)) for tag in RANGE_TAGS)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
