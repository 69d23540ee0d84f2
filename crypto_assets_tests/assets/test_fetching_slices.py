"""Slices fetched ahead: their order, what fails alone, what ends it all, what is told meanwhile."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.assets.fetching import HOPELESS_AFTER, fetch_each, fetch_slices
from crypto_assets.providers.errors import (
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
    UnsendableError,
)

# Longer than any machine takes; only a test that fails waits for it.
PATIENCE = 10.0
# What a request takes where it must not be over before anybody could look.
LATENCY = 0.01
NETWORK = threading.Event()


def unknown() -> PermanentError:
    return with_status(PermanentError("unknown coin"), 404)


def with_status(error: PermanentError, status: int | None) -> PermanentError:
    error.status = status
    return error


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(), max_size=6), max_size=6), st.integers(1, 4))
def test_outcomes_come_slice_by_slice_in_order_and_nothing_is_lost(
    wanted: list[set[int]], threads: int
) -> None:
    slices = [[(n, name) for name in names] for n, names in enumerate(wanted)]
    outcomes = list(fetch_slices(slices, lambda name: name[1] * 2, threads))
    assert [outcome.answered for outcome in outcomes] == [
        {(n, name): name * 2 for name in names} for n, names in enumerate(wanted)
    ]
    assert not any(outcome.failed for outcome in outcomes)


def test_no_slices_are_no_outcomes() -> None:
    assert list(fetch_slices([], lambda name: name, 2)) == []


def test_the_next_slice_is_fetched_while_the_one_before_is_consumed() -> None:
    begun = {name: threading.Event() for name in "abc"}

    def fetch(name: str) -> str:
        begun[name].set()
        return name

    outcomes = fetch_slices([["a"], ["b"], ["c"]], fetch, 1)
    assert next(outcomes).answered == {"a": "a"}
    # Here the consumer would write "a"; "b" is asked for without anybody waiting for it.
    assert begun["b"].wait(PATIENCE)
    assert next(outcomes).answered == {"b": "b"}
    assert begun["c"].wait(PATIENCE)
    assert next(outcomes).answered == {"c": "c"}


def test_no_more_than_one_slice_is_fetched_ahead() -> None:
    taken: list[int] = []

    def slices() -> Iterator[list[int]]:
        for n in range(6):
            taken.append(n)
            yield [n]

    outcomes = fetch_slices(slices(), lambda name: name, 1)
    for n in range(4):
        assert next(outcomes).answered == {n: n}
        assert taken == list(range(n + 2))
    outcomes.close()


def test_one_that_fails_is_kept_aside_and_the_others_come() -> None:
    def fetch(name: str) -> str:
        if name == "bad":
            raise TransientError("too slow")
        if name == "gone":
            raise unknown()
        if name == "odd":
            raise ContractError("chart", "a list", {})
        if name == "..":
            raise UnsendableError("id='..' cannot be part of a URL")
        return name.upper()

    first, second = fetch_slices([["a", "bad", "b"], ["gone", "odd", "..", "c"]], fetch, 2)
    assert first.answered == {"a": "A", "b": "B"}
    assert {name: error.problem for name, error in first.failed.items()} == {"bad": "too slow"}
    assert second.answered == {"c": "C"}
    assert set(second.failed) == {"gone", "odd", ".."}


@pytest.mark.parametrize("status", [None, 401, 403])
def test_an_error_of_key_plan_or_block_ends_it_at_once(status: int | None) -> None:
    asked: list[str] = []

    def fetch(name: str) -> str:
        asked.append(name)
        if name == "b1":
            raise with_status(PermanentError("the key is not valid"), status)
        time.sleep(0.01)  # what a request takes: all of them take longer than giving up
        return name

    slices = [["a1", "a2"], ["b1", *(f"b{n}" for n in range(2, 500))], ["c1"]]
    outcomes = fetch_slices(slices, fetch, 1)
    assert next(outcomes).answered == {"a1": "a1", "a2": "a2"}
    with pytest.raises(PermanentError, match="not valid"):
        next(outcomes)
    assert "c1" not in asked
    assert list(outcomes) == []


def test_what_was_waiting_is_not_asked_for_after_such_an_error() -> None:
    asked: list[int] = []

    def fetch(name: int) -> int:
        asked.append(name)
        if name == 0:
            raise with_status(PermanentError("blocked"), 403)
        NETWORK.wait(LATENCY)
        return name

    with pytest.raises(PermanentError, match="blocked"):
        list(fetch_slices([list(range(100)), [100]], fetch, 1))
    assert len(asked) < 50


def test_nobody_answered_and_several_failed_is_an_outage() -> None:
    asked: list[int] = []

    def fetch(name: int) -> int:
        asked.append(name)
        NETWORK.wait(LATENCY)
        raise TransientError(f"attempt {name}")

    with pytest.raises(TransientError):
        list(fetch_slices([list(range(100))], fetch, 1))
    assert HOPELESS_AFTER <= len(asked) < 50


def test_unknown_coins_are_no_outage_however_many() -> None:
    def fetch(name: int) -> int:
        raise unknown()

    (outcome,) = fetch_slices([list(range(20))], fetch, 2)
    assert len(outcome.failed) == 20


def test_an_outage_that_begins_in_a_later_slice_ends_it_and_keeps_what_was_yielded() -> None:
    def fetch(name: str) -> str:
        if name.startswith("b"):
            raise TransientError("down")
        return name

    outcomes = fetch_slices([["a1"], ["b1", "b2", "b3", "b4"], ["c1"]], fetch, 1)
    assert next(outcomes).answered == {"a1": "a1"}
    with pytest.raises(TransientError, match="down"):
        list(outcomes)


def test_an_error_of_ours_is_raised_as_it_is() -> None:
    def fetch(name: str) -> str:
        raise ZeroDivisionError(name)

    with pytest.raises(ZeroDivisionError):
        list(fetch_slices([["a"]], fetch, 1))


def test_progress_counts_answers_and_failures_over_all_slices() -> None:
    def fetch(name: int) -> int:
        if name % 5 == 0:
            raise unknown()
        return name

    told: list[int] = []
    slices = [list(range(1, 8)), [8], [], list(range(9, 21))]
    outcomes: list[int] = []
    for outcome in fetch_slices(slices, fetch, 3, told.append):
        # What is yielded has been told, and not a request more.
        outcomes.append(len(outcome.answered) + len(outcome.failed))
        assert told == list(range(1, sum(outcomes) + 1))
    assert outcomes == [7, 1, 0, 12]
    assert told == list(range(1, 21))


def test_no_more_requests_are_in_flight_than_threads() -> None:
    lock = threading.Lock()
    flying, most = 0, 0
    full = threading.Barrier(3)

    def fetch(name: int) -> int:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        full.wait(PATIENCE)
        with lock:
            flying -= 1
        return name

    outcomes = list(fetch_slices([list(range(6)), list(range(6, 12))], fetch, 3))
    assert [len(outcome.answered) for outcome in outcomes] == [6, 6]
    assert most == 3


def test_one_collection_is_one_outcome() -> None:
    def fetch(name: str) -> str:
        if name == "b":
            raise TransientError("slow")
        return name

    outcome = fetch_each({"a", "b"}, fetch, 2)
    assert outcome.answered == {"a": "a"}
    assert isinstance(outcome.failed["b"], ProviderError)


def test_leaving_early_leaves_no_thread_behind() -> None:
    outcomes = fetch_slices([["a"], ["b"], ["c"]], lambda name: name, 2)
    next(outcomes)
    outcomes.close()
    for thread in threading.enumerate():
        if thread.name.startswith("fetch"):
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_unsendable_requests_alone_are_no_outage_however_many() -> None:
    def fetch(name: int) -> int:
        raise UnsendableError(f"{name} cannot be part of a URL")

    (outcome,) = fetch_slices([list(range(20))], fetch, 2)
    assert set(outcome.failed) == set(range(20))


@pytest.mark.parametrize("threads", [1, 3])
def test_leaving_early_cancels_what_was_not_sent_yet(threads: int) -> None:
    asked: list[int] = []

    def fetch(name: int) -> int:
        asked.append(name)
        NETWORK.wait(LATENCY)
        return name

    outcomes = fetch_slices([[0], list(range(1, 500)), [500]], fetch, threads)
    assert next(outcomes).answered == {0: 0}
    outcomes.close()
    # Only what was on its way already came back; once closed, nobody asks any more.
    at_close = len(asked)
    assert at_close < 100
    NETWORK.wait(5 * LATENCY)
    assert len(asked) == at_close


def test_nobody_has_to_listen_to_the_progress() -> None:
    slices = [[1, 2], [3]]
    heard: list[int] = []
    loud = list(fetch_slices(slices, lambda name: name, 2, heard.append))
    silent = list(fetch_slices(slices, lambda name: name, 2, None))
    assert [outcome.answered for outcome in silent] == [outcome.answered for outcome in loud]
    assert heard == [1, 2, 3]
