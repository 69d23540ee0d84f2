"""When a table is late: by the clock, the schedules and the rows."""

import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.automation.schedules import etf_flows_tick
from crypto_assets.checks.freshness import (
    FRESH,
    Freshness,
    freshness,
    freshness_policies,
    freshness_result,
    last_tick,
)
from crypto_assets.definitions import build_definitions
from crypto_assets.sandbox import Market
from crypto_assets.settings import Settings, validated
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.session import open_warehouse
from crypto_assets_tests.lab import NOON, open_lab

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
GRACE = timedelta(minutes=45)
FIRST, YESTERDAY, TODAY = date(2026, 3, 2), date(2026, 3, 9), NOON.date()
Warehouse = duckdb.DuckDBPyConnection


@pytest.fixture(scope="module")
def made(week_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """A home that was filled on Tuesday 2026-03-10 at 12:20, and began eight days before."""
    home = tmp_path_factory.mktemp("fresh") / "home"
    shutil.copytree(week_home, home, symlinks=True)
    with open_warehouse(home / "warehouse.duckdb", "a test") as connection:
        connection.execute(
            "UPDATE market_caps SET observed_at = '2026-03-03 00:20' WHERE date = '2026-03-02'"
        )
        yield connection


@pytest.fixture
def warehouse(made: Warehouse) -> Iterator[Warehouse]:
    """The same, whatever tests do to it."""
    made.execute("BEGIN")
    yield made
    made.execute("ROLLBACK")


def chosen(**sections: dict[str, object]) -> Settings:
    return validated({"sandbox": {}, "history": {"start": FIRST}, **sections})


def late(warehouse: Warehouse, now: datetime, **sections: dict[str, object]) -> set[str]:
    found = freshness(warehouse, chosen(**sections), now)
    assert set(found) == set(TABLES)
    return {table for table, fresh in found.items() if fresh.is_late}


WITHOUT_RUNNING_DAY = "DELETE FROM {table} WHERE date >= '2026-03-10'"
# Each table as the run of 12:20 left it (closed days alone where no schedule brings more), and
# when the tick that should have brought more is 45 minutes old.
MOMENTS = {
    "coin_list": (None, datetime(2026, 3, 11, 0, 45)),
    "market_caps": (None, datetime(2026, 3, 10, 13, 45)),
    "ranks": (None, datetime(2026, 3, 10, 13, 45)),
    "ema_signals": (None, datetime(2026, 3, 10, 13, 45)),
    # Candles up to 12:00; 14:30 should bring those up to 13:00, as providers are that late.
    "ohlc_hourly": (
        "DELETE FROM ohlc_hourly WHERE open_time >= '2026-03-10 12:00'",
        datetime(2026, 3, 10, 15, 15),
    ),
    "ohlc_daily": (WITHOUT_RUNNING_DAY, datetime(2026, 3, 11, 1, 45)),
    "daily_snapshot": (WITHOUT_RUNNING_DAY, datetime(2026, 3, 11, 1, 45)),
    "fear_greed": (None, datetime(2026, 3, 11, 0, 55)),
    # Monday's flows are there; Tuesday's show on Wednesday and are waited for until Thursday.
    "etf_flows": (None, datetime(2026, 3, 12, 10, 15)),
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_fresh_to_the_end_of_its_grace_and_late_from_then_on(
    warehouse: Warehouse, table: str
) -> None:
    change, moment = MOMENTS[table]
    if change:
        warehouse.execute(change.format(table=table))
    assert table not in late(warehouse, moment - SECOND)
    assert table in late(warehouse, moment)
    assert table in late(warehouse, moment + timedelta(days=60))


@pytest.mark.parametrize("table", TABLES)
def test_an_old_backfill_leaves_a_late_table_late(warehouse: Warehouse, table: str) -> None:
    change, moment = MOMENTS[table]
    if change:
        warehouse.execute(change.format(table=table))
    if TABLES[table].time_column == "date":
        # Just now all closed days were fetched again.
        warehouse.execute(
            f"UPDATE {table} SET observed_at = ?, materialized_at = ? WHERE date < '2026-03-10'",
            [moment, moment],
        )
    elif TABLES[table].time_column:
        warehouse.execute(f"UPDATE {table} SET observed_at = ?, materialized_at = ?", [moment] * 2)
    assert table in late(warehouse, moment)


@pytest.mark.parametrize("table", ["ohlc_daily", "daily_snapshot"])
def test_what_was_fetched_of_the_running_day_is_not_its_close(
    warehouse: Warehouse, table: str
) -> None:
    row = warehouse.execute(f"SELECT bool_or(is_final) FROM {table} WHERE date = '2026-03-10'")
    assert row.fetchall() == [(False,)]
    assert table in late(warehouse, datetime(2026, 3, 11, 1, 45))


def test_what_a_tick_brings_makes_a_late_table_fresh_again(warehouse: Warehouse) -> None:
    now = datetime(2026, 3, 11, 1, 45)
    assert {"market_caps", "fear_greed", "coin_list"} <= late(warehouse, now)
    warehouse.execute("UPDATE coin_list SET last_seen_at = '2026-03-11 00:00:05'")
    warehouse.execute(
        "UPDATE market_caps SET date = '2026-03-11', observed_at = '2026-03-11 01:00:05' "
        "WHERE date = '2026-03-10'"
    )
    warehouse.execute("UPDATE fear_greed SET date = '2026-03-11' WHERE date = '2026-03-10'")
    assert not {"market_caps", "fear_greed", "coin_list"} & late(warehouse, now)


def test_an_empty_table_is_late_as_soon_as_something_is_due(warehouse: Warehouse) -> None:
    warehouse.execute("DELETE FROM fear_greed")
    now = datetime(2026, 3, 10, 12, 20)
    assert late(warehouse, now) == {"fear_greed"}
    found = freshness(warehouse, chosen(), now)["fear_greed"]
    assert str(found) == "reaches nowhere, due is 2026-03-10 00:00 UTC"


def test_nothing_is_due_before_the_home_saw_its_first_prices(warehouse: Warehouse) -> None:
    warehouse.execute("UPDATE market_caps SET observed_at = '2026-03-10 12:20'")
    warehouse.execute("DELETE FROM fear_greed")
    assert late(warehouse, datetime(2026, 3, 10, 13, 44, 59)) == set()
    # The tick of 13:00 is the first one after them, and that of 00:10 the first of fear & greed.
    assert late(warehouse, datetime(2026, 3, 10, 13, 45)) == {"market_caps", "ranks", "ema_signals"}
    assert "fear_greed" in late(warehouse, datetime(2026, 3, 11, 0, 55))


def test_nothing_is_due_in_a_home_without_prices(warehouse: Warehouse) -> None:
    warehouse.execute("DELETE FROM market_caps")
    assert late(warehouse, datetime(2026, 4, 10)) == set()


def test_nothing_is_due_while_the_schedules_are_off(warehouse: Warehouse) -> None:
    now = datetime(2026, 4, 10)
    assert late(warehouse, now) == set(TABLES)
    assert late(warehouse, now, schedules={"enabled": False}) == set()


def test_the_grace_is_a_setting(warehouse: Warehouse) -> None:
    patient = {"grace_minutes": 100.0}
    assert "market_caps" in late(warehouse, datetime(2026, 3, 10, 14, 39))
    assert "market_caps" not in late(warehouse, datetime(2026, 3, 10, 14, 39), freshness=patient)
    assert "market_caps" in late(warehouse, datetime(2026, 3, 10, 14, 40), freshness=patient)


def test_a_table_is_due_by_the_cron_of_the_settings(warehouse: Warehouse) -> None:
    cron = {"market_refresh": "15 */6 * * *"}
    caps = {"market_caps", "ranks", "ema_signals"}
    # Fetched at 12:20, after the tick of 12:15; the next ones are 18:15 and 00:15.
    assert not caps & late(warehouse, datetime(2026, 3, 10, 18, 59, 59), schedules=cron)
    assert caps <= late(warehouse, datetime(2026, 3, 10, 19, 0), schedules=cron)
    assert "coin_list" not in late(warehouse, datetime(2026, 3, 11, 0, 59, 59), schedules=cron)
    assert "coin_list" in late(warehouse, datetime(2026, 3, 11, 1, 0), schedules=cron)


def test_a_cron_of_mondays_alone_leaves_the_rest_of_the_week_alone(warehouse: Warehouse) -> None:
    cron = {"fear_greed": "10 0 * * 1"}
    assert "fear_greed" not in late(warehouse, datetime(2026, 3, 16, 0, 54), schedules=cron)
    assert "fear_greed" in late(warehouse, datetime(2026, 3, 16, 0, 55), schedules=cron)


def test_a_clock_that_was_set_back_makes_nothing_late(warehouse: Warehouse) -> None:
    # At noon of Monday the home holds what it fetched on Tuesday.
    assert late(warehouse, datetime(2026, 3, 9, 12, 20)) == set()
    assert late(warehouse, datetime(2025, 3, 9, 12, 20)) == set()


def flows_until(warehouse: Warehouse, last: str) -> None:
    """Let this be the last day with flows, and none be known to be without."""
    warehouse.execute("DELETE FROM etf_flows WHERE date < (SELECT max(date) FROM etf_flows)")
    warehouse.execute("UPDATE etf_flows SET date = CAST(? AS DATE)", [last])
    warehouse.execute("DELETE FROM gaps WHERE table_name = 'etf_flows' AND reason <> 'weekend'")


@pytest.mark.parametrize(
    ("last", "late_from"),
    [
        ("2026-03-02", datetime(2026, 3, 5, 10, 15)),  # Monday: Thursday wants Tuesday
        ("2026-03-04", datetime(2026, 3, 7, 10, 15)),  # Wednesday: Saturday wants Thursday
        ("2026-03-05", datetime(2026, 3, 10, 10, 15)),  # Thursday: Tuesday wants Friday
        ("2026-03-06", datetime(2026, 3, 11, 10, 15)),  # Friday: Wednesday wants Monday
    ],
)
def test_flows_are_waited_for_one_trading_day_and_weekends_are_none(
    warehouse: Warehouse, last: str, late_from: datetime
) -> None:
    flows_until(warehouse, last)
    assert "etf_flows" not in late(warehouse, late_from - SECOND)
    assert "etf_flows" in late(warehouse, late_from)


def test_a_holiday_that_nobody_reports_is_as_good_as_a_report(warehouse: Warehouse) -> None:
    # Good Friday 2026-04-03; on Tuesday Friday is wanted.
    flows_until(warehouse, "2026-04-02")
    now = datetime(2026, 4, 7, 10, 15)
    assert "etf_flows" in late(warehouse, now)
    warehouse.execute(
        "INSERT INTO gaps SELECT DISTINCT 'etf_flows', asset, DATE '2026-04-03', "
        "DATE '2026-04-03', 'no_data_at_provider', 'nobody reported: a US holiday', "
        "TIMESTAMP '2026-04-07' FROM etf_flows"
    )
    assert "etf_flows" not in late(warehouse, now)


@pytest.mark.slow
def test_flows_that_are_asked_for_each_day_are_never_late_around_a_holiday(
    tmp_path: Path, market: Market
) -> None:
    # Presidents' Day 2026-02-16 is a Monday.
    with open_lab(tmp_path, market, universe={"tracked": 1, "always": []}) as lab:
        assert lab.at(datetime(2026, 2, 12, 1, 0)).run(["market_caps"], date(2026, 2, 11)).succeeded
        for day in range(12, 20):
            at = datetime(2026, 2, day, 9, 30)
            tick = etf_flows_tick(at)
            first = max(tick.first, date(2026, 2, 5))
            assert lab.at(at).run(["etf_flows"], first, tick.last).succeeded
            with lab.warehouse.session("a test") as connection:
                found = freshness(connection, lab.settings, at + GRACE)["etf_flows"]
            assert found.wanted is not None
            assert not found.is_late, f"{at}: {found}"


def test_the_check_warns_and_says_how_far_the_table_reaches() -> None:
    fresh = Freshness("ranks", datetime(2026, 3, 10, 12), datetime(2026, 3, 10, 13))
    result = freshness_result(fresh)
    assert (result.passed, result.check_name) == (False, FRESH)
    assert result.severity.value == "WARN"
    told = result.metadata["told"].value
    assert told == "ranks reaches 2026-03-10 12:00, due is 2026-03-10 13:00 UTC"


HOURS = timedelta(hours=1)
# The longest pause of the default schedules, and the grace.
WINDOWS = {
    **dict.fromkeys(["market_caps", "ranks", "ema_signals", "ohlc_hourly"], HOURS),
    **dict.fromkeys(["coin_list", "ohlc_daily", "daily_snapshot", "fear_greed"], 24 * HOURS),
    "etf_flows": 24 * HOURS,
}


def test_each_asset_has_a_policy_as_long_as_the_longest_pause_of_its_schedule() -> None:
    graph = build_definitions(chosen()).resolve_asset_graph()
    found = {
        key.to_user_string(): graph.get(key).freshness_policy.fail_window.to_timedelta()  # type: ignore[union-attr]
        for key in graph.get_all_asset_keys()
    }
    assert found == {table: window + GRACE for table, window in WINDOWS.items()}


def test_policies_follow_custom_crons_and_the_grace() -> None:
    sections = {
        "schedules": {"market_refresh": "0 6,8,20 * * *", "etf_flows": "30 9 * * 2-6"},
        "freshness": {"grace_minutes": 10.0},
    }
    found = {
        table: policy.fail_window.to_timedelta()  # type: ignore[attr-defined]
        for table, policy in freshness_policies(chosen(**sections)).items()
    }
    assert found["ranks"] == 12 * HOURS + 10 * MINUTE  # 08:00 to 20:00
    assert found["coin_list"] == 24 * HOURS + 10 * MINUTE
    assert found["etf_flows"] == 72 * HOURS + 10 * MINUTE  # Saturday to Tuesday


def test_there_are_no_policies_while_the_schedules_are_off() -> None:
    assert freshness_policies(chosen(schedules={"enabled": False})) == {}


def fires(cron: str, at: datetime) -> bool:
    """A second reading of crontab(5), minute by minute."""

    def within(field: str, value: int, least: int, most: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            if span == "*":
                low, high = least, most
            else:
                low_text, _, high_text = span.partition("-")
                low = int(low_text)
                high = int(high_text) if high_text else (most if step else low)
            if low <= value <= high and (value - low) % int(step or 1) == 0:
                return True
        return False

    minute, hour, day, month, weekday = cron.split()
    on_day = within(day, at.day, 1, 31)
    on_weekday = any(within(weekday, n, 0, 7) for n in {at.isoweekday() % 7, at.isoweekday()})
    if day.startswith("*") or weekday.startswith("*"):
        of_days = on_day and on_weekday
    else:
        of_days = on_day or on_weekday
    return (
        within(minute, at.minute, 0, 59)
        and within(hour, at.hour, 0, 23)
        and within(month, at.month, 1, 12)
        and of_days
    )


def numbers(least: int, most: int) -> st.SearchStrategy[str]:
    single = st.integers(least, most).map(str)
    span = st.tuples(st.integers(least, most), st.integers(least, most)).map(
        lambda pair: f"{min(pair)}-{max(pair)}"
    )
    return st.one_of(st.just("*"), single, span, st.builds("{},{}".format, single, single))


CRONS = st.builds(
    "{} {} {} * {}".format,
    st.one_of(numbers(0, 59), st.just("*/20"), st.just("5/25")),
    st.one_of(numbers(0, 23), st.just("*/6")),
    st.one_of(st.just("*"), st.just("*"), st.integers(1, 28).map(str), st.just("*/3")),
    st.one_of(st.just("*"), numbers(0, 7)),
)
MINUTES_OF_TEN_DAYS = 10 * 24 * 60


@settings(max_examples=60, deadline=None)
@given(cron=CRONS, until=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)))
def test_the_last_tick_is_the_one_a_walk_back_by_minutes_meets(cron: str, until: datetime) -> None:
    found = last_tick(cron, until)
    start = until.replace(second=0, microsecond=0)
    walk = (start - n * MINUTE for n in range(MINUTES_OF_TEN_DAYS))
    met = next((at for at in walk if fires(cron, at)), None)
    if met is not None:
        assert found == met
    else:
        assert found is None or found <= start - MINUTES_OF_TEN_DAYS * MINUTE


@settings(max_examples=60, deadline=None)
@given(cron=CRONS, until=st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)))
def test_the_first_tick_of_a_day_is_the_first_one_of_it(cron: str, until: datetime) -> None:
    found = last_tick(cron, until, first_of_day=True)
    newest = last_tick(cron, until)
    assert (found is None) == (newest is None)
    if found is None or newest is None:
        return
    assert found.date() == newest.date()
    midnight = datetime(found.year, found.month, found.day)
    earlier = (midnight + n * MINUTE for n in range(24 * 60))
    assert next(at for at in earlier if fires(cron, at)) == found


@pytest.mark.parametrize("moment", [datetime(2026, 3, 10, 12), datetime(2026, 3, 10, 12, 0, 1)])
def test_a_tick_counts_from_its_very_second(moment: datetime) -> None:
    assert last_tick("0 12 * * *", moment) == datetime(2026, 3, 10, 12)
    assert last_tick("0 12 * * *", datetime(2026, 3, 10, 11, 59, 59)) == datetime(2026, 3, 9, 12)


def test_a_cron_that_fired_never_in_the_last_months_has_no_tick() -> None:
    assert last_tick("0 0 1 1 *", datetime(2026, 6, 1)) is None
    assert last_tick("0 0 1 1 *", datetime(2026, 2, 1)) == datetime(2026, 1, 1)


def test_each_asset_declares_its_check_of_freshness() -> None:
    graph = build_definitions(chosen()).resolve_asset_graph()
    declared = {
        key.asset_key.to_user_string() for key in graph.asset_check_keys if key.name == FRESH
    }
    assert declared == set(TABLES)
