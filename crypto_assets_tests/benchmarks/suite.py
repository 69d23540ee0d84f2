"""What every benchmark is given and gives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crypto_assets_tests.benchmarks.results import Result


@dataclass(frozen=True)
class Setup:
    """How a benchmark is to measure."""

    folder: Path
    """An empty one of its own."""
    repeats: int = 5
    is_quick: bool = False
    """Whether sizes are so small that only calls and values tell something."""


Benchmark = Callable[[Setup], Result]
