"""What the tables beside those of the contracts, and the view `coverage`, tell: for people.

Their DDL is `schema`'s and `contents`'; a test holds the two together.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """What a row of a table is, and what each column says."""

    row: str
    columns: Mapping[str, str]


_TABLE_NAME = "Table it is about."

BESIDE_DESCRIPTIONS: Mapping[str, Description] = {
    "coverage": Description(
        "One day of one table of which there are rows or known gaps: is it whole, is it final?",
        {
            "table_name": _TABLE_NAME,
            "date": "Day in UTC.",
            "rows_stored": "How many rows the day has.",
            "series_stored": "How many coins (or assets) they are of.",
            "series_missing": "How many coins (or assets) should be there and are not.",
            "missing": "Which.",
            "is_final": "Whether nothing more is to come in the normal course.",
            "observed_at": "When the newest of its rows was fetched, UTC.",
            "asked_at": "When the provider was last asked for what is missing, UTC.",
        },
    ),
    "gaps": Description(
        "One stretch of days of one coin (or asset) that has no rows, or only approximate ones.",
        {
            "table_name": _TABLE_NAME,
            "series": "Coin, or asset of a fund; the table's own name where it has only one.",
            "first_day": "First day of the stretch.",
            "last_day": "Last day of the stretch, included.",
            "state": "'missing': still to come; 'no_data_at_provider': nobody has it; "
            "'approximate': there, but rebuilt from spaced prices.",
            "reason": "Why, in words.",
            "checked_at": "When that was last found, UTC.",
        },
    ),
    "restatements": Description(
        "One value that a provider changed after it was final.",
        {
            "table_name": _TABLE_NAME,
            "day": "Day of the row.",
            "key": "Key of the row, as JSON.",
            "column_name": "Column that changed.",
            "old_value": "Value before, as text.",
            "new_value": "Value after, as text.",
            "old_observed_at": "When the old value was fetched, UTC.",
            "new_observed_at": "When the new value was fetched, UTC.",
            "run_id": "Dagster run that brought the new value.",
            "restated_at": "When it was written, by the machine's clock.",
        },
    ),
    "partitions": Description(
        "One stored day of one table, in few words; `crypto-assets verify` compares them.",
        {
            "table_name": _TABLE_NAME,
            "day": "Day in UTC.",
            "rows_stored": "How many rows it has.",
            "content_hash": "Hash of their content, whatever their order; without provenance.",
        },
    ),
    "schema_migrations": Description(
        "One change of the schema that this warehouse went through.",
        {
            "version": "Version it has since.",
            "name": "What changed.",
            "applied_at": "When, by the machine's clock.",
        },
    ),
    "warehouse_info": Description(
        "What this warehouse is once and for all; a single row.",
        {
            "is_sandbox": "Whether its data is invented.",
            "history_start": "First day of every table.",
            "created_at": "When it was made, by the machine's clock.",
        },
    ),
}
