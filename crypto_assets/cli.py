"""`crypto-assets …`: what a person types. Words in, words out; the work is in `operations`.

Imports that take long happen inside the commands, so that `--help` answers at once.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

if TYPE_CHECKING:
    from rich.console import Console

    from crypto_assets.assets.progress import Progress as Fetching
    from crypto_assets.operations.budgeting import Budget
    from crypto_assets.operations.forecasting import Forecast
    from crypto_assets.operations.querying import Answer, Reader
    from crypto_assets.operations.running import Progress, RunReport
    from crypto_assets.operations.surveying import Survey
    from crypto_assets.settings import Settings

HOME = click.option(
    "--home", type=click.Path(path_type=Path), help="Folder of the warehouse (default: data)."
)
OVER_BUDGET = click.option(
    "--over-budget", is_flag=True, help="Start even if the month has too few credits left."
)
_DAY = click.DateTime(["%Y-%m-%d"])
_MOMENT = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
_PORT = click.IntRange(0, 65535)


def main() -> None:
    """Run the command line; what goes wrong is one sentence on stderr."""
    from crypto_assets.operations.errors import OperationError
    from crypto_assets.settings import SettingsError

    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        _end("stopped")
    except click.UsageError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _end(error.format_message())
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except (SettingsError, OperationError) as error:
        _end(str(error))
    except Exception as error:
        from crypto_assets.monitoring.alerts import AlertsError
        from crypto_assets.monitoring.attempts import AttemptsError
        from crypto_assets.providers.usage import UsageError
        from crypto_assets.warehouse.errors import WarehouseError

        if isinstance(error, (WarehouseError, AlertsError, AttemptsError, UsageError)):
            _end(str(error))
        from crypto_assets.operations.disks import of_disk

        told = of_disk(error)
        if told is None:
            raise
        _end(told)


def _end(sentence: str) -> None:
    click.echo(f"crypto-assets: {sentence}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crypto_assets")
def cli() -> None:
    """Public crypto APIs, turned into a trustworthy DuckDB warehouse."""


@cli.command()
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

    console = _console()
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
            with _progress(console) as progress:
                report = running.fill(active, instance, list(TABLES), wanted, progress)
    if report and report.failures:
        _print_outcome(console, report)
    _print_tables(console, look(settings.home, settings.clock.now()), report)
    if report:
        _print_outcome(console, report)
    _print_next_steps(console, settings.home)


@cli.command()
@HOME
@click.option("--plan", help="CoinGecko plan: keyless, demo, basic, analyst, lite or enterprise.")
@click.option(
    "--api-key",
    help="Its key. What is typed here stays in the shell's history: better let yourself be asked, "
    "or set CRYPTO_ASSETS_COINGECKO__API_KEY.",
)
@click.option("--tracked", type=int, help="How many coins by market cap.")
@click.option("--always", help="Coins tracked whatever their rank: bitcoin,ethereum.")
@click.option("--headline", help="Coins with hourly candles on free plans.")
@click.option("--history-start", "start", type=_DAY, help="First day, YYYY-MM-DD.")
@click.option("--alert-url", "alert_urls", multiple=True, help="Where alerts go; may be repeated.")
@click.option("--yes", is_flag=True, help="Ask nothing, as where there is no terminal.")
@click.option("--overwrite", is_flag=True, help="Change settings that are there already.")
@click.option("--anyway", is_flag=True, help="Write also what is refused or does not fit the plan.")
def init(home: Path | None, yes: bool, overwrite: bool, anyway: bool, **given: Any) -> None:
    """Ask for plan, key, coins and alerts, check them and write the settings here.

    Example: crypto-assets init --plan keyless --tracked 50 --yes
    """
    from crypto_assets.operations.asking import LIVE_PLANS, Manner, initialize, is_terminal

    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    if chosen.get("plan", "keyless") not in LIVE_PLANS:
        raise click.BadParameter(f"choose one of {', '.join(LIVE_PLANS)}", param_hint="--plan")
    if "start" in chosen:
        chosen["start"] = chosen["start"].date()
    if "alert_urls" in chosen:
        chosen["alert_urls"] = list(chosen["alert_urls"])
    manner = Manner(asks=is_terminal() and not yes, anyway=anyway, overwrites=overwrite)
    console = _console()
    initialize(Path.cwd(), home, chosen, manner, lambda month: _print_budget(console, month))


@cli.command()
@HOME
@click.option("--port", default=3000, show_default=True, type=_PORT, help="Port of the Dagster UI.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def up(home: Path | None, port: int, host: str) -> None:
    """Start the Dagster UI and its daemon; Ctrl-C ends both.

    Example: crypto-assets up --home data/demo
    """
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.operations.serving import only_one, refuse_taken, serve

    settings = _settings(home)
    with only_one(settings) as lock:
        refuse_taken(host, port)
        with with_providers(settings) as active:
            click.echo(f"Dagster UI on http://{host}:{port}, home {active.home}; Ctrl-C ends it.")
            sys.exit(serve(active, lock, host, port))


@cli.command()
@OVER_BUDGET
@HOME
def refresh(home: Path | None, over_budget: bool) -> None:
    """Bring every table up to now: the running day, and what the week before still lacks.

    Example: crypto-assets refresh
    """
    from crypto_assets.operations.running import refresh_range
    from crypto_assets.tables import TABLES

    settings = _settings(home, over_budget)
    _fill(settings, list(TABLES), refresh_range(settings))


@cli.command()
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
@click.option("--from", "first", type=_DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=_DAY, help="Last day (default: the running one).")
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
    settings = _settings(home, over_budget)
    today = settings.clock.today()
    _fill(settings, list(assets), (first.date(), last.date() if last else today))


@cli.command()
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
@click.option("--from", "first", type=_DAY, required=True, help="First day, YYYY-MM-DD.")
@click.option("--to", "last", type=_DAY, help="Last day (default: the running one).")
@HOME
def plan(
    assets: tuple[str, ...], first: datetime, last: datetime | None, home: Path | None
) -> None:
    """Show the calls a backfill would make, and what they cost, without making one.

    Example: crypto-assets plan ohlc_daily --from 2026-06-01 --to 2026-06-30
    """
    from crypto_assets.operations.forecasting import forecast

    settings = _settings(home)
    until = last.date() if last else settings.clock.today()
    _print_forecast(_console(), forecast(settings, list(assets), (first.date(), until)))


@cli.command()
@HOME
def budget(home: Path | None) -> None:
    """Show what the schedules cost in a month, by asset, against the plan.

    Example: crypto-assets budget
    """
    from crypto_assets.operations.budgeting import budget as month

    found = month(_settings(home))
    _print_budget(_console(), found)
    if not found.fits:
        raise click.ClickException("these settings do not fit the plan")


@cli.command()
@click.option("--accept-loss", is_flag=True, help="Go on although some rows can't be made again.")
@HOME
def rebuild(home: Path | None, accept_loss: bool) -> None:
    """Make all tables again from the raw responses, without one call.

    Example: crypto-assets rebuild --home data/demo
    """
    from crypto_assets.operations import home as homes
    from crypto_assets.operations.rebuilding import rebuild as again

    settings = _settings(home)
    console = _console()
    with homes.open_instance(settings) as instance, _progress(console) as progress:
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
    _print_outcome(console, report.derived)


@cli.command()
@click.argument("query", required=False)
@click.option(
    "--file", type=click.Path(path_type=Path), help="Take the query from a file; - is the input."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Form of the answer (default: table, or what the name of --output ends with).",
)
@click.option("--output", type=click.Path(path_type=Path), help="File to write the answer to.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option(
    "--with",
    "beside",
    metavar="NAME=FILE",
    multiple=True,
    help="Read a CSV, JSON or Parquet file of yours as the table NAME.",
)
@HOME
def sql(
    query: str | None,
    file: Path | None,
    form: str | None,
    output: Path | None,
    force: bool,
    beside: tuple[str, ...],
    home: Path | None,
) -> None:
    """Ask the newest publication, read-only; without a query, open a prompt.

    Only queries run, and they read no file but the publication and those of --with. QUERY may be
    - for the input.

    \b
    Example: crypto-assets sql "FROM latest_market LIMIT 10"
             crypto-assets sql "FROM returns" --output returns.parquet
    """
    from crypto_assets.operations import querying

    form = _export_form(form, output)
    reader = querying.Reader(_settings(home).home, _named_files(beside))
    with reader:
        text = _query_text(query, file)
        if text is None and form == "table":
            _prompt(reader)
        elif text is None:
            raise click.UsageError("An export needs a query.")
        elif form == "table":
            for answer in reader.answers(text):
                _print_answer(answer)
        elif output is None:
            querying.print_export(reader, text, cast("querying.Format", form), sys.stdout)
        else:
            rows = querying.export(
                reader, text, cast("querying.Format", form), output, replace=force
            )
            click.echo(f"{rows:,} rows are in {output}.", err=True)


def _export_form(form: str | None, output: Path | None) -> str:
    if output is None:
        if form == "parquet":
            raise click.UsageError("Parquet is no text: name a file with --output.")
        return form or "table"
    form = form or output.suffix.lower().removeprefix(".")
    if form not in ("csv", "json", "parquet"):
        raise click.UsageError("--output needs --format csv, json or parquet.")
    return form


def _named_files(beside: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for text in beside:
        name, _, file = text.partition("=")
        if not name or not file:
            raise click.UsageError(f"--with {text}: say it as NAME=FILE.")
        found[name] = Path(file)
    return found


def _query_text(query: str | None, file: Path | None) -> str | None:
    """Return what is asked; nothing where a person is to be prompted."""
    if query and file:
        raise click.UsageError("Give a query or --file, not both.")
    if file and str(file) != "-":
        try:
            return file.read_text(encoding="utf-8")
        except OSError as error:
            raise click.ClickException(f"can't read {file} ({error.strerror})") from None
        except UnicodeDecodeError:
            raise click.ClickException(f"can't read {file}: it is no text in UTF-8") from None
    if query == "-" or file or (query is None and not sys.stdin.isatty()):
        return sys.stdin.read()
    return query


def _prompt(reader: "Reader") -> None:
    from crypto_assets.operations.shell import Shell

    def tell(text: str) -> None:
        click.echo(text, err=True)

    Shell(reader, _print_answer, tell, Path.home() / ".crypto_assets_history").run()


def _print_answer(answer: "Answer") -> None:
    console = _console()
    widths = [
        max(len(line) for cell in column for line in _cell(cell).splitlines() or [""])
        for column in zip(answer.names, *answer.rows, strict=True)
    ]
    shown = len(widths)
    if console.is_terminal:
        # Three more a column are its margins; a table torn over many lines helps nobody.
        while shown > 1 and sum(min(width, 40) + 3 for width in widths[:shown]) > console.width:
            shown -= 1
    else:
        console = _console(width=max(200, sum(widths) + 3 * len(widths)))
    _print_rows(console, answer.names[:shown], [row[:shown] for row in answer.rows])
    if shown < len(widths):
        click.echo(
            f"{shown} of {len(widths)} columns fit: select some, or --format csv gives all.",
            err=True,
        )
    if answer.is_cut:
        click.echo(
            f"Only the first {len(answer.rows)} rows are shown: --format csv gives all.", err=True
        )


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@click.option("--prometheus", is_flag=True, help="The figures in Prometheus's text format.")
@HOME
def status(home: Path | None, as_json: bool, prometheus: bool) -> None:
    """Show on one screen what the home holds and what is wrong; exit code 1 if anything is.

    Example: crypto-assets status --home data/demo
    """
    from crypto_assets.monitoring.metrics import metrics
    from crypto_assets.operations.surveying import as_tree, survey

    settings = _settings(home)
    found = survey(settings)
    if as_json:
        click.echo(json.dumps(as_tree(found), indent=1, default=str))
    elif prometheus:
        click.echo(metrics(found.health, found.wrong), nl=False)
    else:
        _print_status(_console(), found)
    sys.exit(0 if found.is_fine else 1)


@cli.command("alert-test")
@HOME
def alert_test(home: Path | None) -> None:
    """Send a test message to every channel of the setting alerts.urls.

    Example: crypto-assets alert-test
    """
    from crypto_assets.monitoring.channels import channels

    to = channels(_settings(home).alerts.urls)
    if not to:
        raise click.ClickException(
            "there is no channel: set alerts.urls, for instance "
            "CRYPTO_ASSETS_ALERTS__URLS=slack://TokenA/TokenB/TokenC"
        )
    refused = []
    for channel in to:
        took = channel.send("crypto_assets: a test", "Alerts of this home arrive here.", "info")
        click.echo(f"{channel.name}: {'sent' if took else 'not sent'}")
        if not took:
            refused.append(channel.name)
    if refused:
        raise click.ClickException(
            f"{', '.join(refused)} took no message: check the URL (apprise's documentation shows "
            "each service's) and the network"
        )


@cli.command()
@click.option("--to", "target", help="Folder or fsspec URL (default: setting backup.url).")
@HOME
def backup(target: str | None, home: Path | None) -> None:
    """Back up the newest publication, with a manifest of rows and checksums.

    Example: crypto-assets backup --to /mnt/backups
    """
    from crypto_assets.automation.maintenance import backup_place
    from crypto_assets.warehouse import backups

    settings = _settings(home)
    place, manifest = backups.backup(
        settings.home, target or backup_place(settings), settings.backup.format
    )
    rows = sum(table.rows for table in manifest.tables.values())
    click.echo(f"Backed up {rows:,} rows of {len(manifest.tables)} tables to {place}.")


@cli.command()
@click.argument("source")
@HOME
def restore(source: str, home: Path | None) -> None:
    """Make the warehouse of an empty home from a backup, and publish it.

    Example: crypto-assets restore /mnt/backups/crypto_assets-20260301T031500Z --home new
    """
    from crypto_assets.monitoring.looking import withheld
    from crypto_assets.warehouse import backups
    from crypto_assets.warehouse.publishing import publish_run
    from crypto_assets.warehouse.warehouse import Warehouse

    warehouse = Warehouse.of(_settings(home))
    manifest = backups.restore(source, warehouse.path, warehouse.identity)
    rows = sum(table.rows for table in manifest.tables.values())
    click.echo(f"Restored {rows:,} rows as of {manifest.made_at:%Y-%m-%d %H:%M} UTC.")
    published = publish_run(warehouse.home, "restore")
    if published.withheld_by:
        raise click.ClickException(withheld(published))


@cli.command()
@HOME
def verify(home: Path | None) -> None:
    """Check the warehouse: contracts, keys, content hashes, rules and gaps.

    Example: crypto-assets verify --home data/demo
    """
    from crypto_assets.warehouse.session import open_warehouse
    from crypto_assets.warehouse.verifying import verify as verdicts
    from crypto_assets.warehouse.warehouse import FILE_NAME

    path = _settings(home).home / FILE_NAME
    if not path.exists():
        raise click.ClickException(f"there is no warehouse in {path.parent}")
    console = _console()
    wrong = total = 0
    # Opened as it is: what a run would mend first is what there is to tell.
    with open_warehouse(path, "verifying") as connection:
        for verdict in verdicts(connection):
            total += 1
            if not verdict.is_fine:
                wrong += 1
                console.print(
                    f"{verdict.table}, {verdict.what}: {verdict.told}", markup=False, soft_wrap=True
                )
    console.print(f"{total - wrong} of {total} verified.")
    if wrong:
        raise click.ClickException(f"{wrong} of these need attention")


@cli.command()
@click.argument("a")
@click.argument("b")
def diff(a: str, b: str) -> None:
    """Tell table by table what differs between two homes or backups, provenance aside.

    Example: crypto-assets diff data/demo /mnt/backups/crypto_assets-20260301T031500Z
    """
    from crypto_assets.operations.differing import differences

    console = _console()
    found = differences(a, b)
    names = ["table", "rows in A", "rows in B", "only in A", "only in B", "changed", "from", "to"]
    rows = [
        [d.table, f"{d.rows_a:,}", f"{d.rows_b:,}", d.only_a, d.only_b, d.changed, d.first, d.last]
        for d in found
    ]
    _print_rows(console, names, rows)
    if not all(d.is_equal for d in found):
        raise click.ClickException("they differ in content")
    console.print("They are equal in content.")


@cli.command()
@HOME
def doctor(home: Path | None) -> None:
    """Check settings, home, disk, versions and each provider; say what to do.

    Example: crypto-assets doctor
    """
    from crypto_assets.operations.doctor import examine
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.settings import load_settings

    console = _console()
    failed = 0
    # What is wrong with the home is a finding, too.
    with with_providers(load_settings(home)) as active:
        for finding in examine(active):
            failed += not finding.is_fine
            mark = "[green]ok[/]  " if finding.is_fine else "[red]FAIL[/]"
            console.print(f"{mark} [bold]{finding.subject}[/]: ", end="")
            console.print(finding.told, markup=False, soft_wrap=True)
    if failed:
        raise click.ClickException(f"{failed} of these need attention")


@cli.command()
@click.option(
    "--port", default=8765, show_default=True, type=_PORT, help="Port; 0 takes any free one."
)
@click.option("--seed", default=7, show_default=True, type=click.IntRange(0), help="Which market.")
@click.option(
    "--plan",
    default="unlimited",
    show_default=True,
    type=click.Choice(["unlimited", "keyless", "demo", "basic", "analyst"]),
    help="Whose limits are enforced.",
)
@click.option(
    "--latency",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds added to each answer.",
)
@click.option(
    "--clock", type=_MOMENT, help="Moment to stand still at, e.g. 2026-03-01T12:00 (default: wall)."
)
@click.option("--attached", is_flag=True, hidden=True, help="End when standard input closes.")
def sandbox(
    port: int, seed: int, plan: str, latency: float, clock: datetime | None, attached: bool
) -> None:
    """Stand in for all providers on loopback.

    Example: crypto-assets sandbox --port 8765 --plan demo
    """
    from crypto_assets.sandbox.server import SandboxServer

    server = SandboxServer(seed, port, plan, latency, clock)
    try:
        server.start()
    except OSError as error:
        raise click.ClickException(
            f"can't listen on port {port} ({error.strerror}): choose another one with --port"
        ) from None
    if attached:
        click.echo(server.url)
        sys.stdin.read()
        server.stop()
    else:
        # However it was started: a shell may have told us to ignore them.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            click.echo(
                f"The sandbox answers on {server.url} (seed {seed}, plan {plan}); Ctrl-C ends it."
            )
            server.serve_forever()
        server.stop()


def _settings(home: Path | None, over_budget: bool = False) -> "Settings":
    from crypto_assets.operations.home import refuse_file
    from crypto_assets.settings import load_settings

    if over_budget:
        # Where processes that are started for us find it, too.
        os.environ["CRYPTO_ASSETS_COINGECKO__MAY_EXCEED_CREDITS"] = "true"
    settings = load_settings(home)
    refuse_file(settings.home)
    return settings


def _fill(settings: "Settings", tables: list[str], days: tuple[date, date]) -> None:
    from crypto_assets.monitoring.looking import withheld
    from crypto_assets.operations import home, running
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.warehouse.publishing import is_behind, publish_run, read_state

    console = _console()
    with (
        with_providers(settings) as active,
        home.open_instance(active) as instance,
    ):
        running.refuse_beyond_budget(active, tables, days)
        with _progress(console) as progress:
            report = running.fill(active, instance, tables, days, progress)
    for table, rows in report.rows_changed.items():
        console.print(f"{table}: {rows} rows changed, {report.seconds.get(table, 0):.1f} s")
    _print_outcome(console, report)
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


def _console(width: int = 200) -> "Console":
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        # Whoever reads a pipe wants whole lines.
        console = Console(highlight=False, width=width)
    return console


@contextmanager
def _progress(console: "Console") -> "Iterator[Progress]":
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


def _print_tables(console: "Console", state: Any, report: "RunReport | None") -> None:
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
    _print_rows(console, names, rows)


def _print_status(console: "Console", found: "Survey") -> None:
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
    _print_rows(console, [*names, "failed checks"], rows)
    published = health.publication
    if published.version:
        console.print(
            f"Version {published.version} was published at {_minute(published.published_at)}."
        )
    if health.is_behind and not published.withheld_by:
        console.print("The warehouse has changed since; the end of the next run publishes it.")
    _print_missing(console, health.missing)
    for sentence in found.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def _print_rows(console: "Console", names: list[str], rows: "list[Any]") -> None:
    from rich import box
    from rich.table import Table

    shown = Table(*names, box=box.SIMPLE)
    for row in rows:
        shown.add_row(*map(_cell, row))
    console.print(shown, markup=False)


def _cell(value: object) -> str:
    return "" if value is None else str(value)


def _print_outcome(console: "Console", report: "RunReport") -> None:
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


def _print_missing(console: "Console", missing: "list[Any]") -> None:
    for gap in missing[:20]:
        days = str(gap.first) if gap.first == gap.last else f"{gap.first} to {gap.last}"
        console.print(f"Missing: {gap.table} {gap.series}, {days}: {gap.reason}", markup=False)
    if len(missing) > 20:
        console.print(f"… and {len(missing) - 20} more: see the table gaps.")


def _print_next_steps(console: "Console", home: Path) -> None:
    shown = os.path.relpath(home)
    console.print(f"DuckDB file: {home / 'crypto.duckdb'}", soft_wrap=True)
    console.print(f"Dagster UI:  crypto-assets up --home {shown}", soft_wrap=True)
    console.print(
        f'Notebook:    import crypto_assets; crypto_assets.connect("{shown}")'
        '.sql("FROM daily_snapshot").df()',
        soft_wrap=True,
        markup=False,
    )


def _print_forecast(console: "Console", forecast: "Forecast") -> None:
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
        _print_rows(console, names, rows)
    for sentence in forecast.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def _print_budget(console: "Console", month: "Budget") -> None:
    rows = [[a.table, a.provider, f"{a.calls:,}", f"{a.credits:,}"] for a in month.assets]
    total = ["in all", "", f"{sum(a.calls for a in month.assets):,}", f"{month.credits:,}"]
    _print_rows(console, ["asset", "provider", "calls a month", "credits"], [*rows, total])
    for sentence in month.sentences:
        console.print(sentence, markup=False, soft_wrap=True)


def _minute(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC" if moment else "never"
