"""Fetching many things side by side: what failed is left out, counted and told.

Belongs here: threads, the share that may be missing, and when to give up at once. What is asked
of a provider is the caller's.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import dagster as dg

from crypto_assets.providers.errors import (
    PERMANENT_CODES,
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
    UnsendableError,
)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

# With nothing answered and this many failed to, the provider is down rather than a coin.
HOPELESS_AFTER = 3
# Statuses that tell of a key, a plan or a block: every other coin would meet them too.
_WHOLE_PROVIDER = frozenset({None, 401, 403})
# One slice is fetched while the one before it is written; more would only take memory.
_SLICES_AHEAD = 2


@dataclass
class Outcome(Generic[K, T]):
    """What came of many requests."""

    answered: dict[K, T] = field(default_factory=dict)
    failed: dict[K, ProviderError] = field(default_factory=dict)


def fetch_each(wanted: Collection[K], fetch: Callable[[K], T], threads: int) -> Outcome[K, T]:
    """Call `fetch` for each of the wanted, up to `threads` at a time; as `fetch_slices`."""
    (outcome,) = fetch_slices([list(wanted)], fetch, threads)
    return outcome


def fetch_slices(
    slices: Iterable[Sequence[K]],
    fetch: Callable[[K], T],
    threads: int,
    report: Callable[[int], None] | None = None,
) -> Generator[Outcome[K, T], None, None]:
    """Yield the outcome of each slice, in order, while the next one is fetched already.

    One that fails is kept aside. Raises the `ProviderError` at once where it concerns the whole
    provider: a key, plan or block at fault, or nobody of a slice answered and several failed.
    `report` is called with how many have ended so far.
    """
    waiting: deque[dict[Future[T], K]] = deque()
    ended = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        try:
            for wanted in slices:
                waiting.append({pool.submit(fetch, name): name for name in wanted})
                if len(waiting) == _SLICES_AHEAD:
                    outcome = _collected(waiting.popleft(), ended, report)
                    ended += len(outcome.answered) + len(outcome.failed)
                    yield outcome
            while waiting:
                outcome = _collected(waiting.popleft(), ended, report)
                ended += len(outcome.answered) + len(outcome.failed)
                yield outcome
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def concerns_all(error: ProviderError) -> bool:
    """Tell whether an error would meet every other series too."""
    own = (ContractError, UnsendableError)
    if isinstance(error, own) or not isinstance(error, PermanentError):
        return False
    return error.code in PERMANENT_CODES or error.status in _WHOLE_PROVIDER


def failure(error: ProviderError) -> dg.Failure:
    """Return what ends a step for an error of a provider; permanent ones are not retried."""
    return dg.Failure(str(error), allow_retries=not isinstance(error, PermanentError))


def fail_if_too_much_missing(
    what: str, failed: Mapping[str, ProviderError], asked: int, allowed_share: float
) -> None:
    """Raise `dagster.Failure` when more than the allowed share is missing, naming which and why."""
    if not failed or len(failed) / asked <= allowed_share:
        return
    names = ", ".join(sorted(failed)[:20])
    more = f" and {len(failed) - 20} more" if len(failed) > 20 else ""
    first = next(iter(failed.values()))
    raise dg.Failure(
        f"{what}: {len(failed)} of {asked} are missing, more than the allowed "
        f"{allowed_share:.0%} (setting fetch.max_missing_share); the rest is stored. "
        f"Missing: {names}{more}. First reason: {first}",
        allow_retries=not all(isinstance(e, PermanentError) for e in failed.values()),
    )


def _collected(
    waiting: dict[Future[T], K], ended_before: int, report: Callable[[int], None] | None
) -> Outcome[K, T]:
    outcome: Outcome[K, T] = Outcome()
    for ended, future in enumerate(as_completed(waiting), start=ended_before + 1):
        _take(future, waiting[future], outcome)
        if report is not None:
            report(ended)
    return outcome


def _take(future: Future[T], name: K, outcome: Outcome[K, T]) -> None:
    try:
        outcome.answered[name] = future.result()
    except ProviderError as error:
        outcome.failed[name] = error
        unanswered = [e for e in outcome.failed.values() if isinstance(e, TransientError)]
        nobody = not outcome.answered and len(unanswered) >= HOPELESS_AFTER
        if nobody or concerns_all(error):
            raise
