"""Faults on demand: what a rule may say, and which rules strike a request. Not what they do.

What a rule does to a body is in mutations.py and pages of funds are bent there too; what it does to
the wire is in server.py.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from crypto_assets.sandbox import noise
from crypto_assets.sandbox.farside import PAGES
from crypto_assets.sandbox.reply import Request

# kind -> the options it knows, beside kind, match, times, after and probability.
REPLY_KINDS: dict[str, frozenset[str]] = {
    "status": frozenset({"code", "shape", "message", "error_code", "retry_after"}),
    "html": frozenset({"as_json", "code"}),
    "challenge": frozenset({"code"}),
    "empty_body": frozenset({"code"}),
    "empty_object": frozenset({"code"}),
    "error_with_200": frozenset({"message"}),
}
WIRE_KINDS: dict[str, frozenset[str]] = {
    "timeout": frozenset({"seconds"}),
    "hang": frozenset({"seconds"}),
    "slow_drip": frozenset({"seconds", "chunks"}),
    "reset": frozenset({"fraction"}),
    "truncate": frozenset({"fraction"}),
}
CONTENT_KINDS: dict[str, frozenset[str]] = {
    "bad_price": frozenset({"value", "field", "coin_id", "date"}),
    "drop_field": frozenset({"field", "coin_id"}),
    "rename_field": frozenset({"field", "to", "coin_id"}),
    "retype_field": frozenset({"field", "to", "coin_id"}),
    "add_field": frozenset({"field", "value", "coin_id"}),
    "drop_coin": frozenset({"coin_id"}),
    "vanish": frozenset({"coin_id"}),
    "moving_pages": frozenset(),
    "short_page": frozenset({"rows"}),
    "restate": frozenset({"coin_id", "date", "factor"}),
    "missing_day": frozenset({"coin_id", "date"}),
    "duplicate_stamp": frozenset({"coin_id", "date", "factor"}),
    "out_of_order": frozenset({"coin_id"}),
    "off_grid": frozenset({"coin_id", "seconds"}),
    "fng_out_of_range": frozenset({"date", "value"}),
    "fng_null_data": frozenset({"error"}),
}
PAGE_KINDS: dict[str, frozenset[str]] = {
    "etf_no_table": frozenset(),
    "etf_reordered_columns": frozenset(),
    "etf_new_column": frozenset({"ticker", "value"}),
    "etf_renamed_column": frozenset({"ticker", "to"}),
    "etf_holiday_row": frozenset({"date"}),
    "etf_revised_row": frozenset({"ticker", "date", "value"}),
    "etf_wrong_total": frozenset({"date", "value"}),
}
OPTIONS = {**REPLY_KINDS, **WIRE_KINDS, **CONTENT_KINDS, **PAGE_KINDS}
_REQUIRED = {
    "status": {"code"},
    "drop_field": {"field"},
    "rename_field": {"field", "to"},
    "retype_field": {"field"},
    "add_field": {"field"},
    "drop_coin": {"coin_id"},
    "vanish": {"coin_id"},
    "restate": {"coin_id", "date", "factor"},
    "missing_day": {"date"},
    "fng_out_of_range": {"date", "value"},
    "etf_renamed_column": {"ticker", "to"},
    "etf_holiday_row": {"date"},
    "etf_revised_row": {"ticker", "date", "value"},
    "etf_wrong_total": {"date", "value"},
}
_TABLES = frozenset({"coins/markets", "coins/list"})
_CHARTS = frozenset({"coins/{id}/market_chart", "coins/{id}/market_chart/range"})
_CANDLES = frozenset({"coins/{id}/ohlc", "coins/{id}/ohlc/range"})
_COIN = _CHARTS | _CANDLES | {"coins/{id}/history"}
_PAGES = frozenset(PAGES)
_MOOD = frozenset({"fng"})
# Where a kind has something to bend; kinds that are not named bend fields of any JSON.
_ENDPOINTS: dict[str, frozenset[str]] = {
    "bad_price": _CHARTS | _CANDLES | {"coins/markets"},
    "drop_coin": _TABLES,
    "vanish": _TABLES | _COIN,
    "moving_pages": frozenset({"coins/markets"}),
    "short_page": frozenset({"coins/markets"}),
    "restate": _COIN,
    "missing_day": _CHARTS | _CANDLES | _MOOD | _PAGES,
    "duplicate_stamp": _CHARTS | _CANDLES | _MOOD,
    "out_of_order": _CHARTS | _CANDLES | _MOOD,
    "off_grid": _CHARTS | _CANDLES,
    "fng_out_of_range": _MOOD,
    "fng_null_data": _MOOD,
}
_CHOICES = {
    "shape": frozenset({"status", "nested", "error", "server", "text", "html", "empty"}),
    "to": frozenset({"string", "list", "object", "bool", "null"}),
}
_COMMON = frozenset({"kind", "match", "times", "after", "probability"})
_MATCH = frozenset({"provider", "endpoint", "coin_id", "query"})


@dataclass
class Rule:
    """One fault: what kind, which requests, how often. `seen` counts matches, `hits` strikes."""

    kind: str
    match: Mapping[str, Any]
    options: Mapping[str, Any]
    times: int | None = None
    after: int = 0
    probability: float = 1.0
    number: int = 0
    seen: int = 0
    hits: int = field(default=0)

    def describe(self) -> dict[str, Any]:
        """The rule as it was given, with its counts."""
        return {
            "kind": self.kind,
            "match": dict(self.match),
            "times": self.times,
            "after": self.after,
            "probability": self.probability,
            **self.options,
            "seen": self.seen,
            "hits": self.hits,
        }


class FaultBook:
    """The rules in force, safe between threads. Which of the improbable ones strike is seeded."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._count = 0

    def add(self, *rules: Mapping[str, Any]) -> None:
        """Add rules given as mappings; ValueError names what is wrong with one, and adds none."""
        parsed = [parse_rule(rule) for rule in rules]
        with self._lock:
            for rule in parsed:
                rule.number = self._count
                self._count += 1
                self._rules.append(rule)

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their counts, oldest first."""
        with self._lock:
            return [rule.describe() for rule in self._rules]

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._rules.clear()
            self._count = 0

    def strike(self, request: Request) -> list[Rule]:
        """The rules that strike this request, counted."""
        with self._lock:
            return [rule for rule in self._rules if _concerns(rule, request) and self._fires(rule)]

    def _fires(self, rule: Rule) -> bool:
        rule.seen += 1
        if rule.seen <= rule.after or (rule.times is not None and rule.hits >= rule.times):
            return False
        if rule.probability < 1:
            stream = noise.key(self._seed, "fault", rule.number)
            if noise.single_uniform(stream, rule.seen) >= rule.probability:
                return False
        rule.hits += 1
        return True


def parse_rule(raw: Mapping[str, Any]) -> Rule:
    """A rule from its JSON form; ValueError says what is allowed instead."""
    if not isinstance(raw, Mapping):
        raise ValueError(f"A fault rule is an object, not {raw!r}.")
    kind = raw.get("kind")
    if kind not in OPTIONS:
        raise ValueError(f"Unknown fault kind {kind!r}; known are {', '.join(sorted(OPTIONS))}.")
    given = set(raw) - _COMMON
    if unknown := given - OPTIONS[kind]:
        allowed = ", ".join(sorted(OPTIONS[kind])) or "none"
        raise ValueError(f"Fault {kind} has no option {sorted(unknown)}; it has {allowed}.")
    if lacking := _REQUIRED.get(kind, set()) - given:
        raise ValueError(f"Fault {kind} needs {', '.join(sorted(lacking))}.")
    _check_values(kind, raw)
    match = raw.get("match") or {}
    if unknown := set(match) - _MATCH:
        raise ValueError(f"A match has no {sorted(unknown)}; it has {', '.join(sorted(_MATCH))}.")
    times = raw.get("times")
    return Rule(
        kind=str(kind),
        match=match,
        options={name: raw[name] for name in given},
        times=None if times is None else int(times),
        after=int(raw.get("after", 0)),
        probability=float(raw.get("probability", 1.0)),
    )


def _check_values(kind: str, raw: Mapping[str, Any]) -> None:
    if "date" in raw:
        date.fromisoformat(str(raw["date"]))
    for name in {"status": ("shape",), "retype_field": ("to",)}.get(kind, ()):
        if raw.get(name, next(iter(_CHOICES[name]))) not in _CHOICES[name]:
            allowed = ", ".join(sorted(_CHOICES[name]))
            raise ValueError(f"Fault {kind} has no {name} {raw[name]!r}; it has {allowed}.")


def _concerns(rule: Rule, request: Request) -> bool:
    match = rule.match
    endpoint = str(match.get("endpoint", request.endpoint)).strip("/")
    if match.get("provider", request.provider) != request.provider or endpoint != request.endpoint:
        return False
    if "coin_id" in match and match["coin_id"] != request.coin_id:
        return False
    query = match.get("query", {})
    if any(request.query.get(name) != str(value) for name, value in query.items()):
        return False
    return _applies(rule, request)


def _applies(rule: Rule, request: Request) -> bool:
    """Whether a rule has anything to bend in what this endpoint answers."""
    kind = rule.kind
    if kind in REPLY_KINDS or kind in WIRE_KINDS:
        return True
    endpoints = _ENDPOINTS.get(kind, _PAGES if kind in PAGE_KINDS else None)
    if endpoints is None:
        endpoints = frozenset({request.endpoint}) - _PAGES
    wanted = rule.options.get("coin_id")
    return request.endpoint in endpoints and (
        wanted is None or request.coin_id == wanted or request.endpoint in _TABLES
    )
