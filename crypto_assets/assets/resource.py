"""The platform as a Dagster resource: opened for a run, refused where the run costs too much.

Belongs here: what a run's tags and selection say. Does not belong here: the platform itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date

import dagster as dg

from crypto_assets.assets.planning import fetch_plan, refuse_beyond_budget
from crypto_assets.assets.platform import Platform
from crypto_assets.settings import Settings
from crypto_assets.warehouse.io_manager import RANGE_TAGS

_PARTITION_TAG = "dagster/partition"


def platform_resource(
    settings: Settings, tables_of_job: Mapping[str, Sequence[str]]
) -> dg.ResourceDefinition:
    """Return the resource that opens a platform for each run and closes it at its end.

    A run that needs more credits than the month has fails here, before its first step.
    """

    @dg.resource(description="Settings, clock, warehouse and providers of this home.")
    def platform(context: dg.InitResourceContext) -> Iterator[Platform]:
        run = context.run
        opened = Platform(settings, run.run_id if run else "", context.log)
        try:
            if run is not None and opened.plan.credits_per_month is not None:
                _refuse_beyond_budget(opened, run, tables_of_job)
            yield opened
        finally:
            opened.close()

    return platform


def _refuse_beyond_budget(
    platform: Platform, run: dg.DagsterRun, tables_of_job: Mapping[str, Sequence[str]]
) -> None:
    asked = _days(run)
    if run.asset_selection:
        tables: Sequence[str] = sorted(key.path[-1] for key in run.asset_selection)
    else:
        tables = tables_of_job.get(run.job_name, ())
    last = min(asked[1], platform.clock.today()) if asked else None
    if asked and last and asked[0] <= last:
        plan = fetch_plan(platform, tables, asked[0], last, platform.clock.now())
        refuse_beyond_budget(platform, plan)


def _days(run: dg.DagsterRun) -> tuple[date, date] | None:
    first, last = (run.tags.get(tag, run.tags.get(_PARTITION_TAG)) for tag in RANGE_TAGS)
    return (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
