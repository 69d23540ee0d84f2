"""Reading untyped JSON strictly: every value is checked and cast, none is inferred.

Belongs here: decoding and the field checks that all JSON providers share. Does not belong here:
what a particular endpoint returns.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from crypto_assets.providers.errors import ContractError, TransientError, classify, shorten

T = TypeVar("T")
log = logging.getLogger(__name__)


def json_parser(parse: Callable[[Any], T], *, provider: str) -> Callable[[bytes], T]:
    """Turn a parser of decoded payloads into a parser of bodies.

    A body that is no JSON, is ``{}`` or carries an error in spite of its status 200 raises what
    ``errors.classify`` says: mostly TransientError, so that it is asked for again.
    """

    def parse_body(body: bytes) -> T:
        return parse(decode(body, provider=provider))

    return parse_body


def decode(body: bytes, *, provider: str = "") -> Any:
    """The payload of a body; NaN and Infinity become floats, so that the field can be named."""
    payload: Any = None
    problem = "the body is empty" if not body.strip() else ""
    if not problem:
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError):
            problem = "the body is not JSON, or cut off"
    if not problem and payload == {}:
        problem = "the body is an empty object"
    if problem:
        raise TransientError(problem, advice="try again later, or check the base URL")
    if isinstance(payload, Mapping) and _carries_error(payload):
        raise classify(200, body, provider=provider)
    return payload


def _carries_error(payload: Mapping[str, Any]) -> bool:
    return payload.get("error") is not None or (
        isinstance(payload.get("status"), Mapping) and "error_code" in payload["status"]
    )


def record(value: Any, where: str) -> Mapping[str, Any]:
    """``value`` as an object, or ContractError."""
    if not isinstance(value, Mapping):
        raise ContractError(where, "an object", value)
    return value


def records(value: Any, where: str) -> Sequence[Any]:
    """``value`` as a list, or ContractError."""
    if not isinstance(value, list):
        raise ContractError(where, "a list", value)
    return value


def text(value: Any, where: str, *, nullable: bool = False) -> str:
    """``value`` as text that can be stored as UTF-8; null is "" where ``nullable``."""
    if value is None and nullable:
        return ""
    if not isinstance(value, str):
        raise ContractError(where, "text", value)
    return value.encode("utf-8", "replace").decode() if not value.isascii() else value


def number(value: Any, where: str, *, positive: bool = False) -> float:
    """``value`` as a finite float, greater than 0 where ``positive``; integers are numbers too."""
    # bool is an int to Python, and "42652" must be seen as a changed contract, not be guessed.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ContractError(where, "a number", value)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ContractError(where, "a finite number", result)
    if positive and result <= 0:
        raise ContractError(where, "greater than 0", value)
    return result


def nullable_number(value: Any, where: str) -> float:
    """``value`` as a finite float of 0 or more; null is NaN."""
    if value is None:
        return math.nan
    result = number(value, where)
    if result < 0:
        raise ContractError(where, "0 or more", value)
    return result


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """``row[name]``, or ContractError naming the field that is gone."""
    if name not in row:
        raise ContractError(f"{where}.{name}", "present")
    return row[name]


def note_extra(rows: Sequence[Any], known: Collection[str], where: str) -> None:
    """Log, once, the fields of ``rows`` that nobody reads: a provider that changes says so here."""
    for row in rows:
        if isinstance(row, Mapping):
            extra = tuple(sorted(shorten(str(name), 40) for name in row.keys() - known))
            if extra:
                _log_once(where, extra)


@lru_cache(maxsize=256)
def _log_once(where: str, extra: tuple[str, ...]) -> None:
    log.info("%s has fields that are not read: %s", where, ", ".join(extra[:20]))
