"""Fetching many coins side by side: what failed is left out, counted and told.

Belongs here: threads, the share that may be missing, and when to give up at once. What is asked
of a provider is the caller's.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import dagster as dg

from crypto_assets.providers.errors import (
    PERMANENT_CODES,
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
)

T = TypeVar("T")

# With nothing answered and this many failed to, the provider is down rather than a coin.
HOPELESS_AFTER = 3
# Statuses that tell of a key, a plan or a block: every other coin would meet them too.
_WHOLE_PROVIDER = frozenset({None, 401, 403})


@dataclass
class Outcome(Generic[T]):
    """What came of many requests, by series (a coin's id, an asset)."""

    answered: dict[str, T] = field(default_factory=dict)
    failed: dict[str, ProviderError] = field(default_factory=dict)


def fetch_each(series: Iterable[str], fetch: Callable[[str], T], threads: int) -> Outcome[T]:
    """Call `fetch` for each series, up to `threads` at a time.

    One that fails is kept aside. Raises the `ProviderError` at once where it concerns the whole
    provider: a key, plan or block at fault, or nobody answered and several failed.
    """
    outcome: Outcome[T] = Outcome()
    with ThreadPoolExecutor(threads, thread_name_prefix="fetch") as pool:
        waiting: dict[Future[T], str] = {pool.submit(fetch, name): name for name in series}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    _take(future, waiting.pop(future), outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcome


def concerns_all(error: ProviderError) -> bool:
    """Tell whether an error would meet every other series too."""
    if isinstance(error, ContractError) or not isinstance(error, PermanentError):
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


def _take(future: Future[T], name: str, outcome: Outcome[T]) -> None:
    try:
        outcome.answered[name] = future.result()
    except ProviderError as error:
        outcome.failed[name] = error
        unanswered = [e for e in outcome.failed.values() if isinstance(e, TransientError)]
        nobody = not outcome.answered and len(unanswered) >= HOPELESS_AFTER
        if nobody or concerns_all(error):
            raise
