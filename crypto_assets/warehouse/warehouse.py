"""The pipeline's own view of its warehouse: open it, query it, write to it.

Notebooks and BI tools never come here: they read what was published (`reading`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pandas as pd

from crypto_assets.settings import Settings
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.session import LOCK_TIMEOUT_SECONDS, open_warehouse
from crypto_assets.warehouse.writer import Batch, Write, WriteReport, write

FILE_NAME = "warehouse.duckdb"


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
        """Open the file with its schema in place. Raises `WarehouseError`."""
        with open_warehouse(self.path, purpose, self.lock_timeout_seconds) as connection:
            ensure_schema(connection, self.identity)
            yield connection

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
