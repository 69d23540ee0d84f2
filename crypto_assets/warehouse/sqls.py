"""Expressions in SQL that follow from a table's contract."""

from crypto_assets.tables import Table
from crypto_assets.warehouse.session import quoted


def day_of(table: Table, alias: str = "") -> str:
    """Return the SQL expression of the day a row belongs to."""
    if table.time_column is None:
        raise ValueError(f"{table.name} has no days")
    return f"CAST({alias}{quoted(table.time_column)} AS DATE)"


def within(table: Table, first: str, last: str, alias: str = "") -> str:
    """Return the condition of rows of the days [first, last], which are expressions themselves.

    It is a range of the bare column, so that DuckDB skips what lies outside it.
    """
    if table.time_column is None:
        raise ValueError(f"{table.name} has no days")
    time = f"{alias}{quoted(table.time_column)}"
    return f"{time} >= {first} AND {time} < CAST({last} AS DATE) + 1"


def literal(text: str) -> str:
    """Return text as SQL's, for statements that take no bound parameters."""
    return "'" + text.replace("'", "''") + "'"


def key_json(alias: str, table: Table) -> str:
    """Return the SQL of a row's key as JSON, as `restatements` names rows."""
    parts = ", ".join(f"{quoted(name)} := {alias}.{quoted(name)}" for name in table.key)
    return f"CAST(to_json(struct_pack({parts})) AS VARCHAR)"
