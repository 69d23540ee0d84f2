"""The pipeline's own view of its warehouse: open it, query it, write to it.

Notebooks and BI tools never come here: they read what was published (`reading`).
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pandas as pd

from crypto_assets.settings import Settings
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.session import LOCK_TIMEOUT_SECONDS, opened, warehouse_lock
from crypto_assets.warehouse.writer import Batch, Write, WriteReport, write

FILE_NAME = "warehouse.duckdb"

Looks = tuple[int, ...]
"""Size, time of change and place of a file and of its log; equal only where nothing was written."""


_left: "dict[Warehouse, Looks]" = {}
_open = threading.local()


class Query(Protocol):
    """Something that runs one query and returns its rows."""

    def __call__(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /
    ) -> pd.DataFrame:
        """Run it."""


@dataclass(frozen=True)
class Warehouse:
    """The file the pipeline owns in one home, opened for each use and closed after it."""

    path: Path
    identity: Identity
    lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS

    @classmethod
    def of(cls, settings: Settings) -> "Warehouse":
        """Return the warehouse of the settings' home."""
        identity = Identity(settings.is_sandbox, settings.history.start)
        return cls(settings.home / FILE_NAME, identity)

    @property
    def home(self) -> Path:
        """The folder it lives in."""
        return self.path.parent

    @contextmanager
    def session(self, purpose: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file with its schema in place. Raises `WarehouseError`.

        Inside of a session of the same thread, it is that one.
        """
        here = (self.path, self.identity)
        if (outer := _open_here().get(here)) is not None:
            yield outer
            return
        with warehouse_lock(self.path, purpose, self.lock_timeout_seconds):
            looks = _looks(self.path)
            is_as_left = bool(looks) and _left.get(self) == looks
            with opened(self.path) as connection:
                if not is_as_left:
                    ensure_schema(connection, self.identity)
                _open_here()[here] = connection
                try:
                    yield connection
                finally:
                    del _open_here()[here]
            # Whoever changes the schema changes the file.
            _left[self] = _looks(self.path)

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), purpose: str = "reading"
    ) -> pd.DataFrame:
        """Run one query and return its rows."""
        with self.session(purpose) as connection:
            return connection.execute(sql, parameters).fetchdf()

    def write(self, batch: Batch, to: Write) -> WriteReport:
        """Store a batch in one transaction, or nothing of it."""
        with self.session(f"run {to.run_id} writing {to.table.name}") as connection:
            return write(connection, batch, to)


def _looks(path: Path) -> Looks:
    found: list[int] = []
    for file in (path, path.with_name(f"{path.name}.wal")):
        with suppress(FileNotFoundError):
            stat = file.stat()
            found += [stat.st_size, stat.st_mtime_ns, stat.st_ino]
    return tuple(found)


def _open_here() -> dict[tuple[Path, Identity], duckdb.DuckDBPyConnection]:
    """Return what this thread has open."""
    if not hasattr(_open, "sessions"):
        _open.sessions = {}
    sessions: dict[tuple[Path, Identity], duckdb.DuckDBPyConnection] = _open.sessions
    return sessions
