"""Opening the warehouse file: one process at a time, in UTC, always closed.

DuckDB lets one process have a file open for writing and nobody else meanwhile. Here belongs the
queue for that; not what is done with the connection.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from crypto_assets import periods
from crypto_assets.warehouse.errors import WarehouseError

LOCK_TIMEOUT_SECONDS = 300.0


def quoted(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def open_warehouse(
    path: Path, purpose: str, lock_timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the pipeline's own file for reading and writing; others wait their turn meanwhile.

    `purpose` is what a process that waits too long is told. Raises `WarehouseError`.
    """
    with warehouse_lock(path, purpose, lock_timeout_seconds):
        connection = connect(path)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def warehouse_lock(
    path: Path, purpose: str, timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> Iterator[None]:
    """Hold the warehouse file against every other process. Raises `WarehouseError`."""
    holder = path.with_name(path.name + ".holder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(path.name + ".lock"), timeout=timeout_seconds)
        lock.acquire()
    except Timeout:
        raise WarehouseError(
            f"{path} has been in use for {timeout_seconds:.0f} s by {_described(holder)}: "
            "wait for it to end, or end it, and try again"
        ) from None
    except OSError as error:
        raise WarehouseError(
            f"can't lock {path} ({error.strerror}): make the folder writable"
        ) from None
    try:
        holder.write_text(
            json.dumps({"pid": os.getpid(), "purpose": purpose, "since": str(periods.wall_now())})
        )
        yield
    finally:
        lock.release()


def _described(holder: Path) -> str:
    try:
        told = json.loads(holder.read_text())
        return f"process {told['pid']} ({told['purpose']}, since {told['since'][:19]} UTC)"
    except (OSError, ValueError, KeyError):
        return "another process"


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """End a failed transaction; one that DuckDB has ended itself is no second error."""
    with suppress(duckdb.Error):
        connection.execute("ROLLBACK")


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the file for a caller that holds its lock. Raises `WarehouseError`."""
    try:
        connection = duckdb.connect(str(path))
    except duckdb.Error as error:
        reason = str(error).splitlines()[0]
        raise WarehouseError(
            f"can't open {path} ({reason}): check the disk, the file's permissions and whether a "
            "newer DuckDB wrote it; nothing was changed"
        ) from None
    connection.execute("SET TimeZone = 'UTC'")
    return connection
