"""The Fear & Greed index of alternative.me.

Belongs here: its one endpoint and what the payload means. Does not belong here: bands of our own
(``calculations``), or filling the days the provider itself lacks.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from crypto_assets.providers.errors import ContractError, TransientError, shorten
from crypto_assets.providers.fetched import Fetched, Source
from crypto_assets.providers.payloads import field, json_parser, record, records, text

PROVIDER = "alternative_me"
BASE_URL = "https://api.alternative.me"
_DAY = 86_400
_FIRST_STAMP, _LAST_STAMP = 1_500_000_000, 7_258_118_400  # 2017 to 2200


class FearGreed:
    """The index as its provider publishes it: one value a day, for 00:00 UTC of that day."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def history(self, limit: int = 0) -> Fetched[pd.DataFrame]:
        """The newest ``limit`` days, all since 2018-02-01 with 0, as ``parse_fear_greed`` gives."""
        return self._source.get(
            "fng/", {}, {"limit": limit}, json_parser(parse_fear_greed, provider=PROVIDER)
        )


def parse_fear_greed(payload: Any) -> pd.DataFrame:
    """Columns date (datetime64[ns], midnight), value (int64, 0 to 100), label (as received).

    Ascending, one row a day. Raises TransientError when the provider reports an error of its own
    and ContractError for anything it did not promise, two values for one day included.
    """
    body = record(payload, "fear & greed")
    metadata = body.get("metadata")
    error = metadata.get("error") if isinstance(metadata, dict) else None
    if error is not None or body.get("data") is None:
        said = shorten(str(error), 80) if error is not None else "no data"
        raise TransientError(f"the provider reports: {said}", advice="try again later")
    days: dict[int, tuple[int, str]] = {}
    for i, row in enumerate(records(field(body, "data", "fear & greed"), "data")):
        where = f"data[{i}]"
        entry = record(row, where)
        stamp = _integer(field(entry, "timestamp", where), f"{where}.timestamp")
        if not _FIRST_STAMP <= stamp < _LAST_STAMP:
            raise ContractError(f"{where}.timestamp", "seconds between 2017 and 2200", stamp)
        day = stamp - stamp % _DAY
        value = _integer(field(entry, "value", where), f"{where}.value")
        if not 0 <= value <= 100:
            raise ContractError(f"{where}.value on {_date(day)}", "between 0 and 100", value)
        label = text(field(entry, "value_classification", where), f"{where}.value_classification")
        if days.setdefault(day, (value, label)) != (value, label):
            raise ContractError(f"data on {_date(day)}", f"one value a day ({days[day][0]})", value)
    if not days:
        raise ContractError("data", "at least one day", [])
    ordered = sorted(days)
    return pd.DataFrame(
        {
            "date": pd.to_datetime(pd.Series(ordered, dtype="int64"), unit="s"),
            "value": pd.Series([days[d][0] for d in ordered], dtype="int64"),
            "label": pd.Series([days[d][1] for d in ordered], dtype=object),
        }
    )


def _integer(value: Any, where: str) -> int:
    # Scalars are documented as text ("69"); an honest integer would mean the same.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return int(value)
    raise ContractError(where, "a whole number", value)


def _date(stamp: int) -> str:
    return str(pd.Timestamp(stamp, unit="s").date())
