"""Telling someone: each condition once when it begins and once when it is over, to every channel.

A message is written down before it is sent and stays until its channel took it, so that neither a
kill nor a channel that is down loses one. Does not belong here: what is wrong (`conditions`).
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crypto_assets.monitoring.channels import Channel, Kind
from crypto_assets.monitoring.condition import Condition
from crypto_assets.providers.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS conditions (
    key TEXT PRIMARY KEY, title TEXT NOT NULL, since TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY, channel TEXT NOT NULL, kind TEXT NOT NULL, title TEXT NOT NULL,
    body TEXT NOT NULL, written_at TEXT NOT NULL, sent_at TEXT
);
CREATE TABLE IF NOT EXISTS memos (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# So many messages in a row may be too long; more are a channel that is down.
_REFUSALS = 3
# What no channel took for a week is no news any more.
_KEPT = timedelta(days=7)


class AlertsError(RuntimeError):
    """The alerts can't be kept; says why and what to do."""


@dataclass(frozen=True)
class Message:
    """What is told: `body` is Markdown."""

    kind: Kind
    title: str
    body: str


class AlertBook:
    """What was told to whom, in a file of the home. Raises AlertsError."""

    def __init__(self, home: Path) -> None:
        self.path = home / "alerts.sqlite"
        self._file = SqliteFile(self.path, _SCHEMA, AlertsError, "the book of alerts")

    def update(
        self,
        active: Sequence[Condition],
        to: Sequence[Channel],
        now: datetime,
        *,
        is_all: bool = True,
    ) -> list[Message]:
        """Note what is wrong now; return and put into the outbox what is new of it, or over.

        Where it is not all that may be wrong, nothing is over.
        """
        with self._file.transaction() as connection:
            known = {
                key: (title, datetime.fromisoformat(since))
                for key, title, since in connection.execute("SELECT * FROM conditions")
            }
            present = {condition.key: condition for condition in active}
            begun = [
                condition
                for key, condition in present.items()
                if key not in known and not condition.is_suspended
            ]
            over = [key for key in known if is_all and key not in present]
            connection.executemany(
                "INSERT INTO conditions VALUES (?, ?, ?)",
                [(condition.key, condition.title, str(now)) for condition in begun],
            )
            connection.executemany("DELETE FROM conditions WHERE key = ?", [(k,) for k in over])
            messages = [_begun(condition, now) for condition in begun]
            messages += [_over(*known[key], now) for key in over]
            _put(connection, messages, to, now)
        return messages

    def post(self, message: Message, to: Sequence[Channel], now: datetime) -> None:
        """Put one message into the outbox of every channel."""
        with self._file.transaction() as connection:
            _put(connection, [message], to, now)

    def deliver(self, to: Sequence[Channel], now: datetime) -> int:
        """Send each channel what waits for it; return how many wait still.

        What a channel refuses stays for the next time; what waits for no channel of these goes.
        """
        # Who finds another one sending leaves it to that one: nobody is told twice.
        with suppress(Timeout), FileLock(f"{self.path}.deliver.lock", timeout=0):
            for channel in to:
                self._send(channel, now)
        with self._file.transaction() as connection:
            connection.execute(
                "DELETE FROM outbox WHERE written_at < ? "
                "OR channel NOT IN (SELECT value FROM json_each(?))",
                (str(now - _KEPT), json.dumps([channel.id for channel in to])),
            )
        return self.undelivered()

    def _send(self, channel: Channel, now: datetime) -> None:
        """Send what waits as one message; where that is refused, as it may be too long, singly."""
        waiting = self._waiting(channel)
        if waiting and channel.send(*_together([message for _, message in waiting])):
            self._mark_sent([number for number, _ in waiting], now)
        elif len(waiting) > 1:
            refused = 0
            for number, message in waiting:
                if channel.send(*_together([message])):
                    self._mark_sent([number], now)
                else:
                    refused += 1
                if refused == _REFUSALS:
                    break  # it is down, and every try may take its time

    def _mark_sent(self, numbers: Sequence[int], now: datetime) -> None:
        with self._file.transaction() as connection:
            connection.executemany(
                "UPDATE outbox SET sent_at = ? WHERE id = ?",
                [(str(now), number) for number in numbers],
            )

    def undelivered(self) -> int:
        """Return how many messages wait for a channel."""
        if not self.path.exists():
            return 0
        with self._file.transaction() as connection:
            row = connection.execute("SELECT count(*) FROM outbox WHERE sent_at IS NULL").fetchone()
        return int(row[0])

    def since(self) -> dict[str, datetime]:
        """Return the conditions that are known, and since when."""
        if not self.path.exists():
            return {}
        with self._file.transaction() as connection:
            rows = connection.execute("SELECT key, since FROM conditions").fetchall()
        return {key: datetime.fromisoformat(since) for key, since in rows}

    def recall(self, key: str) -> Any:
        """Return what was kept under a name, as JSON gives it; None if nothing was."""
        if not self.path.exists():
            return None
        with self._file.transaction() as connection:
            row = connection.execute("SELECT value FROM memos WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def keep(self, key: str, value: object) -> None:
        """Keep something for the next look under a name."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO memos VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, json.dumps(value, default=str)),
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def _waiting(self, channel: Channel) -> list[tuple[int, Message]]:
        with self._file.transaction() as connection:
            rows = connection.execute(
                "SELECT id, kind, title, body FROM outbox "
                "WHERE channel = ? AND sent_at IS NULL ORDER BY id",
                (channel.id,),
            ).fetchall()
        return [(number, Message(*message)) for number, *message in rows]


def _put(
    connection: Any, messages: Sequence[Message], to: Sequence[Channel], now: datetime
) -> None:
    connection.executemany(
        "INSERT INTO outbox (channel, kind, title, body, written_at) VALUES (?, ?, ?, ?, ?)",
        [
            (channel.id, message.kind, message.title, message.body, str(now))
            for channel in to
            for message in messages
        ],
    )


def _begun(condition: Condition, now: datetime) -> Message:
    return Message(
        "failure" if condition.is_error else "warning",
        f"crypto_assets: {condition.title}",
        f"{condition.detail}\n\nSince: {now:%Y-%m-%d %H:%M} UTC\n\n"
        f"Look: {condition.link}\n\nDo: {condition.advice}",
    )


def _over(title: str, since: datetime, now: datetime) -> Message:
    return Message(
        "success",
        f"crypto_assets: over: {title}",
        f"It lasted from {since:%Y-%m-%d %H:%M} to {now:%Y-%m-%d %H:%M} UTC.",
    )


def _together(messages: Sequence[Message]) -> tuple[str, str, Kind]:
    """Return title, body and kind of one message that says what several do."""
    if len(messages) == 1:
        (one,) = messages
        return one.title, one.body, one.kind
    worst: Kind = next(
        kind
        for kind in ("failure", "warning", "success", "info")
        if kind in {message.kind for message in messages}
    )
    body = "\n\n---\n\n".join(f"**{message.title}**\n\n{message.body}" for message in messages)
    return f"crypto_assets: {len(messages)} messages", body, worst
