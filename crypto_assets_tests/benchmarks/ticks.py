"""What the schedules cost while nothing else happens."""

from datetime import timedelta

from crypto_assets.definitions import build_definitions
from crypto_assets.periods import DAY
from crypto_assets.settings import load_settings, ticks
from crypto_assets.tables import TABLES
from crypto_assets_tests.benchmarks import homes
from crypto_assets_tests.benchmarks.homes import CLOCK, backfill, command
from crypto_assets_tests.benchmarks.measuring import measured
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.suite import Setup


def all_ticks(setup: Setup) -> Result:
    """Run the first tick of the day of each schedule, on an idle instance that is up to date."""
    coins, days = (3, 2) if setup.is_quick else (100, 30)
    result = Result()
    with homes.sandbox() as providers:
        start = CLOCK.date() - days * DAY
        home = homes.new_home(setup.folder / "home", providers, coins, start)
        if not setup.is_quick:
            measured(backfill(home, *TABLES, first=start, last=CLOCK.date()))
            providers.calls()
        settings = load_settings(home)
        crons = {
            schedule.name: str(schedule.cron_schedule)
            for schedule in build_definitions(settings).schedules or ()
        }
        for number in range(setup.repeats):
            day = CLOCK.date() + timedelta(days=number + 1)
            firsts = sorted((ticks(cron, day)[0], name) for name, cron in crons.items())
            firsts = firsts[:1] if setup.is_quick else firsts
            for moment, name in firsts:
                # A little later, as the daemon is.
                providers.at(moment + timedelta(seconds=30))
                homes.set_clock(home, providers.now)
                done = measured(command("tick", home, name, moment.isoformat()))
                calls = {"calls": float(sum(providers.calls().values()))}
                result.samples.setdefault(name, []).append(done.figures | calls)
    for name in result.samples:
        result.goals.append(Goal(name, result.figures(name, "wall_seconds"), 10, "s"))
    return result
