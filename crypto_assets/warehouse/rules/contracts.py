"""Rules that every table has, generated from its contract."""

from collections.abc import Iterator

from crypto_assets.tables import TABLES, Table, partitioned
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules.rule import Rule
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of, literal, within
from crypto_assets.warehouse.validation import conditions

# Reaches 28 trading days back, holidays included.
_LOOK_BACK_DAYS = 60
_LEAST_SHARE, _LARGEST_SHARE = 0.7, 2.0


def rules() -> Iterator[Rule]:
    """Yield the generated rules of all tables."""
    for table in TABLES.values():
        yield _contract_holds(table)
        yield _keys_unique(table)
        yield _source_fits(table)
    for table in partitioned():
        # Calculated tables lack nothing by themselves: they follow their inputs.
        if not table.derived:
            yield _complete(table)
    for table in partitioned():
        # Without a series a day has one row, or none.
        if table.series_column:
            yield _row_count(table)


def _days_of(table: Table) -> str:
    """Return the condition of rows under check: in a merged table all are."""
    return within(table, "$first", "$last") if table.time_column else "true"


def _contract_holds(table: Table) -> Rule:
    broken = [f"(NOT ({sql}))" for _, sql in conditions(table)]
    told = ", ".join(
        f"CASE WHEN {is_broken} THEN {literal(name)} END"
        for (name, _), is_broken in zip(conditions(table), broken, strict=True)
    )
    return Rule(
        table.name,
        "contract_holds",
        "Each row keeps its contract: no value is absent, out of bounds or at odds with another.",
        f"SELECT {', '.join(map(quoted, table.key))}, "
        f"concat_ws(', ', {told}) AS broken FROM {quoted(table.name)} "
        f"WHERE {_days_of(table)} AND ({' OR '.join(broken)})",
    )


def _keys_unique(table: Table) -> Rule:
    key = ", ".join(map(quoted, table.key))
    return Rule(
        table.name,
        "keys_unique",
        f"No two rows share {', '.join(table.key)}.",
        f"SELECT {key}, count(*) AS rows FROM {quoted(table.name)} WHERE {_days_of(table)} "
        f"GROUP BY {key} HAVING count(*) > 1",
    )


def _source_fits(table: Table) -> Rule:
    return Rule(
        table.name,
        "source_fits_home",
        "Sandbox data is in a sandbox home, and nowhere else.",
        f"SELECT {', '.join(map(quoted, table.key))}, source FROM {quoted(table.name)} "
        f"WHERE {_days_of(table)} "
        "AND starts_with(source, 'sandbox') <> (SELECT is_sandbox FROM warehouse_info)",
    )


def _complete(table: Table) -> Rule:
    return Rule(
        table.name,
        "complete",
        "Everything tracked is there on each day; what is missing is in the table gaps.",
        "SELECT date, series_missing, array_to_string(missing, ', ') AS missing FROM coverage "
        f"WHERE table_name = '{table.name}' AND series_missing > 0 "
        "AND date BETWEEN $first AND $last ORDER BY date DESC",
        is_error=False,
    )


def _row_count(table: Table) -> Rule:
    """A closed day is one of which something was seen after its close."""
    is_closed = "max(observed_at) >= day + INTERVAL 1 DAY"
    if table.name == "etf_flows":
        # Funds report one by one, for days on end: a day counts once all of it was told.
        is_closed = (
            "bool_and(is_final) AND day NOT IN "
            f"(SELECT day FROM ({gap_days_sql()}) WHERE table_name = 'etf_flows' "
            "AND state = 'missing')"
        )
    return Rule(
        table.name,
        "row_count_is_usual",
        "A closed day has 70 % to 200 % of the rows that the 28 days before it had (median).",
        f"""SELECT * FROM (
            SELECT day, rows, median(rows) OVER before AS usual, count(*) OVER before AS days
            FROM (
                SELECT {day_of(table)} AS day, count(*) AS rows FROM {quoted(table.name)}
                WHERE {within(table, f"CAST($first AS DATE) - {_LOOK_BACK_DAYS}", "$last")}
                GROUP BY day HAVING {is_closed}
            ) WINDOW before AS (ORDER BY day ROWS BETWEEN 28 PRECEDING AND 1 PRECEDING)
        ) WHERE day >= $first AND days >= 7
            AND rows NOT BETWEEN {_LEAST_SHARE} * usual AND {_LARGEST_SHARE} * usual""",
        is_error=False,
    )
