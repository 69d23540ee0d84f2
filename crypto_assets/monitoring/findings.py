"""Which quality rules the published rows of the last days break; told by the rows, not by runs."""

from dataclasses import dataclass
from datetime import date, timedelta

import duckdb

from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.publishing import Publication
from crypto_assets.warehouse.rules import all_rules

# A row this old has been looked at by a fortnight of reports.
LOOK_BACK = timedelta(days=14)


@dataclass(frozen=True)
class Finding:
    """A rule that some rows of the days [first, last] break."""

    table: str
    check: str
    is_error: bool
    description: str
    offending_rows: int
    first: date
    last: date
    withholds: bool = False
    """Whether it keeps what was written from being published."""
    settles: bool = False
    """Whether it may only be waiting for a recalculation."""

    @property
    def key(self) -> str:
        """What names the same finding again."""
        return f"{self.table}.{self.check}"


def withholding(publication: Publication) -> list[Finding]:
    """Return the broken rules that withhold a publication: not of the published rows."""
    rules = {(rule.table, rule.name): rule for rule in all_rules()}
    return [
        Finding(
            failed.table,
            failed.check,
            True,
            rule.description if rule else "",
            failed.offending_rows,
            failed.first,
            failed.last,
            withholds=True,
            settles=rule is not None and rule.settles,
        )
        for failed in publication.withheld_by
        for rule in (rules.get((failed.table, failed.check)),)
    ]


def findings(connection: duckdb.DuckDBPyConnection, today: date) -> list[Finding]:
    """Return the rules that are broken within the last days, ERROR first."""
    days = (today - LOOK_BACK, today)
    found = []
    for rule in all_rules():
        offending = count_offenders(connection, rule, days)
        if offending:
            found.append(
                Finding(rule.table, rule.name, rule.is_error, rule.description, offending, *days)
            )
    return sorted(found, key=lambda one: not one.is_error)
