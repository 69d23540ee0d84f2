"""`crypto-assets …`: what a person types. Words in, words out; the work is in `operations`.

Imports that take long happen inside the commands, so that `--help` answers at once.
"""

import atexit
import gc
import sys

import click

from crypto_assets.cli import filling, keeping, querying, serving, watching


def main() -> None:
    """Run the command line; what goes wrong is one sentence on stderr."""
    from crypto_assets.operations.errors import OperationError
    from crypto_assets.settings import SettingsError

    look_for_few_cycles()
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


def look_for_few_cycles() -> None:
    """Let Python look for cycles seldom: nearly all that a command loads lives until its end.

    It would take a fifth of the time of all imports, and half a second once more on the way out.
    """
    gc.set_threshold(50_000, 20, 20)
    atexit.register(gc.freeze)


def _end(sentence: str) -> None:
    click.echo(f"crypto-assets: {sentence}", err=True)
    sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="crypto_assets")
def cli() -> None:
    """Public crypto APIs, turned into a trustworthy DuckDB warehouse."""


for _command in (
    filling.demo,
    keeping.init,
    serving.up,
    filling.refresh,
    filling.backfill,
    filling.plan,
    filling.budget,
    filling.rebuild,
    querying.sql,
    watching.status,
    watching.alert_test,
    keeping.backup,
    keeping.restore,
    keeping.verify,
    keeping.diff,
    watching.doctor,
    serving.sandbox,
):
    cli.add_command(_command)
