"""How many calls, how much of the rate and how much memory backfills take.

Run `python -m crypto_assets_tests.benchmarks.fetching counts|rate|memory`. The command line works
in processes of its own against a sandbox that enforces the plan; figures are printed, none is
asserted: what has to hold on every machine is in the tests.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import click
import yaml

from crypto_assets.sandbox import SandboxServer

CLOCK = datetime(2026, 3, 10, 12, 20)
KEY = "CG-sandbox-bench"
YESTERDAY = CLOCK.date() - timedelta(days=1)
MINUTE = 60.0


def new_home(folder: Path, server: SandboxServer, plan: str, coins: int, start: date) -> Path:
    """Write a sandbox home that asks `server`, and return it."""
    home = folder / f"home-{plan}-{coins}"
    home.mkdir()
    url = f"{server.url}/coingecko/api/v3"
    tree = {
        "sandbox": {"seed": server.seed, "clock": CLOCK.isoformat()},
        "coingecko": {"plan": plan, "base_url": url, "api_key": KEY},
        "universe": {"tracked": coins, "always": [], "headline": ["bitcoin"]},
        "history": {"start": start.isoformat()},
        "schedules": {"enabled": False},
    }
    (home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    return home


def backfill(home: Path, tables: Sequence[str], first: date, last: date) -> "subprocess.Popen[str]":
    """Start a backfill in a process of its own."""
    command = [sys.executable, "-m", "crypto_assets", "backfill", *tables]
    command += ["--from", str(first), "--to", str(last), "--home", str(home)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CRYPTO_ASSETS_")}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for a backfill and return what it said."""
    said, _ = process.communicate()
    if process.returncode:
        raise click.ClickException(f"a backfill failed with {process.returncode}: {said}")
    return said


def calls_of(server: SandboxServer) -> dict[str, int]:
    """Return CoinGecko calls by endpoint and status, and forget them."""
    found = {
        f"{endpoint.removeprefix('coingecko/')} {status}": count
        for endpoint, by_status in server.stats()["calls"].items()
        for status, count in by_status.items()
        if endpoint.startswith("coingecko/")
    }
    server.reset()
    return found


def peak_mebibytes(pid: int) -> float:
    """Return the most memory a process has had resident so far; 0 once it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


@click.group()
def bench() -> None:
    """Measure fetching."""


@bench.command()
def counts() -> None:
    """Count the calls of 100 coins x 365 days, and of the running day of 1,000 coins."""
    first = YESTERDAY - timedelta(days=364)
    with tempfile.TemporaryDirectory() as folder, SandboxServer(clock=CLOCK) as server:
        home = new_home(Path(folder), server, "unlimited", 100, first)
        finish(backfill(home, ["market_caps"], CLOCK.date(), CLOCK.date()))
        click.echo(f"the running day of 100 coins, cold: {calls_of(server)}")
        for table in ("market_caps", "ohlc_daily", "ohlc_hourly"):
            finish(backfill(home, [table], first, YESTERDAY))
            click.echo(f"{table}, 100 coins x 365 days: {calls_of(server)}")
            finish(backfill(home, [table], first, YESTERDAY))
            click.echo(f"{table} again: {calls_of(server)}")
        home = new_home(Path(folder), server, "unlimited", 1000, first)
        finish(backfill(home, ["market_caps", "ranks"], CLOCK.date(), CLOCK.date()))
        click.echo(f"the running day of 1,000 coins: {calls_of(server)}")


@bench.command()
@click.option("--latency", default=0.2, show_default=True, help="Seconds the provider takes.")
def rate(latency: float) -> None:
    """Use the rate of the analyst plan with two processes at once for three minutes."""
    first = YESTERDAY - timedelta(days=364)
    with (
        tempfile.TemporaryDirectory() as folder,
        SandboxServer(clock=CLOCK, plan="analyst", latency_seconds=latency) as server,
    ):
        home = new_home(Path(folder), server, "analyst", 100, first)
        finish(backfill(home, ["market_caps"], CLOCK.date(), CLOCK.date()))
        server.reset()
        # The shared limiter remembers the calls of the minute before; so does the provider no more.
        (home / "limits" / "coingecko.sqlite").unlink()
        sides = [
            backfill(home, ["ohlc_hourly"], first, YESTERDAY),
            backfill(home, ["market_caps", "ohlc_daily"], first, YESTERDAY),
        ]
        served: list[tuple[float, int]] = []
        began = 0.0
        while any(side.poll() is None for side in sides):
            total = server.stats()["total"]
            began = began or (time.monotonic() if total else 0.0)
            if began:
                served.append((time.monotonic() - began, total))
            time.sleep(0.25)
        for side in sides:
            finish(side)
        in_three = max(total for at, total in served if at <= 3 * MINUTE)
        until = next(at for at, total in served if total == served[-1][1])
        click.echo(
            f"{in_three} calls in the first three minutes of {3 * 500} allowed "
            f"({in_three / 1500:.1%}); {served[-1][1]} calls in {until:.0f} s: {calls_of(server)}"
        )


@bench.command()
@click.option("--coins", default=1000, show_default=True)
@click.option("--days", default=365, show_default=True)
def memory(coins: int, days: int) -> None:
    """Fill a year of hourly candles of 1,000 coins and tell the peak of memory."""
    first = YESTERDAY - timedelta(days=days - 1)
    with tempfile.TemporaryDirectory() as folder, SandboxServer(clock=CLOCK) as server:
        home = new_home(Path(folder), server, "unlimited", coins, first)
        began = time.monotonic()
        process = backfill(home, ["ohlc_hourly"], first, YESTERDAY)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, peak_mebibytes(process.pid))
            time.sleep(0.25)
        took = time.monotonic() - began
        click.echo(finish(process))
        click.echo(f"{calls_of(server)}; {took:.0f} s; peak of memory {peak:,.0f} MiB")


if __name__ == "__main__":
    bench()
