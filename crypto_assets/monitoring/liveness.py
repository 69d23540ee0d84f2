"""Which runs are alive: each holds a lock on a file, which the kernel releases when it dies.

Belongs here: taking and looking at these locks. Does not belong here: what follows for a run.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crypto_assets.warehouse.queueing import is_held

_SUFFIX = ".lock"


@contextmanager
def held(home: Path, run_id: str) -> Iterator[None]:
    """Show that the run lives for as long as this process does, or until the block ends.

    The file is gone after a block that ended, and stays unlocked after a process that died.
    """
    path = _path(home, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Locked before it has its name, so that nobody takes one just made for one left behind.
    unnamed = path.with_suffix(f".{os.getpid()}")
    with unnamed.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{os.getpid()}\n")
        file.flush()
        unnamed.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_alive(home: Path, run_id: str) -> bool:
    """Return whether a process holds the lock of this run."""
    return is_held(_path(home, run_id))


def left_behind(home: Path) -> list[str]:
    """Return the ids of the runs whose process died in the middle."""
    run_ids = [path.stem for path in sorted((home / "runs").glob(f"*{_SUFFIX}"))]
    return [
        run_id for run_id in run_ids if not is_alive(home, run_id) and _path(home, run_id).exists()
    ]


def forget(home: Path, run_id: str) -> None:
    """Remove what a dead run has left behind."""
    _path(home, run_id).unlink(missing_ok=True)


def _path(home: Path, run_id: str) -> Path:
    return home / "runs" / f"{run_id}{_SUFFIX}"
