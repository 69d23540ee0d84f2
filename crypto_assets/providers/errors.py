"""What can go wrong between us and a provider, and whether asking again can help.

Belongs here: the error classes, the one pure function that tells permanent from transient, and
masking. Does not belong here: any request, retry or wait (``http``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from urllib.parse import quote

EXCERPT_LENGTH = 200

# CoinGecko's own codes: the plan or the key has to change before the answer can.
PERMANENT_CODES = {
    10002: "the API key is missing or wrong; set CRYPTO_ASSETS_COINGECKO__API_KEY to a valid key",
    10005: "the endpoint is not part of the plan; check CRYPTO_ASSETS_COINGECKO__PLAN",
    10010: "a paid key was sent to the free host; set CRYPTO_ASSETS_COINGECKO__PLAN to the plan "
    "the key belongs to",
    10011: "a demo key was sent to the paid host; set CRYPTO_ASSETS_COINGECKO__PLAN to demo",
    10012: "the range lies before the plan's history limit; ask for later days or set "
    "CRYPTO_ASSETS_COINGECKO__PLAN to a plan with more history",
}
_TRANSIENT_STATUSES = {408, 429}

_CONTROL = re.compile(r"[\x00-\x20\x7f-\xa0\u2028-\u202f\u2066-\u2069\ud800-\udfff]+")


class ProviderError(Exception):
    """One request to a provider that brought nothing usable.

    ``problem`` says what came back, ``advice`` what to do, ``code`` CoinGecko's own code if it is
    one of ``PERMANENT_CODES``. ``provider``, ``endpoint`` (the
    template), ``asked`` (with its parameters), ``status`` and ``excerpt`` (at most 200 characters,
    secrets masked) are filled in by the HTTP client when a parser raised without knowing them.
    """

    def __init__(
        self,
        problem: str,
        *,
        provider: str = "",
        endpoint: str = "",
        asked: str = "",
        status: int | None = None,
        excerpt: str = "",
        advice: str = "",
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.provider = provider
        self.endpoint = endpoint
        self.asked = asked
        self.status = status
        self.excerpt = excerpt
        self.advice = advice
        self.code: int | None = None

    def __str__(self) -> str:
        who = f"{self.provider} was asked for {self.asked or self.endpoint}: "
        status = f" (HTTP {self.status})" if self.status is not None else ""
        excerpt = f', it sent "{self.excerpt}"' if self.excerpt else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{who if self.provider else ''}{self.problem}{status}{excerpt}{advice}"


class PermanentError(ProviderError):
    """Asking again cannot help: 4xx but 408 and 429, a key or plan at fault, a broken contract."""


class UnsendableError(PermanentError):
    """A request that cannot be sent at all, whoever asks; no other request is worse for it."""


class ContractError(PermanentError):
    """A body that parses but is not what the provider promised; names the field."""

    def __init__(self, field: str, expected: str, got: object = "", **context: str) -> None:
        shown = f", not {shorten(repr(got), 80)}" if got != "" else ""
        context.setdefault("advice", "nothing of it was stored; look at the provider's changes")
        super().__init__(f"{field} should be {expected}{shown}", **context)  # type: ignore[arg-type]
        self.field = field
        self.expected = expected


class TransientError(ProviderError):
    """Asking again later may help: 408, 429, 5xx, time-outs, resets, bodies cut or not JSON.

    ``retry_after`` is the wait in seconds the provider asked for, if it did; ``is_unreachable``:
    not even a connection came about.
    """

    retry_after: float | None = None
    is_unreachable: bool = False


def shorten(text: str, length: int = EXCERPT_LENGTH) -> str:
    """One line of at most ``length`` characters, without control characters."""
    text = _CONTROL.sub(" ", text).strip()
    return text if len(text) <= length else text[: length - 1] + "…"


def mask(text: str, secrets: Collection[str]) -> str:
    """``text`` with each secret, as is, URL-encoded or JSON-escaped, replaced by ``***``."""
    for secret in secrets:
        if secret:
            for form in {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}:
                text = text.replace(form, "***")
    return text


def excerpt_of(body: bytes, secrets: Collection[str] = ()) -> str:
    """The first characters of a body, fit for a message: masked first, cut afterwards."""
    # Masking has to see more than the excerpt, or a key across the cut would leave its first half.
    longest = max((len(s) for s in secrets), default=0)
    head = body[: 16 * EXCERPT_LENGTH + 6 * longest].decode("utf-8", "replace")
    return shorten(mask(head, secrets))


def error_details(payload: object) -> tuple[int | None, str]:
    """The provider's code and message in any of the documented error shapes, else (None, "")."""
    if not isinstance(payload, Mapping):
        return None, ""
    error = payload.get("error")
    if isinstance(error, str):
        return None, error
    if isinstance(error, Mapping):
        code, message = error_details(error)
        return code, message or str(error.get("message", ""))
    status = payload.get("status")
    if isinstance(status, Mapping):
        code = status.get("error_code")
        message = str(status.get("error_message") or "")
        return (code if isinstance(code, int) and not isinstance(code, bool) else None), message
    code = payload.get("error_code")
    if isinstance(code, int):
        return code, str(payload.get("error_message") or "")
    return None, ""


def classify(
    status: int, body: bytes, *, provider: str = "", secrets: Collection[str] = ()
) -> PermanentError | TransientError:
    """The error that an answer without usable data stands for: a pure function.

    Codes win over the HTTP status, because providers answer 200 or 500 for a client's mistakes.
    """
    try:
        payload: object = json.loads(body)
    except (ValueError, RecursionError):
        payload = None
    code, message = error_details(payload)
    said = f': "{shorten(mask(message, secrets))}"' if message else ""
    excerpt = "" if said else excerpt_of(body, secrets)
    if code in PERMANENT_CODES:
        refused = PermanentError(
            f"refused with code {code}{said}",
            status=status,
            excerpt=excerpt,
            advice=PERMANENT_CODES[code],
        )
        refused.code = code
        return refused
    if status == 429 or code == 429:
        return TransientError(
            f"the rate limit was exceeded{said}",
            status=status,
            excerpt=excerpt,
            advice=f"lower the calls per minute of {provider or 'the provider'} if this persists",
        )
    if status in _TRANSIENT_STATUSES or status >= 500 or 200 <= status < 300:
        return TransientError(
            f"the provider failed{said}",
            status=status,
            excerpt=excerpt,
            advice="try again later",
        )
    return PermanentError(
        f"refused{said}", status=status, excerpt=excerpt, advice=_advice(status, provider)
    )


def _advice(status: int, provider: str) -> str:
    if provider == "coingecko" and status == 401:
        return PERMANENT_CODES[10002]
    if status == 403:
        return "the provider blocks this client or network; try later or from another network"
    if status == 404:
        return "the id may be renamed or delisted, or the base URL wrong; check both"
    if status == 414:
        return "the id is too long to be real; remove it from the universe"
    return "check the request, the base URL and the plan in the settings"
