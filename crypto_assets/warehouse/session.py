"""Opening the warehouse file: one process at a time, in UTC, always closed.

DuckDB lets one process have a file open for writing and nobody else meanwhile. Here belongs the
queue for that; not what is done with the connection.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from crypto_assets.warehouse.errors import WarehouseError, WarehouseInUseError, reason_of
from crypto_assets.warehouse.queueing import TooLongError, turn

# A disk that is full while a commit is made by a checkpoint is the last one.
_OF_DISK = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.TransactionException,
    duckdb.FatalException,
)
LOCK_TIMEOUT_SECONDS = 300.0
ROWS_PAST_LOG = 122_880
"""Of so many rows of a table DuckDB puts into its log only where they are: a row group of them."""
# Both are needed: the first makes a commit a checkpoint, the second leaves the log out of it.
_PAST_LOG = {"checkpoint_threshold": "'0B'", "auto_checkpoint_skip_wal_threshold": "0"}


@dataclass
class Pending:
    """What is about to be committed; `rows` is the most that a single table was given."""

    rows: int = 0


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
    with warehouse_lock(path, purpose, lock_timeout_seconds), opened(path) as connection:
        yield connection


@contextmanager
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file for a caller that holds its lock, and close it. Raises `WarehouseError`."""
    connection = connect(path)
    try:
        with _told(path):
            yield connection
    finally:
        with _told(path):
            connection.close()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say what to do where the disk, not the statement, is what failed."""
    try:
        yield
    except _OF_DISK as error:
        reason = reason_of(error)
        raise WarehouseError(
            f"can't write {path} ({reason}): make room on the disk or the file writable; what was "
            "committed is whole, the next run goes on"
        ) from None


@contextmanager
def warehouse_lock(
    path: Path, purpose: str, timeout_seconds: float = LOCK_TIMEOUT_SECONDS
) -> Iterator[None]:
    """Hold the warehouse file against every other process. Raises `WarehouseError`."""
    queue = path.with_name(path.name + ".queue")
    with ExitStack() as stack:
        try:
            stack.enter_context(turn(queue, purpose, timeout_seconds))
        except TooLongError as error:
            raise WarehouseInUseError(
                f"{path} has been in use for {timeout_seconds:.0f} s by {error.holder}: "
                "wait for it to end, or end it, and try again"
            ) from None
        except OSError as error:
            raise WarehouseError(
                f"can't lock {path} ({error.strerror}): make room, or the folder writable"
            ) from None
        yield


def roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    """End a failed transaction; one that DuckDB has ended itself is no second error."""
    with suppress(duckdb.Error):
        connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[Pending]:
    """Commit what is done meanwhile, or nothing of it, also where a kill cuts the commit off.

    For the latter, whoever gives a table `ROWS_PAST_LOG` rows or more notes how many. Of such rows
    a log that breaks off brings all (duckdb/duckdb#25931), of the rest of the transaction nothing:
    not the gaps beside them, nor that the rows they replace are gone.
    """
    pending = Pending()
    connection.execute("BEGIN")
    try:
        yield pending
        _commit(connection, past_log=pending.rows >= ROWS_PAST_LOG)
    except BaseException:
        roll_back(connection)
        raise


def _commit(connection: duckdb.DuckDBPyConnection, *, past_log: bool) -> None:
    """Commit through the log, or by a checkpoint, which comes into force with one header."""
    if not past_log:
        connection.execute("COMMIT")
        return
    with having(connection, _PAST_LOG):
        connection.execute("COMMIT")


@contextmanager
def having(connection: duckdb.DuckDBPyConnection, settings: Mapping[str, str]) -> Iterator[None]:
    """Let DuckDB have these settings (names and values in SQL) meanwhile, then its own again."""
    for setting, value in settings.items():
        connection.execute(f"SET {setting} = {value}")
    try:
        yield
    finally:
        # After a failure the transaction takes no statement, and that failure is what matters.
        with suppress(duckdb.Error):
            for setting in settings:
                connection.execute(f"RESET {setting}")


def _mending(reason: str) -> str:
    """Return what to do about a file that DuckDB does not open."""
    if "version number" in reason or "newer version" in reason:
        return "a newer DuckDB wrote it, so install that one (pip install -U duckdb)"
    if "not a valid DuckDB" in reason or "orrupt" in reason:
        return (
            "it is damaged, no warehouse, or a newer DuckDB wrote it, so move it away and run "
            "'crypto-assets rebuild' or 'crypto-assets restore'"
        )
    return "make the disk and the file readable and writable"


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the file for a caller that holds its lock. Raises `WarehouseError`."""
    if not path.exists():
        # Changes of a file that is gone; DuckDB would make them to the new one.
        path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
    try:
        connection = duckdb.connect(str(path))
    except duckdb.Error as error:
        reason = reason_of(error)
        raise WarehouseError(
            f"can't open {path} ({reason}): {_mending(reason)}; nothing was changed"
        ) from None
    connection.execute("SET TimeZone = 'UTC'")
    return connection
