"""Days, windows, closes, finality and the clock, against literals and plain counting."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets import periods
from crypto_assets.periods import Clock

DAY = timedelta(days=1)
DAYS = st.dates(date(2013, 4, 28), date(2100, 12, 31))
INSTANTS = st.datetimes(datetime(2013, 4, 28), datetime(2100, 12, 31))


def every_day(spans: list[tuple[date, date]]) -> list[date]:
    return [
        date.fromordinal(n)
        for first, last in spans
        for n in range(first.toordinal(), last.toordinal() + 1)
    ]


@settings(deadline=None)
@given(st.sets(st.integers(0, 60)))
def test_intervals_cover_exactly_the_days_and_never_touch(offsets: set[int]) -> None:
    wanted = {date(2023, 12, 15) + n * DAY for n in offsets}
    found = periods.intervals(wanted)
    assert every_day(found) == sorted(wanted)
    # Fewest: between two intervals at least one day is missing.
    assert all(later[0] - earlier[1] > DAY for earlier, later in pairwise(found))


def test_intervals_take_days_in_any_order_and_more_than_once() -> None:
    given_days = [date(2024, 3, 1), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1)]
    assert periods.intervals(given_days) == [(date(2024, 2, 28), date(2024, 3, 1))]
    assert periods.intervals([date(2023, 2, 28), date(2023, 3, 1)]) == [
        (date(2023, 2, 28), date(2023, 3, 1))
    ]
    assert periods.intervals([]) == []


@settings(deadline=None)
@given(DAYS, st.integers(0, 800), st.integers(1, 400))
def test_windows_are_the_fewest_that_are_not_too_long(first: date, more: int, longest: int) -> None:
    last = first + more * DAY
    found = periods.windows(first, last, longest)
    assert every_day(found) == every_day([(first, last)])
    assert all((end - start).days + 1 <= longest for start, end in found)
    assert len(found) == -(-(more + 1) // longest)


def test_a_range_that_ends_before_it_starts_has_no_windows_and_no_days() -> None:
    assert periods.windows(date(2024, 1, 2), date(2024, 1, 1), 7) == []
    assert list(periods.days(date(2024, 1, 2), date(2024, 1, 1))) == []


@pytest.mark.parametrize("longest", [0, -1])
def test_a_window_of_no_days_is_refused(longest: int) -> None:
    with pytest.raises(ValueError, match="at least one day"):
        periods.windows(date(2024, 1, 1), date(2024, 1, 2), longest)


def test_days_count_the_leap_day_and_cross_the_year() -> None:
    assert list(periods.days(date(2024, 2, 28), date(2024, 3, 1))) == [
        date(2024, 2, 28),
        date(2024, 2, 29),
        date(2024, 3, 1),
    ]
    assert len(list(periods.days(date(2024, 1, 1), date(2024, 12, 31)))) == 366
    assert len(list(periods.days(date(2023, 12, 31), date(2024, 1, 1)))) == 2


@pytest.mark.parametrize(
    ("observed_at", "closed"),
    [
        (datetime(2024, 3, 1), date(2024, 2, 29)),
        (datetime(2024, 1, 1, 0, 9, 59, 999999), date(2023, 12, 31)),
        (datetime(2024, 1, 1, 0, 10), None),
        (datetime(2023, 12, 31, 23, 59, 59, 999999), None),
        (datetime(2024, 1, 1, 12, 5), None),
    ],
)
def test_a_snapshot_closes_a_day_in_the_ten_minutes_after_midnight_only(
    observed_at: datetime, closed: date | None
) -> None:
    assert periods.day_closed_by_snapshot(observed_at) == closed


@pytest.mark.parametrize(
    ("ready_after", "first_final"),
    [
        (periods.CHART_READY_AFTER, datetime(2024, 3, 1, 0, 10)),
        (periods.CANDLES_READY_AFTER, datetime(2024, 3, 1, 0, 35)),
        (periods.FEAR_GREED_READY_AFTER, datetime(2024, 3, 1)),
        (periods.ETF_FLOWS_READY_AFTER, datetime(2024, 3, 1, 9, 15)),
    ],
)
def test_a_day_is_final_from_the_moment_its_provider_is_ready(
    ready_after: timedelta, first_final: datetime
) -> None:
    close = datetime(2024, 3, 1)
    assert periods.is_final(close, first_final, ready_after)
    assert not periods.is_final(close, first_final - timedelta(microseconds=1), ready_after)


def test_a_frozen_clock_stands_still() -> None:
    clock = Clock(datetime(2024, 2, 29, 12))
    assert clock.now() == datetime(2024, 2, 29, 12)
    assert clock.today() == date(2024, 2, 29)


def test_a_clock_never_runs_ahead_of_the_wall() -> None:
    assert Clock(datetime(2999, 1, 1)).now() <= datetime.now(UTC).replace(tzinfo=None)


def test_the_clock_tells_naive_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    before = datetime.now(UTC).replace(tzinfo=None)
    told = Clock().now()
    assert told.tzinfo is None
    assert timedelta(0) <= told - before < timedelta(minutes=1)


def test_a_clock_that_is_stepped_back_takes_the_frozen_one_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(periods, "wall_now", lambda: datetime(2024, 1, 1, 6))
    assert Clock(datetime(2024, 1, 2)).now() == datetime(2024, 1, 1, 6)
    assert Clock(datetime(2024, 1, 2)).today() == date(2024, 1, 1)
