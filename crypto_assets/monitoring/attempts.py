"""What healing has asked for, how often, and what it has given up: its memory between ticks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from crypto_assets.providers.sqlite_file import SqliteFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    table_name TEXT NOT NULL, day TEXT NOT NULL, tries INTEGER NOT NULL,
    first_at TEXT NOT NULL, last_at TEXT NOT NULL, is_given_up INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (table_name, day)
)"""

Place = tuple[str, date]
"""A table and one of its days."""


class AttemptsError(RuntimeError):
    """The memory of healing can't be kept; says why and what to do."""


@dataclass(frozen=True)
class Attempts:
    """How often a day of a table was asked for, and when first and last."""

    tries: int
    first_at: datetime
    last_at: datetime
    is_given_up: bool = False


class Memory:
    """The attempts of a home. Raises AttemptsError."""

    def __init__(self, home: Path) -> None:
        path = home / "healing.sqlite"
        self._file = SqliteFile(path, _SCHEMA, AttemptsError, "the memory of healing")

    def all(self) -> dict[Place, Attempts]:
        """Return every attempt that is remembered."""
        if not self._file.path.exists():
            return {}
        with self._file.transaction() as connection:
            rows = connection.execute("SELECT * FROM attempts").fetchall()
        return {
            (table, date.fromisoformat(day)): Attempts(
                tries, datetime.fromisoformat(first), datetime.fromisoformat(last), bool(given_up)
            )
            for table, day, tries, first, last, given_up in rows
        }

    def note(self, places: Iterable[Place], at: datetime) -> None:
        """Note that these are asked for at `at`."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT INTO attempts VALUES (?, ?, 1, ?, ?, 0) ON CONFLICT (table_name, day) "
                "DO UPDATE SET tries = tries + 1, last_at = excluded.last_at",
                [(table, str(day), str(at), str(at)) for table, day in places],
            )

    def settle(self, healed: Iterable[Place], given_up: Iterable[Place]) -> None:
        """Forget what is healed, and mark what is asked for no more."""
        with self._file.transaction() as connection:
            connection.executemany(
                "DELETE FROM attempts WHERE table_name = ? AND day = ?",
                [(table, str(day)) for table, day in healed],
            )
            connection.executemany(
                "UPDATE attempts SET is_given_up = 1 WHERE table_name = ? AND day = ?",
                [(table, str(day)) for table, day in given_up],
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()


def given_up(attempts: Mapping[Place, Attempts]) -> list[Place]:
    """Return what is asked for no more, newest first."""
    places = (place for place, of_place in attempts.items() if of_place.is_given_up)
    return sorted(places, key=lambda place: (place[1], place[0]), reverse=True)
