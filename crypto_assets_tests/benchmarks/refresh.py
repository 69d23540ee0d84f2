"""The hourly refresh of a home that has some history, and what more history adds to it."""

from datetime import date, timedelta
from pathlib import Path

import requests

from crypto_assets.settings import load_settings
from crypto_assets_tests.benchmarks import histories, homes
from crypto_assets_tests.benchmarks.homes import CLOCK, Sandbox, command
from crypto_assets_tests.benchmarks.measuring import Figures, in_turns, measured
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.rivals import script
from crypto_assets_tests.benchmarks.suite import Setup

TABLES = ("coin_list", "market_caps", "ranks", "ema_signals")
HOUR = timedelta(hours=1)


def refresh(setup: Setup) -> Result:
    """Refresh 1,000 coins (list, caps, ranks, signals), with a year and with ten years stored."""
    coins, year = (10, 20) if setup.is_quick else (1_000, 365)
    lengths = {"a year": year, "ten years": 10 * year}
    result = Result()
    with homes.sandbox() as providers:
        made = {
            name: _filled(setup.folder / name.replace(" ", "-"), providers, coins, days)
            for name, days in lengths.items()
        }
        for home in () if setup.is_quick else made.values():
            _refreshed(home, providers, result)
        result.samples = {name: [] for name in made}
        for number in range(setup.repeats):
            # Each is of another hour, so that each has something to bring.
            providers.at(CLOCK + (number + 1) * HOUR)
            for home in made.values():
                homes.set_clock(home, providers.now)
            runs = {
                name: lambda h=home: _refreshed(h, providers, result) for name, home in made.items()
            }
            for name, found in in_turns(runs, 1).items():
                result.samples[name] += found
    for name, home in made.items():
        size = (home / "warehouse.duckdb").stat().st_size / 1e6
        result.notes.append(f"With {name} of history the warehouse takes {size:,.0f} MB.")
        result.goals += [
            Goal(f"with {name}", result.figures(name, "wall_seconds"), 8, "s"),
            Goal(f"calls, with {name}", result.figures(name, "calls"), 5),
        ]
    result.goals.append(Goal("ten years to a year", result.ratio("ten years", "a year"), 1.2))
    cpu = result.ratio("ten years", "a year", "cpu_seconds")
    result.goals.append(Goal("ten years to a year, CPU time", cpu, 1.2))
    return result


def _filled(home: Path, providers: Sandbox, coins: int, days: int) -> Path:
    """Return a home that knows all closed days of today's largest coins."""
    today = CLOCK.date()
    asked = today - timedelta(days=days), today - timedelta(days=1)
    homes.new_home(home, providers, coins, asked[0])
    with requests.Session() as session:
        pages = list(script.market_pages(providers.coingecko, coins, session))
    histories.invent_closes(home, histories.market_of(pages), asked)
    settings = load_settings(home)
    histories.calculate_ranks(settings, asked)
    histories.calculate_signals(settings, asked)
    providers.calls()
    return home


def _refreshed(home: Path, providers: Sandbox, result: Result) -> Figures:
    today: date = providers.now.date()
    done = measured(command("materialize", home, today, today, *TABLES))
    by_endpoint = providers.calls()
    result.notes.append(f"{home.name}, {providers.now:%H:%M}: {by_endpoint}.")
    return done.figures | {"calls": float(sum(by_endpoint.values()))}
