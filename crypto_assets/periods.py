"""What a day, an hour, a session and "final" mean: the only place that decides. UTC throughout.

Here belong the clock, period arithmetic and readiness rules. No I/O, no tables, no providers.

Timestamps are naive UTC `datetime`s, days are `date`s. A row of day D describes
[D 00:00, D+1 00:00).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

# How long after midnight the providers' histories hold the day that just ended.
CHART_READY_AFTER = timedelta(minutes=10)
CANDLES_READY_AFTER = timedelta(minutes=35)
FEAR_GREED_READY_AFTER = timedelta(0)
# ETF flows are published overnight US time.
ETF_FLOWS_READY_AFTER = timedelta(hours=9, minutes=15)

# A market snapshot begun this soon after midnight is the close of the day that just ended.
SNAPSHOT_CLOSE_WINDOW = timedelta(minutes=10)

Session = Literal["Asia", "Europe", "US"]
SESSIONS: tuple[Session, ...] = ("Asia", "Europe", "US")


def wall_now() -> datetime:
    """Return the machine's time as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Clock:
    """The platform's time: the wall clock, or one that stands still in a sandbox home.

    A frozen clock never runs ahead of the wall, because Dagster's partitions end there.
    """

    frozen_at: datetime | None = None

    def now(self) -> datetime:
        """Return the current time as naive UTC."""
        wall = wall_now()
        return wall if self.frozen_at is None else min(self.frozen_at, wall)

    def today(self) -> date:
        """Return the running day."""
        return self.now().date()


def midnight(day: date) -> datetime:
    """Return the first instant of a day."""
    return datetime.combine(day, time())


def close_of(day: date) -> datetime:
    """Return the instant a day closes: the midnight after it."""
    return midnight(day + DAY)


def is_final(period_end: datetime, observed_at: datetime, ready_after: timedelta) -> bool:
    """Tell whether a fetch begun at `observed_at` brought the final value of a period."""
    return observed_at >= period_end + ready_after


def day_closed_by_snapshot(observed_at: datetime) -> date | None:
    """Return the day whose close a market snapshot begun at `observed_at` is, if any."""
    if observed_at - midnight(observed_at.date()) < SNAPSHOT_CLOSE_WINDOW:
        return observed_at.date() - DAY
    return None


def is_weekend(day: date) -> bool:
    """Tell whether US exchanges are closed on a day of the week."""
    return day.weekday() >= 5


def days(first: date, last: date) -> Iterator[date]:
    """Yield every day from `first` to `last`, both included."""
    for offset in range((last - first).days + 1):
        yield first + offset * DAY


def intervals(of_days: Iterable[date]) -> list[tuple[date, date]]:
    """Return the fewest (first, last) intervals that cover exactly these days, ascending."""
    found: list[tuple[date, date]] = []
    for day in sorted(set(of_days)):
        if found and day - found[-1][1] == DAY:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def windows(first: date, last: date, longest_days: int) -> list[tuple[date, date]]:
    """Cut [first, last] into the fewest consecutive windows of at most `longest_days` days."""
    if longest_days < 1:
        raise ValueError(f"a window needs at least one day, not {longest_days}")
    found = []
    while first <= last:
        end = min(last, first + (longest_days - 1) * DAY)
        found.append((first, end))
        first = end + DAY
    return found
