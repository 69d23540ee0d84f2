"""What a step tells of its fetching, by a clock that moves only when a test says so."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.assets.progress import LINE_SECONDS, LOGGER, Meter, Progress, listening


class Time:
    """Time and calls, both moved by hand."""

    def __init__(self, calls: int = 0) -> None:
        self.seconds = 1_000.0
        self.calls = calls

    def monotonic(self) -> float:
        return self.seconds

    def sent(self) -> int:
        return self.calls


class Lines:
    """A run's log."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def info(self, msg: object, /) -> None:
        self.said.append(str(msg))


@contextmanager
def heard() -> Iterator[list[Progress]]:
    found: list[Progress] = []
    with listening(found.append):
        yield found


def test_calls_and_seconds_count_from_the_meters_beginning() -> None:
    time = Time(calls=700)
    meter = Meter("ohlc_daily", 100, time.sent, None, time.monotonic)
    with heard() as told:
        time.seconds, time.calls = time.seconds + 30, 800
        meter(25)
    (progress,) = told
    assert progress == Progress("ohlc_daily", 25, 100, 100, 30.0)
    assert progress.calls_per_minute == 200
    assert progress.seconds_left == 90
    assert str(progress) == (
        "ohlc_daily: 25 of 100 requests done, 100 calls (200 a minute) in 30 s, about 2 min left"
    )


@pytest.mark.parametrize(
    ("progress", "pace"),
    [
        (Progress("s", 0, 10, 3, 5.0), "3 calls (36 a minute) in 5 s"),
        (Progress("s", 1, 10, 3, 0.5), "3 calls in 0 s, about 4 s left"),
        (Progress("s", 10, 10, 12, 60.0), "12 calls (12 a minute) in 60 s"),
        (
            Progress("s", 1, 2, 2_000, 120.0),
            "2,000 calls (1,000 a minute) in 2 min, about 2 min left",
        ),
        (Progress("s", 1, 3, 60, 3_600.0), "60 calls (1 a minute) in 60 min, about 2.0 h left"),
    ],
)
def test_the_pace_is_told_in_few_words(progress: Progress, pace: str) -> None:
    assert progress.pace == pace


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0.001, 10**6))
def test_at_the_pace_so_far_the_rest_takes_its_share(done: int, more: int, seconds: float) -> None:
    left = Progress("s", done, done + more, done, seconds).seconds_left
    assert left is not None
    assert (seconds + left) / (done + more) == pytest.approx(seconds / done)


def test_no_time_left_is_told_before_anything_is_done() -> None:
    assert Progress("s", 0, 10, 4, 8.0).seconds_left is None


def test_listeners_hear_of_each_half_second_at_most_and_of_the_end_always() -> None:
    time = Time()
    meter = Meter("s", 100, time.sent, None, time.monotonic)
    with heard() as told:
        for done in range(1, 101):
            time.seconds += 0.1
            meter(done)
    assert told[-1].done == 100
    gaps = [b.seconds - a.seconds for a, b in pairwise(told)]
    assert all(gap >= 0.5 - 1e-6 for gap in gaps[:-1])
    assert 18 <= len(told) <= 21


def test_the_end_is_told_even_when_no_time_has_passed() -> None:
    time, lines = Time(), Lines()
    meter = Meter("s", 3, time.sent, lines, time.monotonic)
    with heard() as told:
        for done in (1, 2, 3):
            meter(done)
    assert [p.done for p in told] == [3]
    assert lines.said == ["s: 3 of 3 requests done, 0 calls in 0 s"]


def test_the_run_log_gets_a_line_every_ten_seconds_and_one_at_the_end() -> None:
    time, lines = Time(), Lines()
    meter = Meter("s", 60, time.sent, lines, time.monotonic)
    for done in range(1, 61):
        time.seconds += 1
        time.calls += 2
        meter(done)
    assert LINE_SECONDS == 10
    assert [line.split(",")[0] for line in lines.said] == [
        f"s: {done} of 60 requests done" for done in (10, 20, 30, 40, 50, 60)
    ]
    assert "20 calls (120 a minute) in 10 s, about 50 s left" in lines.said[0]
    assert "left" not in lines.said[-1]


def test_after_a_long_silence_one_line_is_told_not_many() -> None:
    time, lines = Time(), Lines()
    meter = Meter("s", 10, time.sent, lines, time.monotonic)
    time.seconds += 95
    meter(1)
    meter(2)
    time.seconds += 9.9
    meter(3)
    assert len(lines.said) == 1


def test_without_a_run_log_only_listeners_are_told() -> None:
    time = Time()
    meter = Meter("s", 1, time.sent, None, time.monotonic)
    with heard() as told:
        meter(1)
    assert len(told) == 1


def test_listening_ends_with_its_block_and_leaves_the_logger_as_it_was() -> None:
    logger = logging.getLogger(LOGGER)
    before = (list(logger.handlers), logger.level)
    time = Time()
    with heard() as told:
        Meter("s", 1, time.sent, None, time.monotonic)(1)
    Meter("s", 1, time.sent, None, time.monotonic)(1)
    assert len(told) == 1
    assert (list(logger.handlers), logger.level) == before


def test_two_listeners_hear_the_same() -> None:
    time = Time()
    with heard() as one, heard() as other:
        Meter("s", 1, time.sent, None, time.monotonic)(1)
    assert one == other
    assert len(one) == 1
