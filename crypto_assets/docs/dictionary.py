"""The data dictionary: contracts, and an empty warehouse for what has none."""

from collections.abc import Iterator
from datetime import date

import duckdb

from crypto_assets.docs.markdown import code, link, table
from crypto_assets.tables import TABLES, Column, Table
from crypto_assets.warehouse import schema
from crypto_assets.warehouse.beside import BESIDE_DESCRIPTIONS, Description
from crypto_assets.warehouse.staleness import ALL_HISTORY, INPUTS, Input
from crypto_assets.warehouse.views import MACROS, VIEWS, Macro, View

_INTRODUCTION = """
# Data dictionary

Every table of `crypto.duckdb`, which `crypto_assets.connect()` opens. Times are UTC, without a
time zone in the type. A row of day D tells of [D 00:00, D+1 00:00) and holds the values of D's
close. A column is never NULL unless *null* says yes. No table has a primary key in DuckDB: keys
are unique because a write that would break one is refused, and because a check looks again.
The same descriptions are in the database: `SELECT column_name, comment FROM duckdb_columns()`.
"""
_HEADER = ("column", "type", "null", "unit", "allowed", "meaning")


def page() -> str:
    """Return the page."""
    contents = [f"- {link(name)}: {contract.row}" for name, contract in TABLES.items()]
    contents += [f"- {link(name)} (view): {view.row}" for name, view in VIEWS.items()]
    contents += ["- [macros](#macros): queries that take parameters."]
    contents += [f"- {link(name)}: {told.row}" for name, told in BESIDE_DESCRIPTIONS.items()]
    return "\n\n".join(
        [
            _INTRODUCTION.strip(),
            "\n".join(contents),
            *(_section(contract) for contract in TABLES.values()),
            *map(_view, VIEWS.values()),
            _macros(),
            *_beside(),
        ]
    )


def _section(contract: Table) -> str:
    facts = [f"- key: {', '.join(map(code, contract.key))}"]
    if contract.time_column:
        facts.append(f"- day partition by {code(contract.time_column)}")
        if not contract.derived:
            facts.append(
                f"- the provider's histories are final {_after(contract)} of a day or hour"
            )
    else:
        facts.append("- no partitions: each answer is merged into what is stored")
    inputs = INPUTS.get(contract.name)
    if inputs:
        facts.append(f"- calculated from {', '.join(map(_input, inputs))}")
    facts += [f"- each row: {rule.name} ({code(rule.condition)})" for rule in contract.rules]
    return "\n\n".join(
        [
            f"## {contract.name}",
            contract.row,
            "\n".join(facts),
            table(_HEADER, map(_row, contract.all_columns)),
        ]
    )


def _view(view: View) -> str:
    return "\n\n".join(
        [
            f"## {view.name}",
            f"A view. {view.row}",
            f"- a row for each {', '.join(map(code, view.key))}",
            table(_HEADER, map(_row, view.columns)),
        ]
    )


def _macros() -> str:
    return "\n\n".join(["## macros", "\n".join(map(_macro, MACROS.values()))])


def _macro(macro: Macro) -> str:
    head = code(f"{macro.name}({', '.join(macro.parameters)})")
    kind = "a table" if macro.is_table else "a value"
    return f"- {head}, {kind}: {macro.description} Example: {code(macro.example)}"


def _after(contract: Table) -> str:
    hours, minutes = divmod(round(contract.ready_after.total_seconds() / 60), 60)
    words = [f"{hours} hours"] * bool(hours) + [f"{minutes} minutes"] * bool(minutes)
    return f"{' and '.join(words)} after the end" if words else "at the end"


def _input(needed: Input) -> str:
    if needed.look_back_days == ALL_HISTORY:
        return f"{link(needed.table.name)} (all days before too)"
    if needed.look_back_days:
        return f"{link(needed.table.name)} ({needed.look_back_days} days before too)"
    return link(needed.table.name)


def _row(column: Column) -> tuple[str, ...]:
    return (
        code(column.name),
        column.type,
        "yes" if column.nullable else "",
        column.unit or "",
        ", ".join(_allowed(column)),
        column.description,
    )


def _allowed(column: Column) -> Iterator[str]:
    if column.one_of:
        yield from map(code, column.one_of)
    if column.minimum is not None:
        yield f"from {column.minimum:g}"
    if column.above is not None:
        yield f"above {column.above:g}"
    if column.maximum is not None:
        yield f"up to {column.maximum:g}"


def _beside() -> Iterator[str]:
    with duckdb.connect(":memory:") as connection:
        schema.ensure_schema(connection, schema.Identity(True, date(2026, 1, 1)))
        existing = schema.existing_columns(connection)
    for name, told in BESIDE_DESCRIPTIONS.items():
        yield _beside_section(name, told, existing[name])


def _beside_section(name: str, told: Description, columns: dict[str, str]) -> str:
    rows = [(code(column), kind, told.columns[column]) for column, kind in columns.items()]
    return "\n\n".join([f"## {name}", told.row, table(("column", "type", "meaning"), rows)])
