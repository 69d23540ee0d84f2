"""The sandbox's time: the wall clock, or a moment at which it was frozen. Naive UTC everywhere."""

import threading
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - naive UTC is the convention of the whole sandbox
_TICK_SECONDS = 10


class Clock:
    """Follows the wall clock unless frozen.

    While it follows the wall it moves in ticks of 10 s, always backwards, never ahead: providers
    answer from caches too, and a body can be kept for a tick.
    """

    def __init__(self, frozen_at: datetime | None = None) -> None:
        self._lock = threading.Lock()
        self._frozen_at = None if frozen_at is None else naive_utc(frozen_at)

    def now(self) -> datetime:
        """The moment the sandbox believes it is, naive UTC."""
        with self._lock:
            frozen_at = self._frozen_at
        if frozen_at is not None:
            return frozen_at
        wall = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
        return wall - timedelta(seconds=wall.second % _TICK_SECONDS)

    @property
    def is_frozen(self) -> bool:
        """Whether time stands still."""
        with self._lock:
            return self._frozen_at is not None

    def set(self, moment: datetime | None) -> None:
        """Freeze at (or step to) a moment; None returns to the wall clock."""
        with self._lock:
            self._frozen_at = None if moment is None else naive_utc(moment)


def naive_utc(moment: datetime) -> datetime:
    """The same instant without a zone; a moment without one is taken as UTC already."""
    if moment.tzinfo is None:
        return moment
    return moment.astimezone(UTC).replace(tzinfo=None)


def parse_moment(text: str) -> datetime:
    """An ISO 8601 moment or day as naive UTC; ValueError if it is neither."""
    return naive_utc(datetime.fromisoformat(text.strip().replace("Z", "+00:00")))


def seconds_since_epoch(moment: datetime) -> float:
    """UNIX seconds of a naive UTC moment."""
    return (moment - EPOCH).total_seconds()
