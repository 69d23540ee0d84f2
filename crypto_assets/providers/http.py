"""The client all providers share: permits, retries, masking and the acceptance of answers.

Belongs here: everything between a provider's "I want this" and an accepted, stored answer. Does
not belong here: what any provider's payload means (its own module), sockets (``transport``).

Each attempt takes a permit first. What may pass by itself is retried with jittered back-off
within a budget of time; what cannot is raised at once and never retried here. A 429 holds every
thread and process back for as long as the provider asked.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import MaxRetryError

from crypto_assets.providers.errors import (
    PermanentError,
    ProviderError,
    TransientError,
    UnsendableError,
    classify,
    excerpt_of,
    mask,
    shorten,
)
from crypto_assets.providers.fetched import Fetched, source_of
from crypto_assets.providers.limiter import HeldBackError, SharedLimiter
from crypto_assets.providers.raw import RawStore
from crypto_assets.providers.transport import (
    Answer,
    LeavesHostError,
    TooLargeError,
    exchange,
    new_session,
)
from crypto_assets.providers.usage import UsageLog
from crypto_assets.providers.waits import Patience, asked_wait, http_date

T = TypeVar("T")
log = logging.getLogger(__name__)

# Nobody there at all: the network is off, and every other request finds the same for a while.
_UNREACHABLE_AFTER = 3
_UNREACHABLE_SECONDS = 30.0
SANDBOX_HEADER = "X-Crypto-Assets-Sandbox"


@dataclass(frozen=True)
class _Request:
    endpoint: str
    path_params: Mapping[str, Any]
    params: Mapping[str, Any]
    url: str
    asked: str


class HttpClient:
    """Answers of one provider, for many threads.

    ``headers`` go with every request (the key among them), ``secrets`` are masked wherever text
    leaves this class. ``expect_sandbox`` says which kind of home this is: an answer of the other
    kind is refused. ``raw=None`` keeps no raw responses, ``usage=None`` counts no calls for the
    month. With a ``clock_tolerance`` answers are refused while our clock and
    the provider's differ by more. ``sleep``, ``monotonic`` and ``jitter``
    (0 to 1) are replaceable in tests.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        limiter: SharedLimiter,
        now: Callable[[], datetime],
        raw: RawStore | None = None,
        usage: UsageLog | None = None,
        headers: Mapping[str, str] | None = None,
        secrets: Collection[str] = (),
        expect_sandbox: bool = False,
        connect_seconds: float = 10.0,
        read_seconds: float = 30.0,
        deadline_seconds: float = 60.0,
        clock_tolerance: timedelta | None = None,
        retry_budget_seconds: float = 300.0,
        max_attempts: int = 8,
        threads: int = 32,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ValueError(f"the base URL of {provider} must look like https://host/path")
        if parts.username or parts.password:
            raise ValueError(f"the base URL of {provider} must not hold a user or password")
        self.provider = provider
        self.base_url = base_url.rstrip("/")
        self._limiter = limiter
        self._now = now
        self._raw = raw
        self._usage = usage
        self._secrets = tuple(s for s in secrets if s)
        self._expect_sandbox = expect_sandbox
        self._connect_seconds = connect_seconds
        self._read_seconds = read_seconds
        self._deadline_seconds = deadline_seconds
        self._clock_tolerance = clock_tolerance
        self._budget = retry_budget_seconds
        self._max_attempts = max_attempts
        self._sleep = sleep
        self._unreachable_until = float("-inf")
        self._monotonic = monotonic
        self._jitter = jitter
        self._session = new_session(base_url, headers or {}, threads)
        self._count_lock = threading.Lock()
        self._calls = 0
        self._credits = 0

    def get(
        self,
        endpoint: str,
        path_params: Mapping[str, str],
        params: Mapping[str, Any],
        parse: Callable[[bytes], T],
        *,
        keep: bool = True,
    ) -> Fetched[T]:
        """Ask until an answer parses, store its body (where ``keep``) and return what it means.

        ``endpoint`` is a template such as ``coins/{id}/ohlc`` whose names are in ``path_params``.
        Raises PermanentError at once, TransientError when time or attempts ran out, and
        RawStoreError or LimiterError when a file of ours cannot be used.
        """
        request = self._request(endpoint, path_params, params)
        if self._monotonic() < self._unreachable_until:
            error = self._unreachable()
            self._complete(error, request)
            raise error
        patience = Patience(self._budget, self._max_attempts, self._jitter)
        while True:
            outcome = self._held_back(patience) or self._attempt(request, parse, keep, patience)
            if isinstance(outcome, Fetched):
                return outcome
            self._complete(outcome, request)
            if isinstance(outcome, PermanentError) or not self._may_retry(outcome, patience):
                # Raised here, outside of any handler: no foreign exception, whose request holds
                # the key, stays attached to it.
                raise outcome
            log.info("trying again: %s", outcome)

    @property
    def calls(self) -> int:
        """Requests sent so far, retries included: what counts against the minute."""
        return self._calls

    @property
    def credits(self) -> int:
        """Answers of status 200 so far: what CoinGecko counts against the month."""
        return self._credits

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self, endpoint: str, path_params: Mapping[str, str], params: Mapping[str, Any]
    ) -> _Request:
        shown = {**path_params, **params}
        listed = ", ".join(f"{k}={shorten(str(v), 60)}" for k, v in shown.items())
        asked = mask(f"{endpoint} ({listed})" if listed else endpoint, self._secrets)
        encoded: dict[str, str] = {}
        for name, value in path_params.items():
            # Servers and clients resolve a lone dot segment even when it is encoded.
            if value in {"", ".", ".."} or not _encodable(value):
                raise UnsendableError(
                    f"{name}={value!r} cannot be part of a URL",
                    provider=self.provider,
                    endpoint=endpoint,
                    asked=asked,
                    advice="remove it from the universe",
                )
            encoded[name] = quote(value, safe="")
        url = f"{self.base_url}/{endpoint.format(**encoded)}"
        return _Request(endpoint, dict(path_params), dict(params), url, asked)

    def _attempt(
        self,
        request: _Request,
        parse: Callable[[bytes], T],
        keep: bool,
        patience: Patience,
    ) -> Fetched[T] | ProviderError:
        began, started = self._now(), self._monotonic()
        patience.tried += 1
        answer = self._exchange(request)
        failure = answer if isinstance(answer, ProviderError) else self._refusal(answer)
        if failure is None and isinstance(answer, Answer):
            # A provider that echoes the key must not get it into the raw store or a row.
            body = _masked_body(answer.body, self._secrets)
            try:
                data = parse(body)
            except ProviderError as error:
                failure = error
                failure.status = answer.status
                failure.excerpt = failure.excerpt or excerpt_of(body)
            else:
                return self._accepted(data, request, body, began, keep, answer)
        assert failure is not None
        patience.spent += self._monotonic() - started
        return failure

    def _held_back(self, patience: Patience) -> ProviderError | None:
        """Take a permit; the error to give up with when the provider's pause is too long."""
        try:
            patience.spent += self._limiter.acquire(patience.left)
        except HeldBackError as error:
            seconds = error.seconds
        else:
            return None
        patience.spent = patience.seconds
        return TransientError(
            f"the provider asked for a pause that lasts another {seconds:.0f} s, longer than is "
            f"left of the {patience.seconds:.0f} s for retries",
            advice="run again after the pause",
        )

    def _accepted(
        self,
        data: T,
        request: _Request,
        body: bytes,
        began: datetime,
        keep: bool,
        answer: Answer,
    ) -> Fetched[T]:
        sandbox = SANDBOX_HEADER in answer.headers
        raw_id = None
        if keep and self._raw is not None:
            raw_id = self._raw.append(
                provider=self.provider,
                endpoint=request.endpoint,
                path_params=request.path_params,
                params=request.params,
                observed_at=began,
                body=body,
                sandbox=sandbox,
            )
        source = source_of(self.provider, request.endpoint, is_sandbox=sandbox)
        return Fetched(data, source, began, raw_id, (raw_id,) if raw_id else ())

    def _exchange(self, request: _Request) -> Answer | ProviderError:
        status = None
        try:
            answer = exchange(
                self._session,
                request.url,
                request.params,
                connect_seconds=self._connect_seconds,
                read_seconds=self._read_seconds,
                deadline_seconds=self._deadline_seconds,
            )
            status = answer.status
        except requests.RequestException as error:
            return self._unanswered(error)
        finally:
            self._count(is_credit=status == 200)
        return answer

    def _count(self, *, is_credit: bool) -> None:
        with self._count_lock:
            self._calls += 1
            self._credits += is_credit
        if self._usage is not None:
            self._usage.add(self.provider, self._now().date(), is_credit=is_credit)

    def _unanswered(self, error: requests.RequestException) -> ProviderError:
        detail = shorten(mask(_innermost(error), self._secrets))
        if isinstance(error, (LeavesHostError, requests.TooManyRedirects)):
            return PermanentError(
                detail or "redirected in a circle", advice="check the base URL in the settings"
            )
        if isinstance(error, (TooLargeError, requests.exceptions.InvalidURL)):
            return PermanentError(detail, advice="check the base URL in the settings")
        advice = f"check the network and the base URL {self.base_url}"
        if isinstance(error.args[0] if error.args else None, MaxRetryError):
            return self._unreachable()
        what = "was too slow" if isinstance(error, requests.Timeout) else "did not answer in full"
        return TransientError(f"{what}: {detail}", advice=advice)

    def _unreachable(self) -> TransientError:
        advice = f"check the network and the base URL {self.base_url}"
        error = TransientError("could not be reached", advice=advice)
        error.is_unreachable = True
        return error

    def _refusal(self, answer: Answer) -> ProviderError | None:
        """Why an answer is not even parsed, or None."""
        sandbox = SANDBOX_HEADER in answer.headers
        if sandbox and not self._expect_sandbox:
            return PermanentError(
                "the answer comes from a sandbox, and its data can't go into a live home",
                advice="point the base URLs at the live hosts, or use a sandbox home",
            )
        # A proxy in between may answer 5xx on the sandbox's behalf.
        if self._expect_sandbox and not sandbox and answer.status < 500:
            return PermanentError(
                "the answer does not come from a sandbox, and live data can't go into its home",
                advice="point the base URLs at the sandbox, or use a live home",
            )
        if answer.status == 200:
            return self._wrong_clock(answer)
        error = classify(answer.status, answer.body, provider=self.provider, secrets=self._secrets)
        if isinstance(error, TransientError):
            error.retry_after = asked_wait(answer.status, answer.headers, self._now())
        return error

    def _wrong_clock(self, answer: Answer) -> PermanentError | None:
        """Days and what is final follow from our clock: with a wrong one rows would be wrong."""
        told = http_date(answer.headers.get("Date", ""))
        if told is None or self._clock_tolerance is None:
            return None
        # A cache on the way hands on the date of when it was told itself.
        age = answer.headers.get("Age", "")
        ahead = self._now() - told - timedelta(seconds=int(age) if age.isdigit() else 0)
        if abs(ahead) <= self._clock_tolerance:
            return None
        side = "ahead of" if ahead > timedelta(0) else "behind"
        return PermanentError(
            f"this machine's clock is {abs(ahead) / timedelta(hours=1):.1f} h {side} "
            f"the provider's ({self._now():%Y-%m-%d %H:%M} against {told:%Y-%m-%d %H:%M} UTC)",
            advice="set the clock right, by NTP best; nothing of the answer was stored",
        )

    def _may_retry(self, error: ProviderError, patience: Patience) -> bool:
        """Wait as long as the error asks for, or say that time or attempts are used up."""
        asked = getattr(error, "retry_after", None)
        wait = patience.backoff(asked)
        if asked is not None:
            # Everyone has to wait, whoever was told so; the permit makes this thread wait as well.
            self._limiter.hold(wait)
        gives_up = self._is_unreachable(error, patience)
        if gives_up or patience.is_over(wait, asked):
            error.problem = f"{error.problem} ({patience.summary(asked)})"
            return False
        if asked is None:
            self._sleep(wait)
            patience.spent += wait
        return True

    def _is_unreachable(self, error: ProviderError, patience: Patience) -> bool:
        """Whether a host is not there at all; then nobody else need wait to find the same."""
        if not isinstance(error, TransientError) or not error.is_unreachable:
            return False
        if patience.tried < _UNREACHABLE_AFTER:
            return False
        self._unreachable_until = self._monotonic() + _UNREACHABLE_SECONDS
        return True

    def _complete(self, error: ProviderError, request: _Request) -> None:
        error.provider = self.provider
        error.endpoint = request.endpoint
        error.asked = request.asked
        error.problem = mask(error.problem, self._secrets)
        error.args = (error.problem,)
        # What it was raised from, and the frames it came through, lead to bodies and headers.
        error.__context__ = error.__cause__ = error.__traceback__ = None


def _innermost(error: BaseException) -> str:
    """What the system said, without the exceptions it is wrapped in."""
    for inner in reversed(error.args):
        if isinstance(inner, BaseException):
            return _innermost(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _masked_body(body: bytes, secrets: Collection[str]) -> bytes:
    for secret in secrets:
        if secret.encode() in body:
            body = body.replace(secret.encode(), b"***")
    return body
