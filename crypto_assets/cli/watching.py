"""Commands that tell how things are, and who is told."""

import json
import sys
from pathlib import Path

import click

from crypto_assets.cli.options import HOME, settings_of
from crypto_assets.cli.printing import new_console, print_status


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
@click.option("--prometheus", is_flag=True, help="The figures in Prometheus's text format.")
@HOME
def status(home: Path | None, as_json: bool, prometheus: bool) -> None:
    """Show on one screen what the home holds and what is wrong; exit code 1 if anything is.

    Example: crypto-assets status --home data/demo
    """
    from crypto_assets.monitoring.metrics import metrics
    from crypto_assets.operations.surveying import as_tree, survey

    settings = settings_of(home)
    found = survey(settings)
    if as_json:
        click.echo(json.dumps(as_tree(found), indent=1, default=str))
    elif prometheus:
        click.echo(metrics(found.health, found.wrong), nl=False)
    else:
        print_status(new_console(), found)
    sys.exit(0 if found.is_fine else 1)


@click.command("alert-test")
@HOME
def alert_test(home: Path | None) -> None:
    """Send a test message to every channel of the setting alerts.urls.

    Example: crypto-assets alert-test
    """
    from crypto_assets.monitoring.channels import channels

    to = channels(settings_of(home).alerts.urls)
    if not to:
        raise click.ClickException(
            "there is no channel: set alerts.urls, for instance "
            "CRYPTO_ASSETS_ALERTS__URLS=slack://TokenA/TokenB/TokenC"
        )
    refused = []
    for channel in to:
        took = channel.try_out()
        click.echo(f"{channel.name}: {'sent' if took else 'not sent'}")
        if not took:
            refused.append(channel.name)
    if refused:
        raise click.ClickException(
            f"{', '.join(refused)} took no message: check the URL (apprise's documentation shows "
            "each service's) and the network"
        )


@click.command()
@HOME
def doctor(home: Path | None) -> None:
    """Check settings, home, disk, versions and each provider; say what to do.

    Example: crypto-assets doctor
    """
    from crypto_assets.operations.doctor import examine
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.settings import load_settings

    console = new_console()
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
