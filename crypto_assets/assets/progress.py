"""How far a step's fetching has come, told at a pace that people can read.

Two listeners: the run's log in the Dagster UI (a line now and then) and whoever handles the
standard logger named `LOGGER`, as the command line does (more often, with the numbers attached).
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

LOGGER = "crypto_assets.progress"
LINE_SECONDS = 10.0
_BEAT_SECONDS = 0.5

log = logging.getLogger(LOGGER)


class RunLog(Protocol):
    """The part of Dagster's run log that is used."""

    def info(self, msg: object, /) -> None:
        """Write a line."""


@dataclass(frozen=True)
class Progress:
    """Where a step is: requests done of all, calls sent so far and how many a minute."""

    step: str
    done: int
    total: int
    calls: int
    seconds: float

    @property
    def calls_per_minute(self) -> float:
        """The rate so far; over the first seconds it says nothing."""
        return 60 * self.calls / self.seconds if self.seconds >= 1 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace so far; None while there is no pace."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None

    @property
    def pace(self) -> str:
        """Calls, their rate and the time left, in few words."""
        left = self.seconds_left
        rest = "" if left is None or self.done == self.total else f", about {_span(left)} left"
        rate = f" ({self.calls_per_minute:,.0f} a minute)" if self.calls_per_minute else ""
        return f"{self.calls:,} calls{rate} in {_span(self.seconds)}{rest}"

    def __str__(self) -> str:
        return f"{self.step}: {self.done:,} of {self.total:,} requests done, {self.pace}"


@contextmanager
def listening(hear: Callable[[Progress], None]) -> Iterator[None]:
    """Call `hear` with each progress told in this process meanwhile."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            hear(record.__dict__["progress"])

    ear, level = Ear(), log.level
    log.addHandler(ear)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(ear)
        log.setLevel(level)


class Meter:
    """Tells the progress of one step. `calls` returns how many calls were sent in all."""

    def __init__(
        self,
        step: str,
        total: int,
        calls: Callable[[], int],
        run_log: RunLog | None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = step
        self._total = total
        self._calls = calls
        self._run_log = run_log
        self._monotonic = monotonic
        self._calls_before = calls()
        self._began = self._beat_at = self._line_at = monotonic()

    def __call__(self, done: int) -> None:
        """Tell that so many requests are done, if it is time or the end."""
        now = self._monotonic()
        is_end = done == self._total
        if not is_end and now - self._beat_at < _BEAT_SECONDS:
            return
        calls = self._calls() - self._calls_before
        progress = Progress(self._step, done, self._total, calls, now - self._began)
        self._beat_at = now
        log.debug("%s", progress, extra={"progress": progress})
        if self._run_log is not None and (is_end or now - self._line_at >= LINE_SECONDS):
            self._line_at = now
            self._run_log.info(str(progress))


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
