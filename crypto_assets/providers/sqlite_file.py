"""A small SQLite file that many threads and processes append to in short transactions.

Belongs here: opening, locking, forks and what is said when the file can't be used. Does not
belong here: what is in the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

_BUSY_SECONDS = 60.0


class SqliteFile:
    """The file ``path`` with ``schema``, in WAL mode: a kill loses at most an open transaction.

    Whatever SQLite or the disk refuses is raised as ``error``, which says that ``what`` cannot be
    used and why.
    """

    def __init__(self, path: Path, schema: str, error: type[Exception], what: str) -> None:
        self.path = path
        self._schema = schema
        self._error = error
        self._what = what
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._owner_pid = 0

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone; commits at the end, or nothing of it."""
        problem = ""
        try:
            with self._lock, self._open() as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            problem = str(error)
        if problem:
            raise self._error(
                f"{self._what} {self.path} cannot be used ({problem}); check free disk space and "
                "that the file and its folder are writable"
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._owner_pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        # SQLite connections must not cross a fork: a child opens its own.
        if self._connection is None or self._owner_pid != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The switch to WAL does not wait for other openers by itself.
            with FileLock(f"{self.path}.lock", timeout=_BUSY_SECONDS):
                connection = self._connect()
            # Kept, because closing the parent's connection in a child can release its locks.
            self._inherited = self._connection
            self._connection, self._owner_pid = connection, os.getpid()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            # Survives a kill; a power cut may lose the newest rows, never the file.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(self._schema)
        except BaseException:
            connection.close()
            raise
        return connection
