"""A home, a sandbox and a clock that tests set: the whole platform on loopback, in process."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from crypto_assets.automation.schedules import range_tags
from crypto_assets.definitions import build_definitions
from crypto_assets.operations.running import RunReport, fill, run
from crypto_assets.sandbox import Market, SandboxServer
from crypto_assets.settings import Settings, sandbox_base_urls, validated
from crypto_assets.warehouse.warehouse import Warehouse

NOON = datetime(2026, 3, 10, 12, 20)
"""Where a lab's clock stands unless told otherwise: a Tuesday, everything of Monday is final."""
WEEK = {"history": {"start": "2026-03-02"}, "universe": {"tracked": 5}}
"""Settings of the home that the fixture `week_home` fills."""


class Lab:
    """One home with its sandbox. `at()` moves both clocks, `run()` materializes."""

    def __init__(
        self, home: Path, server: SandboxServer, instance: dg.DagsterInstance, **overrides: Any
    ) -> None:
        self.home = home
        self.server = server
        self.market = server.market
        self.instance = instance
        self._overrides = overrides
        self.now = NOON
        self.at(NOON)

    def at(self, moment: datetime) -> "Lab":
        """Let it be this moment, for the platform and for the providers."""
        self.now = moment
        self.server.clock.set(moment)
        return self

    @property
    def settings(self) -> Settings:
        """The settings in force at this moment."""
        tree: dict[str, Any] = sandbox_base_urls(self.server.url)
        tree |= {
            "home": self.home,
            "sandbox": {"seed": self.server.seed, "clock": self.now},
            "history": {"start": "2026-01-01"},
            "universe": {"tracked": 10},
            "fetch": {"retry_budget_seconds": 2},
        }
        for key, value in self._overrides.items():
            tree[key] = {**tree.get(key, {}), **value}
        return validated(tree)

    @property
    def warehouse(self) -> Warehouse:
        """The pipeline's own file."""
        return Warehouse.of(self.settings)

    def run(self, tables: Sequence[str], first: date, last: date | None = None) -> RunReport:
        """Materialize tables for [first, last] in one run."""
        return run(self.settings, self.instance, tables, (first, last or first), lambda *_: None)

    def fill(self, tables: Sequence[str], first: date, last: date | None = None) -> RunReport:
        """The same, and afterwards what became stale by it, as the command line does."""
        return fill(self.settings, self.instance, tables, (first, last or first), lambda *_: None)

    def recheck(self, tables: Sequence[str], first: date, last: date) -> dg.ExecuteInProcessResult:
        """Look at final values again, as the schedule of this day asks for it."""
        job = build_definitions(self.settings).resolve_job_def("restatements_check")
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(table) for table in tables],
            tags={**range_tags(first, last), "crypto_assets/recheck": str(self.now.date())},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def sql(self, query: str, *values: Any) -> pd.DataFrame:
        """Ask the pipeline's own file."""
        return self.warehouse.query(query, list(values))


@contextmanager
def open_lab(
    home: Path,
    market: Market,
    plan: str = "unlimited",
    *,
    keeps_history: bool = False,
    **overrides: Any,
) -> Iterator[Lab]:
    """Yield a lab whose sandbox enforces `plan`; `overrides` are sections of the settings.

    Dagster's history is in memory, or in files below the home where `keeps_history`.
    """
    with SandboxServer(market=market, plan=plan, clock=NOON) as server, ExitStack() as stack:
        if keeps_history:
            (home / "dagster").mkdir(exist_ok=True)
            quiet = {"telemetry": {"enabled": False}}
            instance = dg.DagsterInstance.local_temp(str(home / "dagster"), overrides=quiet)
        else:
            instance = dg.DagsterInstance.ephemeral()
        yield Lab(home, server, stack.enter_context(instance), **overrides)
