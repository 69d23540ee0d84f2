"""Commands that keep a home safe: settings, backups, and what is compared or verified."""

from pathlib import Path
from typing import Any

import click

from crypto_assets.cli.options import DAY, HOME, settings_of
from crypto_assets.cli.printing import new_console, print_budget, print_rows


@click.command()
@HOME
@click.option("--plan", help="CoinGecko plan: keyless, demo, basic, analyst, lite or enterprise.")
@click.option(
    "--api-key",
    help="Its key. What is typed here stays in the shell's history: better let yourself be asked, "
    "or set CRYPTO_ASSETS_COINGECKO__API_KEY.",
)
@click.option("--tracked", type=int, help="How many coins by market cap.")
@click.option("--always", help="Coins tracked whatever their rank: bitcoin,ethereum; - for none.")
@click.option("--headline", help="Coins with hourly candles on free plans.")
@click.option("--history-start", "start", type=DAY, help="First day, YYYY-MM-DD.")
@click.option("--alert-url", "alert_urls", multiple=True, help="Where alerts go; may be repeated.")
@click.option("--yes", is_flag=True, help="Ask nothing, as where there is no terminal.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Change settings that are there already; comments of your own in crypto_assets.yaml are "
    "lost.",
)
@click.option("--anyway", is_flag=True, help="Write also what is refused or does not fit the plan.")
def init(home: Path | None, yes: bool, overwrite: bool, anyway: bool, **given: Any) -> None:
    """Ask for plan, key, coins and alerts, check them and write the settings here.

    CoinGecko is asked twice, for a credit each: about plan and key, and for its list of coins.

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
    console = new_console()
    initialize(Path.cwd(), home, chosen, manner, lambda month: print_budget(console, month))


@click.command()
@click.option("--to", "target", help="Folder or fsspec URL (default: setting backup.url).")
@HOME
def backup(target: str | None, home: Path | None) -> None:
    """Back up the newest publication, with a manifest of rows and checksums.

    Example: crypto-assets backup --to /mnt/backups
    """
    from crypto_assets.automation.maintenance import backup_place
    from crypto_assets.warehouse import backups

    settings = settings_of(home)
    place, manifest = backups.backup(
        settings.home, target or backup_place(settings), settings.backup.format
    )
    rows = sum(table.rows for table in manifest.tables.values())
    click.echo(f"Backed up {rows:,} rows of {len(manifest.tables)} tables to {place}.")


@click.command()
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

    warehouse = Warehouse.of(settings_of(home))
    manifest = backups.restore(source, warehouse.path, warehouse.identity)
    rows = sum(table.rows for table in manifest.tables.values())
    click.echo(f"Restored {rows:,} rows as of {manifest.made_at:%Y-%m-%d %H:%M} UTC.")
    published = publish_run(warehouse.home, "restore")
    if published.withheld_by:
        raise click.ClickException(withheld(published))


@click.command()
@HOME
def verify(home: Path | None) -> None:
    """Check the warehouse: contracts, keys, content hashes, rules and gaps.

    Example: crypto-assets verify --home data/demo
    """
    from crypto_assets.warehouse.session import open_warehouse
    from crypto_assets.warehouse.verifying import verify as verdicts
    from crypto_assets.warehouse.warehouse import FILE_NAME

    path = settings_of(home).home / FILE_NAME
    if not path.exists():
        raise click.ClickException(f"there is no warehouse in {path.parent}")
    console = new_console()
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


@click.command()
@click.argument("a")
@click.argument("b")
def diff(a: str, b: str) -> None:
    """Tell table by table what differs between two homes or backups, provenance aside.

    Example: crypto-assets diff data/demo /mnt/backups/crypto_assets-20260301T031500Z
    """
    from crypto_assets.operations.differing import differences

    console = new_console()
    found = differences(a, b)
    names = ["table", "rows in A", "rows in B", "only in A", "only in B", "changed", "from", "to"]
    rows = [
        [d.table, f"{d.rows_a:,}", f"{d.rows_b:,}", d.only_a, d.only_b, d.changed, d.first, d.last]
        for d in found
    ]
    print_rows(console, names, rows)
    if not all(d.is_equal for d in found):
        raise click.ClickException("they differ in content")
    console.print("They are equal in content.")
