"""Is a warehouse what its contracts, gaps and hashes say? Looks, and changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import duckdb

from crypto_assets.tables import TABLES, Table, partitioned
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.contents import by_day_sql
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.gaps import GapState
from crypto_assets.warehouse.rules import all_rules
from crypto_assets.warehouse.schema import BESIDE, existing_columns, schema_problems
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of
from crypto_assets.warehouse.validation import check_rows


@dataclass(frozen=True)
class Verdict:
    """One thing that was verified of one table; `told` says what is wrong where it is not fine."""

    table: str
    what: str
    is_fine: bool
    told: str = ""


def verify(connection: duckdb.DuckDBPyConnection) -> Iterator[Verdict]:
    """Yield a verdict for the schema, and for each table's contract, hashes, rules and gaps."""
    schema = _schema(connection)
    yield schema
    if not schema.is_fine:
        return
    for table in TABLES.values():
        yield _contract(connection, table)
    for table in partitioned():
        yield _hashes(connection, table)
        yield _rules(connection, table)
        yield _gaps(connection, table)


def _schema(connection: duckdb.DuckDBPyConnection) -> Verdict:
    existing = existing_columns(connection)
    wanted = {table.name: table.all_columns for table in TABLES.values()}
    problems = [
        *(
            f"table {name} is missing"
            for name in (*BESIDE, *wanted, "coverage")
            if name not in existing
        ),
        *schema_problems(existing),
        *(
            f"column {name}.{column.name} is missing"
            for name, columns in wanted.items()
            for column in columns
            if name in existing and column.nullable and column.name not in existing[name]
        ),
    ]
    told = f"{'; '.join(problems)}: restore a backup, or run 'crypto-assets rebuild'"
    return Verdict("the warehouse", "schema", not problems, told if problems else "")


def _contract(connection: duckdb.DuckDBPyConnection, table: Table) -> Verdict:
    try:
        check_rows(connection, table.name, table)
    except ContractViolationError as error:
        return Verdict(table.name, "contract and keys", False, str(error))
    return Verdict(table.name, "contract and keys", True)


def _hashes(connection: duckdb.DuckDBPyConnection, table: Table) -> Verdict:
    """Compare the stored rows with what their own transactions wrote down of them."""
    rows = connection.execute(
        f"""SELECT coalesce(found.day, noted.day)
        FROM ({by_day_sql(table)}) AS found
        FULL JOIN (FROM partitions WHERE table_name = ?) AS noted ON noted.day = found.day
        WHERE found.rows_stored IS DISTINCT FROM noted.rows_stored
            -- Another version of DuckDB may hash otherwise; the count of rows still tells.
            OR (split_part(found.content_hash, ':', 1) = split_part(noted.content_hash, ':', 1)
                AND found.content_hash <> noted.content_hash)
        ORDER BY 1""",
        [table.name],
    ).fetchall()
    if not rows:
        return Verdict(table.name, "content hashes", True)
    return Verdict(
        table.name,
        "content hashes",
        False,
        f"the rows of {len(rows)} days, {rows[0][0]} to {rows[-1][0]}, are not those that were "
        "written: something else changed the file; restore a backup, or run "
        "'crypto-assets rebuild'",
    )


def _rules(connection: duckdb.DuckDBPyConnection, table: Table) -> Verdict:
    row = connection.execute(
        f"SELECT min({day_of(table)}), max({day_of(table)}) FROM {quoted(table.name)}"
    ).fetchone()
    if row is None or row[0] is None:
        return Verdict(table.name, "quality rules", True)
    broken = []
    for rule in all_rules():
        if rule.table == table.name and rule.is_error:
            offending = count_offenders(connection, rule, (row[0], row[1]))
            if offending:
                broken.append(f"{rule.name} ({offending} rows)")
    told = f"broken: {', '.join(broken)}; materialize these days again" if broken else ""
    return Verdict(table.name, "quality rules", not broken, told)


def _gaps(connection: duckdb.DuckDBPyConnection, table: Table) -> Verdict:
    """A gap may lie beside provisional or approximate rows, never over final exact ones."""
    overlaps = connection.execute(
        "SELECT count(*) FROM gaps AS a JOIN gaps AS b ON a.table_name = b.table_name "
        "AND a.series = b.series AND a.rowid < b.rowid "
        "AND a.first_day <= b.last_day AND a.last_day >= b.first_day "
        "WHERE a.table_name = ?",
        [table.name],
    ).fetchone()
    told = []
    if overlaps and overlaps[0]:
        told.append(f"{overlaps[0]} gaps overlap")
    senseless = connection.execute(
        "SELECT count(*) FROM gaps WHERE table_name = ? "
        "AND (first_day > last_day OR state NOT IN (SELECT unnest(?)))",
        [table.name, list(get_args(GapState))],
    ).fetchone()
    if senseless and senseless[0]:
        told.append(f"{senseless[0]} gaps make no sense")
    if table.series_column:
        whole = connection.execute(
            f"""SELECT count(*) FROM (
                SELECT {quoted(table.series_column)} AS series, {day_of(table)} AS day
                FROM {quoted(table.name)} GROUP BY ALL
                HAVING bool_and(is_final) AND count(*) >= {table.rows_a_day}
            ) AS stored JOIN gaps ON gaps.table_name = ? AND gaps.state = 'missing'
            AND gaps.series = stored.series AND stored.day BETWEEN first_day AND last_day""",
            [table.name],
        ).fetchone()
        if whole and whole[0]:
            told.append(f"{whole[0]} days are said to be missing and are there")
    advice = "; materialize these days again" if told else ""
    return Verdict(table.name, "gaps", not told, ", ".join(told) + advice)
