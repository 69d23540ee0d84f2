"""Who fills a new home, or a file of its own, with daily closes of the largest coins.

All are asked for the same coins and days by the same sandbox, and the running day beside. How each
does it is its own affair (`rivals`); here it says how it is started, and where its rows are then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pandas as pd

from crypto_assets_tests.benchmarks.homes import CLOCK, KEY, Sandbox, backfill, command, new_home
from crypto_assets_tests.benchmarks.measuring import Process, is_installed, measured, python
from crypto_assets_tests.benchmarks.steps import step_seconds

OURS, ALONE = "ours", "ours, the table alone"
SCRIPT, DLT, STOCK, FLOOR = "script", "dlt", "stock Dagster", "empty asset"
QUIET = "telemetry:\n  enabled: false\n"
_RIVALS = "crypto_assets_tests.benchmarks.rivals"
_COLUMNS = "CAST(date AS DATE) AS date, coin_id, price_usd, market_cap_usd"
_CAPS = f"SELECT {_COLUMNS} FROM market_caps"


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
    """One of them."""

    words: Callable[[Case, Path], list[str]]
    """The command that works in a folder."""
    stored: str = ""
    """A query of the rows in the file `kept`, which is in the folder; empty: it stores none."""
    kept: str = ""
    prepare: Callable[[Case, Path], object] = lambda _, __: None
    environment: Callable[[Case, Path], dict[str, str]] = lambda _, __: {}
    step: Callable[[Path, Process], float] | None = None
    """How long fetching and storing took, without what comes before and after, in seconds."""
    needs_pyarrow: bool = False

    def run(self, case: Case, folder: Path, *, may_fail: bool = False) -> Process:
        """Run it in a folder that is prepared."""
        return measured(
            self.words(case, folder),
            needs_pyarrow=self.needs_pyarrow,
            may_fail=may_fail,
            **self.environment(case, folder),
        )

    def rows(self, folder: Path) -> pd.DataFrame:
        """Return what it stored, in one order."""
        with duckdb.connect(str(folder / self.kept), read_only=True) as connection:
            return connection.sql(f"{self.stored} ORDER BY ALL").df()


def installed(names: tuple[str, ...]) -> dict[str, Contender]:
    """Return those of the named that can be started here."""
    return {name: _ALL[name] for name in names if name != DLT or is_installed("dlt")}


def _home(case: Case, home: Path) -> None:
    new_home(home, case.providers, case.coins, case.start)


def _quiet(_: Case, folder: Path) -> None:
    (folder / "dagster.yaml").write_text(QUIET)


def _our_step(home: Path, _: Process) -> float:
    return step_seconds(home, "market_caps")


def _key(_: Case, __: Path) -> dict[str, str]:
    return {"COINGECKO_API_KEY": KEY}


def _rival(name: str, case: Case, target: Path) -> list[str]:
    sizes = [str(case.coins), str(case.days)]
    return python("-m", f"{_RIVALS}.{name}", case.providers.coingecko, str(target), *sizes)


def _stock(case: Case, _: Path) -> list[str]:
    days = f"{case.start}...{case.today - timedelta(days=1)}"
    module = f"{_RIVALS}.stock_dagster"
    words = ("-m", "dagster", "asset", "materialize", "--select", "*", "-m", module)
    return python(*words, "--partition-range", days)


def _stock_environment(case: Case, folder: Path) -> dict[str, str]:
    return {
        "DAGSTER_HOME": str(folder),
        "BENCH_BASE_URL": case.providers.coingecko,
        "BENCH_DATABASE": str(folder / "stock.duckdb"),
        "BENCH_COINS": str(case.coins),
        "BENCH_DAYS": str(case.days),
        "BENCH_START": str(case.start),
    }


def _empty(case: Case, folder: Path) -> list[str]:
    return python("-m", f"{_RIVALS}.empty_asset", str(folder), str(case.days))


_ALL = {
    # With all that follows from the table: ranks, signals and snapshots of all days.
    OURS: Contender(
        lambda case, home: backfill(home, "market_caps", first=case.start, last=case.today),
        _CAPS,
        "warehouse.duckdb",
        _home,
        step=_our_step,
    ),
    # What the others do, no more.
    ALONE: Contender(
        lambda case, home: command("materialize", home, case.start, case.today, "market_caps"),
        _CAPS,
        "warehouse.duckdb",
        _home,
        step=_our_step,
    ),
    SCRIPT: Contender(
        lambda case, folder: _rival("script", case, folder / "script.duckdb"),
        _CAPS,
        "script.duckdb",
        environment=_key,
        step=lambda _, done: float(done.said.split()[-2]),
    ),
    DLT: Contender(
        lambda case, folder: _rival("dlt_expert", case, folder),
        f"SELECT {_COLUMNS} FROM coingecko.market_caps",
        "dlt.duckdb",
        environment=_key,
        needs_pyarrow=True,
    ),
    STOCK: Contender(
        _stock,
        f"SELECT {_COLUMNS} FROM public.closes UNION ALL SELECT {_COLUMNS} FROM public.markets",
        "stock.duckdb",
        _quiet,
        _stock_environment,
    ),
    FLOOR: Contender(_empty, prepare=_quiet),
}
