"""What an answer is, and where answers come from, whoever gives them.

Belongs here: what providers, assets and replays share of an answer. Does not belong here: the
HTTP client (``http``), whose libraries take long to load and are needed only to fetch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Fetched(Generic[T]):
    """One accepted answer.

    ``data`` is what the parser made of it, ``source`` provider and endpoint ("sandbox/" in front
    when it came from the sandbox), ``observed_at`` naive UTC when the accepted attempt began,
    ``raw_id`` its key in the raw store (None where it was not kept, or several are behind it).
    ``raw_ids`` are the keys of all answers behind it, in the order they were asked for.
    """

    data: T
    source: str
    observed_at: datetime
    raw_id: str | None
    raw_ids: tuple[str, ...] = ()


class Source(Protocol):
    """Where a provider's answers come from: the provider itself, or what it once said."""

    def get(
        self,
        endpoint: str,
        path_params: Mapping[str, str],
        params: Mapping[str, Any],
        parse: Callable[[bytes], T],
        *,
        keep: bool = True,
    ) -> Fetched[T]:
        """Return what the answer to a request means."""


def source_of(provider: str, endpoint: str, *, is_sandbox: bool) -> str:
    """What a row says of where it came from."""
    return f"{'sandbox/' if is_sandbox else ''}{provider}/{endpoint.strip('/')}"
