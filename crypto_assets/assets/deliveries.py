"""What a write was made of, noted in the raw store before it: `rebuild` makes it again from that.

Belongs here: what is noted, as data. Does not belong here: making rows of it (each asset's own).
A name in here is stored for years: fields may be added with a default, not renamed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from crypto_assets.periods import days
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.routes import Call

Interval = tuple[date, date]


@dataclass(frozen=True)
class Refusal:
    """Why there was no answer: HTTP status, if there was one, and what was wrong."""

    problem: str
    status: int | None = None

    @classmethod
    def of(cls, error: ProviderError) -> "Refusal":
        """Return what is noted of an error."""
        return cls(error.problem, error.status)

    def __str__(self) -> str:
        return f"{self.problem} (HTTP {self.status})" if self.status else self.problem


@dataclass(frozen=True)
class Asked:
    """What one coin was asked for, and the answers, one a call; none where one of them failed.

    `again` are those of the wanted days that were final: what does not come of them is not missing.
    """

    coin: str
    wanted: tuple[Interval, ...]
    calls: tuple[Call, ...]
    raw_ids: tuple[str, ...]
    refusal: Refusal | None = None
    again: tuple[Interval, ...] = ()

    @property
    def days(self) -> list[date]:
        """The days that were wanted, ascending."""
        return expanded(self.wanted)


@dataclass(frozen=True)
class Histories:
    """Histories of several coins: asked for at `now`, all answered or given up at `checked_at`.

    `in_time` are days whose coins were chosen with what was known then. In a recheck, final days
    were asked for again: what did not come is not missing.
    """

    now: datetime
    checked_at: datetime
    plan: str
    in_time: tuple[Interval, ...]
    asked: tuple[Asked, ...]
    is_recheck: bool = False
    kind: Literal["histories"] = "histories"


@dataclass(frozen=True)
class Snapshot:
    """The pages of a market snapshot, as rows of one day and these of its coins."""

    day: date
    coins: tuple[str, ...]
    in_time: bool
    raw_ids: tuple[str, ...]
    kind: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True)
class Listing:
    """The list of all coins."""

    raw_ids: tuple[str, ...]
    kind: Literal["listing"] = "listing"


@dataclass(frozen=True)
class Index:
    """The fear & greed index of [first, last]."""

    first: date
    last: date
    raw_ids: tuple[str, ...]
    kind: Literal["index"] = "index"


@dataclass(frozen=True)
class Page:
    """One asset's page of ETF flows for [first, last]; or why there was none at `checked_at`."""

    asset: str
    full: bool
    first: date
    last: date
    raw_ids: tuple[str, ...]
    checked_at: datetime
    refusal: Refusal | None = None
    kind: Literal["page"] = "page"


Details = Histories | Snapshot | Listing | Index | Page
_ADAPTER: TypeAdapter[Details] = TypeAdapter(Annotated[Details, Field(discriminator="kind")])


def dumped(details: Details) -> bytes:
    """Return details as JSON."""
    return _ADAPTER.dump_json(details, exclude_defaults=False)


def loaded(json: bytes) -> Details:
    """Return details from JSON. Raises `ValueError`."""
    return _ADAPTER.validate_json(json)


def expanded(intervals: Iterable[Interval]) -> list[date]:
    """Return the days of intervals."""
    return [day for first, last in intervals for day in days(first, last)]
