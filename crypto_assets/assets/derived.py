"""What calculated rows have in common: where they come from and when their inputs are complete."""

from datetime import date

import pandas as pd

from crypto_assets.assets.platform import Platform
from crypto_assets.tables import Table


def complete_days(platform: Platform, table: Table, first: date, last: date) -> list[pd.Timestamp]:
    """Return the days on which every tracked series of a table is there and final."""
    rows = platform.warehouse.query(
        "SELECT date FROM coverage WHERE table_name = ? AND is_final AND date BETWEEN ? AND ?",
        [table.name, first, last],
        purpose="reading coverage",
    )
    return list(rows["date"])


def derived_rows(rows: pd.DataFrame, table: Table, platform: Platform) -> pd.DataFrame:
    """Return the content columns and observed_at of calculated rows, with their source."""
    source = "sandbox/calculated" if platform.settings.is_sandbox else "calculated"
    return rows[[*table.content_columns, "observed_at"]].assign(source=source)
