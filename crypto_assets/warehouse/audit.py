"""The gate before a publication: the ERROR rules on every day touched since the last one.

Which days are touched is told by the rows themselves, so what a killed run left is audited too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from crypto_assets.tables import Table, partitioned
from crypto_assets.warehouse.rules import Rule, all_rules
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of, literal

# Calculated rows are stamped with the start of their step, which may lie before a publication. A
# row stamped in this time before it counts where its day is not as it was published, and among the
# newest days in any case: what people read most is watched for changes from outside.
_SLACK = timedelta(days=1)
_NEWEST_DAYS = 7


@dataclass(frozen=True)
class AuditFailure:
    """A rule that is broken somewhere on the days [first, last]."""

    table: str
    check: str
    first: date
    last: date
    offending_rows: int


def audit(
    connection: duckdb.DuckDBPyConnection, since: datetime | None, published: Path | None = None
) -> list[AuditFailure]:
    """Return the ERROR rules that are broken on a day written to after `since` (none: ever).

    `published` is the file that readers have since then; without one, rows written in the day
    before `since` count too.
    """
    with _differing_days(connection, published) as differing:
        touched = _touched(connection, since, differing)
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


@contextmanager
def _differing_days(
    connection: duckdb.DuckDBPyConnection, published: Path | None
) -> Iterator[str | None]:
    """Yield a query of table_name and day of what is noted otherwise in a published file.

    None where there is no such file, or it can't be read.
    """
    here = "SELECT table_name, day, rows_stored, content_hash FROM partitions"
    there = here.replace("partitions", "published.main.partitions")
    query = None
    with ExitStack() as stack:
        if published is not None:
            with suppress(duckdb.Error):
                connection.execute(f"ATTACH {literal(str(published))} AS published (READ_ONLY)")
                stack.callback(connection.execute, "DETACH published")
                connection.execute(f"{there} LIMIT 0")
                query = f"SELECT table_name, day FROM ({here} EXCEPT {there})"
        yield query


def _touched(
    connection: duckdb.DuckDBPyConnection, since: datetime | None, differing: str | None
) -> tuple[date, date] | None:
    def written(table: Table) -> str:
        if since is None:
            return ""
        where = "WHERE materialized_at > $early"
        if differing:
            day, of_table = day_of(table), f"WHERE table_name = {literal(table.name)}"
            newest = f"(SELECT max(day) - {_NEWEST_DAYS} FROM partitions {of_table})"
            differs = f"{day} IN (SELECT day FROM differing {of_table})"
            where += f" AND (materialized_at > $after OR {day} > {newest} OR {differs})"
        return where

    tables = " UNION ALL ".join(
        f"SELECT min({day_of(table)}) AS first, max({day_of(table)}) AS last "
        f"FROM {quoted(table.name)} {written(table)}"
        for table in partitioned()
    )
    values = {"early": since - _SLACK} if since else {}
    if since and differing:
        values["after"] = since
        tables = f"WITH differing AS ({differing}) {tables}"
    row = connection.execute(f"SELECT min(first), max(last) FROM ({tables})", values).fetchone()
    return (row[0], row[1]) if row and row[0] else None
