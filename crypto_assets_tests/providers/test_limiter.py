"""One budget for all threads and processes, and a clock that cannot be trusted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crypto_assets.providers.limiter import (
    LONGEST_HOLD_SECONDS,
    WINDOW_SECONDS,
    HeldBackError,
    LimiterError,
    SharedLimiter,
)
from crypto_assets_tests.providers.conftest import Clock


def make(path: Path, clock: Clock, calls: int = 5) -> SharedLimiter:
    return SharedLimiter(path, calls, wall=clock.wall, monotonic=clock.monotonic, sleep=clock.sleep)


def test_no_window_of_a_minute_ever_holds_more_than_the_limit(tmp_path: Path, clock: Clock) -> None:
    given: list[float] = []
    with make(tmp_path / "limit", clock, calls=7) as limiter:
        for _ in range(40):
            limiter.acquire()
            given.append(clock.wall())
            clock.elapsed += 0.7
    for first, eighth in zip(given, given[7:], strict=False):
        assert eighth - first > 60
    # 95 % of what the limit allows, at least: 40 permits need 5 full windows after the first 7.
    assert given[-1] - given[0] < 5 * 60 / 0.95


def test_two_limiters_on_one_file_share_one_budget(tmp_path: Path, clock: Clock) -> None:
    with make(tmp_path / "limit", clock) as one, make(tmp_path / "limit", clock) as two:
        for limiter in (one, two, one, two, one):
            limiter.acquire()
        assert clock.naps == []
        two.acquire()
        assert clock.elapsed >= WINDOW_SECONDS - 1


def test_waiting_in_the_usual_queue_is_not_charged(tmp_path: Path, clock: Clock) -> None:
    with make(tmp_path / "limit", clock, calls=1) as limiter:
        assert limiter.acquire(patience=1) == 0
        assert limiter.acquire(patience=1) == 0
        assert clock.elapsed > 60


def test_a_hold_binds_the_other_process_too(tmp_path: Path, clock: Clock) -> None:
    with make(tmp_path / "limit", clock) as one, make(tmp_path / "limit", clock) as two:
        two.acquire()
        one.hold(30)
        assert two.acquire() == pytest.approx(30, abs=0.01)
        assert clock.elapsed == pytest.approx(30, abs=0.01)


def test_a_shorter_hold_does_not_end_a_longer_one(tmp_path: Path, clock: Clock) -> None:
    with make(tmp_path / "limit", clock) as limiter:
        limiter.hold(30)
        limiter.hold(2)
        limiter.acquire()
        assert clock.elapsed == pytest.approx(30, abs=0.01)


def test_a_hold_beyond_the_callers_patience_fails_at_once_without_a_permit(
    tmp_path: Path, clock: Clock
) -> None:
    with make(tmp_path / "limit", clock, calls=1) as limiter:
        limiter.hold(1e9)
        with pytest.raises(HeldBackError):
            limiter.acquire(patience=100)
        assert clock.elapsed == 0
        limiter.acquire()
        assert clock.elapsed == pytest.approx(LONGEST_HOLD_SECONDS, abs=0.01)


@pytest.mark.parametrize("step", [-7200.0, -86_400.0, -0.5])
def test_a_clock_set_back_blocks_for_no_longer_than_one_window(
    tmp_path: Path, clock: Clock, step: float
) -> None:
    with make(tmp_path / "limit", clock) as limiter:
        for _ in range(5):
            limiter.acquire()
        clock.step = step
        limiter.acquire()
        assert 60 < clock.elapsed < WINDOW_SECONDS + 1


def test_a_shared_hold_set_by_a_clock_that_was_ahead_is_dropped(
    tmp_path: Path, clock: Clock
) -> None:
    with make(tmp_path / "limit", clock) as one, make(tmp_path / "limit", clock) as two:
        clock.step = 7200
        one.hold(60)
        clock.step = 0
        two.acquire()
        assert clock.elapsed == 0


def test_without_a_limit_no_file_is_made_but_a_hold_is_kept(tmp_path: Path, clock: Clock) -> None:
    limiter = SharedLimiter(
        tmp_path / "limit", None, wall=clock.wall, monotonic=clock.monotonic, sleep=clock.sleep
    )
    for _ in range(10_000):
        limiter.acquire()
    limiter.hold(5)
    assert limiter.acquire() == pytest.approx(5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "limit").write_bytes(b"this is no database at all, only text" * 100)
    with (
        SharedLimiter(tmp_path / "limit", 5) as limiter,
        pytest.raises(LimiterError, match=r"limit cannot be used .*delete the file"),
    ):
        limiter.acquire()


def test_a_limit_needs_a_file_and_at_least_one_call(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a limit needs"):
        SharedLimiter(None, 5)
    with pytest.raises(ValueError, match="a limit needs"):
        SharedLimiter(tmp_path / "limit", 0)


_CHILD = """
import sys, threading, time
from pathlib import Path
from crypto_assets.providers.limiter import SharedLimiter
with SharedLimiter(Path(sys.argv[1]), 10, window_seconds=1.0) as limiter:
    def work():
        for _ in range(5):
            limiter.acquire()
            sys.stdout.write(f"{time.time()}\\n")
    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads: t.start()
    for t in threads: t.join()
"""


def test_two_processes_of_three_threads_keep_one_limit(tmp_path: Path) -> None:
    path = str(tmp_path / "limit")
    started = time.monotonic()
    children = [
        subprocess.Popen([sys.executable, "-c", _CHILD, path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    stamps = sorted(float(line) for child in children for line in child.communicate()[0].split())
    assert [child.returncode for child in children] == [0, 0]
    assert len(stamps) == 30
    # Printed a little after it was given, so a few milliseconds of play.
    assert all(b - a > 0.95 for a, b in zip(stamps, stamps[10:], strict=False))
    assert time.monotonic() - started < 10


def test_threads_share_a_limiter_without_errors(tmp_path: Path) -> None:
    done: list[float] = []
    with SharedLimiter(tmp_path / "limit", 1000) as limiter:
        threads = [
            threading.Thread(target=lambda: [done.append(limiter.acquire()) for _ in range(20)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(done) == 160
