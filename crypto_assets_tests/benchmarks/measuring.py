"""What a piece of work takes: of a process its wall time, CPU time, memory and what it printed.

Belongs here: measuring alone. Does not belong here: what is measured, and how it is told.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Figures = dict[str, float]
"""What one round of one contender took, by name with unit: wall_seconds, calls…"""

Samples = dict[str, list[Figures]]
"""By contender, one for each round; those of one round were measured side by side."""

# A process counts the memory of whoever started it until it loads its own program. So this small
# one stands between, and is told by the kernel what the child and its descendants took.
_LAUNCHER = """
import json, os, sys, time
began = time.perf_counter()
child = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    json.dump([time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss], file)
sys.exit(os.waitstatus_to_exitcode(status))
"""
# A contender has the libraries that its own installation brings: pandas loads pyarrow where it
# finds it, which costs 40 MB that only those should pay who need it.
_HIDDEN = "raise ImportError('hidden from who does not need it')\n"


class ContenderError(Exception):
    """A process that was to be measured failed: the command and what it said."""


@dataclass(frozen=True)
class Process:
    """A process that has ended. CPU time is that of all its descendants too."""

    said: str
    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    """Of the largest single process among itself and its descendants."""
    exit_code: int = 0

    @property
    def figures(self) -> Figures:
        """What it took."""
        return {
            "wall_seconds": self.wall_seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_megabytes": self.peak_megabytes,
        }


def is_installed(module: str) -> bool:
    """Tell whether a library of the `bench` extra is there."""
    return importlib.util.find_spec(module) is not None


def measured(
    command: Sequence[str],
    *,
    needs_pyarrow: bool = False,
    may_fail: bool = False,
    **environment: str,
) -> Process:
    """Run a command to its end, as people run it: without the settings of whoever measures.

    Raises `ContenderError` where it does not end well, unless that is what one wants to see.
    """
    with tempfile.TemporaryDirectory() as scratch:
        told = Path(scratch) / "told.json"
        names = _environment(Path(scratch), needs_pyarrow) | environment
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(told), *command],
            env=names,
            cwd=scratch,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode and not may_fail:
            raise ContenderError(
                f"{' '.join(command)} failed with {done.returncode}: "
                f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
            )
        wall, cpu, kibibytes = json.loads(told.read_text())
    return Process(done.stdout, wall, cpu, kibibytes * 1024 / 1e6, done.returncode)


def python(*words: str) -> list[str]:
    """Return the command that runs this Python."""
    return [sys.executable, "-W", "ignore", *words]


def in_turns(contenders: Mapping[str, Callable[[], Figures]], repeats: int) -> Samples:
    """Measure all contenders side by side, `repeats` times, each time another one first."""
    samples: Samples = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(repeats):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(contenders[name]())
    return samples


def timed(work: Callable[[], object]) -> Figures:
    """Return what a call in this process takes."""
    began, cpu_began = time.perf_counter(), time.process_time()
    work()
    return {
        "wall_seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
    }


def _environment(scratch: Path, needs_pyarrow: bool) -> dict[str, str]:
    not_ours = ("CRYPTO_ASSETS_", "DAGSTER", "PYTHONDONTWRITEBYTECODE", "COLUMNS")
    names = {name: value for name, value in os.environ.items() if not name.startswith(not_ours)}
    if not needs_pyarrow:
        hidden = scratch / "hidden"
        hidden.mkdir()
        (hidden / "pyarrow.py").write_text(_HIDDEN)
        names["PYTHONPATH"] = os.pathsep.join(filter(None, [str(hidden), names.get("PYTHONPATH")]))
    return names
