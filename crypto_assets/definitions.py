"""All parts put together. Dagster loads `defs`; tests call `build_definitions`."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from crypto_assets.assets.build import build_assets, daily_partitions
from crypto_assets.assets.resource import platform_resource
from crypto_assets.automation.dead_runs import build_dead_runs_sensor, in_process_executor
from crypto_assets.automation.jobs import REFRESHES, build_jobs
from crypto_assets.automation.maintenance import build_maintenance
from crypto_assets.automation.schedules import build_schedules, build_upkeep_schedules
from crypto_assets.automation.sensors import build_sensors
from crypto_assets.automation.watching import STATUS_REPORT, build_status_report, job_names
from crypto_assets.checks.build import build_checks
from crypto_assets.checks.freshness import freshness_policies
from crypto_assets.settings import Settings, load_settings
from crypto_assets.warehouse.io_manager import WarehouseIOManager
from crypto_assets.warehouse.warehouse import FILE_NAME


def build_definitions(
    settings: Settings, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Return the platform for one set of settings; `resource_overrides` replace resources."""
    partitions = daily_partitions(settings.history.start)
    jobs = build_jobs()
    all_jobs = job_names()
    upkeep = {
        **build_maintenance(settings),
        STATUS_REPORT: build_status_report(settings, all_jobs),
    }
    resources: dict[str, Any] = {
        "io_manager": WarehouseIOManager(
            database=str(settings.home / FILE_NAME),
            is_sandbox=settings.is_sandbox,
            history_start=settings.history.start.isoformat(),
            large_megabytes=settings.publishing.large_megabytes,
            minutes_between=settings.publishing.minutes_between,
        ),
        "platform": platform_resource(settings, {job.name: job.tables for job in REFRESHES}),
    }
    return dg.Definitions(
        assets=build_assets(partitions, freshness_policies(settings)),
        asset_checks=build_checks(),
        jobs=[*jobs.values(), *upkeep.values()],
        schedules=[
            *build_schedules(settings, jobs),
            *build_upkeep_schedules(settings, upkeep),
        ],
        sensors=[
            *build_sensors(settings, jobs, all_jobs),
            build_dead_runs_sensor(settings),
        ],
        resources={**resources, **(resource_overrides or {})},
        # Network time is what costs, and threads inside a step serve that; a process a step
        # would multiply the time of a run by ten.
        executor=in_process_executor(settings.home),
    )


@dg.definitions
def defs() -> dg.Definitions:
    """Load the settings that are in force and build the platform."""
    return build_definitions(load_settings())
