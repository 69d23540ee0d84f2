"""The append-only store of accepted raw responses: the bytes behind every row.

Belongs here: keeping, finding and giving back bodies with the request they answer. Does not
belong here: parsing, or deciding which answer is accepted (``http``).

One SQLite file in WAL mode: many processes append in short transactions, a kill loses at most
what was not yet answered to the caller, and readers never block.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    seq INTEGER PRIMARY KEY,
    raw_id TEXT NOT NULL UNIQUE,
    request_hash TEXT NOT NULL,
    provider TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    path_params TEXT NOT NULL,
    params TEXT NOT NULL,
    observed_at TEXT NOT NULL,
    sandbox INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_request ON responses (request_hash, observed_at);
"""
_META = "raw_id, provider, endpoint, path_params, params, observed_at, sandbox, sha256"
_BUSY_SECONDS = 60.0


class RawStoreError(RuntimeError):
    """The raw store cannot be read or written; says why and what to do."""


@dataclass(frozen=True)
class RawMeta:
    """The request behind one stored body; ``observed_at`` is naive UTC, when the call began."""

    raw_id: str
    provider: str
    endpoint: str
    path_params: dict[str, Any]
    params: dict[str, Any]
    observed_at: datetime
    sandbox: bool
    sha256: str


class RawStore:
    """Accepted responses in the file ``path``, safe for threads and processes.

    A ``raw_id`` is text, ``<observed_at>-<hash of request, time and body>``: the same answer to
    the same request at the same moment has the same id in every store, and is kept once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._owner_pid = 0

    def append(
        self,
        *,
        provider: str,
        endpoint: str,
        path_params: Mapping[str, Any],
        params: Mapping[str, Any],
        observed_at: datetime,
        body: bytes,
        sandbox: bool = False,
    ) -> str:
        """Store one accepted body with its request and return its ``raw_id``.

        Raises RawStoreError when the disk is full or the file cannot be written.
        """
        path_json, params_json = _canonical(path_params), _canonical(params)
        request = request_hash(provider, endpoint, path_params, params)
        sha256 = hashlib.sha256(body).hexdigest()
        stamp = observed_at.isoformat(timespec="microseconds")
        digest = hashlib.sha256(f"{request} {stamp} {sha256}".encode()).hexdigest()
        raw_id = f"{observed_at:%Y%m%dT%H%M%S}-{digest[:20]}"
        # Level 1 halves the time for an eighth more bytes; compressed outside the lock.
        packed = zlib.compress(body, 1)
        row = (raw_id, request, provider, endpoint, path_json, params_json, stamp)
        with self._lock, _explained(self._path), self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO responses (raw_id, request_hash, provider, endpoint, "
                "path_params, params, observed_at, sandbox, sha256, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, int(sandbox), sha256, packed),
            )
        return raw_id

    def read(self, raw_id: str) -> tuple[RawMeta, bytes]:
        """The request and the body of one response; KeyError when there is none."""
        with self._lock, _explained(self._path):
            row = (
                self._open()
                .execute(f"SELECT {_META}, body FROM responses WHERE raw_id = ?", (raw_id,))
                .fetchone()
            )
        if row is None:
            raise KeyError(raw_id)
        return _meta(row), _unpacked(row, self._path)

    def latest(
        self,
        provider: str,
        endpoint: str,
        path_params: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> RawMeta | None:
        """The newest stored answer to exactly this request, if there is one."""
        request = request_hash(provider, endpoint, path_params, params)
        with self._lock, _explained(self._path):
            row = (
                self._open()
                .execute(
                    f"SELECT {_META} FROM responses WHERE request_hash = ? "
                    "ORDER BY observed_at DESC, seq DESC LIMIT 1",
                    (request,),
                )
                .fetchone()
            )
        return None if row is None else _meta(row)

    def entries(self) -> Iterator[RawMeta]:
        """The requests of all stored responses, in the order they were appended."""
        last = 0
        while True:
            with self._lock, _explained(self._path):
                rows = (
                    self._open()
                    .execute(
                        f"SELECT {_META}, seq FROM responses WHERE seq > ? ORDER BY seq LIMIT 500",
                        (last,),
                    )
                    .fetchall()
                )
            if not rows:
                return
            last = rows[-1][-1]
            yield from map(_meta, rows)

    def count(self) -> int:
        """How many responses are stored."""
        with self._lock, _explained(self._path):
            (n,) = self._open().execute("SELECT count(*) FROM responses").fetchone()
        return int(n)

    def prune(self, before: datetime) -> int:
        """Delete the responses observed before a moment (naive UTC); returns how many."""
        stamp = before.isoformat(timespec="microseconds")
        with self._lock, _explained(self._path), self._open() as connection:
            return connection.execute(
                "DELETE FROM responses WHERE observed_at < ?", (stamp,)
            ).rowcount

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._owner_pid == os.getpid():
                self._connection.close()
            self._connection = None

    def __enter__(self) -> RawStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self) -> sqlite3.Connection:
        # SQLite connections must not cross a fork: a child opens its own.
        if self._connection is None or self._owner_pid != os.getpid():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The switch to WAL does not wait for other openers by itself.
            with FileLock(f"{self._path}.lock", timeout=_BUSY_SECONDS):
                connection = _connect(self._path)
            # Kept, because closing the parent's connection in a child can release its locks.
            self._inherited = self._connection
            self._connection, self._owner_pid = connection, os.getpid()
        return self._connection


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        # Survives a kill; a power cut may lose the newest answers, never the file.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    problem = ""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        problem = str(error)
    if problem:
        raise RawStoreError(
            f"the raw store {path} cannot be used ({problem}); check free disk space and that the "
            "file and its folder are writable"
        )


def request_hash(
    provider: str, endpoint: str, path_params: Mapping[str, Any], params: Mapping[str, Any]
) -> str:
    """What identifies a request, whatever the order of its parameters."""
    text = _canonical([provider, endpoint, dict(path_params), dict(params)])
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _meta(row: tuple[Any, ...]) -> RawMeta:
    return RawMeta(
        raw_id=row[0],
        provider=row[1],
        endpoint=row[2],
        path_params=json.loads(row[3]),
        params=json.loads(row[4]),
        observed_at=datetime.fromisoformat(row[5]),
        sandbox=bool(row[6]),
        sha256=row[7],
    )


def _unpacked(row: tuple[Any, ...], path: Path) -> bytes:
    try:
        body = zlib.decompress(row[8])
    except zlib.error:
        body = b""
    if hashlib.sha256(body).hexdigest() != row[7]:
        raise RawStoreError(
            f"the body of {row[0]} in {path} is damaged; restore the file from a backup or delete "
            "it and fetch again"
        )
    return body
