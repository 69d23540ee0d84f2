"""What people see of it: tables, progress, sentences. No command of its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from crypto_assets.assets.progress import Progress as Fetching
    from crypto_assets.operations.budgeting import Budget
    from crypto_assets.operations.forecasting import Forecast
    from crypto_assets.operations.running import Progress, RunReport
    from crypto_assets.operations.surveying import Survey


def new_console(width: int = 200) -> "Console":
    """Return a console as wide as its terminal; whoever reads a pipe wants whole lines."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=width)
    return console


@contextmanager
def showing_progress(console: "Console") -> "Iterator[Progress]":
    """Yield a progress callback: a bar on a terminal, plain lines elsewhere.

    Meanwhile the calls of a step are shown too, as its fetching tells them.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from crypto_assets.assets.progress import LINE_SECONDS, listening

    if not console.is_terminal:
        seen: set[str] = set()
        lines_at: dict[str, float] = {}

        def line(step: str, done: int, steps: int) -> None:
            if step not in seen:
                seen.add(step)
                click.echo(f"[{done}/{steps}] {step}")

        def calls_line(told: "Fetching") -> None:
            since = told.seconds - lines_at.get(told.step, 0.0)
            if since >= LINE_SECONDS or (told.done == told.total and told.step in lines_at):
                lines_at[told.step] = told.seconds
                click.echo(f"  {told}")

        with listening(calls_line):
            yield line
        return
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        calls_task = bar.add_task("", visible=False)

        def move(step: str, done: int, steps: int) -> None:
            bar.update(task, description=step, completed=done, total=steps)

        def move_calls(told: "Fetching") -> None:
            bar.update(
                calls_task,
                description=f"  {told.pace}",
                completed=told.done,
                total=told.total,
                visible=told.done < told.total,
            )

        with listening(move_calls):
            yield move


def print_tables(console: "Console", state: Any, report: "RunReport | None") -> None:
    """Print what each table holds, and how long a run took for it."""
    names = ["table", "rows", "first day", "last day", "last final day", "unfinished days"]
    rows = [
        [t.name, f"{t.rows:,}", t.first, t.last, t.last_final, t.unfinished or ""]
        for t in state.tables
    ]
    if report:
        names.append("took")
        for row in rows:
            took = report.seconds.get(str(row[0]))
            row.append(f"{took:.1f} s" if took is not None else "")
    print_rows(console, names, rows)


def print_status(console: "Console", found: "Survey") -> None:
    """Print what a survey found, on one screen."""
    health = found.health
    names = ["table", "rows", "last day", "last final day", "fresh", "unfinished", "missing"]
    rows = [
        [
            table.name,
            f"{table.rows:,}",
            table.last,
            table.last_final,
            "LATE" if health.freshness[table.name].is_late else "yes",
            table.unfinished or "",
            health.missing_days.get(table.name, ""),
            len(health.failed_checks[table.name]) or "",
        ]
        for table in health.tables
    ]
    print_rows(console, [*names, "failed checks"], rows)
    published = health.publication
    if published.version:
        console.print(
            f"Version {published.version} was published at {minute(published.published_at)}."
        )
    if health.is_behind and not published.withheld_by:
        console.print("The warehouse has changed since; the end of the next run publishes it.")
    print_missing(console, health.missing)
    for sentence in found.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def print_rows(console: "Console", names: list[str], rows: "list[Any]") -> None:
    """Print rows as a table."""
    from rich import box
    from rich.table import Table

    shown = Table(*names, box=box.SIMPLE)
    for row in rows:
        shown.add_row(*map(as_text, row))
    console.print(shown, markup=False)


def as_text(value: object) -> str:
    """Return a value as a table shows it."""
    return "" if value is None else str(value)


def print_outcome(console: "Console", report: "RunReport") -> None:
    """Print what checks said; raises `ClickException` where a run or a step failed."""
    total = report.checks_passed + len(report.checks_failed)
    console.print(f"Checks: {report.checks_passed} of {total} passed.")
    for failed in report.checks_failed:
        console.print(f"  failed: {failed}", markup=False)
    if len(report.failures) == 1:
        ((step, reason),) = report.failures.items()
        raise click.ClickException(f"{step} failed: {reason}")
    for step, reason in report.failures.items():
        console.print(f"{step} failed: {reason}", markup=False, soft_wrap=True)
    if not report.succeeded and not report.failures:
        raise click.ClickException("the run failed: its log in the Dagster UI says why")
    if report.failures:
        if all("could not be reached" in reason for reason in report.failures.values()):
            raise click.ClickException(
                "no provider could be reached: check the network ('crypto-assets doctor' tries "
                "each) and run the same again; what was stored stays"
            )
        raise click.ClickException(
            f"{', '.join(report.failures)} failed for the reasons above; what was stored stays"
        )


def print_missing(console: "Console", missing: "list[Any]") -> None:
    """Print the first of what is missing, and how much more there is."""
    for gap in missing[:20]:
        days = str(gap.first) if gap.first == gap.last else f"{gap.first} to {gap.last}"
        console.print(f"Missing: {gap.table} {gap.series}, {days}: {gap.reason}", markup=False)
    if len(missing) > 20:
        console.print(f"… and {len(missing) - 20} more: see the table gaps.")


def print_next_steps(console: "Console", home: Path) -> None:
    """Print where the data is, and how to look at it."""
    shown = os.path.relpath(home)
    console.print(f"DuckDB file: {home / 'crypto.duckdb'}", soft_wrap=True)
    console.print(f"Dagster UI:  crypto-assets up --home {shown}", soft_wrap=True)
    console.print(
        f'Notebook:    import crypto_assets; crypto_assets.connect("{shown}")'
        '.sql("FROM daily_snapshot").df()',
        soft_wrap=True,
        markup=False,
    )


def print_forecast(console: "Console", forecast: "Forecast") -> None:
    """Print the calls that a backfill would make."""
    names = ["asset", "endpoint", "first day", "last day", "calls", "answered already", "candles"]
    rows = [
        [
            group.table,
            f"{group.provider}/{group.path}",
            group.call.first if group.call else None,
            group.call.last if group.call else None,
            f"{group.calls:,}",
            f"{group.answered:,}" if group.answered else "",
            group.call.exactness if group.call and group.is_candles else "",
        ]
        for group in forecast.plan.groups
    ]
    if rows:
        print_rows(console, names, rows)
    for sentence in forecast.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def print_budget(console: "Console", month: "Budget") -> None:
    """Print what a month costs; raises `ClickException` where the plan is too small."""
    rows = [[a.table, a.provider, f"{a.calls:,}", f"{a.credits:,}"] for a in month.assets]
    total = ["in all", "", f"{sum(a.calls for a in month.assets):,}", f"{month.credits:,}"]
    print_rows(console, ["asset", "provider", "calls a month", "credits"], [*rows, total])
    for sentence in month.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def minute(moment: datetime | None) -> str:
    """Return a moment as people read it."""
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "never"
