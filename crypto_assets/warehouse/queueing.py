"""A queue before one file: who came first goes first, whatever process; the dead lose their place.

Each who waits holds a numbered ticket, a file that is locked as long as its holder lives. Here
belongs the order of turns; not what is done in them.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from crypto_assets.periods import wall_now

_LOOK_SECONDS = 0.01
_COUNTER = "counter"


class TooLongError(Exception):
    """Whoever is first has not ended in time; `holder` describes it."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@dataclass(frozen=True)
class _Ticket:
    folder: Path
    number: int
    file: IO[str]

    @property
    def path(self) -> Path:
        return self.folder / f"{self.number:012}"


@contextmanager
def turn(folder: Path, purpose: str, timeout_seconds: float) -> Iterator[None]:
    """Wait in the queue of `folder` and hold its first place meanwhile.

    `purpose` is what those behind are told. Raises `TooLongError`, and `OSError` where the folder
    can't be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + timeout_seconds
    ticket = _draw(folder, purpose, deadline)
    try:
        _wait(ticket, deadline)
        yield
    finally:
        ticket.path.unlink(missing_ok=True)
        ticket.file.close()


def _draw(folder: Path, purpose: str, deadline: float) -> _Ticket:
    """Take the next number. A ticket is locked before it has its name, so never seen as free."""
    with (folder / _COUNTER).open("a") as counter:
        _lock(counter, deadline)
        number = max(_numbers(folder), default=0) + 1
        unnamed = folder / f"{_COUNTER}.next"
        file = unnamed.open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            json.dump({"pid": os.getpid(), "purpose": purpose, "since": str(wall_now())}, file)
            file.flush()
            ticket = _Ticket(folder, number, file)
            unnamed.rename(ticket.path)
        except BaseException:
            file.close()
            raise
        return ticket


def _lock(counter: IO[str], deadline: float) -> None:
    """Lock the counter, which nobody holds for long; but whoever does may have been stopped."""
    while True:
        try:
            fcntl.flock(counter, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TooLongError("another process, which draws its number") from None
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _wait(ticket: _Ticket, deadline: float) -> None:
    while (first := _first_ahead(ticket)) is not None:
        if time.monotonic() >= deadline:
            raise TooLongError(_described(first))
        time.sleep(_LOOK_SECONDS)


def _first_ahead(ticket: _Ticket) -> Path | None:
    """Return the ticket of the first who lives and came earlier; clear away those of the dead."""
    for number in sorted(_numbers(ticket.folder)):
        if number >= ticket.number:
            break
        path = ticket.folder / f"{number:012}"
        if is_held(path):
            return path
        path.unlink(missing_ok=True)
    return None


def is_held(path: Path) -> bool:
    """Tell whether a living process holds the lock of a file."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def _described(ticket: Path) -> str:
    with suppress(OSError, ValueError, KeyError):
        told = json.loads(ticket.read_text(encoding="utf-8"))
        return f"process {told['pid']} ({told['purpose']}, since {told['since'][:19]} UTC)"
    return "another process"
