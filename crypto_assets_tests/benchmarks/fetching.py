"""How many calls, how much of a plan's rate and how much memory fetching takes."""

import subprocess
import time
from datetime import date, timedelta
from pathlib import Path

from crypto_assets_tests.benchmarks import homes
from crypto_assets_tests.benchmarks.homes import CLOCK, Sandbox, backfill, new_home
from crypto_assets_tests.benchmarks.measuring import ContenderError, Figures, measured
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.suite import Setup

TODAY = CLOCK.date()
YESTERDAY = TODAY - timedelta(days=1)
WINDOW_SECONDS = 180.0
ANALYST_CALLS = 3 * 500


def calls(setup: Setup) -> Result:
    """Count the calls of 100 coins x 365 days, and of the running day of 1,000 coins."""
    coins, days, many = 100, 365, 300 if setup.is_quick else 1_000
    first = YESTERDAY - timedelta(days=days - 1)
    result = Result()

    def count(name: str, home: Path, *tables: str, since: date, until: date) -> None:
        done = measured(backfill(home, *tables, first=since, last=until))
        by_endpoint = providers.calls()
        figures = done.figures | {"calls": float(sum(by_endpoint.values()))}
        result.samples[name] = [figures]
        result.notes.append(f"{name}: {by_endpoint}")

    with homes.sandbox() as providers:
        if not setup.is_quick:
            home = new_home(setup.folder / "some", providers, coins, first)
            count("the running day, cold", home, "market_caps", since=TODAY, until=TODAY)
            for table in ("market_caps", "ohlc_daily", "ohlc_hourly"):
                count(table, home, table, since=first, until=YESTERDAY)
                count(f"{table} again", home, table, since=first, until=YESTERDAY)
        home = new_home(setup.folder / "many", providers, many, first)
        name = f"the running day of {many:,} coins"
        count(name, home, "market_caps", "ranks", since=TODAY, until=TODAY)
    return result


def rate(setup: Setup) -> Result:
    """Use the rate of the analyst plan with two processes at once, for three minutes."""
    coins, days = (3, 10) if setup.is_quick else (100, 365)
    first = YESTERDAY - timedelta(days=days - 1)
    result = Result()
    with homes.sandbox(plan="analyst", latency_seconds=0.2) as providers:
        home = new_home(setup.folder / "home", providers, coins, first)
        measured(backfill(home, "market_caps", first=TODAY, last=TODAY))
        providers.calls()
        # The shared limiter remembers the calls of the minute before; the provider does no more.
        (home / "limits" / "coingecko.sqlite").unlink()
        sides = [
            subprocess.Popen(words, stdout=subprocess.DEVNULL)
            for words in (
                backfill(home, "ohlc_hourly", first=first, last=YESTERDAY),
                backfill(home, "market_caps", "ohlc_daily", first=first, last=YESTERDAY),
            )
        ]
        served = _watched(providers, sides)
        for side in sides:
            if side.wait():
                raise ContenderError(f"a backfill failed with {side.returncode}")
    within = max(total for at, total in served if at <= WINDOW_SECONDS)
    result.samples["two processes"] = [
        {
            "calls": float(served[-1][1]),
            "calls_in_three_minutes": float(within),
            "wall_seconds": next(at for at, total in served if total == served[-1][1]),
        }
    ]
    result.notes.append(f"{within / ANALYST_CALLS:.1%} of the {ANALYST_CALLS:,} calls allowed.")
    return result


def _watched(providers: Sandbox, sides: "list[subprocess.Popen[bytes]]") -> list[tuple[float, int]]:
    """Return how many calls were answered by when, in seconds from the first one."""
    served: list[tuple[float, int]] = []
    began = 0.0
    while any(side.poll() is None for side in sides):
        total = providers.total()
        began = began or (time.monotonic() if total else 0.0)
        if began:
            served.append((time.monotonic() - began, total))
        time.sleep(0.25)
    return [*served, (time.monotonic() - began, providers.total())]


def candles(setup: Setup) -> Result:
    """Fill a year of hourly candles of 1,000 coins; one round for every five, it takes minutes."""
    coins, days = (3, 10) if setup.is_quick else (1_000, 365)
    first = YESTERDAY - timedelta(days=days - 1)
    rounds: list[Figures] = []
    result = Result({"ours": rounds})
    with homes.sandbox() as providers:
        for number in range(max(1, setup.repeats // 5)):
            home = new_home(setup.folder / f"home-{number}", providers, coins, first)
            done = measured(backfill(home, "ohlc_hourly", first=first, last=YESTERDAY))
            by_endpoint = providers.calls()
            rounds.append(done.figures | {"calls": float(sum(by_endpoint.values()))})
            result.notes.append(f"{by_endpoint}; {done.said.splitlines()[-2]}")
    cpu, peak = (result.figures("ours", name) for name in ("cpu_seconds", "peak_megabytes"))
    result.goals = [Goal("CPU time", cpu, 60, "s"), Goal("peak memory", peak, 1_500, "MB")]
    return result
