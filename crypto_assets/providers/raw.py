"""Keeps the bytes behind every row: each response that was accepted, for good.

Belongs here: keeping, finding and giving back bodies with the request they answer, and the
deliveries: what rows were made of which of them. Does not belong here: parsing, deciding which
answer is accepted (``http``), or what a delivery says (``assets``).

One SQLite file in WAL mode: many processes append in short transactions, a kill loses at most
what was not yet answered to the caller, and readers never block.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.providers.sqlite_file import SqliteFile

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
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY,
    table_name TEXT NOT NULL,
    run_id TEXT NOT NULL,
    delivered_at TEXT NOT NULL,
    details BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS refused (raw_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS pruned (before TEXT NOT NULL, responses INTEGER NOT NULL);
"""
_META = "raw_id, provider, endpoint, path_params, params, observed_at, sandbox, sha256"


class RawStoreError(RuntimeError):
    """The raw store cannot be read or written; says why and what to do."""


class NotStoredError(KeyError):
    """There is no such response, or not any more."""


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


@dataclass(frozen=True)
class Delivery:
    """What one write to a table was made of; ``details`` is JSON that the assets understand."""

    table: str
    run_id: str
    delivered_at: datetime
    details: bytes


class RawStore:
    """Accepted responses in the file ``path``, safe for threads and processes.

    A ``raw_id`` is text, ``<observed_at>-<hash of request, time and body>``: the same answer to
    the same request at the same moment has the same id in every store, and is kept once.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _SCHEMA, RawStoreError, "the raw store")

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
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO responses (raw_id, request_hash, provider, endpoint, "
                "path_params, params, observed_at, sandbox, sha256, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, int(sandbox), sha256, packed),
            )
        return raw_id

    def read(self, raw_id: str) -> tuple[RawMeta, bytes]:
        """The request and the body of one response. Raises NotStoredError when there is none."""
        with self._file.transaction() as connection:
            row = connection.execute(
                f"SELECT {_META}, body FROM responses WHERE raw_id = ?", (raw_id,)
            ).fetchone()
        if row is None:
            raise NotStoredError(raw_id)
        return _meta(row), _unpacked(row, self._file.path)

    def latest(
        self,
        provider: str,
        endpoint: str,
        path_params: Mapping[str, Any],
        params: Mapping[str, Any],
        *,
        sandbox: bool = False,
    ) -> RawMeta | None:
        """The newest stored answer to exactly this request that was not refused, if any."""
        request = request_hash(provider, endpoint, path_params, params)
        with self._file.transaction() as connection:
            row = connection.execute(
                f"SELECT {_META} FROM responses WHERE request_hash = ? "
                "AND sandbox = ? AND raw_id NOT IN (SELECT raw_id FROM refused) "
                "ORDER BY observed_at DESC, seq DESC LIMIT 1",
                (request, int(sandbox)),
            ).fetchone()
        return None if row is None else _meta(row)

    def refuse(self, raw_ids: Iterable[str]) -> None:
        """Keep these answers, but never take them for the newest again: rows of them were bad."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO refused VALUES (?)", [(raw_id,) for raw_id in raw_ids]
            )

    def entries(self) -> Iterator[RawMeta]:
        """The requests of all stored responses, in the order they were appended."""
        yield from map(_meta, self._pages(_META, "responses"))

    def count(self) -> int:
        """How many responses are stored."""
        with self._file.transaction() as connection:
            (n,) = connection.execute("SELECT count(*) FROM responses").fetchone()
        return int(n)

    def deliver(self, delivery: Delivery) -> None:
        """Note what is about to be written, so that the same rows can be made again."""
        stamp = delivery.delivered_at.isoformat(timespec="microseconds")
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO deliveries (table_name, run_id, delivered_at, details) "
                "VALUES (?, ?, ?, ?)",
                (delivery.table, delivery.run_id, stamp, zlib.compress(delivery.details, 6)),
            )

    def deliveries(self) -> Iterator[Delivery]:
        """All deliveries, in the order they were noted."""
        for row in self._pages("table_name, run_id, delivered_at, details", "deliveries"):
            at = datetime.fromisoformat(row[2])
            yield Delivery(row[0], row[1], at, zlib.decompress(row[3]))

    def count_deliveries(self) -> int:
        """How many deliveries are noted."""
        with self._file.transaction() as connection:
            (n,) = connection.execute("SELECT count(*) FROM deliveries").fetchone()
        return int(n)

    def size_bytes(self) -> int:
        """How large the store is, free pages not counted."""
        with self._file.transaction() as connection:
            pages, free, page_bytes = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        return int((pages - free) * page_bytes)

    def prune(self, before: datetime) -> int:
        """Delete what was observed before a moment (naive UTC); returns how many responses."""
        stamp = before.isoformat(timespec="microseconds")
        with self._file.transaction() as connection:
            pruned = connection.execute(
                "DELETE FROM responses WHERE observed_at < ?", (stamp,)
            ).rowcount
            connection.execute("DELETE FROM deliveries WHERE delivered_at < ?", (stamp,))
            if pruned:
                connection.execute("INSERT INTO pruned VALUES (?, ?)", (stamp, pruned))
        return pruned

    def bound(self, keep_from: datetime, longest_bytes: int) -> int:
        """Prune what is older than ``keep_from``, then the oldest until the store is small enough.

        Returns how many responses went.
        """
        pruned = self.prune(keep_from)
        while self.size_bytes() > longest_bytes and (oldest := self._oldest_tenth()):
            pruned += self.prune(oldest)
        return pruned

    def pruned_before(self) -> datetime | None:
        """The moment before which responses were pruned; None if none ever was."""
        with self._file.transaction() as connection:
            (stamp,) = connection.execute("SELECT max(before) FROM pruned").fetchone()
        return datetime.fromisoformat(stamp) if stamp else None

    def _oldest_tenth(self) -> datetime | None:
        """A moment that a tenth of the responses, at least one, was observed before."""
        with self._file.transaction() as connection:
            row = connection.execute(
                "SELECT observed_at FROM responses ORDER BY observed_at "
                "LIMIT 1 OFFSET (SELECT count(*) / 10 FROM responses)"
            ).fetchone()
        return datetime.fromisoformat(row[0]) + timedelta(microseconds=1) if row else None

    def _pages(self, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
        """All rows in the order of their numbers, some hundred at a time."""
        last = 0
        while True:
            with self._file.transaction() as connection:
                rows = connection.execute(
                    f"SELECT {columns}, seq FROM {table} WHERE seq > ? ORDER BY seq LIMIT 500",
                    (last,),
                ).fetchall()
            if not rows:
                return
            last = rows[-1][-1]
            yield from rows

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()


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
