"""Commands that serve until they are told to end."""

import signal
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import click

from crypto_assets.cli.options import HOME, MOMENT, PORT, settings_of


@click.command()
@HOME
@click.option("--port", default=3000, show_default=True, type=PORT, help="Port of the Dagster UI.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
def up(home: Path | None, port: int, host: str) -> None:
    """Start the Dagster UI and its daemon; Ctrl-C ends both.

    Example: crypto-assets up --home data/demo
    """
    from crypto_assets.operations.sandboxed import with_providers
    from crypto_assets.operations.serving import only_one, refuse_taken, serve

    settings = settings_of(home)
    with only_one(settings) as lock:
        refuse_taken(host, port)
        with with_providers(settings) as active:
            click.echo(f"Dagster UI on http://{host}:{port}, home {active.home}; Ctrl-C ends it.")
            sys.exit(serve(active, lock, host, port))


@click.command()
@click.option(
    "--port", default=8765, show_default=True, type=PORT, help="Port; 0 takes any free one."
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
    "--clock", type=MOMENT, help="Moment to stand still at, e.g. 2026-03-01T12:00 (default: wall)."
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
