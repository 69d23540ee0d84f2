"""`crypto-assets status`: a home's health, what is wrong with it, and both for programs."""

from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from crypto_assets.automation.watching import job_names
from crypto_assets.monitoring.alerts import AlertBook
from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.conditions import conditions, standing
from crypto_assets.monitoring.health import Health, examine
from crypto_assets.monitoring.looking import TableState, read_publication
from crypto_assets.operations import home
from crypto_assets.settings import Settings


@dataclass(frozen=True)
class Survey:
    """A home's health, what is wrong with it, and since when as far as it was noticed."""

    health: Health
    wrong: list[Condition]
    since: dict[str, datetime]

    @property
    def is_fine(self) -> bool:
        """Whether something is published, and nothing but warnings is wrong."""
        is_wrong = any(condition.is_error for condition in self.wrong)
        return self.health.publication.version > 0 and not is_wrong

    @property
    def sentences(self) -> list[str]:
        """What is wrong, what runs, what was used, and the verdict."""
        health, credits = self.health, self.health.credits
        if health.publication.version == 0:
            return [
                "Nothing has been published yet: run 'crypto-assets refresh'.",
                *self._problems,
            ]
        limit = f" of {credits.limit:,}" if credits.limit is not None else ""
        said = [f"{run.job}: {run.status.lower()}" for run in health.unfinished_runs]
        if health.given_up:
            said.append(f"Given up and not asked for again: {len(health.given_up)} days (--json).")
        said.append(
            f"CoinGecko, {health.at:%B %Y}: {credits.calls:,} calls, {credits.used:,}{limit} "
            f"credits (plan '{credits.plan}')."
        )
        said += self._problems
        said.append("All is well." if self.is_fine else "Not to be trusted until that is mended.")
        return said

    @property
    def _problems(self) -> list[str]:
        kinds = {True: "ERROR", False: "WARN"}
        return [
            f"{kinds[one.is_error]}: {one.title}. {one.detail} {one.advice}" for one in self.wrong
        ]


def survey(settings: Settings) -> Survey:
    """Look at a home. Raises `WarehouseError` where nothing ever ran."""
    if not (settings.home / "dagster").exists():
        read_publication(settings.home)
    with home.open_instance(settings) as instance:
        health = examine(settings, instance, job_names())
    with closing(AlertBook(settings.home)) as book:
        return Survey(health, standing(conditions(health, settings)), book.since())


def _without(record: Condition | TableState, left_out: str) -> dict[str, Any]:
    """Return a record's fields but for one that says nothing here."""
    return {name: value for name, value in asdict(record).items() if name != left_out}


def as_tree(found: Survey) -> dict[str, Any]:
    """Return all of it as JSON would have it; names are stable."""
    health = found.health
    return {
        "at": health.at,
        "is_fine": found.is_fine,
        "conditions": [
            _without(condition, "is_suspended") | {"since": found.since.get(condition.key)}
            for condition in found.wrong
        ],
        "tables": {
            table.name: _without(table, "untold")
            | {
                "reaches": health.freshness[table.name].reaches,
                "wanted": health.freshness[table.name].wanted,
                "is_late": health.freshness[table.name].is_late,
                "missing_days": health.missing_days.get(table.name, 0),
                "failed_checks": health.failed_checks[table.name],
            }
            for table in health.tables
        },
        "missing": [asdict(gap) for gap in health.missing],
        "given_up": [{"table": table, "day": day} for table, day in health.given_up],
        "runs": [asdict(run) for run in health.unfinished_runs],
        "failed_jobs": [asdict(run) for run in health.failed_jobs],
        "credits": asdict(health.credits),
        "publication": asdict(health.publication),
        "is_behind": health.is_behind,
        "free_bytes": health.free_bytes,
        "undelivered_alerts": health.undelivered,
    }
