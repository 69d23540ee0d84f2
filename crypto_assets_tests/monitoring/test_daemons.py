from collections.abc import Mapping, Sequence

import pytest
from dagster._daemon.types import DaemonHeartbeat, DaemonStatus

from crypto_assets.monitoring.daemons import Seen, observe

Look = Mapping[str, tuple[str, float]]
"""What Dagster has stored at one moment: the last heartbeat of each thread, whose and when."""


def statuses(look: Look) -> list[DaemonStatus]:
    beats = [DaemonHeartbeat(float(at), kind, daemon) for kind, (daemon, at) in look.items()]
    return [DaemonStatus(beat.daemon_type, True, True, beat) for beat in beats]


def told(*looks: Look) -> list[bool]:
    seen, answers = Seen(), []
    for look in looks:
        # As a sensor keeps it.
        seen, is_two = observe(statuses(look), Seen.from_text(seen.to_text()))
        answers.append(is_two)
    return answers


def one(daemon: str, start: float, beats: int) -> list[Look]:
    """A daemon with two threads, which begin a little apart."""
    return [
        {"SENSOR": (daemon, start + 30 * n), "SCHEDULER": (daemon, start + 30 * n + 3)}
        for n in range(beats)
    ]


def by_turns(looks: Sequence[Sequence[Look]]) -> list[Look]:
    return [look for turn in zip(*looks, strict=True) for look in turn]


def test_nothing_seen_is_no_two() -> None:
    never = DaemonStatus("SENSOR", required=True, healthy=False, last_heartbeat=None)
    assert observe([never], Seen()) == (Seen(), False)
    assert Seen.from_text(None) == Seen()


def test_one_daemon_is_no_two() -> None:
    assert told(*one("a", 1000.5, 20)) == [False] * 20


@pytest.mark.parametrize("pause", [10, 100, 10_000])
def test_a_restart_is_no_two(pause: float) -> None:
    first, second = one("a", 1000, 5), one("b", 1123 + pause, 5)
    assert not any(told(*first, *second))


def test_a_restart_seen_half_way_is_no_two() -> None:
    half = {"SENSOR": ("b", 1040.0), "SCHEDULER": ("a", 1003.0)}
    assert not any(told(*one("a", 1000, 1), half, *one("b", 1070, 3)))


def test_many_restarts_are_no_two() -> None:
    assert not any(told(*(look for n in range(9) for look in one(f"id{n}", 1000 + 40 * n, 1))))


def test_two_that_take_turns_are_told_when_the_first_comes_back() -> None:
    looks = by_turns([one("a", 1000, 3), one("b", 1015, 3)])
    assert told(*looks) == [False, False, True, True, True, True]


def test_two_seen_in_one_look_are_told_at_once() -> None:
    threads = {"SENSOR": ("a", 1000.0), "SCHEDULER": ("b", 1010.0), "BACKFILL": ("a", 1020.0)}
    assert told(threads) == [True]


def test_a_third_beside_two_that_followed_each_other_is_told() -> None:
    looks = [*one("a", 1000, 1), *one("b", 1030, 1), *one("c", 1050, 1), *one("b", 1060, 1)]
    assert told(*looks)[-1]


def test_it_is_over_five_minutes_after_one_of_them_ended() -> None:
    both = by_turns([one("a", 1000, 3), one("b", 1015, 3)])
    after = told(*both, *one("a", 1090, 20))[len(both) :]
    assert after[0]
    assert not after[-1]
    assert after == sorted(after, reverse=True)
    assert 9 <= sum(after) <= 11


def test_a_clock_that_was_set_back_makes_no_two() -> None:
    assert not any(told(*one("a", 10_000, 4), *one("b", 6_000, 200)))
