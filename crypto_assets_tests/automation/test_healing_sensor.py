"""What is missing is asked for again: what, in which order, how often, and at what price."""

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from crypto_assets.assets.planning import fetch_plan
from crypto_assets.assets.platform import Platform
from crypto_assets.automation.healing import needed_places, request_for_missing_days
from crypto_assets.automation.jobs import JOB_TAG
from crypto_assets.automation.watching import job_names
from crypto_assets.definitions import build_definitions
from crypto_assets.monitoring.attempts import Memory, given_up
from crypto_assets.monitoring.health import examine
from crypto_assets.sandbox import Market
from crypto_assets.warehouse.session import warehouse_lock
from crypto_assets_tests.lab import NOON, WEEK, Lab, open_lab

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
YESTERDAY = NOON.date() - DAY
FETCHED = ("market_caps", "ohlc_hourly", "ohlc_daily", "fear_greed", "etf_flows")
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@dataclass(frozen=True)
class Asked:
    tables: set[str]
    first: date
    last: date


def evaluate(lab: Lab) -> Any:
    definitions = build_definitions(lab.settings)
    sensor = definitions.resolve_sensor_def("healing")
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=lab.instance, repository_def=repository) as context:
        return sensor.evaluate_tick(context)


def asked(lab: Lab) -> Asked:
    """What the sensor asks for just now; it remembers that it did."""
    found = request_for_missing_days(lab.settings)
    assert isinstance(found, dg.RunRequest), found
    first, last = (date.fromisoformat(found.tags[tag]) for tag in RANGE)
    return Asked({key.to_user_string() for key in found.asset_selection or []}, first, last)


def skipped(lab: Lab) -> str:
    found = request_for_missing_days(lab.settings)
    assert isinstance(found, dg.SkipReason), found
    return str(found.skip_message)


def launch(lab: Lab) -> dg.ExecuteInProcessResult:
    """Do what the daemon does with the one request of the sensor."""
    (request,) = evaluate(lab).run_requests
    job = build_definitions(lab.settings).resolve_job_def("healing_refresh")
    return job.execute_in_process(
        instance=lab.instance,
        asset_selection=request.asset_selection,
        tags=request.tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def lose(lab: Lab, table: str, day: date, last: date | None = None, coin: str = "%") -> None:
    """Let days of a table never have been there."""
    column = "CAST(open_time AS DATE)" if table == "ohlc_hourly" else "date"
    of_coin = f"AND coin_id LIKE '{coin}'" if coin != "%" else ""
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            f"DELETE FROM {table} WHERE {column} BETWEEN ? AND ? {of_coin}", [day, last or day]
        )


def miss(lab: Lab, table: str, series: str, day: date, at: datetime = NOON) -> None:
    """Let a coin-day be missing inside a day, as told at a moment."""
    lose(lab, table, day, coin=series)
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "INSERT INTO gaps VALUES (?, ?, ?, ?, 'missing', 'not at the provider yet', ?)",
            [table, series, day, day, at],
        )


def told_again(lab: Lab, table: str, at: datetime) -> None:
    """Let the provider say at a moment that it still has not what is missing."""
    with lab.warehouse.session("a test") as connection:
        connection.execute("UPDATE gaps SET checked_at = ? WHERE table_name = ?", [at, table])


def test_an_empty_home_is_left_to_the_first_refresh(lab: Lab) -> None:
    assert "Nothing is stored yet" in skipped(lab)


def test_a_home_in_order_asks_for_nothing(week: Lab) -> None:
    assert skipped(week) == "Nothing is due; 0 day(s) wait or were given up."
    assert evaluate(week).run_requests == []


@pytest.mark.parametrize("table", FETCHED)
def test_a_day_that_was_never_materialized_is_asked_for_in_its_table_alone(
    week: Lab, table: str
) -> None:
    day = date(2026, 3, 5)
    lose(week, table, day)
    assert asked(week) == Asked({table}, day, day)


def test_what_is_calculated_is_left_to_the_sensor_of_stale_days(week: Lab) -> None:
    for table in ("ranks", "ema_signals", "daily_snapshot"):
        lose(week, table, date(2026, 3, 5))
    assert "Nothing is due" in skipped(week)


def test_a_day_that_is_missing_is_healed_by_the_run_and_forgotten(week: Lab) -> None:
    day = date(2026, 3, 5)
    lose(week, "fear_greed", day)
    assert launch(week).success
    truth = week.market.fear_greed(day, day)["value"][0]
    assert list(week.sql("FROM fear_greed WHERE date = ?", day)["value"]) == [truth]
    with closing(Memory(week.home)) as memory:
        assert set(memory.all()) == {("fear_greed", day)}
        assert "Nothing is due" in skipped(week)
        assert memory.all() == {}


@pytest.mark.slow
def test_what_a_failed_run_did_not_bring_is_asked_for(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, **WEEK) as lab:
        assert lab.run(["market_caps", "fear_greed"], date(2026, 3, 2), YESTERDAY - DAY).succeeded
        lab.server.faults.add({"kind": "status", "code": 404, "match": {"endpoint": "fng"}})
        assert not lab.run(["fear_greed"], YESTERDAY).succeeded
        found = asked(lab)
        assert "fear_greed" in found.tables
        assert found.last == YESTERDAY


def test_missing_coin_days_inside_a_day_are_asked_for_and_healed(week: Lab) -> None:
    day = date(2026, 3, 6)
    miss(week, "ohlc_daily", "solana", day)
    week.server.reset()
    assert launch(week).success
    # One coin, one call: the rest of the day is final.
    assert week.server.stats()["total"] == 1
    (row,) = week.sql(
        "FROM ohlc_daily WHERE date = ? AND coin_id = 'solana' AND is_final", day
    ).to_dict("records")
    assert row["exactness"] == "exact"
    assert week.sql("FROM gaps WHERE state = 'missing'").empty


def test_the_running_day_and_the_day_that_just_closed_are_the_schedules(week: Lab) -> None:
    # Candles are ready at 00:35, and left to the schedules for two hours more.
    lose(week, "ohlc_daily", YESTERDAY, NOON.date())
    week.at(datetime(2026, 3, 10, 2, 34, 59))
    assert "Nothing is due" in skipped(week)
    week.at(datetime(2026, 3, 10, 2, 35))
    assert asked(week) == Asked({"ohlc_daily"}, YESTERDAY, YESTERDAY)


def test_what_no_provider_has_is_not_asked_for(week: Lab) -> None:
    day = date(2026, 3, 5)
    lose(week, "ohlc_daily", day, coin="solana")
    with week.warehouse.session("a test") as connection:
        connection.execute(
            "INSERT INTO gaps VALUES ('ohlc_daily', 'solana', ?, ?, 'no_data_at_provider', 'x', ?)",
            [day, day, NOON],
        )
    assert "Nothing is due" in skipped(week)


# --- approximate candles


def approximate(lab: Lab, day: date) -> None:
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE ohlc_daily SET exactness = 'approximate' WHERE date = ? AND coin_id = 'solana'",
            [day],
        )
        connection.execute(
            "INSERT INTO gaps VALUES ('ohlc_daily', 'solana', ?, ?, 'approximate', 'x', ?)",
            [day, day, NOON],
        )


def on_plan(lab: Lab, plan: str, **more: object) -> None:
    lab._overrides["coingecko"] = {"plan": plan, "api_key": "x", **more}


def test_days_that_were_approximate_are_asked_for_once_the_plan_has_them_exactly(
    week: Lab,
) -> None:
    day = date(2026, 3, 5)
    approximate(week, day)
    for plan in ("demo", "basic"):
        on_plan(week, plan)
        assert "Nothing is due" in skipped(week)
    on_plan(week, "analyst")
    assert asked(week) == Asked({"ohlc_daily"}, day, day)


@pytest.mark.slow
def test_an_approximate_day_becomes_exact(week: Lab) -> None:
    day = date(2026, 3, 5)
    approximate(week, day)
    assert launch(week).success
    told = week.sql("SELECT DISTINCT exactness FROM ohlc_daily WHERE date = ?", day)["exactness"]
    assert list(told) == ["exact"]
    assert "Nothing is due" in skipped(week)


# --- the plan's reach


@pytest.fixture
def old(tmp_path: Path, market: Market) -> Any:
    """A home that begins two years ago and has but yesterday's closes."""
    overrides = {"history": {"start": "2024-03-01"}, "universe": {"tracked": 2, "always": []}}
    with open_lab(tmp_path, market, **overrides) as lab:
        assert lab.run(["market_caps"], YESTERDAY).succeeded
        yield lab


@pytest.mark.parametrize(
    ("plan", "caps_from", "candles_from"),
    [
        # 365 and 730 days before 2026-03-10; candles of the oldest day would be cut.
        ("demo", date(2025, 3, 10), date(2025, 3, 11)),
        pytest.param("basic", date(2024, 3, 10), date(2024, 3, 11), marks=pytest.mark.slow),
        pytest.param("analyst", date(2024, 3, 1), date(2024, 3, 1), marks=pytest.mark.slow),
    ],
)
def test_days_beyond_the_reach_of_the_plan_are_not_asked_for(
    old: Lab, plan: str, caps_from: date, candles_from: date
) -> None:
    on_plan(old, plan)
    with closing(Platform(old.settings)) as platform:
        places = needed_places(platform, old.now)
    first = {table: min(day for name, day in places if name == table) for table in FETCHED}
    assert first["market_caps"] == caps_from
    assert first["ohlc_daily"] == first["ohlc_hourly"] == candles_from
    assert first["fear_greed"] == date(2024, 3, 1)
    assert max(day for _, day in places) == YESTERDAY
    assert ("market_caps", YESTERDAY) not in places


def test_the_newest_days_come_first_and_no_more_than_the_cap_a_run(old: Lab) -> None:
    old._overrides["healing"] = {"days_a_run": 10}
    windows = []
    for _ in range(4):
        found = asked(old)
        windows.append((found.first, found.last))
    assert windows == [
        (YESTERDAY - 9 * DAY, YESTERDAY),
        (YESTERDAY - 19 * DAY, YESTERDAY - 10 * DAY),
        (YESTERDAY - 29 * DAY, YESTERDAY - 20 * DAY),
        (YESTERDAY - 39 * DAY, YESTERDAY - 30 * DAY),
    ]


# --- the budget


def use(lab: Lab, credits: int) -> None:
    with closing(sqlite3.connect(next(lab.home.rglob("usage.sqlite")))) as connection, connection:
        connection.execute("DELETE FROM usage")
        connection.execute("INSERT INTO usage VALUES ('coingecko', '2026-03-10', 1, ?)", [credits])


def test_healing_takes_what_the_days_gone_by_left_of_the_budget(week: Lab) -> None:
    # March has 31 days: until the 10th, 12:20, 3,100 x 9.5139 / 31 = 951 credits may be used. A
    # lost day of candles of five coins takes five calls.
    on_plan(week, "analyst", credits_per_month=3_100)
    lose(week, "ohlc_daily", date(2026, 3, 5))
    use(week, 947)
    assert skipped(week) == (
        "Healing 2026-03-05 to 2026-03-05 takes 5 credits; 947 are used and by now 951 of the "
        "month's 3,100 may be."
    )
    with closing(Memory(week.home)) as memory:
        assert memory.all() == {}
    use(week, 946)
    assert asked(week).tables == {"ohlc_daily"}


def test_healing_leaves_the_running_day_its_share_of_the_budget(week: Lab) -> None:
    # 100 credits a day; what is left belongs to the 31st itself.
    on_plan(week, "analyst", credits_per_month=3_100)
    week._overrides["healing"] = {"days_a_run": 1}
    week.at(datetime(2026, 3, 31, 3, 0))
    use(week, 3_000)
    # The list of coins takes one, the histories of five coins too much.
    assert asked(week).tables == {"coin_list"}
    use(week, 3_012)
    assert asked(week).tables <= {"fear_greed", "etf_flows"}


def test_what_costs_no_credit_is_healed_when_all_are_used(week: Lab) -> None:
    on_plan(week, "analyst", credits_per_month=3_100)
    use(week, 3_100)
    lose(week, "fear_greed", date(2026, 3, 5))
    assert asked(week).tables == {"fear_greed"}


def test_what_is_too_dear_does_not_hold_up_what_costs_no_credit(week: Lab) -> None:
    on_plan(week, "analyst", credits_per_month=3_100)
    use(week, 3_100)
    lose(week, "ohlc_daily", date(2026, 3, 5))
    lose(week, "fear_greed", date(2026, 3, 5))
    assert asked(week).tables == {"fear_greed"}


@pytest.mark.slow
def test_the_price_is_what_the_plan_of_a_backfill_says(week: Lab) -> None:
    on_plan(week, "analyst", credits_per_month=3_100)
    lose(week, "market_caps", date(2026, 3, 4), date(2026, 3, 6))
    with closing(Platform(week.settings)) as platform:
        plan = fetch_plan(platform, ["market_caps"], date(2026, 3, 4), date(2026, 3, 6), week.now)
    pace = 951  # as above
    use(week, pace - plan.credits + 1)
    assert f"takes {plan.credits} credits" in skipped(week)
    use(week, pace - plan.credits)
    assert asked(week).tables == {"market_caps"}


# --- when it asks


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
@pytest.mark.parametrize("job", ["daily_close", "healing_refresh"])
def test_nothing_is_asked_for_while_a_run_may_be_bringing_it(
    week: Lab, status: str, job: str
) -> None:
    lose(week, "fear_greed", date(2026, 3, 5))
    run = dg.DagsterRun(job, tags={JOB_TAG: job}, status=dg.DagsterRunStatus[status])
    week.instance.add_run(run)
    assert evaluate(week).skip_message == f"A run of {job} has not ended."
    with closing(Memory(week.home)) as memory:
        assert memory.all() == {}
    week.instance.delete_run(run.run_id)
    hourly = dg.DagsterRun("market_refresh", status=dg.DagsterRunStatus[status])
    week.instance.add_run(hourly)
    assert evaluate(week).run_requests


def test_it_is_asked_for_after_1_2_4_8_16_and_then_each_24_hours(week: Lab) -> None:
    place = ("ohlc_daily", date(2026, 3, 5))
    # The provider answers each time, and has not got it.
    miss(week, "ohlc_daily", "solana", date(2026, 3, 5), at=datetime(2026, 4, 30))
    assert tries_of(week, place) == 1
    for tries, hours in enumerate((1, 2, 4, 8, 16, 24, 24), start=2):
        start = week.now
        week.at(start + hours * HOUR - timedelta(seconds=1))
        assert tries_of(week, place) == tries - 1
        week.at(start + hours * HOUR)
        assert tries_of(week, place) == tries


def test_where_nobody_answers_it_is_asked_for_each_hour_and_no_try_counts(week: Lab) -> None:
    place = ("fear_greed", date(2026, 3, 5))
    lose(week, *place)
    for _ in range(3):
        assert tries_of(week, place) == 1
        week.at(week.now + HOUR - timedelta(seconds=1))
        assert "fear_greed" not in tables_asked(week)
        week.at(week.now + timedelta(seconds=1))
        assert "fear_greed" in tables_asked(week)
        week.at(week.now + HOUR)


def test_a_doubt_that_the_provider_confirms_is_given_up(week: Lab) -> None:
    week._overrides["healing"] = {"tries": 3}
    place = ("ohlc_hourly", date(2026, 3, 5))
    with week.warehouse.session("a test") as connection:
        connection.execute("UPDATE ohlc_daily SET high = 2 * high WHERE date = '2026-03-05'")
        connection.execute(
            "INSERT INTO restatements SELECT 'ohlc_daily', date, "
            "to_json({'date': date, 'coin_id': coin_id}), 'high', '1', '2', observed_at, "
            "observed_at, 'r', observed_at FROM ohlc_daily WHERE date = '2026-03-05'"
        )
    for tries in (1, 2, 3):
        assert tries_of(week, place) == tries
        assert week.run(["ohlc_hourly"], place[1]).succeeded
        week.at(week.now + 24 * HOUR)
    request_for_missing_days(week.settings)
    with closing(Memory(week.home)) as memory:
        assert place in given_up(memory.all())


def tries_of(lab: Lab, place: tuple[str, date]) -> int:
    """Let the sensor decide; return how often it has asked for a place."""
    request_for_missing_days(lab.settings)
    with closing(Memory(lab.home)) as memory:
        return memory.all()[place].tries


def tables_asked(lab: Lab) -> set[str]:
    found = request_for_missing_days(lab.settings)
    if isinstance(found, dg.SkipReason):
        return set()
    return {key.to_user_string() for key in found.asset_selection or []}


def test_a_clock_that_was_set_back_does_not_silence_it(week: Lab) -> None:
    lose(week, "fear_greed", date(2026, 3, 5))
    assert asked(week)
    week.at(NOON - 30 * HOUR)
    assert asked(week).tables == {"fear_greed"}
    assert "Nothing is due" in skipped(week)


def try_for(lab: Lab, times: int, *, is_answered: bool) -> None:
    """Let a missing coin-day be asked for so often, half a day apart."""
    for _ in range(times):
        assert "ohlc_daily" in tables_asked(lab)
        if is_answered:
            told_again(lab, "ohlc_daily", lab.now)
        lab.at(lab.now + 12 * HOUR)


@pytest.fixture
def quiet(week: Lab) -> Lab:
    """The home of a week that lacks a coin-day, and is tried three times."""
    week._overrides["healing"] = {"tries": 3}
    miss(week, "ohlc_daily", "solana", date(2026, 3, 5), NOON - DAY)
    return week


def test_a_day_is_given_up_after_its_tries_listed_and_not_asked_for_again(quiet: Lab) -> None:
    place = ("ohlc_daily", date(2026, 3, 5))
    try_for(quiet, 3, is_answered=True)
    for _ in range(10):
        request_for_missing_days(quiet.settings)
        with closing(Memory(quiet.home)) as memory:
            assert memory.all()[place].tries == 3
            assert given_up(memory.all()) == [place]
        quiet.at(quiet.now + 12 * HOUR)
    assert examine(quiet.settings, quiet.instance, job_names()).given_up == [place]


@pytest.mark.slow
def test_a_day_is_not_given_up_while_the_provider_does_not_answer(quiet: Lab) -> None:
    try_for(quiet, 8, is_answered=False)
    with closing(Memory(quiet.home)) as memory:
        assert given_up(memory.all()) == []


@pytest.mark.slow
def test_a_day_that_was_given_up_and_is_there_after_all_is_forgotten(quiet: Lab) -> None:
    try_for(quiet, 3, is_answered=True)
    request_for_missing_days(quiet.settings)
    quiet.at(NOON)
    assert quiet.run(["ohlc_daily"], date(2026, 3, 5)).succeeded
    request_for_missing_days(quiet.settings)
    with closing(Memory(quiet.home)) as memory:
        assert ("ohlc_daily", date(2026, 3, 5)) not in memory.all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("ohlc_daily", {"provider": "coingecko"}),
        ("fear_greed", {"endpoint": "fng"}),
        ("etf_flows", {"provider": "farside"}),
    ],
)
def test_real_runs_through_an_outage_give_nothing_up(
    week: Lab, table: str, match: dict[str, str]
) -> None:
    week._overrides |= {"healing": {"tries": 2}, "fetch": {"retry_budget_seconds": 0}}
    day = date(2026, 3, 5)
    lose(week, table, day)
    week.server.faults.add({"kind": "status", "code": 503, "match": match})
    for _ in range(4):
        request_for_missing_days(week.settings)
        assert not week.run([table], day).succeeded
        week.at(week.now + 12 * HOUR)
    assert tries_of(week, (table, day)) == 1
    with closing(Memory(week.home)) as memory:
        assert given_up(memory.all()) == []


@pytest.mark.slow
def test_given_up_days_between_others_are_not_asked_for_with_them(quiet: Lab) -> None:
    try_for(quiet, 3, is_answered=True)
    request_for_missing_days(quiet.settings)
    quiet.at(NOON)
    for day in (date(2026, 3, 4), date(2026, 3, 6)):
        lose(quiet, "fear_greed", day)
    assert asked(quiet) == Asked({"fear_greed"}, date(2026, 3, 4), date(2026, 3, 6))


# --- the list of coins


@pytest.mark.slow
def test_a_late_list_of_coins_is_asked_for_and_its_run_succeeds(week: Lab) -> None:
    with week.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE market_caps SET observed_at = '2026-03-03 00:20' WHERE date = '2026-03-02'"
        )
        connection.execute("UPDATE coin_list SET last_seen_at = '2026-03-09 00:00:05'")
    assert launch(week).success
    (seen,) = week.sql("SELECT max(last_seen_at) AS t FROM coin_list")["t"]
    assert seen.to_pydatetime() == NOON
    assert "Nothing is due" in skipped(week)


def test_a_late_list_of_coins_is_not_asked_for_each_five_minutes(week: Lab) -> None:
    with week.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE market_caps SET observed_at = '2026-03-03 00:20' WHERE date = '2026-03-02'"
        )
        connection.execute("UPDATE coin_list SET last_seen_at = '2026-03-09 00:00:05'")
    assert tables_asked(week) == {"coin_list"}
    week.at(NOON + timedelta(minutes=5))
    assert tables_asked(week) == set()


# --- in company


def test_while_another_process_writes_it_skips_at_once_and_says_who(week: Lab) -> None:
    lose(week, "fear_greed", date(2026, 3, 5))
    before = time.monotonic()
    with warehouse_lock(week.home / "warehouse.duckdb", "a long write"):
        assert "a long write" in skipped(week)
    assert time.monotonic() - before < 10
    assert asked(week).tables == {"fear_greed"}


@pytest.mark.parametrize(
    ("sections", "status"),
    [
        ({}, "RUNNING"),
        ({"healing": {"enabled": False}}, "STOPPED"),
        ({"schedules": {"enabled": False}}, "STOPPED"),
    ],
)
def test_the_sensor_runs_unless_the_settings_say_otherwise(
    week: Lab, sections: dict[str, dict[str, object]], status: str
) -> None:
    week._overrides |= sections
    sensor = build_definitions(week.settings).resolve_sensor_def("healing")
    assert sensor.default_status.value == status
