"""What calculated rows have in common: where they come from and when their inputs are complete."""

from collections.abc import Sequence
from datetime import date

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


def derived_rows(rows: pd.DataFrame, table: Table, platform: Platform) -> pd.DataFrame:
    """Return the content columns and observed_at of calculated rows, with their source."""
    source = "sandbox/calculated" if platform.settings.is_sandbox else "calculated"
    return rows[[*table.content_columns, "observed_at"]].assign(source=source)
