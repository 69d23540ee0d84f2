"""What follows from data rather than from the clock: changed days ask for the days after them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.automation import jobs
from crypto_assets.automation.healing import build_healing_sensor
from crypto_assets.automation.schedules import range_tags
from crypto_assets.automation.watching import build_watch_sensor
from crypto_assets.monitoring.runs import unfinished_runs
from crypto_assets.settings import Settings
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.staleness import impatient, recalculation
from crypto_assets.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from crypto_assets.automation.jobs import AssetJob


def build_sensors(
    settings: Settings, by_name: "Mapping[str, AssetJob]", all_jobs: Sequence[str]
) -> list[dg.SensorDefinition]:
    """Return all sensors."""
    return [
        _stale_days_sensor(settings, by_name[jobs.DERIVED.name]),
        build_healing_sensor(settings, by_name[jobs.HEALING.name]),
        build_watch_sensor(settings, all_jobs),
    ]


def _stale_days_sensor(settings: Settings, job: "AssetJob") -> dg.SensorDefinition:
    running = dg.DefaultSensorStatus.RUNNING

    @dg.sensor(
        name="stale_days",
        job=job,
        description="Computes signals, ranks and snapshots again where what they are made of "
        "changed.",
        minimum_interval_seconds=300,
        default_status=running if settings.schedules.enabled else dg.DefaultSensorStatus.STOPPED,
    )
    def stale_days_sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if any(run.job == job.name for run in unfinished_runs(context.instance)):
            return dg.SkipReason("The last recalculation has not ended.")
        return request_for_stale_days(settings)

    return stale_days_sensor


def request_for_stale_days(settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Return one run from the first stale day to the last, or why there is none."""
    warehouse = Warehouse.of(settings)
    if not warehouse.path.exists():
        return dg.SkipReason("Nothing is stored yet.")
    try:
        needed = recalculation(
            impatient(warehouse), settings.clock.now(), settings.signals.span_pairs
        )
    except WarehouseError as error:
        return dg.SkipReason(str(error))
    if needed is None:
        return dg.SkipReason("Everything calculated is newer than what it is made of.")
    return dg.RunRequest(
        # What fails is asked for again when there is something new to go by, or after an hour.
        run_key=f"{needed.first} {needed.last} {needed.tables} {needed.newest_input_at} "
        f"{settings.clock.now():%Y-%m-%d %H}",
        asset_selection=[dg.AssetKey(name) for name in needed.tables],
        tags=range_tags(needed.first, needed.last),
    )
