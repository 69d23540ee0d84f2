"""What benchmarks found: medians, spread and ratios, as text, as Markdown and for a program."""

import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from crypto_assets_tests.benchmarks.measuring import Samples

_LIBRARIES = ("dagster", "duckdb", "pandas", "numpy", "requests", "dlt", "TA-Lib", "pyarrow")
_UNITS = {"seconds": "s", "megabytes": "MB"}


@dataclass(frozen=True)
class Goal:
    """What is to hold of a figure, with its value in each round; the median counts."""

    what: str
    values: Sequence[float]
    limit: float
    unit: str = ""
    """Empty for a ratio."""

    @property
    def median(self) -> float:
        """The value that is compared."""
        return statistics.median(self.values)

    @property
    def is_met(self) -> bool:
        """Whether it holds."""
        return self.median <= self.limit


@dataclass
class Result:
    """What one benchmark found."""

    samples: Samples = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figures(self, contender: str, name: str) -> list[float]:
        """Return one figure of a contender, a value for each round."""
        return [found[name] for found in self.samples[contender]]

    def ratio(self, of: str, to: str, name: str = "wall_seconds") -> list[float]:
        """Return the ratios of two contenders, each of values measured side by side."""
        return ratios(self.figures(of, name), self.figures(to, name))


def ratios(of: Sequence[float], to: Sequence[float]) -> list[float]:
    """Return the ratios of values, round by round."""
    return [one / other for one, other in zip(of, to, strict=True)]


def spread(values: Sequence[float], unit: str = "") -> str:
    """Return the median of some values, and the smallest and the largest in brackets."""
    told = shown(statistics.median(values), unit)
    if len(values) == 1 or min(values) == max(values):
        return told
    lowest, highest = (
        shown(end, unit).removesuffix(f" {unit}") for end in (min(values), max(values))
    )
    return f"{told} ({lowest} to {highest})"


def shown(value: float, unit: str = "") -> str:
    """Return a number with the digits that tell something, and its unit."""
    if abs(value) >= 100 or (value == int(value) and unit != "s"):
        number = f"{value:,.0f}"
    else:
        number = f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return f"{number} {unit}".strip()


def as_text(name: str, result: Result) -> Iterator[str]:
    """Yield lines: each contender's figures, the goals, the notes."""
    yield f"== {name}"
    width = max((len(contender) for contender in result.samples), default=0)
    for contender, rounds in result.samples.items():
        told = []
        for figure in rounds[0]:
            kind, _, unit = figure.rpartition("_")
            label, short = (kind, _UNITS[unit]) if unit in _UNITS else (figure, "")
            told.append(f"{label} {spread([found[figure] for found in rounds], short)}")
        yield f"  {contender:<{width}}  {'; '.join(told)}"
    for goal in result.goals:
        verdict = "met" if goal.is_met else "missed"
        told_value = spread(goal.values, goal.unit)
        yield f"  {goal.what}: {told_value}, at most {shown(goal.limit, goal.unit)}: {verdict}"
    yield from (f"  {note}" for note in result.notes)


def as_markdown(results: dict[str, Result]) -> Iterator[str]:
    """Yield the lines of the README's table."""
    yield "| benchmark | figure | at most | measured | |"
    yield "|---|---|---|---|---|"
    for name, result in results.items():
        for goal in result.goals:
            verdict = "met" if goal.is_met else "**missed**"
            measured = spread(goal.values, goal.unit)
            limit = shown(goal.limit, goal.unit)
            yield f"| `{name}` | {goal.what} | {limit} | {measured} | {verdict} |"


def as_tree(results: dict[str, Result], repeats: int) -> dict[str, Any]:
    """Return all of it for a program, with where it was measured."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "repeats": repeats,
        "benchmarks": {
            name: {
                "samples": result.samples,
                "goals": [
                    {
                        "what": goal.what,
                        "unit": goal.unit,
                        "values": list(goal.values),
                        "limit": goal.limit,
                        "is_met": goal.is_met,
                    }
                    for goal in result.goals
                ],
                "notes": result.notes,
            }
            for name, result in results.items()
        },
    }


def machine() -> dict[str, Any]:
    """Return where this runs: processor, cores, memory, Python and libraries."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gigabytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
    }


def machine_line() -> str:
    """Return the same in one line."""
    found = machine()
    libraries = ", ".join(f"{name} {number}" for name, number in found["libraries"].items())
    return (
        f"{found['processor']}, {found['cores']} cores, {found['memory_gigabytes']} GB, "
        f"{found['system']}, Python {found['python']}, {libraries}"
    )


def commit() -> str:
    """Return the commit that is measured, `+` if files differ from it; empty outside a clone."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
