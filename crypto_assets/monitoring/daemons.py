"""How many daemons work on a home. Two would do every scheduled run twice.

Dagster keeps the last heartbeat of each kind of daemon thread, with the id of the process that
sent it. A restarted daemon's first heartbeat comes after the last one of the daemon before; two
that live at once send theirs by turns.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# Each thread sends one every half minute, later where it is busy.
_FORGOTTEN_SECONDS = 300.0


@dataclass(frozen=True)
class Seen:
    """Daemons by id: the first and the last heartbeat seen of each, in seconds since 1970."""

    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return it as text, for a sensor's cursor."""
        return json.dumps(self.spans)

    @classmethod
    def from_text(cls, text: str | None) -> "Seen":
        """Return what `to_text` told, or that nothing was seen yet."""
        told: dict[str, list[float]] = json.loads(text) if text else {}
        return cls({daemon: (first, last) for daemon, (first, last) in told.items()})


def observe(statuses: Iterable[Any], known: Seen) -> tuple[Seen, bool]:
    """Return what is seen now, and whether two daemons live at once.

    `statuses` are those of `DagsterInstance.get_daemon_statuses()`, looked at twice a minute. Two
    are told apart within about a minute, and until five minutes after one of them has ended.
    """
    beats = [(beat.daemon_id, beat.timestamp) for beat in _heartbeats(statuses)]
    spans = dict(known.spans)
    for daemon, at in beats:
        first, last = spans.get(daemon, (at, at))
        spans[daemon] = (min(first, at), max(last, at))
    newest = max((at for _, at in beats), default=0.0)
    # Also what lies in the future, after a clock was set back.
    recent = {d: s for d, s in spans.items() if abs(newest - s[1]) <= _FORGOTTEN_SECONDS}
    return Seen(recent), _overlap(list(recent.values()))


def _heartbeats(statuses: Iterable[Any]) -> list[Any]:
    found = [status.last_heartbeat for status in statuses]
    return [beat for beat in found if beat is not None and beat.daemon_id]


def _overlap(spans: list[tuple[float, float]]) -> bool:
    ordered = sorted(spans)
    return any(later[0] <= earlier[1] for earlier, later in pairwise(ordered))
