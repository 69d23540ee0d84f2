"""Looking after the home: a sensor that alerts, a job that reports. Glue over `monitoring`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from crypto_assets import periods
from crypto_assets.automation.jobs import JOB_TAG, REFRESHES
from crypto_assets.automation.maintenance import BACKUP, HOUSEKEEPING
from crypto_assets.checks.freshness import FRESH, freshness_result
from crypto_assets.monitoring.alerts import AlertBook, Message
from crypto_assets.monitoring.attempts import AttemptsError
from crypto_assets.monitoring.channels import channels
from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.conditions import UNDELIVERED, conditions, standing, unreadable
from crypto_assets.monitoring.daemons import Seen, observe
from crypto_assets.monitoring.findings import Finding
from crypto_assets.monitoring.health import TWO_DAEMONS, Health, examine
from crypto_assets.monitoring.looking import SeriesDay, hopeless_days
from crypto_assets.monitoring.metrics import write_metrics
from crypto_assets.monitoring.report import report, write_report
from crypto_assets.monitoring.runs import BY_HAND
from crypto_assets.providers.usage import UsageError
from crypto_assets.settings import Settings
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import read_state

if TYPE_CHECKING:
    from dagster import JobDefinition

STATUS_REPORT = "status_report"
_FINDINGS, _LATE, _MISSING, _SEEN = "findings", "late", "missing", "daemons"


def job_names() -> list[str]:
    """Return the names of all jobs whose failure is told of."""
    upkeep = (BACKUP, HOUSEKEEPING, STATUS_REPORT)
    return list(dict.fromkeys([*(refresh.name for refresh in REFRESHES), *upkeep, *BY_HAND]))


def build_watch_sensor(settings: Settings, job_names: Sequence[str]) -> dg.SensorDefinition:
    """Return the sensor that looks at the home once a minute and tells what is wrong."""
    running = dg.DefaultSensorStatus.RUNNING

    @dg.sensor(
        name="watch",
        description="Tells the channels of the settings what is wrong, and what is over.",
        minimum_interval_seconds=60,
        default_status=running if settings.schedules.enabled else dg.DefaultSensorStatus.STOPPED,
    )
    def watch_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        with closing(AlertBook(settings.home)) as book:
            health = look_after(settings, context.instance, job_names, book)
            return dg.SensorResult(
                skip_reason=f"{len(book.since())} thing(s) are wrong, {book.undelivered()} "
                "message(s) wait for their channel.",
                asset_events=list(_changed_freshness(health, book)) if health else [],
            )

    return watch_sensor


def look_after(
    settings: Settings, instance: dg.DagsterInstance, job_names: Sequence[str], book: AlertBook
) -> Health | None:
    """Look at the home; tell what is wrong since the last look, and what is over.

    Returns none for a home that can't be read, which is told too.
    """
    _count_daemons(instance, book)
    looked_at = _looked_at(settings)
    known = _known_findings(looked_at, book)
    to = channels(settings.alerts.urls)
    try:
        health = examine(settings, instance, job_names, known)
    except (WarehouseError, AttemptsError, UsageError, OSError) as error:
        # Nothing that was wrong before can be said to be over.
        wrong = [unreadable(error, settings)]
        book.update(wrong, to, settings.clock.now(), is_all=False)
        book.deliver(to, settings.clock.now())
        write_metrics(settings.home, None, wrong)
        return None
    if known is None:
        # What withholds a publication is not of the published rows, and is looked up each time.
        kept = [asdict(finding) for finding in health.findings if not finding.withholds]
        book.keep(_FINDINGS, {"of": looked_at, "found": kept})
    wrong = conditions(health, settings)
    book.update([one for one in wrong if _is_told(one, settings)], to, health.at)
    book.deliver(to, health.at)
    write_metrics(settings.home, health, standing(wrong))
    return health


def build_status_report(settings: Settings, job_names: Sequence[str]) -> "JobDefinition":
    """Return the job that writes the report of a day, and sends it where that is wanted."""

    @dg.op(name="write_status_report", description="Write the report of the day.")
    def write(context: dg.OpExecutionContext) -> None:
        context.log.info(status_report(settings, context.instance, job_names))

    @dg.job(
        name=STATUS_REPORT,
        description="The report of the day: runs, rows, freshness, checks, budget, gaps, disk.",
        tags={JOB_TAG: STATUS_REPORT},
    )
    def status_report_job() -> None:
        write()

    return status_report_job


def status_report(
    settings: Settings, instance: dg.DagsterInstance, job_names: Sequence[str]
) -> str:
    """Write the report of the day into the home, put it into the outbox, and return it."""
    with closing(AlertBook(settings.home)) as book:
        health = examine(settings, instance, job_names)
        # The report is written by a run of its own, which is no news in it.
        others = [run for run in health.unfinished_runs if run.job != STATUS_REPORT]
        health = replace(health, unfinished_runs=others)
        missing = _missing(health)
        newly, healed_days = _healed(settings, book, missing, health.at.date())
        text = report(
            health,
            standing(conditions(health, settings)),
            book.since(),
            _ended(instance),
            healed_days,
        )
        write_report(settings.home, text, health.at.date())
        if settings.alerts.daily_report or newly:
            title = f"crypto_assets: {health.at:%Y-%m-%d}"
            body = text if settings.alerts.daily_report else _digest(healed_days)
            to = channels(settings.alerts.urls)
            book.post(Message("info", title, body), to, health.at)
            book.deliver(to, health.at)
    return text


def _is_told(condition: Condition, settings: Settings) -> bool:
    """Tell whether someone is told at once: failed WARN checks can wait for the report."""
    if condition.key == UNDELIVERED:
        return False
    return condition.is_error or not condition.of_check or settings.alerts.warnings


def _looked_at(settings: Settings) -> str:
    """Return what findings depend on: the published rows, and which days are the last ones."""
    try:
        version = read_state(settings.home).version
    except WarehouseError:
        return "nothing that can be read"
    return f"{version} {settings.clock.today()}"


def _count_daemons(instance: dg.DagsterInstance, book: AlertBook) -> None:
    seen, are_two = observe(
        instance.get_daemon_statuses().values(), Seen.from_text(book.recall(_SEEN))
    )
    book.keep(_SEEN, seen.to_text())
    book.keep(TWO_DAEMONS, are_two)


def _known_findings(looked_at: str, book: AlertBook) -> list[Finding] | None:
    kept = book.recall(_FINDINGS)
    # Another version of the program may have kept them.
    names = {field.name for field in fields(Finding)}
    if kept is None or kept["of"] != looked_at or any(set(f) != names for f in kept["found"]):
        return None
    return [
        Finding(
            **{
                **found,
                "first": date.fromisoformat(found["first"]),
                "last": date.fromisoformat(found["last"]),
            }
        )
        for found in kept["found"]
    ]


def _changed_freshness(health: Health, book: AlertBook) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the check of each table whose freshness is not what it was at the last look."""
    late = {table: fresh.is_late for table, fresh in health.freshness.items()}
    before: dict[str, Any] = book.recall(_LATE) or {}
    for table, is_late in late.items():
        if before.get(table) != is_late:
            result = freshness_result(health.freshness[table])
            yield dg.AssetCheckEvaluation(
                asset_key=dg.AssetKey(table),
                check_name=FRESH,
                passed=result.passed,
                severity=result.severity,
                metadata=result.metadata,
            )
    book.keep(_LATE, late)


def _missing(health: Health) -> set[SeriesDay]:
    return {
        (gap.table, gap.series, day)
        for gap in health.missing
        for day in periods.days(gap.first, gap.last)
    }


def _healed(
    settings: Settings, book: AlertBook, missing: set[SeriesDay], today: date
) -> tuple[list[SeriesDay], list[SeriesDay]]:
    """Return what was missing at the last report and is there now, and all that is so today."""
    kept = book.recall(_MISSING) or {"on": "", "healed": [], "missing": []}
    gone = _series_days(kept["missing"]) - missing
    newly = gone - set(hopeless_days(settings.home)) if gone else set()
    earlier = _series_days(kept["healed"]) if kept["on"] == str(today) else set()
    healed = sorted(newly | earlier)
    book.keep(_MISSING, {"on": today, "healed": healed, "missing": sorted(missing)})
    return sorted(newly), healed


def _series_days(told: Sequence[Sequence[str]]) -> set[SeriesDay]:
    return {(table, series, date.fromisoformat(day)) for table, series, day in told}


def _digest(healed: Sequence[tuple[str, str, date]]) -> str:
    counts = Counter(table for table, _, _ in healed)
    return "Days that were missing and are there now: " + ", ".join(
        f"{count} of {table}" for table, count in sorted(counts.items())
    )


def _ended(instance: dg.DagsterInstance) -> dict[str, int]:
    """Return how many runs ended within the last 24 hours of the machine's clock, by status."""
    since = datetime.now(UTC) - timedelta(days=1)
    runs = instance.get_runs(dg.RunsFilter(updated_after=since))
    return dict(Counter(run.status.value for run in runs if run.is_finished))
