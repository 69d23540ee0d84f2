"""How long to wait before a request may be tried again, and when to give up: pure bookkeeping.

Belongs here: back-off, budgets, reading ``Retry-After``. Does not belong here: sleeping, or who
else has to wait (``limiter``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# What CoinGecko's documentation asks clients to wait when a 429 names no time.
DEFAULT_RETRY_AFTER = 60.0
_FIRST_BACKOFF = 1.0
_LONGEST_BACKOFF = 20.0


@dataclass
class Patience:
    """What is left of one request's seconds and attempts; the usual queue for permits is free.

    ``jitter`` (0 to 1) spreads the waits of threads that failed together over half a step.
    """

    seconds: float
    attempts: int
    jitter: Callable[[], float]
    tried: int = 0
    spent: float = 0.0

    @property
    def left(self) -> float:
        """Seconds that may still be spent on failed attempts and waits."""
        return self.seconds - self.spent

    def backoff(self, asked: float | None = None) -> float:
        """Seconds until the next attempt: exponential, and never less than was asked for."""
        ceiling = min(_FIRST_BACKOFF * 2.0 ** (self.tried - 1), _LONGEST_BACKOFF)
        return max(ceiling * (0.5 + self.jitter() / 2), asked or 0.0)

    def is_over(self, wait: float, asked: float | None) -> bool:
        """Whether the request has to be given up; being asked to wait uses up time only."""
        return wait > self.left or (asked is None and self.tried >= self.attempts)

    def summary(self, asked: float | None) -> str:
        """What was tried, for the error."""
        wait = f", it asked for a wait of {asked:.0f} s" if asked is not None else ""
        return f"gave up after {self.tried} attempts in {self.spent:.0f} s{wait}"


def asked_wait(status: int, headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds a refusal asks us to wait; a 429 that names no time means 60."""
    # A date is meant by the clock of the server that wrote it; ours (``now``) may be wrong.
    server_now = http_date(headers.get("Date", "")) or now
    asked = retry_after_seconds(headers.get("Retry-After"), server_now)
    return DEFAULT_RETRY_AFTER if asked is None and status == 429 else asked


def retry_after_seconds(header: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` header asks for: a number or a date; None if it says nothing.

    ``now`` is naive UTC, best by the clock of the server that named the date.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(seconds, 0.0) if seconds == seconds and abs(seconds) < 1e12 else None
    except ValueError:
        moment = http_date(header)
    return None if moment is None else max((moment - now).total_seconds(), 0.0)


def http_date(value: str) -> datetime | None:
    """A moment as HTTP writes it, as naive UTC; None if it is none."""
    try:
        moment = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment
