"""From wanted days to calls, plan by plan, against the windows that the provider allows."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.providers import routes
from crypto_assets.providers.plans import PLANS, Plan
from crypto_assets.providers.routes import Call

PlanCalls = Callable[[Sequence[date], datetime, Plan], list[Call]]
market_history: PlanCalls = partial(routes.calls, "market_caps")
daily_candles: PlanCalls = partial(routes.calls, "ohlc_daily")
hourly_candles: PlanCalls = partial(routes.calls, "ohlc_hourly")

DAY = timedelta(days=1)
NOW = datetime(2026, 7, 1, 12, 30)
TODAY = NOW.date()

FREE = ("keyless", "demo")
WITHOUT_RANGE = (*FREE, "basic")
WITH_RANGE = ("analyst", "unlimited")

plan_names = st.sampled_from([*WITHOUT_RANGE, *WITH_RANGE])


def last_days(count: int, until: date = TODAY) -> list[date]:
    return [until - n * DAY for n in reversed(range(count))]


@st.composite
def wanted_days(draw: st.DrawFn, oldest: int = 364) -> list[date]:
    ago = draw(st.sets(st.integers(0, oldest), min_size=1, max_size=6))
    longest = draw(st.integers(0, oldest))
    return [TODAY - n * DAY for n in ago | set(range(min(ago), min(max(ago), longest)))]


moments = st.times().map(lambda moment: datetime.combine(TODAY, moment))


def covered(calls: list[Call]) -> list[date]:
    return [
        call.first + n * DAY for call in calls for n in range((call.last - call.first).days + 1)
    ]


def whole_range(wanted: list[date]) -> list[date]:
    return [min(wanted) + n * DAY for n in range((max(wanted) - min(wanted)).days + 1)]


def asked_days(call: Call) -> float:
    assert call.start is not None
    assert call.end is not None
    return (call.end - call.start) / DAY


# --- market history: closes


@pytest.mark.parametrize("plan", [*WITHOUT_RANGE, *WITH_RANGE])
@pytest.mark.parametrize(("count", "days"), [(2, 2), (100, 180), (365, 365)])
def test_a_history_is_one_call_in_days(plan: str, count: int, days: int) -> None:
    calls = market_history(last_days(count), NOW, PLANS[plan])
    assert calls == [
        Call("market_chart", TODAY - (count - 1) * DAY, TODAY, days=days, interval="daily")
    ]


def test_a_history_beyond_a_year_is_one_range_from_close_to_close() -> None:
    wanted = last_days(1000, until=date(2026, 6, 30))
    assert market_history(wanted, NOW, PLANS["analyst"]) == [
        Call(
            "market_chart_range",
            date(2023, 10, 5),
            date(2026, 6, 30),
            start=datetime(2023, 10, 6),
            end=datetime(2026, 7, 1),
            interval="daily",
        )
    ]


@pytest.mark.parametrize("plan", FREE)
def test_a_free_plan_is_never_asked_for_more_than_its_history(plan: str) -> None:
    oldest = routes.reachable_from("market_caps", PLANS[plan], NOW)
    (call,) = market_history([oldest], NOW, PLANS[plan])
    assert (call.endpoint, call.days, call.interval) == ("market_chart", 365, "daily")


@settings(deadline=None)
@given(wanted_days(700), plan_names, moments)
def test_a_history_always_names_its_interval_and_holds_every_wanted_close(
    wanted: list[date], name: str, now: datetime
) -> None:
    plan = PLANS[name]
    wanted = [day for day in wanted if day >= routes.reachable_from("market_caps", plan, now)] or [
        TODAY
    ]
    (call,) = market_history(wanted, now, plan)
    assert call.interval == "daily"
    assert (call.first, call.last) == (min(wanted), max(wanted))
    first_close = datetime.combine(min(wanted) + DAY, datetime.min.time())
    if call.endpoint == "market_chart":
        assert call.days is not None
        assert call.days <= (plan.history_days or 365)
        assert first_close >= now - call.days * DAY
    else:
        assert call.start == first_close >= now - (plan.history_days or 10_000) * DAY
        assert call.end == datetime.combine(max(wanted) + DAY, datetime.min.time())


# --- candles where the plan has /ohlc/range


@pytest.mark.parametrize("plan", WITH_RANGE)
@pytest.mark.parametrize(("count", "calls"), [(1, 1), (100, 1), (180, 1), (181, 2), (365, 3)])
def test_daily_candles_come_in_windows_of_180_days(plan: str, count: int, calls: int) -> None:
    found = daily_candles(last_days(count), NOW, PLANS[plan])
    assert len(found) == calls
    assert {(call.endpoint, call.interval) for call in found} == {("ohlc_range", "daily")}


@pytest.mark.parametrize("plan", WITH_RANGE)
@pytest.mark.parametrize(("count", "calls"), [(1, 1), (31, 1), (32, 2), (100, 4), (365, 12)])
def test_hourly_candles_come_in_windows_of_31_days(plan: str, count: int, calls: int) -> None:
    found = hourly_candles(last_days(count), NOW, PLANS[plan])
    assert len(found) == calls
    assert {(call.endpoint, call.interval) for call in found} == {("ohlc_range", "hourly")}


@settings(deadline=None)
@given(wanted_days(900), st.sampled_from(WITH_RANGE))
def test_true_candles_take_the_fewest_windows_cut_to_the_wanted_days(
    wanted: list[date], name: str
) -> None:
    for plan_calls, longest in ((daily_candles, 180), (hourly_candles, 31)):
        calls = plan_calls(wanted, NOW, PLANS[name])
        found = covered(calls)
        assert len(set(found)) == len(found)
        assert set(wanted) <= set(found)
        # Each window begins and ends with a day that is wanted, and no two would fit into one.
        assert {day for call in calls for day in (call.first, call.last)} <= set(wanted)
        assert all((b.first - a.first).days >= longest for a, b in pairwise(calls))
        assert all(asked_days(call) <= longest for call in calls)
        assert all(call.exactness == "exact" for call in calls)
        for call in calls:
            assert call.start == datetime.combine(call.first, datetime.min.time())
            assert call.end == datetime.combine(call.last + DAY, datetime.min.time())


# --- candles where it has not


@pytest.mark.parametrize("plan", WITHOUT_RANGE)
def test_the_last_30_days_come_from_candles_of_four_hours(plan: str) -> None:
    for count, days in ((1, 7), (7, 7), (8, 14), (14, 14), (15, 30), (30, 30)):
        assert daily_candles(last_days(count), NOW, PLANS[plan]) == [
            Call("ohlc", TODAY - (count - 1) * DAY, TODAY, days=days)
        ]


@pytest.mark.parametrize("plan", WITHOUT_RANGE)
@pytest.mark.parametrize(("count", "approximated"), [(31, 1), (100, 1), (365, 4)])
def test_older_daily_candles_are_approximated_and_say_so(
    plan: str, count: int, approximated: int
) -> None:
    *older, recent = daily_candles(last_days(count), NOW, PLANS[plan])
    assert recent == Call("ohlc", TODAY - 29 * DAY, TODAY, days=30)
    assert len(older) == approximated
    assert {(call.endpoint, call.exactness) for call in older} == {
        ("market_chart_range", "approximate")
    }


@pytest.mark.parametrize("plan", WITHOUT_RANGE)
@pytest.mark.parametrize(("count", "approximated"), [(2, 1), (100, 2), (365, 5)])
def test_only_the_last_24_hours_are_true_hourly_candles(
    plan: str, count: int, approximated: int
) -> None:
    *older, recent = hourly_candles(last_days(count), NOW, PLANS[plan])
    assert recent == Call("ohlc", TODAY - DAY, TODAY, days=1)
    assert len(older) == approximated
    assert {(call.endpoint, call.exactness) for call in older} == {
        ("market_chart_range", "approximate")
    }


@settings(deadline=None)
@given(wanted_days(), st.sampled_from(WITHOUT_RANGE), moments)
def test_daily_candles_cover_the_range_once_from_answers_that_hold_it(
    wanted: list[date], name: str, now: datetime
) -> None:
    calls = daily_candles(wanted, now, PLANS[name])
    found = covered(calls)
    assert len(set(found)) == len(found)
    assert set(wanted) <= set(found) <= set(whole_range(wanted))
    for call in calls:
        if call.endpoint == "ohlc":
            assert call.days in (7, 14, 30)
            # The candle in which the answer begins is cut off: the first day starts after it.
            assert datetime.combine(call.first, datetime.min.time()) > now - call.days * DAY
        else:
            assert call.interval is None


@settings(deadline=None)
@given(wanted_days(), st.sampled_from(WITHOUT_RANGE), moments)
def test_hourly_candles_cover_the_range_and_only_yesterday_twice(
    wanted: list[date], name: str, now: datetime
) -> None:
    calls = hourly_candles(wanted, now, PLANS[name])
    found = covered(calls)
    # Its first hours are older than a day, its last ones are not: both routes serve it.
    assert set(wanted) <= set(found) <= set(whole_range(wanted))
    assert {day for day in found if found.count(day) > 1} <= {TODAY - DAY}
    assert all(call.days == 1 for call in calls if call.endpoint == "ohlc")


@settings(deadline=None)
@given(wanted_days(), st.sampled_from(WITHOUT_RANGE), moments)
def test_an_approximation_asks_for_at_most_90_days_from_just_before_its_first_midnight(
    wanted: list[date], name: str, now: datetime
) -> None:
    plan = PLANS[name]
    for plan_calls in (daily_candles, hourly_candles):
        for call in plan_calls(wanted, now, plan):
            if call.endpoint == "market_chart_range":
                assert 1 < asked_days(call) <= 90
                assert call.start is not None
                before = datetime.combine(call.first, datetime.min.time()) - call.start
                assert plan.history_days is not None
                # Hours are up to 111 minutes apart; but not beyond what the plan has.
                if call.start > now - plan.history_days * DAY:
                    assert timedelta(minutes=111) < before < timedelta(hours=3)
                else:
                    assert call.start == now - plan.history_days * DAY
                assert call.end == datetime.combine(call.last + DAY, datetime.min.time())


@pytest.mark.parametrize("plan", WITHOUT_RANGE)
@pytest.mark.parametrize("plan_calls", [daily_candles, hourly_candles])
def test_no_candle_call_reaches_beyond_the_plan(plan: str, plan_calls: PlanCalls) -> None:
    """A range that begins beyond the plan's history is refused as a whole (error 10012)."""
    now = datetime(2026, 7, 1, 23, 30)
    oldest = routes.reachable_from("ohlc_daily", PLANS[plan], now)
    wanted = [oldest + n * DAY for n in range((now.date() - oldest).days + 1)]
    calls = plan_calls(wanted, now, PLANS[plan])
    begin = min(call.start for call in calls if call.start)
    assert begin >= now - (PLANS[plan].history_days or 0) * DAY


@pytest.mark.parametrize(
    ("plan", "first"),
    [
        ("keyless", date(2025, 7, 1)),
        ("demo", date(2025, 7, 1)),
        ("basic", date(2024, 7, 1)),
        ("analyst", date(2013, 4, 28)),
        ("unlimited", date(2013, 4, 28)),
    ],
)
def test_a_plan_reaches_as_far_back_as_its_history(plan: str, first: date) -> None:
    assert routes.reachable_from("market_caps", PLANS[plan], NOW) == first


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(list(PLANS.values())))
def test_only_plans_that_have_an_endpoint_are_sent_to_it(plan: Plan) -> None:
    for wanted in (last_days(3), last_days(400)):
        for plan_calls in (
            market_history,
            daily_candles,
            hourly_candles,
        ):
            for call in plan_calls(wanted, NOW, plan):
                assert call.endpoint != "ohlc_range" or plan.has_ohlc_range
                # Ranges name an interval on paid plans only.
                if call.endpoint == "market_chart_range":
                    assert call.interval is None or plan.is_paid


def test_the_leap_day_and_the_year_end_are_days_like_others() -> None:
    now = datetime(2024, 3, 1, 12)
    wanted = [date(2023, 12, 31), date(2024, 2, 29)]
    assert hourly_candles(wanted, now, PLANS["analyst"]) == [
        Call("ohlc_range", first, last, start=start, end=end, interval="hourly")
        for first, last, start, end in (
            (date(2023, 12, 31), date(2023, 12, 31), datetime(2023, 12, 31), datetime(2024, 1, 1)),
            (date(2024, 2, 29), date(2024, 2, 29), datetime(2024, 2, 29), datetime(2024, 3, 1)),
        )
    ]
