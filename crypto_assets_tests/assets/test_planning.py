"""The calls that are foretold are the calls that are made, on every plan, whatever is there."""

from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.assets.planning import FetchPlan, fetch_plan
from crypto_assets.assets.platform import Platform
from crypto_assets.providers.plans import PLANS
from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab

# Whole platforms over many days: the second tier.
pytestmark = pytest.mark.slow

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
DAY = timedelta(days=1)
KEY = {"api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
COINGECKO: dict[str, dict[str, Any]] = {
    "unlimited": {},
    "analyst": {"plan": "analyst", **KEY},
    "basic": {"plan": "basic", **KEY},
    "demo": {"plan": "demo", **KEY},
}
FETCHED = ["coin_list", "market_caps", "ohlc_daily", "ohlc_hourly", "fear_greed", "etf_flows"]


def small(folder: Path, market: Market, plan: str, **overrides: Any) -> Any:
    """A lab of five coins whose provider has the plan's endpoints, but no rate limit."""
    folder.mkdir(exist_ok=True)
    tree: dict[str, Any] = {
        "coingecko": COINGECKO[plan],
        "universe": {"tracked": 5, "headline": ["bitcoin", "ethereum"]},
        **overrides,
    }
    return open_lab(folder, market, **tree)


def foretold(lab: Lab, tables: list[str], first: date, last: date) -> FetchPlan:
    with closing(Platform(lab.settings)) as platform:
        return fetch_plan(platform, tables, first, last, lab.now)


def by_endpoint(plan: FetchPlan) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in plan.groups:
        path = f"{group.provider}/{group.path.rstrip('/')}"
        if path == "farside/{asset}":
            path = "farside"
        found[path] = found.get(path, 0) + group.calls - group.answered
    return {path: calls for path, calls in found.items() if calls}


def made(lab: Lab) -> dict[str, int]:
    found: dict[str, int] = {}
    for endpoint, by_status in lab.server.stats()["calls"].items():
        path = "farside" if endpoint.startswith("farside/") else endpoint
        found[path] = found.get(path, 0) + sum(by_status.values())
    return found


def assert_foretold(lab: Lab, tables: list[str], first: date, last: date) -> FetchPlan:
    lab.server.reset()
    plan = foretold(lab, tables, first, last)
    assert lab.server.stats()["total"] == 0, "planning asks nobody"
    assert lab.run(tables, first, last).succeeded
    assert made(lab) == by_endpoint(plan)
    assert plan.calls == lab.server.stats()["total"]
    credits = sum(n for path, n in made(lab).items() if path.startswith("coingecko/"))
    assert plan.credits == credits
    return plan


@pytest.mark.parametrize(
    ("plan", "days"), [("unlimited", 5), ("analyst", 8), ("basic", 32), ("demo", 32)]
)
def test_what_is_foretold_for_an_empty_home_is_what_is_asked(
    tmp_path: Path, market: Market, plan: str, days: int
) -> None:
    with small(tmp_path / "home", market, plan) as lab:
        told = assert_foretold(lab, FETCHED, TODAY - days * DAY, TODAY)
        assert told.is_guess
        # And once more: only the running day is asked for again, and what is not final.
        lab.at(NOON + timedelta(minutes=10))
        again = assert_foretold(lab, FETCHED, TODAY - 2 * DAY, TODAY)
        assert not again.is_guess
        assert again.credits < told.credits


@pytest.mark.parametrize("table", ["market_caps", "ohlc_daily", "ohlc_hourly"])
@pytest.mark.parametrize("plan", ["unlimited", "analyst", "demo"])
def test_what_is_foretold_for_one_table_of_closed_days_is_what_is_asked(
    tmp_path: Path, market: Market, plan: str, table: str
) -> None:
    with small(tmp_path / "home", market, plan) as lab:
        lab.run(["market_caps"], TODAY)
        told = assert_foretold(lab, [table], TODAY - 35 * DAY, YESTERDAY)
        assert told.calls > 0
        again = assert_foretold(lab, [table], TODAY - 35 * DAY, YESTERDAY)
        assert (again.calls, again.is_guess) == (0, False)


def test_a_guess_is_marked_as_one_and_never_too_low(tmp_path: Path, market: Market) -> None:
    # Without market_caps nobody knows whose candles they are that are stored already.
    with small(tmp_path / "home", market, "unlimited") as lab:
        lab.run(["ohlc_daily"], TODAY - 5 * DAY, YESTERDAY)
        lab.server.reset()
        told = foretold(lab, ["ohlc_daily"], TODAY - 5 * DAY, YESTERDAY)
        assert told.is_guess
        lab.run(["ohlc_daily"], TODAY - 5 * DAY, YESTERDAY)
        assert lab.server.stats()["total"] <= told.calls


def test_a_guess_counts_no_coin_twice(tmp_path: Path, market: Market) -> None:
    # Filled after the fact, a day tells nothing of the universe of the days beside it.
    with small(tmp_path / "home", market, "unlimited") as lab:
        lab.run(["market_caps"], YESTERDAY)
        lab.at(NOON + timedelta(hours=1))
        told = assert_foretold(lab, ["ohlc_daily"], TODAY - 9 * DAY, YESTERDAY)
        assert told.calls == 1 + 5


@pytest.mark.parametrize("plan", ["unlimited", "analyst", "demo"])
def test_what_is_foretold_for_a_partly_filled_home_is_what_is_asked(
    tmp_path: Path, market: Market, plan: str
) -> None:
    with small(tmp_path / "home", market, plan) as lab:
        lab.run(["market_caps"], TODAY - 12 * DAY, TODAY)
        lab.run(["ohlc_daily"], TODAY - 11 * DAY, TODAY - 8 * DAY)
        lab.run(["ohlc_hourly"], TODAY - 3 * DAY, YESTERDAY)
        with lab.warehouse.session("a hole") as connection:
            connection.execute(
                "DELETE FROM market_caps WHERE coin_id = 'ethereum' AND date = ?", [TODAY - 9 * DAY]
            )
            connection.execute(
                "INSERT INTO gaps VALUES ('market_caps', 'ethereum', ?, ?, 'missing', 'x', ?)",
                [TODAY - 9 * DAY, TODAY - 9 * DAY, NOON - DAY],
            )
        lab.at(NOON + timedelta(hours=2))
        told = assert_foretold(
            lab, ["market_caps", "ohlc_daily", "ohlc_hourly"], TODAY - 33 * DAY, TODAY
        )
        asked = {group.table for group in told.groups}
        assert asked == {"market_caps", "ohlc_daily", "ohlc_hourly"}


@pytest.mark.parametrize("plan", ["unlimited", "demo"])
def test_the_hour_after_midnight_is_foretold_too(tmp_path: Path, market: Market, plan: str) -> None:
    with small(tmp_path / "home", market, plan) as lab:
        lab.run(["market_caps", "ohlc_hourly", "ohlc_daily"], TODAY - 2 * DAY, TODAY)
        lab.at(datetime(2026, 3, 11, 0, 0, 10))
        assert_foretold(lab, ["coin_list", "market_caps"], TODAY, TODAY + DAY)
        lab.at(datetime(2026, 3, 11, 0, 30))
        assert_foretold(lab, ["ohlc_hourly"], TODAY, TODAY + DAY)
        lab.at(datetime(2026, 3, 11, 1, 0))
        assert_foretold(lab, ["market_caps", "ohlc_hourly", "ohlc_daily"], TODAY - 6 * DAY, TODAY)


def test_answers_in_the_raw_store_are_left_out(tmp_path: Path, market: Market) -> None:
    first = TODAY - 40 * DAY
    with small(tmp_path / "home", market, "unlimited") as lab:
        lab.run(["market_caps"], TODAY, TODAY)
        before = foretold(lab, ["ohlc_daily"], first, YESTERDAY)
        assert (before.calls, sum(group.answered for group in before.groups)) == (5, 0)
        lab.run(["ohlc_daily"], first, YESTERDAY)
        with lab.warehouse.session("forgetting") as connection:
            connection.execute("DELETE FROM ohlc_daily")
            connection.execute("DELETE FROM gaps")
        after = foretold(lab, ["ohlc_daily"], first, YESTERDAY)
        assert (after.calls, after.credits) == (0, 0)
        assert sum(group.answered for group in after.groups) == 5
        assert_foretold(lab, ["ohlc_daily"], first, YESTERDAY)


def test_only_the_coins_that_were_answered_are_left_out(tmp_path: Path, market: Market) -> None:
    with small(tmp_path / "home", market, "unlimited") as lab:
        lab.run(["market_caps"], TODAY, TODAY)
        gone = {"kind": "status", "code": 404, "shape": "error", "match": {"coin_id": "ethereum"}}
        lab.server.faults.add(gone)
        lab.run(["ohlc_daily"], YESTERDAY - DAY, YESTERDAY)
        with lab.warehouse.session("forgetting") as connection:
            connection.execute("DELETE FROM ohlc_daily")
            connection.execute("DELETE FROM gaps")
        told = assert_foretold(lab, ["ohlc_daily"], YESTERDAY - DAY, YESTERDAY)
        assert [(group.calls, group.answered) for group in told.groups] == [(5, 4)]


def test_days_that_the_plan_does_not_reach_are_counted_and_not_asked_for(
    tmp_path: Path, market: Market
) -> None:
    history = {"start": "2025-01-01"}
    with small(tmp_path / "home", market, "demo", history=history) as lab:
        lab.run(["market_caps"], TODAY, TODAY)
        oldest = TODAY - 365 * DAY
        told = foretold(lab, ["market_caps"], oldest - 10 * DAY, oldest + 4 * DAY)
        assert told.unreachable_days == 10 * 5
        assert told.calls == 5
        assert_foretold(lab, ["market_caps"], oldest - 10 * DAY, oldest + 4 * DAY)
        again = foretold(lab, ["market_caps"], oldest - 10 * DAY, oldest + 4 * DAY)
        assert again.calls == 0


def test_planning_writes_nothing_but_an_empty_warehouse(lab: Lab) -> None:
    foretold(lab, FETCHED, TODAY - 5 * DAY, TODAY)
    for table in ("market_caps", "ohlc_daily", "gaps"):
        assert lab.sql(f"FROM {table}").empty
    assert not (lab.home / "limits" / "coingecko.sqlite").exists()
    assert lab.server.stats()["total"] == 0


@pytest.mark.parametrize(
    ("table", "calls", "endpoint"),
    [
        # A year is one chart, two windows of 180 days and a rest, twelve of 31 days at most.
        ("market_caps", 100, "coingecko/coins/{id}/market_chart"),
        ("ohlc_daily", 300, "coingecko/coins/{id}/ohlc/range"),
        ("ohlc_hourly", 1_200, "coingecko/coins/{id}/ohlc/range"),
    ],
)
def test_a_year_of_a_hundred_coins_on_the_analyst_plan(
    tmp_path: Path, market: Market, table: str, calls: int, endpoint: str
) -> None:
    overrides = {"universe": {"tracked": 100}, "history": {"start": "2025-01-01"}}
    with small(tmp_path / "home", market, "analyst", **overrides) as lab:
        assert lab.run(["market_caps"], TODAY, TODAY).succeeded
        told = foretold(lab, [table], YESTERDAY - 364 * DAY, YESTERDAY)
        assert by_endpoint(told) == {endpoint: calls}
        minutes = told.minutes(PLANS["analyst"])
        assert minutes == pytest.approx(calls / 500)


def test_the_running_day_of_a_thousand_coins_is_four_pages(tmp_path: Path, market: Market) -> None:
    overrides = {"universe": {"tracked": 1_000, "always": ["bitcoin"]}}
    with small(tmp_path / "home", market, "analyst", **overrides) as lab:
        told = assert_foretold(lab, ["market_caps"], TODAY, TODAY)
        assert by_endpoint(told) == {"coingecko/coins/markets": 4}
        assert len(lab.sql("FROM market_caps")) == 1_000


def test_a_plan_without_a_limit_takes_no_foretellable_time(lab: Lab) -> None:
    told = foretold(lab, ["market_caps"], TODAY, TODAY)
    assert told.minutes(PLANS["unlimited"]) is None
    assert told.minutes(PLANS["keyless"]) == pytest.approx(told.credits / 3)
