"""The report of a day, in Markdown: runs, rows, freshness, checks, budget, gaps, disk."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.health import Health

FOLDER = "reports"
_SHOWN = 20


def report(
    health: Health,
    wrong: Sequence[Condition],
    since: Mapping[str, datetime],
    runs: Mapping[str, int],
    healed: Sequence[tuple[str, str, date]],
) -> str:
    """Return the report.

    `since`: when each condition began; `runs`: how many ended in the last 24 hours, by status;
    `healed`: (table, series, day) that were missing at the last report.
    """
    parts = [
        [f"# crypto_assets, {health.at:%Y-%m-%d %H:%M} UTC", "", _verdict(wrong)],
        _wrong(wrong, since),
        ["## Tables", "", *_tables(health)],
        ["## Runs of the last 24 hours", "", _runs(runs), *_running(health)],
        ["## Gaps", "", *_gaps(health, healed)],
        ["## Budget and disk", "", *_resources(health)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def write_report(home: Path, text: str, day: date) -> Path:
    """Write the report of a day into the home, and return where."""
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    path = folder / f"status-{day}.md"
    temporary = path.with_suffix(".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


def _verdict(wrong: Sequence[Condition]) -> str:
    errors = sum(condition.is_error for condition in wrong)
    if errors:
        return f"**{errors} thing(s) are wrong.**"
    if wrong:
        return f"Can be trusted; {len(wrong)} warning(s)."
    return "All is well."


def _wrong(wrong: Sequence[Condition], since: Mapping[str, datetime]) -> list[str]:
    if not wrong:
        return []
    lines = ["## What is wrong", ""]
    for condition in wrong:
        begun = since.get(condition.key)
        of_old = f" (since {begun:%Y-%m-%d %H:%M} UTC)" if begun else ""
        kind = "ERROR" if condition.is_error else "WARN"
        lines.append(f"- {kind}: {condition.title}{of_old}. {condition.detail} {condition.advice}")
    return lines


def _tables(health: Health) -> Iterator[str]:
    yield "| table | rows | last day | last final day | fresh | missing days | failed checks |"
    yield "|---|---:|---|---|---|---:|---:|"
    for table in health.tables:
        fresh = health.freshness[table.name]
        cells = [
            table.name,
            f"{table.rows:,}",
            table.last or "",
            table.last_final or "",
            "late" if fresh.is_late else "yes",
            health.missing_days.get(table.name, 0),
            len(health.failed_checks[table.name]),
        ]
        yield "| " + " | ".join(map(str, cells)) + " |"


def _runs(runs: Mapping[str, int]) -> str:
    told = [f"{count:,} {status.lower()}" for status, count in sorted(runs.items())]
    return (", ".join(told) or "none") + "."


def _running(health: Health) -> Iterator[str]:
    for run in health.unfinished_runs:
        yield f"- {run.job} is {run.status.lower()} since {run.since:%Y-%m-%d %H:%M} UTC"


def _gaps(health: Health, healed: Sequence[tuple[str, str, date]]) -> Iterator[str]:
    yield f"{len(healed):,} day(s) of series that were missing are there now."
    for table, series, day in healed[:_SHOWN]:
        yield f"- healed: {table} {series} {day}"
    yield f"{sum(health.missing_days.values()):,} day(s) of series are missing and may still come."
    for gap in health.missing[:_SHOWN]:
        yield f"- {gap.table} {gap.series}, {gap.first} to {gap.last}: {gap.reason}"
    if health.given_up:
        yield f"{len(health.given_up):,} day(s) were given up and are not asked for again:"
        for table, day in health.given_up[:_SHOWN]:
            yield f"- {table} {day}"


def _resources(health: Health) -> Iterator[str]:
    credits = health.credits
    limit = f" of {credits.limit:,}" if credits.limit is not None else ""
    yield f"{credits.used:,}{limit} CoinGecko credits of the month (plan '{credits.plan}')."
    yield f"{health.free_bytes / 1024**3:,.1f} GB of disk are free."
    published = health.publication.published_at
    when = f"{published:%Y-%m-%d %H:%M} UTC" if published else "never"
    yield f"Version {health.publication.version} was published at {when}."
