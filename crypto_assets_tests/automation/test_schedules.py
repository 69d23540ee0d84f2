from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from crypto_assets.automation.jobs import JOB_TAG
from crypto_assets.definitions import build_definitions
from crypto_assets.settings import validated

MARKET = {"market_caps", "ranks", "ema_signals"}
CLOSE = {"market_caps", "ranks", "ema_signals", "ohlc_hourly", "ohlc_daily", "daily_snapshot"}
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def platform(home: Path, **settings: Any) -> dg.Definitions:
    tree = {"home": home, "history": {"start": "2025-12-01"}, **settings}
    return build_definitions(validated(tree))


def tick(definitions: dg.Definitions, job: str, at: datetime) -> Any:
    schedule = definitions.resolve_schedule_def(f"{job}_schedule")
    repository = definitions.get_repository_def()
    with dg.build_schedule_context(
        scheduled_execution_time=at, repository_def=repository
    ) as context:
        return schedule.evaluate_tick(context)


def asked(definitions: dg.Definitions, job: str, at: datetime) -> tuple[date, date, set[str]]:
    (request,) = tick(definitions, job, at).run_requests
    first, last = (date.fromisoformat(request.tags[tag]) for tag in RANGE)
    return first, last, {key.to_user_string() for key in request.asset_selection}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("job", "at", "first", "last", "tables"),
    [
        ("market_refresh", "2026-03-10T12:00", "2026-03-10", "2026-03-10", MARKET),
        ("market_refresh", "2026-03-10T23:00", "2026-03-10", "2026-03-10", MARKET),
        ("market_refresh", "2026-03-10T00:00", "2026-03-09", "2026-03-10", MARKET | {"coin_list"}),
        ("market_refresh", "2026-01-01T00:00", "2025-12-31", "2026-01-01", MARKET | {"coin_list"}),
        ("market_refresh", "2028-03-01T00:00", "2028-02-29", "2028-03-01", MARKET | {"coin_list"}),
        ("hourly_candles_refresh", "2026-03-10T00:30", "2026-03-09", "2026-03-10", {"ohlc_hourly"}),
        ("hourly_candles_refresh", "2026-03-10T01:30", "2026-03-09", "2026-03-10", {"ohlc_hourly"}),
        ("hourly_candles_refresh", "2026-03-10T12:30", "2026-03-10", "2026-03-10", {"ohlc_hourly"}),
        ("hourly_candles_refresh", "2026-01-01T00:30", "2025-12-31", "2026-01-01", {"ohlc_hourly"}),
        ("fear_greed_refresh", "2026-03-10T00:10", "2026-03-03", "2026-03-10", {"fear_greed"}),
        ("daily_close", "2026-03-10T01:00", "2026-03-03", "2026-03-09", CLOSE),
        ("daily_close", "2026-01-01T01:00", "2025-12-25", "2025-12-31", CLOSE),
        (
            "etf_flows_refresh",
            "2026-03-10T09:30",
            "2026-02-03",
            "2026-03-09",
            {"etf_flows", "daily_snapshot"},
        ),
    ],
)
def test_a_tick_asks_for_exactly_its_days_and_tables(
    tmp_path: Path, job: str, at: str, first: str, last: str, tables: set[str]
) -> None:
    found = asked(platform(tmp_path), job, utc(at))
    assert found == (date.fromisoformat(first), date.fromisoformat(last), tables)


def test_twenty_trading_days_with_holidays_lie_within_the_look_back(tmp_path: Path) -> None:
    # Christmas, New Year and Martin Luther King Day lie between.
    first, last, _ = asked(platform(tmp_path), "etf_flows_refresh", utc("2026-01-20T09:30"))
    holidays = {date(2025, 12, 25), date(2026, 1, 1), date(2026, 1, 19)}
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    assert sum(day.weekday() < 5 and day not in holidays for day in days) >= 20


@pytest.mark.parametrize("hours", [-8, 14])
def test_the_day_is_that_of_utc_whatever_zone_the_tick_is_told_in(
    tmp_path: Path, hours: int
) -> None:
    at = utc("2026-03-10T00:00").astimezone(timezone(timedelta(hours=hours)))
    first, last, _ = asked(platform(tmp_path), "market_refresh", at)
    assert (first, last) == (date(2026, 3, 9), date(2026, 3, 10))


def test_a_late_tick_asks_for_the_days_it_was_due_for(tmp_path: Path) -> None:
    # The daemon hands the time a tick was scheduled for, also hours after it.
    first, last, _ = asked(platform(tmp_path), "daily_close", utc("2026-02-01T01:00"))
    assert (first, last) == (date(2026, 1, 25), date(2026, 1, 31))


@pytest.mark.parametrize(
    ("job", "at"),
    [
        ("market_refresh", "2026-03-10T00:00"),
        ("hourly_candles_refresh", "2026-03-10T00:30"),
        ("fear_greed_refresh", "2026-03-10T00:10"),
    ],
)
def test_nothing_is_asked_for_before_history_begins(tmp_path: Path, job: str, at: str) -> None:
    definitions = platform(tmp_path, history={"start": "2026-03-10"})
    first, last, _ = asked(definitions, job, utc(at))
    assert (first, last) == (date(2026, 3, 10), date(2026, 3, 10))


@pytest.mark.parametrize(
    ("job", "at"),
    [("daily_close", "2026-03-10T01:00"), ("etf_flows_refresh", "2026-03-10T09:30")],
)
def test_on_the_first_day_of_history_there_is_no_yesterday_to_close(
    tmp_path: Path, job: str, at: str
) -> None:
    found = tick(platform(tmp_path, history={"start": "2026-03-10"}), job, utc(at))
    assert found.run_requests == []
    assert found.skip_message


def test_a_run_request_carries_the_tag_that_keeps_two_of_a_job_apart(tmp_path: Path) -> None:
    definitions = platform(tmp_path)
    assert definitions.resolve_job_def("daily_close").tags[JOB_TAG] == "daily_close"


def test_cron_expressions_come_from_the_settings(tmp_path: Path) -> None:
    definitions = platform(tmp_path, schedules={"daily_close": "5 2 * * 1-5"})
    schedule = definitions.resolve_schedule_def("daily_close_schedule")
    assert schedule.cron_schedule == "5 2 * * 1-5"
    other = definitions.resolve_schedule_def("market_refresh_schedule")
    assert other.cron_schedule == "0 * * * *"


def test_schedules_and_sensors_are_switched_off_by_one_setting(tmp_path: Path) -> None:
    repository = platform(tmp_path, schedules={"enabled": False}).get_repository_def()
    assert {s.default_status for s in repository.schedule_defs} == {
        dg.DefaultScheduleStatus.STOPPED
    }
    # Any run can die, also one that was started by hand.
    assert {
        s.name for s in repository.sensor_defs if s.default_status == dg.DefaultSensorStatus.RUNNING
    } == {"dead_runs"}
