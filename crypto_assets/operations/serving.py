"""Webserver and daemon of a home, in the foreground, ended together. One of each per home."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO

from crypto_assets.operations import home
from crypto_assets.operations.errors import OperationError
from crypto_assets.settings import Settings

_CODE = ("-m", "crypto_assets.definitions")
_LEASH = (sys.executable, "-m", "crypto_assets.operations.leash")
_GRACE_SECONDS = 20
# A run that is interrupted has nothing to save: what it fetched is stored already.
_GRACE_OF_RUNS_SECONDS = 5
# What an `up` that was killed had started is gone a moment later.
_LAST_ONE_ENDS_SECONDS = 3
_LOOK_SECONDS = 0.1

Process = subprocess.Popen[bytes]


@contextmanager
def only_one(settings: Settings) -> Iterator[IO[str]]:
    """Yield the lock of the home's platform, which is held as long as any part of it lives.

    Raises `OperationError` where another one holds it: two daemons would do everything twice.
    """
    deadline = time.monotonic() + _LAST_ONE_ENDS_SECONDS
    with _open(home.prepare(settings) / "up.lock") as lock:
        while not _locked(lock):
            if time.monotonic() >= deadline:
                raise OperationError(_who_holds(lock, settings.home))
            time.sleep(_LOOK_SECONDS)
        _note(lock, [os.getpid()])
        try:
            yield lock
        finally:
            lock.truncate(0)


def serve(settings: Settings, lock: IO[str], host: str, port: int) -> int:
    """Run webserver and daemon until told to end; return the exit code.

    When one dies the other is ended too: half a platform would look alive and do nothing. When
    this process is killed, both die with all that they have started.
    """
    folder = home.prepare(settings)
    home.found_history(settings)
    environment = os.environ | home.environment_of(folder) | {"CRYPTO_ASSETS_HOME": str(folder)}
    programs = (
        ("dagster-webserver", *_CODE, "-h", host, "-p", str(port)),
        ("dagster-daemon", "run", *_CODE),
    )
    # A queue of this kind may be put to by a signal handler, whatever it has interrupted.
    told_to_end: SimpleQueue[Process | None] = SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told_to_end.put(None))
    with _leash() as leash:
        processes = [_start(program, leash, lock, environment) for program in programs]
        _note(lock, [os.getpid(), *(process.pid for process in processes)])
        for process in processes:
            threading.Thread(target=_note_end, args=(process, told_to_end), daemon=True).start()
        ended = told_to_end.get()
        for process in processes:
            _end(process)
    if ended is None:
        return 0
    name = programs[processes.index(ended)][0]
    raise OperationError(
        f"{name} ended by itself (exit code {ended.returncode}), so the whole platform was ended: "
        "see what it wrote above, and start again"
    )


def refuse_taken(host: str, port: int) -> None:
    """Raise `OperationError` when something else listens on the address already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            is_port = error.errno in (errno.EADDRINUSE, errno.EACCES)
            raise OperationError(
                f"can't listen on {host}:{port} ({error.strerror}): choose another "
                f"{'--port' if is_port else '--host, for instance 127.0.0.1'}"
            ) from None


def _open(path: Path) -> IO[str]:
    try:
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise OperationError(
            f"can't write {path} ({error.strerror}): make it and its folder writable, or choose "
            "another home with --home"
        ) from None


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(lock: IO[str], pids: Sequence[int]) -> None:
    """Write down who holds the lock, for those who are refused."""
    lock.truncate(0)
    lock.write(" ".join(map(str, pids)))
    lock.flush()


def _who_holds(lock: IO[str], folder: Path) -> str:
    lock.seek(0)
    living = [pid for pid in lock.read().split() if _lives(int(pid))]
    # The first is `up` itself, and ends the others.
    who = f"process {living[0]}" if living else "another process"
    what = f"'kill {living[0]}'" if living else "what still uses it"
    return (
        f"{who} runs the platform of {folder} already: open its Dagster UI, end it with Ctrl-C or "
        f"{what}, or choose another home with --home"
    )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _leash() -> Iterator[int]:
    """Yield the end of a pipe for our children; the other closes with us, even if we are killed."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(theirs)
        os.close(ours)


def _start(
    program: Sequence[str], leash: int, lock: IO[str], environment: dict[str, str]
) -> Process:
    # A session of its own, so that Ctrl-C reaches it through us, once, and in order.
    return subprocess.Popen(
        [*_LEASH, str(leash), *program],
        env=environment,
        start_new_session=True,
        pass_fds=(leash, lock.fileno()),
    )


def _note_end(process: Process, told_to_end: "SimpleQueue[Process | None]") -> None:
    process.wait()
    told_to_end.put(process)


def _end(process: Process) -> None:
    """End a program, then what it has started: its code servers and the runs that go on."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            _await_end_of_group(process.pid)
    process.wait()


def _await_end_of_group(group: int) -> None:
    """Wait until no process of the group is left; raise `ProcessLookupError` then."""
    deadline = time.monotonic() + _GRACE_OF_RUNS_SECONDS
    while time.monotonic() < deadline:
        os.killpg(group, 0)
        time.sleep(_LOOK_SECONDS)
