"""One rate limit for all threads and processes that talk to one provider.

Belongs here: permits, and the "not before" a provider asks for. Does not belong here: what a
permit is for, retries, or HTTP.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import cast

from filelock import FileLock
from pyrate_limiter import Rate, RateItem, SQLiteBucket

log = logging.getLogger(__name__)

# Permits are counted when they are given, the provider counts when a call arrives. The window is
# a little longer than its minute, so that calls that were slow to arrive never add up to too many.
WINDOW_SECONDS = 61.5
# A provider (or a fault) may ask for a wait of years: it is believed this far, then asked again.
LONGEST_HOLD_SECONDS = 900.0
_LONGEST_SLEEP_SECONDS = 5.0
_LOCK_TIMEOUT_SECONDS = 30.0
_TABLE = "calls"


class LimiterError(RuntimeError):
    """The file that the limit is shared through cannot be used."""


class HeldBackError(Exception):
    """The provider's "not before" lies further away than the caller can wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"held back for another {seconds:.0f} s")
        self.seconds = seconds


class SharedLimiter:
    """At most ``calls_per_minute`` permits in any minute over all users of the file ``path``.

    ``calls_per_minute=None`` gives permits freely and touches no file; a hold then binds this
    process only. Safe for threads; processes forked later open the file anew. ``wall`` (seconds
    since 1970, comparable between processes), ``monotonic`` and ``sleep`` are replaceable in tests.
    """

    def __init__(
        self,
        path: Path | None,
        calls_per_minute: int | None,
        *,
        window_seconds: float = WINDOW_SECONDS,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if calls_per_minute is not None and (path is None or calls_per_minute < 1):
            raise ValueError("a limit needs a file to share it and at least one call a minute")
        self._path = path
        self._limit = calls_per_minute
        self._window_ms = int(window_seconds * 1000)
        self._wall = wall
        self._monotonic = monotonic
        self._sleep = sleep
        self._thread_lock = threading.RLock()
        self._held_until = float("-inf")  # on the monotonic clock
        self._bucket: SQLiteBucket | None = None
        self._inherited: SQLiteBucket | None = None
        self._owner_pid = 0

    def acquire(self, patience: float | None = None) -> float:
        """Wait for a permit; returns the seconds that went to holds, not to the usual queue.

        Raises HeldBackError, at once and without a permit, when holds would take more than
        ``patience`` seconds, and LimiterError when the shared file cannot be used.
        """
        held = 0.0
        while True:
            hold, queue = self._try()
            if hold <= 0 and queue <= 0:
                return held
            if hold > 0 and patience is not None and held + hold > patience:
                raise HeldBackError(hold)
            # Short naps: a hold may be extended, or a clock stepped, while we sleep.
            nap = min(hold if hold > 0 else queue, _LONGEST_SLEEP_SECONDS)
            self._sleep(nap)
            held += nap if hold > 0 else 0.0

    def hold(self, seconds: float) -> None:
        """Give no permit to anyone for ``seconds`` (at most 15 minutes); never shortens a hold."""
        seconds = min(max(seconds, 0.0), LONGEST_HOLD_SECONDS)
        with self._thread_lock:
            self._held_until = max(self._held_until, self._monotonic() + seconds)
            if self._limit is not None:
                self._shared(lambda bucket: self._write_hold(bucket, seconds))

    def close(self) -> None:
        """Close the shared file; the next permit opens it again."""
        with self._thread_lock:
            if self._bucket is not None and self._owner_pid == os.getpid():
                self._bucket.close()  # type: ignore[no-untyped-call]
            self._bucket = None

    def __enter__(self) -> SharedLimiter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _try(self) -> tuple[float, float]:
        """Seconds to wait for a hold and for the queue; both 0 when a permit was taken."""
        with self._thread_lock:
            hold = self._held_until - self._monotonic()
            if hold > 0 or self._limit is None:
                return max(hold, 0.0), 0.0
            return self._shared(self._take)

    def _shared(self, act: Callable[[SQLiteBucket], tuple[float, float]]) -> tuple[float, float]:
        problem = ""
        try:
            with ExitStack() as stack:
                bucket = self._open()
                # The file lock polls: only one thread of a process may stand in that line.
                lock = cast(FileLock, bucket.lock)
                stack.enter_context(lock.acquire(_LOCK_TIMEOUT_SECONDS, poll_interval=0.005))
                return act(bucket)
        except (sqlite3.Error, OSError) as error:
            problem = str(error)
        raise LimiterError(
            f"the shared rate limit {self._path} cannot be used ({problem}); check that its folder "
            "is writable and has space, or delete the file"
        )

    def _open(self) -> SQLiteBucket:
        if self._bucket is None or self._owner_pid != os.getpid():
            assert self._path is not None
            assert self._limit is not None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Kept, because closing the parent's connection in a child can release its locks.
            self._inherited = self._bucket
            self._bucket = SQLiteBucket.init_from_file(
                [Rate(self._limit, self._window_ms)], _TABLE, str(self._path), use_file_lock=True
            )
            self._owner_pid = os.getpid()
            with self._bucket.lock, self._bucket.conn as connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS hold (set_at INTEGER NOT NULL, until INTEGER)"
                )
        return self._bucket

    def _take(self, bucket: SQLiteBucket) -> tuple[float, float]:
        now = int(self._wall() * 1000)
        until = self._mended_hold(bucket, now)
        if until > now:
            return (until - now) / 1000, 0.0
        item = RateItem("call", now)
        if bucket.put(item):
            return 0.0, 0.0
        bucket.leak(now)
        wait = bucket.waiting(item)
        assert isinstance(wait, int)
        return 0.0, max(wait, 1) / 1000

    def _mended_hold(self, bucket: SQLiteBucket, now: int) -> int:
        """The shared hold's end in ms, after stamps of a clock that was ahead are brought back.

        A stamp from the future would block every call until then. Calls are moved to now rather
        than dropped, so that a clock set back never allows a second minute's worth of them.
        """
        newest, set_at, until = bucket.conn.execute(
            f"SELECT coalesce((SELECT max(item_timestamp) FROM {_TABLE}), 0), "
            "coalesce(max(set_at), 0), coalesce(max(until), 0) FROM hold"
        ).fetchone()
        if newest > now:
            log.warning("the clock went back: the rate limit's stamps are moved to now")
            with bucket.conn as connection:
                connection.execute(
                    f"UPDATE {_TABLE} SET item_timestamp = ? WHERE item_timestamp > ?", (now, now)
                )
        if until and (set_at > now or until <= now):
            with bucket.conn as connection:
                connection.execute("DELETE FROM hold WHERE set_at > ? OR until <= ?", (now, now))
                (until,) = connection.execute("SELECT coalesce(max(until), 0) FROM hold").fetchone()
        return int(until)

    def _write_hold(self, bucket: SQLiteBucket, seconds: float) -> tuple[float, float]:
        now = int(self._wall() * 1000)
        with bucket.conn as connection:
            connection.execute("INSERT INTO hold VALUES (?, ?)", (now, now + int(seconds * 1000)))
        return seconds, 0.0
