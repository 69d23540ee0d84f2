"""What a request and an answer are inside the sandbox, and the shapes of the providers' errors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

JSON_TYPE = "application/json; charset=utf-8"
TEXT_TYPE = "text/plain; charset=utf-8"
HTML_TYPE = "text/html; charset=UTF-8"


@dataclass(frozen=True)
class Request:
    """A request to a provider: decoded path parts after the provider's root, last value of a query
    field, lower-case header names, and the moment and plan it is answered under.
    """

    provider: str
    parts: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    now: datetime
    plan: str

    @property
    def endpoint(self) -> str:
        """The endpoint with the coin's id replaced: `coins/{id}/market_chart`, `fng`, `btc`."""
        parts = list(self.parts)
        if self.coin_id is not None:
            parts[1] = "{id}"
        return "/".join(parts) or "/"

    @property
    def coin_id(self) -> str | None:
        """The coin asked for by path, if any."""
        is_coin = self.provider == "coingecko" and len(self.parts) >= 2
        if is_coin and self.parts[0] == "coins" and self.parts[1:] not in {("list",), ("markets",)}:
            return self.parts[1]
        return None


@dataclass(frozen=True)
class Reply:
    """An answer before it is put on the wire."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """A request the provider answers with an error."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def json_reply(content: object, max_age: int | None = None) -> Reply:
    """A 200 with a JSON body; `max_age` in seconds is what shared caches may keep it."""
    control = "max-age=0, private, must-revalidate"
    if max_age is not None:
        control = f"max-age=30, public, must-revalidate, s-maxage={max_age}"
    return Reply(200, dump(content), headers={"Cache-Control": control})


def dump(content: object) -> bytes:
    """Compact JSON; floats keep every digit, and NaN or Infinity stay what they are."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()


def flat_error(status: int, code: int, message: str, now: datetime) -> Reply:
    """`{"status": {"timestamp", "error_code", "error_message"}}`."""
    stamp = now.isoformat(timespec="milliseconds") + "+00:00"
    inner = {"timestamp": stamp, "error_code": code, "error_message": message}
    return _error(status, {"status": inner})


def nested_error(status: int, code: int, message: str, now: datetime) -> Reply:
    """`{"error": {"status": {…}}}`: the same one level down."""
    stamp = now.isoformat(timespec="milliseconds") + "+00:00"
    inner = {"timestamp": stamp, "error_code": code, "error_message": message}
    return _error(status, {"error": {"status": inner}})


def plain_error(status: int, message: str) -> Reply:
    """`{"error": "…"}`."""
    return _error(status, {"error": message})


def server_error() -> Reply:
    """`{"status": 500, "error": "Internal Server Error"}`: also what some client mistakes get."""
    return _error(500, {"status": 500, "error": "Internal Server Error"})


def _error(status: int, content: object) -> Reply:
    return Reply(status, dump(content), headers={"Cache-Control": "no-cache"})


def day_start(moment: datetime) -> datetime:
    """00:00 of the moment's day."""
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def last_ready_midnight(now: datetime, ready_minutes: int) -> datetime:
    """The newest midnight whose value is served: the close of a day is ready minutes after it."""
    return day_start(now - timedelta(minutes=ready_minutes))
