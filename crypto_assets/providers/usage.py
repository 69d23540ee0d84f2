"""How many calls were sent and credits used, by provider and day, over all processes of a home.

Belongs here: the count. Does not belong here: what a month may cost (`plans`), or what is done
about it (`assets`, `operations`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from crypto_assets.providers.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    provider TEXT NOT NULL, day TEXT NOT NULL, calls INTEGER NOT NULL, credits INTEGER NOT NULL,
    PRIMARY KEY (provider, day)
)"""


class UsageError(RuntimeError):
    """The count cannot be kept; says why and what to do."""


@dataclass(frozen=True)
class Used:
    """Calls sent and credits used; only answers of status 200 cost a credit."""

    calls: int = 0
    credits: int = 0


class UsageLog:
    """The count in the file ``path``, safe for threads and processes. Raises UsageError."""

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, _SCHEMA, UsageError, "the count of calls")

    def add(self, provider: str, day: date, *, is_credit: bool) -> None:
        """Count one call of a day."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO usage VALUES (?, ?, 1, ?) ON CONFLICT (provider, day) "
                "DO UPDATE SET calls = calls + 1, credits = credits + excluded.credits",
                (provider, day.isoformat(), int(is_credit)),
            )

    def month(self, provider: str, day: date) -> Used:
        """What was used in the calendar month (UTC) that a day is in."""
        if not self._file.path.exists():
            return Used()
        with self._file.transaction() as connection:
            row = connection.execute(
                "SELECT coalesce(sum(calls), 0), coalesce(sum(credits), 0) FROM usage "
                "WHERE provider = ? AND day LIKE ?",
                (provider, f"{day:%Y-%m}-%"),
            ).fetchone()
        return Used(*row)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()
