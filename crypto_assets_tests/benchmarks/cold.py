"""A new home: daily prices and market caps of the largest coins, and the running day."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd

from crypto_assets_tests.benchmarks import homes
from crypto_assets_tests.benchmarks.homes import CLOCK, Sandbox, backfill, command, new_home
from crypto_assets_tests.benchmarks.measuring import (
    Figures,
    Process,
    in_turns,
    is_installed,
    measured,
    python,
)
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.steps import step_seconds
from crypto_assets_tests.benchmarks.suite import Setup

OURS, ALONE = "ours", "ours, the table alone"
SCRIPT, DLT, STOCK, FLOOR = "script", "dlt", "stock Dagster", "empty asset"
# Just after midnight a snapshot is the close of the day before.
NEXT_DAY = timedelta(hours=11, minutes=45)
QUIET = "telemetry:\n  enabled: false\n"
_RIVALS = "crypto_assets_tests.benchmarks.rivals"
_COLUMNS = "CAST(date AS DATE) AS date, coin_id, price_usd, market_cap_usd"


@dataclass
class Case:
    """What all contenders are asked for, and where they work."""

    folder: Path
    providers: Sandbox
    coins: int
    days: int

    @property
    def start(self) -> date:
        """The first of the days."""
        return CLOCK.date() - timedelta(days=self.days)

    @property
    def today(self) -> date:
        """The running day, which comes after the last of them."""
        return self.providers.now.date()


@dataclass(frozen=True)
class Contender:
    """Somebody's program: how it is started in its folder, and where its rows are then."""

    words: Callable[[Case, Path], list[str]]
    stored: str = ""
    """A query of the file `kept`, which may be anywhere below the folder; empty: nothing."""
    kept: str = ""
    prepare: Callable[[Case, Path], object] = lambda _, __: None
    environment: Callable[[Case, Path], dict[str, str]] = lambda _, __: {}
    step: Callable[[Path, Process], float] | None = None
    """How long it took without its start, in seconds."""
    needs_pyarrow: bool = False

    def run(self, case: Case, folder: Path) -> Figures:
        """Measure it, in a folder that is prepared."""
        done = measured(
            self.words(case, folder),
            needs_pyarrow=self.needs_pyarrow,
            **self.environment(case, folder),
        )
        calls = {"calls": float(sum(case.providers.calls().values()))}
        step = {"step_seconds": self.step(folder, done)} if self.step else {}
        return done.figures | step | calls

    def rows(self, folder: Path) -> pd.DataFrame:
        """Return what it stored, in one order."""
        with duckdb.connect(str(folder / self.kept), read_only=True) as connection:
            return connection.sql(f"{self.stored} ORDER BY ALL").df()


def cold(setup: Setup) -> Result:
    """Fill 250 coins x 90 days and the running day from nothing, and ask again the next day."""
    coins, days = (5, 4) if setup.is_quick else (250, 90)
    result = Result()
    contenders = dict(_contenders())
    if not is_installed("dlt"):
        del contenders[DLT]
        result.notes.append("dlt is not installed (extra bench): left out.")
    with homes.sandbox() as providers:
        case = Case(setup.folder, providers, coins, days)
        runs = {name: partial(_anew, case, name, one) for name, one in contenders.items()}
        if not setup.is_quick:
            in_turns(runs, 1)  # what is read for the first time is compiled, or comes from the disk
        result.samples = in_turns(runs, setup.repeats)
        keeping = {name: one for name, one in contenders.items() if one.stored}
        rows = _same_rows(case, keeping)
        result.notes.append(f"All stored the same {rows:,} rows.")
        providers.at(CLOCK + NEXT_DAY)
        homes.set_clock(case.folder / OURS, providers.now)
        for name in (OURS, SCRIPT, DLT):
            if name not in contenders:
                continue
            again = contenders[name].run(case, case.folder / name)
            result.notes.append(f"The next day, {name}: {again['calls']:.0f} calls.")
    result.goals = list(_goals(result))
    return result


def _contenders() -> Iterator[tuple[str, Contender]]:
    kept = "warehouse.duckdb"
    stored = f"SELECT {_COLUMNS} FROM market_caps"
    yield OURS, Contender(
        lambda case, home: backfill(home, "market_caps", first=case.start, last=case.today),
        stored,
        kept,
        _home,
        step=lambda home, _: step_seconds(home, "market_caps"),
    )
    yield ALONE, Contender(
        lambda case, home: command("materialize", home, case.start, case.today, "market_caps"),
        stored,
        kept,
        _home,
        step=lambda home, _: step_seconds(home, "market_caps"),
    )
    yield SCRIPT, Contender(
        lambda case, folder: _rival("script", case, folder / "script.duckdb"),
        stored,
        "script.duckdb",
        step=lambda _, done: float(done.said.split()[-2]),
    )
    yield DLT, Contender(
        lambda case, folder: _rival("dlt_expert", case, folder),
        f"SELECT {_COLUMNS} FROM coingecko.market_caps",
        "dlt.duckdb",
        needs_pyarrow=True,
    )
    yield STOCK, Contender(
        _stock,
        f"SELECT {_COLUMNS} FROM public.closes UNION ALL SELECT {_COLUMNS} FROM public.markets",
        "stock.duckdb",
        _quiet,
        lambda case, folder: {
            "DAGSTER_HOME": str(folder),
            "BENCH_BASE_URL": case.providers.coingecko,
            "BENCH_DATABASE": str(folder / "stock.duckdb"),
            "BENCH_COINS": str(case.coins),
            "BENCH_DAYS": str(case.days),
            "BENCH_START": str(case.start),
        },
    )
    yield FLOOR, Contender(
        lambda case, folder: python("-m", f"{_RIVALS}.empty_asset", str(folder), str(case.days)),
        prepare=_quiet,
    )


def _home(case: Case, home: Path) -> None:
    new_home(home, case.providers, case.coins, case.start)


def _quiet(_: Case, folder: Path) -> None:
    (folder / "dagster.yaml").write_text(QUIET)


def _rival(name: str, case: Case, target: Path) -> list[str]:
    sizes = [str(case.coins), str(case.days)]
    return python("-m", f"{_RIVALS}.{name}", case.providers.coingecko, str(target), *sizes)


def _stock(case: Case, _: Path) -> list[str]:
    days = f"{case.start}...{case.today - timedelta(days=1)}"
    module = f"{_RIVALS}.stock_dagster"
    words = ("-m", "dagster", "asset", "materialize", "--select", "*", "-m", module)
    return python(*words, "--partition-range", days)


def _anew(case: Case, name: str, contender: Contender) -> Figures:
    folder = case.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    contender.prepare(case, folder)
    return contender.run(case, folder)


def _same_rows(case: Case, contenders: dict[str, Contender]) -> int:
    """Return how many rows each stored; raises `AssertionError` where they differ."""
    found = {name: one.rows(case.folder / name) for name, one in contenders.items()}
    (_, first), *others = found.items()
    for name, rows in others:
        pd.testing.assert_frame_equal(rows, first, check_exact=True, obj=name)
    return len(first)


def _goals(result: Result) -> Iterator[Goal]:
    scripts = result.figures(SCRIPT, "wall_seconds")
    floors = result.figures(FLOOR, "wall_seconds")
    for name in (OURS, ALONE):
        walls = result.figures(name, "wall_seconds")
        both = zip(walls, scripts, floors, strict=True)
        shares = [wall / (1.5 * script + floor) for wall, script, floor in both]
        yield Goal(f"{name} to 1.5 × script + empty asset", shares, 1)
        if DLT in result.samples:
            yield Goal(f"{name} to dlt", result.ratio(name, DLT), 1)
        yield Goal(f"{name}: peak memory", result.figures(name, "peak_megabytes"), 300, "MB")
    steps = result.figures(ALONE, "step_seconds")
    own = result.figures(SCRIPT, "step_seconds")
    pairs = zip(steps, own, strict=True)
    yield Goal("the step to the script without its imports", [a / b for a, b in pairs], 0.6)
    pairs = zip(steps, scripts, strict=True)
    yield Goal("the step to the whole script", [a / b for a, b in pairs], 0.6)
