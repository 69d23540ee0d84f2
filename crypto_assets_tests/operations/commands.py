"""The command line as tests use it: a process of its own, or, where that adds nothing, in process.

Both go through `main()`, where expected errors become one sentence.
"""

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from crypto_assets.cli import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of an expected error."""
        assert self.code != 0, self.out
        assert "Traceback" not in self.err, self.err
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


def call(*arguments: object) -> Done:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["crypto-assets", *map(str, arguments)]),
        mock.patch.dict(os.environ),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as leave:
            code = leave.code
    return Done(int(code or 0), out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """The words that run a command in a process of its own."""
    return [sys.executable, "-m", "crypto_assets", *map(str, arguments)]


def spawn(*arguments: object, cwd: Path) -> Done:
    """Run a command in a process of its own to its end."""
    done = subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, timeout=120
    )
    return Done(done.returncode, done.stdout, done.stderr)


def environment(marks: dict[str, str]) -> dict[str, str]:
    """This process's environment with some names beside."""
    return {**os.environ, **marks}


def carrying(mark: str) -> Sequence[int]:
    """The living processes that inherited an environment with this value in it."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            is_zombie = folder.joinpath("stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if not is_zombie and mark.encode() in folder.joinpath("environ").read_bytes():
                found.append(int(folder.name))
    return found


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_waiting(pid: int) -> bool:
    """Tell whether a process sleeps, as one that has shown its prompt does until a key is pressed.

    Between showing it and sleeping, Python keeps an interrupt for the next key.
    """
    return _stat(pid)[0] == "S"


def ticks_used(pid: int) -> int:
    """How much of the processors a process has used, in hundredths of a second."""
    return sum(map(int, _stat(pid)[11:13]))


def _stat(pid: int) -> list[str]:
    # What follows the program's name, which may hold anything.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
