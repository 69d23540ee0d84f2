"""Answers that were given already: taken from the raw store instead of asking again.

Belongs here: serving a stored body as if it came just now. Does not belong here: which stored
answer is good enough (`assets`), or keeping them (`raw`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.fetched import Fetched, Source, source_of
from crypto_assets.providers.raw import NotStoredError, RawMeta, RawStore, RawStoreError

T = TypeVar("T")
log = logging.getLogger(__name__)


class _StoredAnswers:
    """The newest answer of a provider to each request, where ``accept`` takes it.

    ``accept`` is told when it was observed (naive UTC). Answers of a sandbox are only looked at
    where ``sandbox``.
    """

    def __init__(
        self,
        provider: str,
        raw: RawStore,
        accept: Callable[[datetime], bool],
        *,
        sandbox: bool = False,
    ) -> None:
        self._provider = provider
        self._raw = raw
        self._accept = accept
        self._sandbox = sandbox

    def _accepted(
        self, endpoint: str, path_params: Mapping[str, str], params: Mapping[str, Any]
    ) -> RawMeta | None:
        found = self._raw.latest(
            self._provider, endpoint, path_params, params, sandbox=self._sandbox
        )
        return found if found is not None and self._accept(found.observed_at) else None


class ReplayFirst(_StoredAnswers):
    """A provider that is asked only where no stored answer to the very request is accepted."""

    def __init__(
        self,
        provider: str,
        source: Source,
        raw: RawStore,
        accept: Callable[[datetime], bool],
        *,
        sandbox: bool = False,
    ) -> None:
        super().__init__(provider, raw, accept, sandbox=sandbox)
        self._source = source

    def get(
        self,
        endpoint: str,
        path_params: Mapping[str, str],
        params: Mapping[str, Any],
        parse: Callable[[bytes], T],
        *,
        keep: bool = True,
    ) -> Fetched[T]:
        """Return the stored answer if there is a good one, else what the provider says."""
        if keep and (found := self._accepted(endpoint, path_params, params)) is not None:
            try:
                return _replayed(*self._raw.read(found.raw_id), parse)
            except (ProviderError, RawStoreError, NotStoredError) as error:
                log.info("asking again, the stored answer can't be used: %s", error)
        return self._source.get(endpoint, path_params, params, parse, keep=keep)


class Recorded:
    """The given stored answers, one for each request, in order; no provider is ever asked.

    Requests are not compared, so that a later version that asks differently still reads them.
    ``get`` raises NotStoredError for a body that is not stored any more, or is a sandbox's where
    that is not wanted.
    """

    def __init__(self, raw: RawStore, raw_ids: Iterable[str], *, sandbox: bool = False) -> None:
        self._raw = raw
        self._left = deque(raw_ids)
        self._sandbox = sandbox

    def get(
        self,
        endpoint: str,  # noqa: ARG002
        path_params: Mapping[str, str],  # noqa: ARG002
        params: Mapping[str, Any],  # noqa: ARG002
        parse: Callable[[bytes], T],
        *,
        keep: bool = True,  # noqa: ARG002
    ) -> Fetched[T]:
        """Return the next answer."""
        meta, body = self._raw.read(self._left.popleft())
        if meta.sandbox != self._sandbox:
            raise NotStoredError(meta.raw_id)
        return _replayed(meta, body, parse)


def _replayed(meta: RawMeta, body: bytes, parse: Callable[[bytes], T]) -> Fetched[T]:
    source = source_of(meta.provider, meta.endpoint, is_sandbox=meta.sandbox)
    return Fetched(parse(body), source, meta.observed_at, meta.raw_id, (meta.raw_id,))


class Probe(_StoredAnswers):
    """A source that makes no call: asking it raises whether a stored answer would do.

    For plans: whatever asks a provider can be shown this one instead.
    """

    class Told(Exception):  # noqa: N818
        """What asking would have led to."""

        def __init__(self, is_answered: bool) -> None:
            super().__init__()
            self.is_answered = is_answered

    def get(
        self,
        endpoint: str,
        path_params: Mapping[str, str],
        params: Mapping[str, Any],
        parse: Callable[[bytes], T],  # noqa: ARG002
        *,
        keep: bool = True,  # noqa: ARG002
    ) -> Fetched[T]:
        """Raise `Told`."""
        raise self.Told(self._accepted(endpoint, path_params, params) is not None)
