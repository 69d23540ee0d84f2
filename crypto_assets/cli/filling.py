"""Commands that bring data: a demo, a refresh, a backfill, and what they would cost."""

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crypto_assets.cli.options import DAY, HOME, OVER_BUDGET, settings_of
from crypto_assets.cli.printing import (
    new_console,
    print_budget,
    print_forecast,
    print_next_steps,
    print_outcome,
    print_tables,
    showing_progress,
)

if TYPE_CHECKING:
    from crypto_assets.settings import Settings


@click.command()
@click.option("--coins", type=click.IntRange(1, 2000), help="Coins to track (default: 100).")
@click.option("--days", type=click.IntRange(1, 3650), help="Closed days to fill (default: 180).")
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=Path("data/demo"),
    show_default=True,
    help="Folder for the demo's data.",
)
def demo(coins: int | None, days: int | None, home: Path) -> None:
    """Fill a warehouse with invented data, no key or network needed.

    Example: crypto-assets demo --coins 50 --days 90
    """
    from crypto_assets.monitoring.looking import look
    from crypto_assets.operations import home as homes
    from crypto_assets.operations import running
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.tables import TABLES
    from crypto_assets.warehouse.publishing import publish_run

    console = new_console()
    settings = homes.demo_settings(home.absolute(), coins, days)
    today = settings.clock.today()
    with with_providers(settings) as active, homes.open_instance(active) as instance:
        wanted = running.unfinished(active)
        if wanted is None:
            console.print("Everything is there already: no data changed.")
            report = None
            # A newer program may have brought new views.
            publish_run(settings.home, "demo")
        else:
            console.print(
                f"Filling {wanted[0]} to {wanted[1]} with {settings.universe.tracked} coins "
                f"(of {settings.history.start} to {today})."
            )
            with showing_progress(console) as progress:
                report = running.fill(active, instance, list(TABLES), wanted, progress)
    if report and report.failures:
        print_outcome(console, report)
    print_tables(console, look(settings.home, settings.clock.now()), report)
    if report:
        print_outcome(console, report)
    print_next_steps(console, settings.home)


@click.command()
@OVER_BUDGET
@HOME
def refresh(home: Path | None, over_budget: bool) -> None:
    """Bring every table up to now: the running day, and what the week before still lacks.

    Example: crypto-assets refresh
    """
    from crypto_assets.operations.running import refresh_range
    from crypto_assets.tables import TABLES

    settings = settings_of(home, over_budget)
    _fill(settings, list(TABLES), refresh_range(settings))


@click.command()
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
@click.option("--from", "first", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, help="Last day (default: the running one).")
@OVER_BUDGET
@HOME
def backfill(
    assets: tuple[str, ...],
    first: datetime,
    last: datetime | None,
    over_budget: bool,
    home: Path | None,
) -> None:
    """Fill assets for a range of days, then recalculate what depends on what changed.

    Example: crypto-assets backfill market_caps ranks ema_signals --from 2026-06-01 --to 2026-06-30
    """
    settings = settings_of(home, over_budget)
    today = settings.clock.today()
    _fill(settings, list(assets), (first.date(), last.date() if last else today))


@click.command()
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
@click.option("--from", "first", type=DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=DAY, help="Last day (default: the running one).")
@HOME
def plan(
    assets: tuple[str, ...], first: datetime, last: datetime | None, home: Path | None
) -> None:
    """Show the calls a backfill would make, and what they cost, without making one.

    Example: crypto-assets plan ohlc_daily --from 2026-06-01 --to 2026-06-30
    """
    from crypto_assets.operations.forecasting import forecast

    settings = settings_of(home)
    until = last.date() if last else settings.clock.today()
    print_forecast(new_console(), forecast(settings, list(assets), (first.date(), until)))


@click.command()
@HOME
def budget(home: Path | None) -> None:
    """Show what the schedules cost in a month, by asset, against the plan.

    Example: crypto-assets budget
    """
    from crypto_assets.operations.budgeting import budget as month

    found = month(settings_of(home))
    print_budget(new_console(), found)
    if not found.fits:
        raise click.ClickException("these settings do not fit the plan")


@click.command()
@click.option("--accept-loss", is_flag=True, help="Go on although some rows can't be made again.")
@HOME
def rebuild(home: Path | None, accept_loss: bool) -> None:
    """Make all tables again from the raw responses, without one call.

    Example: crypto-assets rebuild --home data/demo
    """
    from crypto_assets.operations import home as homes
    from crypto_assets.operations.rebuilding import rebuild as again

    settings = settings_of(home)
    console = new_console()
    with homes.open_instance(settings) as instance, showing_progress(console) as progress:
        report = again(settings, instance, progress, accept_loss=accept_loss)
    console.print(
        f"{report.deliveries:,} deliveries were made again from {report.responses:,} responses; "
        f"the warehouse before is kept as {report.kept_as}.",
        soft_wrap=True,
    )
    for table, rows in report.rows.items():
        console.print(f"{table}: {rows:,} rows")
    for reason in report.skipped:
        console.print(f"Skipped: {reason}", markup=False, soft_wrap=True)
    print_outcome(console, report.derived)


def _fill(settings: "Settings", tables: list[str], days: tuple[date, date]) -> None:
    from crypto_assets.monitoring.looking import withheld
    from crypto_assets.operations import home, running
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.warehouse.publishing import is_behind, publish_run, read_state

    console = new_console()
    with (
        with_providers(settings) as active,
        home.open_instance(active) as instance,
    ):
        running.refuse_beyond_budget(active, tables, days)
        with showing_progress(console) as progress:
            report = running.fill(active, instance, tables, days, progress)
    for table, rows in report.rows_changed.items():
        console.print(f"{table}: {rows} rows changed, {report.seconds.get(table, 0):.1f} s")
    print_outcome(console, report)
    if is_behind(settings.home) and not read_state(settings.home).withheld_by:
        # Put off because the file is large; who ran this wants to see it.
        publish_run(settings.home, report.run_id)
    publication = read_state(settings.home)
    if publication.withheld_by:
        raise click.ClickException(withheld(publication))
    if is_behind(settings.home):
        raise click.ClickException(
            "the new data could not be published, readers keep what they had: 'crypto-assets "
            "refresh' tries again, the run's log in the Dagster UI says why"
        )
