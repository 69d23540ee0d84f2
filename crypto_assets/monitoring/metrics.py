"""The figures of a home in Prometheus's text format, for its node exporter's textfile collector."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.health import Health
from crypto_assets.periods import wall_now

FILE_NAME = "metrics.prom"


def metrics(health: Health | None, wrong: list[Condition]) -> str:
    """Return the figures as text; times are UNIX seconds. Without health, only what is wrong."""
    made_at = health.at if health else wall_now()
    lines = [*_of_conditions(wrong, made_at), *(_lines(health) if health else ())]
    return "\n".join(lines) + "\n"


def write_metrics(home: Path, health: Health | None, wrong: list[Condition]) -> None:
    """Write the figures into the home, whole or not at all."""
    temporary = home / f"{FILE_NAME}.new"
    temporary.write_text(metrics(health, wrong), encoding="utf-8")
    temporary.replace(home / FILE_NAME)


def _of_conditions(wrong: list[Condition], made_at: datetime) -> Iterator[str]:
    yield from _metric(
        "looked_at_seconds", "When these figures were made, UNIX time.", {(): _seconds(made_at)}
    )
    errors = sum(condition.is_error for condition in wrong)
    yield from _metric("errors", "Conditions that say: do not trust it now.", {(): errors})
    yield from _metric("warnings", "Conditions to look at some time.", {(): len(wrong) - errors})


def _lines(health: Health) -> Iterator[str]:
    tables = health.tables
    by_table = [(("table", table.name),) for table in tables]
    for name, help_text, values in (
        ("table_rows", "Rows published.", [table.rows for table in tables]),
        (
            "table_reaches_seconds",
            "How far the rows of a table reach, UNIX time.",
            [_seconds(health.freshness[table.name].reaches) for table in tables],
        ),
        (
            "table_is_late",
            "1 if rows are due that are not there.",
            [int(health.freshness[table.name].is_late) for table in tables],
        ),
        (
            "table_missing_days",
            "Days of series that are missing and may still come.",
            [health.missing_days.get(table.name, 0) for table in tables],
        ),
        (
            "table_unfinished_days",
            "Closed days that are due and not final.",
            [table.unfinished for table in tables],
        ),
        (
            "table_failed_checks",
            "Rules that rows of the last days break.",
            [len(health.failed_checks[table.name]) for table in tables],
        ),
    ):
        yield from _metric(name, help_text, dict(zip(by_table, values, strict=True)))
    yield from _metric(
        "runs_unfinished", "Runs queued or running.", {(): len(health.unfinished_runs)}
    )
    yield from _metric("jobs_failed", "Jobs whose last run failed.", {(): len(health.failed_jobs)})
    yield from _metric("days_given_up", "Days healing has given up.", {(): len(health.given_up)})
    yield from _metric("credits_used", "CoinGecko credits of the month.", {(): health.credits.used})
    if health.credits.limit is not None:
        yield from _metric(
            "credits_limit", "CoinGecko credits the month has.", {(): health.credits.limit}
        )
    yield from _metric("disk_free_bytes", "Free bytes of the home's disk.", {(): health.free_bytes})
    yield from _metric(
        "publication_version", "Newest publication.", {(): health.publication.version}
    )
    yield from _metric(
        "publication_is_withheld",
        "1 if a broken rule withholds the next one.",
        {(): int(bool(health.publication.withheld_by))},
    )


def _metric(
    name: str, help_text: str, values: dict[tuple[tuple[str, str], ...], int | float]
) -> Iterator[str]:
    full = f"crypto_assets_{name}"
    yield f"# HELP {full} {help_text}"
    yield f"# TYPE {full} gauge"
    for labels, value in values.items():
        told = ",".join(f'{label}="{of_label}"' for label, of_label in labels)
        yield f"{full}{{{told}}} {value}" if told else f"{full} {value}"


def _seconds(moment: datetime | None) -> float:
    return moment.replace(tzinfo=UTC).timestamp() if moment else 0.0
