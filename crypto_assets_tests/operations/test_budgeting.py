"""What schedules cost in a month: when they tick, what that asks for, and what to change."""

from datetime import UTC, date, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._utils.schedules import cron_string_iterator
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from crypto_assets.assets.resource import RECHECK_TAG
from crypto_assets.automation.schedules import scheduled_ticks
from crypto_assets.operations.budgeting import Budget, budget
from crypto_assets.sandbox import Market
from crypto_assets.settings import Settings, ticks, validated
from crypto_assets_tests.lab import Lab, open_lab
from crypto_assets_tests.operations.commands import call

KEY = "CG-sandbox-test"
DAY = timedelta(days=1)
MONDAY = date(2026, 3, 9)


def settings_of(plan: str = "keyless", **sections: Any) -> Settings:
    tree: dict[str, Any] = {"coingecko": {"plan": plan}}
    if plan != "keyless":
        tree["coingecko"]["api_key"] = KEY
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    return validated(tree)


def with_advice(advice: str, plan: str, **sections: Any) -> Budget:
    """The budget after following one piece of advice, typed in as it is printed."""
    ((name, value),) = yaml.safe_load(advice).items()
    section, key = name.split(".")
    sections[section] = {**sections.get(section, {}), key: value}
    if name == "coingecko.plan":
        sections[section]["api_key"] = KEY
    return budget(settings_of(plan, **sections))


def cost(found: Budget) -> dict[str, int]:
    return {asset.table: asset.calls for asset in found.assets}


def clock_times(cron: str, day: date) -> list[str]:
    return [f"{at:%H:%M}" for at in ticks(cron, day)]


@pytest.mark.parametrize(
    ("cron", "day", "expected"),
    [
        ("0 1 * * *", MONDAY, ["01:00"]),
        ("30 9 * * *", MONDAY, ["09:30"]),
        ("15 */6 * * *", MONDAY, ["00:15", "06:15", "12:15", "18:15"]),
        ("10-20/5 1,13 * * *", MONDAY, ["01:10", "01:15", "01:20", "13:10", "13:15", "13:20"]),
        ("5/25 3 * * *", MONDAY, ["03:05", "03:30", "03:55"]),
        ("0 2 * * 1-5", MONDAY, ["02:00"]),
        ("0 2 * * 1-5", MONDAY - DAY, []),
        ("0 2 * * 0", MONDAY - DAY, ["02:00"]),
        ("0 2 * * 7", MONDAY - DAY, ["02:00"]),
        ("0 2 * * 5-7", MONDAY - DAY, ["02:00"]),
        ("0 2 * * 6", MONDAY - DAY, []),
        ("0 2 1 * *", date(2026, 3, 1), ["02:00"]),
        ("0 2 1 * *", date(2026, 3, 2), []),
        ("0 2 29 2 *", date(2028, 2, 29), ["02:00"]),
        ("0 2 * 4 *", MONDAY, []),
        # Restricted both ways, either day will do.
        ("0 2 13 * 1", MONDAY, ["02:00"]),
        ("0 2 13 * 1", date(2026, 3, 13), ["02:00"]),
        ("0 2 13 * 1", date(2026, 3, 12), []),
    ],
)
def test_a_cron_expression_ticks_when_people_say_it_does(
    cron: str, day: date, expected: list[str]
) -> None:
    assert clock_times(cron, day) == expected


def test_every_hour_is_twenty_four_times_a_day() -> None:
    assert clock_times("0 * * * *", MONDAY) == [f"{hour:02}:00" for hour in range(24)]
    assert len(clock_times("* * * * *", MONDAY)) == 24 * 60


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    ends = st.tuples(number, number).filter(lambda pair: pair[0] < pair[1])
    part = st.one_of(
        number.map(str),
        ends.map(lambda pair: f"{pair[0]}-{pair[1]}"),
        st.tuples(ends, st.integers(1, high)).map(lambda p: f"{p[0][0]}-{p[0][1]}/{p[1]}"),
    )
    return st.one_of(st.just("*"), st.lists(part, min_size=1, max_size=3).map(",".join))


minutes = st.lists(st.integers(0, 59).map(str), min_size=1, max_size=2).map(",".join)
crons = st.tuples(minutes, field(0, 23), field(1, 28), field(1, 12), field(0, 6)).map(" ".join)
steps = st.tuples(st.integers(5, 59), st.integers(2, 23)).map(lambda n: f"*/{n[0]} */{n[1]} * * *")


@hypothesis(max_examples=60, deadline=None)
@given(crons | steps, st.dates(date(2025, 1, 1), date(2028, 12, 31)))
def test_a_day_ticks_when_dagster_would_start_the_schedule(cron: str, day: date) -> None:
    midnight = datetime.combine(day, datetime.min.time(), UTC)
    theirs = takewhile(
        lambda at: at < midnight + DAY,
        cron_string_iterator((midnight - timedelta(seconds=1)).timestamp(), cron, "UTC"),
    )
    assert ticks(cron, day) == [
        at.astimezone(UTC).replace(tzinfo=None) for at in theirs if at >= midnight
    ]


@pytest.mark.parametrize(
    ("plan", "about"), [("keyless", 7_000), ("demo", 7_000), ("basic", 88_000), ("analyst", 82_000)]
)
def test_the_settings_as_shipped_fit_and_cost_what_the_readme_says(plan: str, about: int) -> None:
    found = budget(settings_of(plan))
    assert found.fits
    assert found.advice == ()
    assert found.credits == pytest.approx(about, rel=0.07)
    (sentence,) = found.sentences
    assert "they fit" in sentence
    assert f"{found.credits:,} credits" in sentence


def test_a_month_of_the_analyst_plan_adds_up_by_hand() -> None:
    costs = cost(budget(settings_of("analyst", universe={"tracked": 100, "always": []})))
    # One page an hour and one by name; the day is closed by the snapshot at midnight. Three coins a
    # day are looked at again.
    assert costs["market_caps"] == 31 * 24 * 2 + 31 * 3
    # At 01:00 each coin once, and the same three again.
    assert costs["ohlc_daily"] == 31 * 100 + 31 * 3
    assert costs["coin_list"] == 31
    assert costs["fear_greed"] == 31
    assert costs["etf_flows"] == 31 * 3
    # Each coin each hour, and once more where a close makes a day final.
    assert 31 * 24 * 100 <= costs["ohlc_hourly"] <= 31 * 26 * 100


def test_only_coingecko_costs_credits() -> None:
    found = budget(settings_of("demo"))
    others = {a.table: a.credits for a in found.assets if a.table in ("fear_greed", "etf_flows")}
    assert others == {"fear_greed": 0, "etf_flows": 0}
    assert found.credits == sum(
        a.calls for a in found.assets if a.table not in ("fear_greed", "etf_flows")
    )


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["demo", "analyst"])
def test_more_coins_and_more_ticks_never_cost_less(plan: str) -> None:
    costs = [budget(settings_of(plan, universe={"tracked": n})).credits for n in (1, 50, 250, 251)]
    assert costs == sorted(costs)
    rare = budget(settings_of(plan, schedules={"hourly_candles": "30 */6 * * *"})).credits
    assert rare < budget(settings_of(plan)).credits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "sections"),
    [
        ("demo", {"universe": {"headline": [f"coin-{n}" for n in range(12)]}}),
        ("demo", {"universe": {"tracked": 400}}),
        ("basic", {"universe": {"tracked": 250}}),
        ("analyst", {"universe": {"tracked": 1_000}}),
        ("keyless", {"universe": {"tracked": 300}}),
        ("analyst", {"coingecko": {"credits_per_month": 20_000}}),
    ],
)
def test_following_any_advice_makes_it_fit(plan: str, sections: dict[str, Any]) -> None:
    found = budget(settings_of(plan, **sections))
    assert not found.fits
    assert found.advice
    verdict, told = found.sentences
    assert "do not fit" in verdict
    for advice in found.advice:
        assert advice in told
        followed = with_advice(advice, plan, **sections)
        assert followed.fits, (advice, followed.sentences)


def test_the_advised_number_of_coins_is_the_largest_that_fits() -> None:
    found = budget(settings_of("basic", universe={"tracked": 250}))
    (advised,) = (a for a in found.advice if a.startswith("universe.tracked"))
    coins = int(advised.split(": ")[1])
    assert budget(settings_of("basic", universe={"tracked": coins})).fits
    assert not budget(settings_of("basic", universe={"tracked": coins + 1})).fits


def test_where_no_single_setting_helps_that_is_said() -> None:
    found = budget(settings_of("lite", coingecko={"credits_per_month": 1}))
    assert found.advice == ()
    assert "No single setting that was tried makes it fit" in found.sentences[1]


def test_a_busy_hour_alone_can_be_too_much() -> None:
    found = budget(settings_of("keyless", universe={"tracked": 300}))
    # Keyless has 3 calls a minute and no month: at 01:00 each coin's candle is asked for.
    assert found.plan.credits_per_month is None
    assert found.hourly_calls == 180
    assert 300 <= found.busiest_hour_calls < 400
    assert not found.fits


# Every schedule ticks, but not 50 times a day: the tests play them one by one.
RARE = {"market_refresh": "0 */8 * * *", "hourly_candles": "30 */12 * * *"}
OF_COINGECKO = ("coin_list", "market_caps", "ohlc_daily", "ohlc_hourly")
NEVER_AT_MIDNIGHT = {**RARE, "market_refresh": "20 */8 * * *"}


def free_of_limits(plan: str) -> dict[str, Any]:
    return {"plan": plan, "api_key": KEY, "calls_per_minute": 100_000}


def play(lab: Lab, day: date) -> int:
    """Run what all schedules ask for on one day, at their times; returns CoinGecko's calls."""
    due = sorted(
        ((at, tick(at)) for cron, tick in scheduled_ticks(lab.settings) for at in ticks(cron, day)),
        key=lambda one: one[0],
    )
    lab.server.reset()
    for at, asked in due:
        first = max(asked.first, lab.settings.history.start)
        tables = [name for name in asked.tables if name in OF_COINGECKO]
        lab.at(at)
        if RECHECK_TAG in asked.tags:
            assert lab.recheck(tables, first, asked.last).success
        elif tables:
            assert lab.run(tables, first, asked.last).succeeded
    by_endpoint = lab.server.stats()["calls"]
    return sum(
        sum(by_status.values())
        for endpoint, by_status in by_endpoint.items()
        if endpoint.startswith("coingecko/")
    )


@pytest.mark.parametrize(
    ("plan", "schedules"),
    [("analyst", RARE), ("demo", RARE), ("basic", NEVER_AT_MIDNIGHT)],
    ids=["analyst", "demo", "basic without a snapshot at midnight"],
)
@pytest.mark.slow
def test_a_steady_day_costs_what_the_budget_says_and_hardly_less(
    tmp_path: Path, market: Market, plan: str, schedules: dict[str, str]
) -> None:
    overrides = {
        "coingecko": free_of_limits(plan),
        "universe": {"tracked": 5, "always": ["bitcoin"], "headline": ["bitcoin", "ethereum"]},
        "history": {"start": "2026-03-06"},
        "schedules": schedules,
        # No more than there is: what is looked at again depends on how far back it goes.
        "restatements": {"days": 4},
    }
    with open_lab(tmp_path, market, **overrides) as lab:
        lab.at(datetime(2026, 3, 9, 23, 50))
        lab.run(["market_caps", "ohlc_daily", "ohlc_hourly"], date(2026, 3, 6), date(2026, 3, 9))
        really = play(lab, date(2026, 3, 10))
        found = budget(lab.settings)
        a_day = found.credits / 31
        # For each snapshot one call by name is set aside, which few coins never need.
        aside = len(ticks(schedules["market_refresh"], date(2026, 3, 10)))
        assert really <= a_day
        assert a_day - aside <= really * 1.1


def test_the_command_shows_each_asset_and_the_verdict(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text("universe: {tracked: 20}\n")
    done = call("budget", "--home", tmp_path)
    assert done.code == 0, done.err
    for asset in ("coin_list", "market_caps", "ohlc_hourly", "ohlc_daily", "fear_greed"):
        assert asset in done.out
    assert "they fit" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crypto_assets.yaml"]


def test_the_command_fails_where_it_does_not_fit_and_says_what_to_change(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text(
        "coingecko: {plan: demo, api_key: CG-x}\nuniverse: {tracked: 400}\n"
    )
    done = call("budget", "--home", tmp_path)
    assert done.sentence == "crypto-assets: these settings do not fit the plan"
    assert "universe.tracked: " in done.out
    assert "CG-x" not in done.out + done.err
