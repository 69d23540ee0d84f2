"""Everything there is to know of a home at one moment. Reads only, and waits for no writer.

Belongs here: figures. Does not belong here: which of them are wrong (`conditions`).
"""

import shutil
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

import dagster as dg
import duckdb

from crypto_assets.assets.platform import Platform
from crypto_assets.checks.freshness import Freshness, freshness
from crypto_assets.monitoring.alerts import AlertBook
from crypto_assets.monitoring.attempts import Memory, Place, given_up
from crypto_assets.monitoring.findings import Finding, findings, withholding
from crypto_assets.monitoring.looking import (
    Missing,
    TableState,
    missing_days,
    table_states,
)
from crypto_assets.monitoring.runs import LAPSING, RunState, failed_jobs, unfinished_runs
from crypto_assets.providers.coingecko import PROVIDER
from crypto_assets.settings import Settings
from crypto_assets.warehouse import publishing
from crypto_assets.warehouse.errors import WarehouseError, reason_of
from crypto_assets.warehouse.reading import connect

TWO_DAEMONS = "two_daemons"
"""Under which name the book of alerts keeps whether two daemons were seen."""


@dataclass(frozen=True)
class Credits:
    """What CoinGecko was asked this calendar month, and what the plan allows (None: no limit)."""

    plan: str
    calls: int
    used: int
    limit: int | None

    @property
    def share(self) -> float:
        """The part of the limit that is used."""
        return self.used / self.limit if self.limit else 0.0


@dataclass(frozen=True)
class Health:
    """A home at one moment, by its own clock (UTC); `tables` is empty before the first version."""

    at: datetime
    publication: publishing.Publication
    is_behind: bool
    credits: Credits
    free_bytes: int
    tables: list[TableState] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)
    freshness: dict[str, Freshness] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unfinished_runs: list[RunState] = field(default_factory=list)
    failed_jobs: list[RunState] = field(default_factory=list)
    given_up: list[Place] = field(default_factory=list)
    undelivered: int = 0
    """Messages that no channel has taken yet."""
    has_two_daemons: bool = False
    """Whether the last look at their heartbeats saw more than one."""

    @property
    def failed_checks(self) -> dict[str, list[str]]:
        """By table, the checks that fail."""
        checks: dict[str, list[str]] = {table.name: [] for table in self.tables}
        for finding in self.findings:
            checks.setdefault(finding.table, []).append(finding.check)
        return checks

    @property
    def missing_days(self) -> dict[str, int]:
        """By table, how many days of its series are missing."""
        counts: dict[str, int] = {}
        for gap in self.missing:
            counts[gap.table] = counts.get(gap.table, 0) + (gap.last - gap.first).days + 1
        return counts


def examine(
    settings: Settings,
    instance: dg.DagsterInstance,
    jobs: Iterable[str],
    known_findings: list[Finding] | None = None,
) -> Health:
    """Look at the newest publication of a home and at the runs of its jobs.

    Raises `WarehouseError`, `AttemptsError`, `AlertsError` or `UsageError` for what can't be read.

    `known_findings` are taken as they are, by a caller who knows that nothing was published since.
    """
    home, now = settings.home, settings.clock.now()
    with closing(AlertBook(home)) as book:
        undelivered, has_two_daemons = book.undelivered(), bool(book.recall(TWO_DAEMONS))
    publication = publishing.read_state(home)
    health = Health(
        now,
        publication,
        publishing.is_behind(home),
        _credits(settings),
        shutil.disk_usage(home).free,
        unfinished_runs=unfinished_runs(instance),
        failed_jobs=failed_jobs(instance, jobs, lapsing=LAPSING),
        given_up=_given_up(settings),
        undelivered=undelivered,
        has_two_daemons=has_two_daemons,
        findings=withholding(publication),
    )
    if publication.version == 0:
        return health
    try:
        with connect(home) as connection:
            health.tables.extend(table_states(connection, now))
            health.missing.extend(missing_days(connection, health.tables))
            health.freshness.update(freshness(connection, settings, now))
            found = findings(connection, now.date()) if known_findings is None else known_findings
    except duckdb.Error as error:
        reason = reason_of(error)
        raise WarehouseError(
            f"can't read the newest publication of {home} ({reason}): run 'crypto-assets verify'"
        ) from None
    known = {finding.key for finding in health.findings}
    health.findings.extend(finding for finding in found if finding.key not in known)
    return health


def _credits(settings: Settings) -> Credits:
    with closing(Platform(settings)) as platform:
        used = platform.usage.month(PROVIDER, settings.clock.today())
        plan = platform.plan
    return Credits(plan.name, used.calls, used.credits, plan.credits_per_month)


def _given_up(settings: Settings) -> list[Place]:
    with closing(Memory(settings.home)) as memory:
        return given_up(memory.all())
