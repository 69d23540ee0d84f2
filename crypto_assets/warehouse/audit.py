"""The gate before a publication: the ERROR rules on every day touched since the last one.

Which days are touched is told by the rows themselves, so what a killed run left is audited too.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import duckdb

from crypto_assets.tables import partitioned
from crypto_assets.warehouse.rules import Rule, all_rules
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of

# Calculated rows are stamped with the start of their step, which may lie before a publication.
_SLACK = timedelta(days=1)


@dataclass(frozen=True)
class AuditFailure:
    """A rule that is broken somewhere on the days [first, last]."""

    table: str
    check: str
    first: date
    last: date
    offending_rows: int


def audit(connection: duckdb.DuckDBPyConnection, since: datetime | None) -> list[AuditFailure]:
    """Return the ERROR rules that are broken on a day written to after `since` (none: ever)."""
    touched = _touched(connection, since)
    if touched is None:
        return []
    counts = [
        (rule, count_offenders(connection, rule, touched)) for rule in all_rules() if rule.is_error
    ]
    return [AuditFailure(rule.table, rule.name, *touched, count) for rule, count in counts if count]


def count_offenders(
    connection: duckdb.DuckDBPyConnection, rule: Rule, days: tuple[date, date]
) -> int:
    """Return how many rows break a rule on the days [first, last]."""
    row = connection.execute(
        f"SELECT count(*) FROM ({rule.offenders})", rule.parameters(days)
    ).fetchone()
    return int(row[0]) if row else 0


def _touched(
    connection: duckdb.DuckDBPyConnection, since: datetime | None
) -> tuple[date, date] | None:
    tables = " UNION ALL ".join(
        f"SELECT min({day_of(table)}) AS first, max({day_of(table)}) AS last "
        f"FROM {quoted(table.name)} WHERE $after IS NULL OR materialized_at > $after"
        for table in partitioned()
    )
    row = connection.execute(
        f"SELECT min(first), max(last) FROM ({tables})",
        {"after": since - _SLACK if since else None},
    ).fetchone()
    return (row[0], row[1]) if row and row[0] else None
