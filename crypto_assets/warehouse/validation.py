"""Whether a frame keeps its contract: types before it meets DuckDB, values before the commit.

Nothing is repaired here: what does not fit is an error that names the rule and shows some rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import duckdb
import numpy as np
import pandas as pd
from pandas.api import types as dtypes

from crypto_assets.tables import Column, Table
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.session import quoted

EXAMPLES = 5
# A share of the rows.
_FEW = 0.5
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_MICROSECONDS = 86_400_000_000


def conform(frame: pd.DataFrame, table: Table, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the frame, each of `columns` cast losslessly to its contract's type.

    Nullable ones without a value are left out, and text of few distinct values comes as
    categories, which DuckDB reads far faster. Raises `ContractViolationError` for a missing or
    unknown column, or a value that does not fit.
    """
    wanted = [column.name for column in columns]
    absent = [c.name for c in columns if c.name not in frame.columns and not c.nullable]
    unknown = [str(name) for name in frame.columns if name not in wanted]
    if absent or unknown or not frame.columns.is_unique:
        told = f"columns absent: {absent}, unknown: {unknown}; present: {list(frame.columns)}"
        raise ContractViolationError(table.name, "the contract's columns", len(frame), told)
    found = {}
    for column in columns:
        if column.name in frame.columns:
            values = _categorized(frame[column.name], column)
            if not _is_nothing(values):
                found[column.name] = _cast(values, column, table, frame)
            elif not column.nullable:
                found[column.name] = pd.Series(None, index=frame.index, dtype="object")
    return pd.DataFrame(found, index=frame.index, copy=False)


def check_rows(connection: duckdb.DuckDBPyConnection, staged: str, table: Table) -> None:
    """Check nulls, bounds, rules and keys of the staged rows.

    Raises `ContractViolationError` for the first rule that is broken, with up to five rows.
    """
    check_values(connection, staged, table)
    check_key(connection, staged, table)


def check_values(connection: duckdb.DuckDBPyConnection, staged: str, table: Table) -> None:
    """Do the part of `check_rows` that looks at each row by itself."""
    wanted = conditions(table)
    counts = ", ".join(f"count(*) FILTER (WHERE NOT ({condition}))" for _, condition in wanted)
    row = connection.execute(f"SELECT {counts} FROM {quoted(staged)}").fetchone()
    for (name, condition), violations in zip(wanted, row or (), strict=True):
        if violations:
            examples = connection.execute(
                f"SELECT * FROM {quoted(staged)} WHERE NOT ({condition}) LIMIT {EXAMPLES}"
            ).fetchdf()
            raise violation(table, name, violations, examples)


def conditions(table: Table) -> list[tuple[str, str]]:
    """Return what holds of each row: the name of each rule and its condition in SQL.

    A condition is NULL for an absent value, which breaks no rule but the one against absence.
    """
    found = [(name, sql) for column in table.all_columns for name, sql in _bounds(column)]
    return found + [(rule.name, rule.condition) for rule in table.rules]


def check_key(connection: duckdb.DuckDBPyConnection, staged: str, table: Table) -> None:
    """Do the part of `check_rows` that looks for keys that are there twice."""
    key = ", ".join(map(quoted, table.key))
    doubled = connection.execute(
        f"SELECT {key}, count(*) AS rows FROM {quoted(staged)} GROUP BY {key} HAVING count(*) > 1"
    ).fetchdf()
    if len(doubled):
        raise violation(table, f"({key}) is unique", len(doubled), doubled)


def _bounds(column: Column) -> list[tuple[str, str]]:
    name = quoted(column.name)
    found = []
    if not column.nullable:
        found.append((f"{column.name} is not null", f"{name} IS NOT NULL"))
    if column.type == "DOUBLE":
        found.append((f"{column.name} is finite", f"isfinite({name})"))
    for sign, bound in ((">=", column.minimum), (">", column.above), ("<=", column.maximum)):
        if bound is not None:
            found.append((f"{column.name} {sign} {bound:g}", f"{name} {sign} {bound!r}"))
    if column.one_of:
        allowed = ", ".join(f"'{value}'" for value in column.one_of)
        found.append((f"{column.name} is one of {allowed}", f"{name} IN ({allowed})"))
    return found


def _cast(
    values: "pd.Series[Any]", column: Column, table: Table, frame: pd.DataFrame
) -> "pd.Series[Any]":
    fits, cast = _CASTS[column.type]
    if not fits(values):
        bad = frame[values.notna()].head(EXAMPLES)
        rule = f"{column.name} is {column.type}, came as {values.dtype}"
        raise violation(table, rule, len(frame), bad)
    return cast(values)


def violation(
    table: Table, rule: str, violations: int, examples: pd.DataFrame
) -> ContractViolationError:
    """Return the refusal of a frame, with up to five offending rows in a readable width."""
    text = examples.head(EXAMPLES).to_string(index=False, max_colwidth=60)
    return ContractViolationError(table.name, rule, violations, text)


def _is_number(values: "pd.Series[Any]") -> bool:
    return dtypes.is_numeric_dtype(values) and not dtypes.is_bool_dtype(values)


def _is_nothing(values: "pd.Series[Any]") -> bool:
    # Most columns are told apart by their first value.
    return bool(values.head(1).isna().all() and values.isna().all())


def _is_whole(values: "pd.Series[Any]") -> bool:
    if not _is_number(values):
        return False
    if _has_whole_type(values):
        return bool(values.min() >= -(2**31) and values.max() <= 2**31 - 1)
    present = values.dropna().astype("float64")
    return bool(((present == present.round()) & present.between(-(2**31), 2**31 - 1)).all())


def _has_whole_type(values: "pd.Series[Any]") -> bool:
    return isinstance(values.dtype, np.dtype) and values.dtype.kind in "iu"


def _categorized(values: "pd.Series[Any]", column: Column) -> "pd.Series[Any]":
    """Turn text of few distinct values into categories; leave anything else as it is."""
    if column.type != "VARCHAR":
        return values
    try:
        found = values.astype("category")
    except TypeError:  # values that are neither text nor comparable
        return values
    return found if len(found.cat.categories) < _FEW * len(values) else values


def _is_text(values: "pd.Series[Any]") -> bool:
    distinct = values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else values
    return all(isinstance(value, str) and _is_unicode(value) for value in distinct.dropna())


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character, as JSON's "\\ud83d" alone
        return False
    return True


def _is_truth(values: "pd.Series[Any]") -> bool:
    return values.dtype == bool or all(
        isinstance(value, (bool, np.bool_)) for value in values.dropna()
    )


def _is_timestamp(values: "pd.Series[Any]") -> bool:
    stamps = _as_datetimes(values)
    if not dtypes.is_datetime64_dtype(stamps):
        return False
    return _are_multiples(stamps, microseconds=1)


def _is_day(values: "pd.Series[Any]") -> bool:
    stamps = _as_datetimes(values)
    if not dtypes.is_datetime64_dtype(stamps):
        return False
    return _are_multiples(stamps, _DAY_MICROSECONDS)


def _are_multiples(stamps: "pd.Series[Any]", microseconds: int) -> bool:
    """Tell whether all stamps lie on a grid from 1970 on; in whole numbers, since that is fast."""
    values = stamps.to_numpy()
    step = microseconds * _PER_SECOND[np.datetime_data(values.dtype)[0]] // 1_000_000
    return step <= 1 or bool(((values.view("int64") % step == 0) | np.isnat(values)).all())


def _as_datetimes(values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Turn dates and datetimes held as objects into stamps; leave anything else as it is."""
    if values.dtype == object:
        try:
            return pd.Series(pd.to_datetime(values.map(_no_text)), index=values.index)
        except (TypeError, ValueError):
            return values
    return values


def _no_text(value: object) -> object:
    if isinstance(value, (str, int, float)) and value == value:
        raise TypeError("text and numbers are not times")
    return value


_CASTS: dict[
    str, tuple[Callable[["pd.Series[Any]"], bool], Callable[["pd.Series[Any]"], "pd.Series[Any]"]]
] = {
    "DOUBLE": (_is_number, lambda values: values.astype("float64", copy=False)),
    "INTEGER": (
        _is_whole,
        lambda values: values if _has_whole_type(values) else values.astype("Int64"),
    ),
    "VARCHAR": (_is_text, lambda values: values),
    "BOOLEAN": (
        _is_truth,
        lambda values: values if values.dtype == bool else values.astype("boolean"),
    ),
    "DATE": (_is_day, _as_datetimes),
    "TIMESTAMP": (_is_timestamp, _as_datetimes),
}
