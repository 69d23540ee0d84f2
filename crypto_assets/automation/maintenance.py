"""Jobs that keep a home in order: backups, and clearing away what piles up. No data is fetched."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.automation.jobs import JOB_TAG
from crypto_assets.providers.raw import RawStore
from crypto_assets.settings import Settings, ticks
from crypto_assets.tables import TABLES
from crypto_assets.warehouse import backups
from crypto_assets.warehouse.places import Place
from crypto_assets.warehouse.publishing import read_state
from crypto_assets.warehouse.reading import connect

if TYPE_CHECKING:
    from dagster import JobDefinition

BACKUP = "backup"
HOUSEKEEPING = "housekeeping"
_RECORDS_AT_ONCE = 500
_ENDED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


@dataclass(frozen=True)
class Cleared:
    """What housekeeping took away, and how large the home is and may become."""

    runs: int
    responses: int
    backups: int
    home_bytes: int
    bytes_a_run: int
    """What one run leaves in Dagster's history, on average."""
    runs_a_day: int
    """How often the schedules start one."""

    def history_bytes(self, days: int) -> int:
        """Return what Dagster's history takes if it is kept so many days."""
        return self.bytes_a_run * self.runs_a_day * days


def backup_place(settings: Settings) -> str:
    """Return where the backups of a home go."""
    return settings.backup.url or str(settings.home / "backups")


def clear_away(settings: Settings, instance: dg.DagsterInstance) -> Cleared:
    """Prune runs, responses and backups as the settings say; running runs stay."""
    before = datetime.now(UTC) - timedelta(days=settings.housekeeping.keep_runs_days)
    old = _old_runs(instance, before) - _runs_of_newest_partitions(instance)
    for run_id in old:
        instance.delete_run(run_id)
        _remove_files_of(settings.home, run_id)
    _remove_old_prints(settings.home / "logs", before.timestamp())
    kept = settings.raw
    raw = RawStore(settings.home / "raw" / "responses.sqlite")
    try:
        keep_from = settings.clock.now() - timedelta(days=kept.keep_days)
        responses = raw.bound(keep_from, kept.keep_megabytes * 1_000_000)
    finally:
        raw.close()
    gone = _prune_backups(settings)
    history = _size(settings.home / "dagster") + _size(settings.home / "logs")
    left = instance.get_runs_count()
    return Cleared(
        len(old),
        responses,
        len(gone),
        _size(settings.home),
        history // left if left else 0,
        _runs_a_day(settings),
    )


def build_maintenance(settings: Settings) -> "dict[str, JobDefinition]":
    """Return the jobs by name."""

    @dg.op(name="write_backup", description="Write the newest publication to the backups.")
    def write_backup(context: dg.OpExecutionContext) -> None:
        place, manifest = backups.backup(
            settings.home, backup_place(settings), settings.backup.format
        )
        gone = backups.prune(backup_place(settings), settings.backup.keep, manifest.warehouse_id)
        rows = sum(table.rows for table in manifest.tables.values())
        context.log.info(f"Backed up {rows:,} rows to {place}; {len(gone)} old backups went.")

    @dg.op(name="clear_away", description="Clear away old runs, responses and backups.")
    def clear(context: dg.OpExecutionContext) -> None:
        done = clear_away(settings, context.instance)
        kept_days = settings.housekeeping.keep_runs_days
        context.log.info(
            f"Cleared away {done.runs} runs, {done.responses} responses, {done.backups} backups; "
            f"the home takes {done.home_bytes / 1e6:,.0f} MB. {done.runs_a_day} runs a day leave "
            f"{done.bytes_a_run / 1e6:,.2f} MB each: kept for {kept_days} days "
            f"{done.history_bytes(kept_days) / 1e6:,.0f} MB, for a year "
            f"{done.history_bytes(365) / 1e6:,.0f} MB."
        )

    @dg.job(
        name=BACKUP,
        description="A backup of the newest publication.",
        tags={JOB_TAG: BACKUP},
    )
    def backup() -> None:
        write_backup()

    @dg.job(
        name=HOUSEKEEPING,
        description="Old runs, responses and backups are cleared away.",
        tags={JOB_TAG: HOUSEKEEPING},
    )
    def housekeeping() -> None:
        clear()

    return {BACKUP: backup, HOUSEKEEPING: housekeeping}


def _prune_backups(settings: Settings) -> list[Place]:
    if read_state(settings.home).version == 0:
        return []
    with connect(settings.home) as connection:
        of = backups.warehouse_id(connection)
    return backups.prune(backup_place(settings), settings.backup.keep, of)


def _remove_files_of(home: Path, run_id: str) -> None:
    """Remove what Dagster leaves of a run that it has deleted: an emptied file, and its prints."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (home / "dagster" / "history" / "runs" / f"{run_id}.db{suffix}").unlink(missing_ok=True)
    shutil.rmtree(home / "logs" / run_id, ignore_errors=True)


def _remove_old_prints(folder: Path, before: float) -> None:
    """Remove what runs and the ticks of schedules and sensors printed before then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        with suppress(OSError):
            if path.stat().st_mtime >= before:
                continue
            if path.is_dir():
                path.rmdir()  # only where nothing is left in it
            else:
                path.unlink()


def _runs_a_day(settings: Settings) -> int:
    crons = [cron for cron in settings.schedules.model_dump().values() if isinstance(cron, str)]
    return sum(len(ticks(cron, settings.clock.today())) for cron in crons)


def _old_runs(instance: dg.DagsterInstance, before: datetime) -> set[str]:
    filters = dg.RunsFilter(statuses=_ENDED, created_before=before)
    return {run.run_id for run in instance.get_runs(filters)}


def _runs_of_newest_partitions(instance: dg.DagsterInstance) -> set[str]:
    """Return the runs behind what the UI shows of each partition: without them it shows none."""
    found: set[str] = set()
    for table in TABLES:
        key = dg.AssetKey(table)
        event = instance.get_latest_materialization_event(key)
        found |= {event.run_id} if event else set()
        newest = instance.get_latest_storage_id_by_partition(
            key, dg.DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = sorted(newest.values())
        for start in range(0, len(ids), _RECORDS_AT_ONCE):
            some = ids[start : start + _RECORDS_AT_ONCE]
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)
            ).records
            found |= {record.run_id for record in records}
    return found


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; what vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += 0 if path.is_symlink() or path.is_dir() else path.stat().st_size
        except FileNotFoundError:
            continue
    return total
