"""What calculated rows have in common: where they come from and when their inputs are complete."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import dagster as dg
import pandas as pd

from crypto_assets.assets.platform import Platform
from crypto_assets.tables import Table


def complete_days(
    platform: Platform, tables: Sequence[Table], first: date, last: date
) -> list[pd.Timestamp]:
    """Return the days that are final in all of the tables."""
    rows = platform.warehouse.query(
        "SELECT date FROM coverage WHERE list_contains(?, table_name) AND is_final "
        "AND date BETWEEN ? AND ? GROUP BY date HAVING count(*) = ?",
        [[table.name for table in tables], first, last, len(tables)],
        purpose="reading coverage",
    )
    return list(rows["date"])


def refuse_without_inputs(rows: pd.DataFrame, inputs: str, first: date, last: date) -> None:
    """Raise `dagster.Failure` for no rows: nothing to calculate from is no valid nothing."""
    if rows.empty:
        raise dg.Failure(
            f"nothing of {inputs} is stored for {first} to {last}: materialize {inputs} first",
            allow_retries=False,
        )


def derived_rows(
    rows: pd.DataFrame,
    table: Table,
    platform: Platform,
    complete: Sequence[pd.Timestamp],
    materialized_at: datetime,
) -> pd.DataFrame:
    """Return calculated rows with their provenance; final are those of the `complete` days."""
    source = "sandbox/calculated" if platform.settings.is_sandbox else "calculated"
    count = len(rows)
    columns: dict[str, Any] = {name: rows[name] for name in table.content_columns}
    columns |= {
        "is_final": rows["date"].isin(complete),
        "observed_at": rows["observed_at"],
        "source": pd.Categorical([source]).repeat(count),
        "materialized_at": pd.DatetimeIndex([materialized_at]).repeat(count),
    }
    # There may be too many rows to copy them for a few columns more.
    return pd.DataFrame(columns, index=rows.index, copy=False)
