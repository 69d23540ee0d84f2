"""The gate before a publication: the ERROR rules on every day touched since the last one.

Which days are touched is told by the rows themselves, so what a killed run left is audited too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb

from crypto_assets.periods import wall_now
from crypto_assets.tables import TABLES, Table, partitioned
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
    early = since - _SLACK if since else None
    with _differing_days(connection, published, early) as differing:
        touched = _touched(connection, since, differing)
    rules = [rule for rule in all_rules() if rule.is_error]
    if touched is None:
        # Tables without days tell of no day that was touched.
        rules = [rule for rule in rules if TABLES[rule.table].time_column is None]
    days = touched or (wall_now().date(),) * 2
    counts = [(rule, count_offenders(connection, rule, days)) for rule in rules]
    return [AuditFailure(rule.table, rule.name, *days, count) for rule, count in counts if count]


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
    connection: duckdb.DuckDBPyConnection, published: Path | None, early: datetime | None
) -> Iterator[str | None]:
    """Yield a query of the days that are not as in a published file, in any table.

    None where there is no such file, or it can't be read.
    """
    query = None
    with ExitStack() as stack:
        if published is not None and early is not None:
            with suppress(duckdb.Error):
                connection.execute(f"ATTACH {literal(str(published))} AS published (READ_ONLY)")
                stack.callback(connection.execute, "DETACH published")
                sql = _differing_sql()
                connection.execute(f"SELECT * FROM ({sql}) LIMIT 0", {"early": early})
                query = sql
        yield query


def _differing_sql() -> str:
    """Return a query of the days of which other rows are noted, or that were calculated again.

    Of these the same rows may be noted: which rules a row is spared depends on when it was made.
    """
    noted = "SELECT table_name, day, rows_stored, content_hash FROM {schema}partitions"
    made = [
        f"SELECT {literal(table.name)} AS table_name, {day_of(table)} AS day, "
        f"max(materialized_at) AS at FROM {{schema}}{quoted(table.name)} "
        "WHERE materialized_at > $early GROUP BY ALL"
        for table in partitioned()
        if table.derived
    ]
    found = []
    for told in (noted, " UNION ALL ".join(made)):
        here, there = (f"({told.format(schema=schema)})" for schema in ("", "published.main."))
        found += [f"(FROM {here} EXCEPT FROM {there})", f"(FROM {there} EXCEPT FROM {here})"]
    return " UNION ".join(f"SELECT day FROM {part}" for part in found)


def _touched(
    connection: duckdb.DuckDBPyConnection, since: datetime | None, differing: str | None
) -> tuple[date, date] | None:
    def written(table: Table) -> str:
        if since is None:
            return ""
        where = "WHERE materialized_at > $early"
        if differing:
            day, name = day_of(table), literal(table.name)
            newest = f"SELECT max(day) - {_NEWEST_DAYS} FROM partitions WHERE table_name = {name}"
            where += (
                f" AND (materialized_at > $after OR {day} > ({newest}) "
                f"OR {day} IN (FROM differing))"
            )
        return where

    tables = " UNION ALL ".join(
        f"SELECT min({day_of(table)}) AS first, max({day_of(table)}) AS last "
        f"FROM {quoted(table.name)} {written(table)}"
        for table in partitioned()
    )
    values = {"early": since - _SLACK} if since else {}
    if since and differing:
        values["after"] = since
        tables = f"WITH differing AS MATERIALIZED ({differing}) {tables}"
    row = connection.execute(f"SELECT min(first), max(last) FROM ({tables})", values).fetchone()
    return (row[0], row[1]) if row and row[0] else None
