"""The whole platform while providers fail: limits, broken transport, wrong clocks, plans, secrets.

What is wrong with the values is in test_bad_input.py, what comes late in test_healing.py.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crypto_assets import periods
from crypto_assets.operations.rebuilding import rebuild
from crypto_assets.providers import http, limiter
from crypto_assets.providers.http import HttpClient
from crypto_assets.providers.limiter import SharedLimiter
from crypto_assets.providers.raw import RawStore
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, Lab, open_lab
from crypto_assets_tests.providers.conftest import Clock

# Whole platforms over many days: the second tier.
pytestmark = pytest.mark.slow

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
FIRST = YESTERDAY - timedelta(days=6)
ALWAYS = ["bitcoin", "ethereum", "solana"]
OHLC = ["open", "high", "low", "close"]
CHART, CHARTS = "coingecko/coins/{id}/market_chart", {"endpoint": "coins/{id}/market_chart"}
FETCHED = ["coin_list", "market_caps", "ohlc_daily", "ohlc_hourly", "fear_greed", "etf_flows"]
# One attempt only: what is retried, and how often, has its own tests.
ONCE = {"retry_budget_seconds": 0}
PATIENT = {"retry_budget_seconds": 600}
CANARY = "CG-sandbox-canary-7c1d5e9b3a"


@pytest.fixture
def time_flies(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Waits of the platform's clients and limits take no time, and are counted."""
    clock = Clock()
    waits = {"monotonic": clock.monotonic, "sleep": clock.sleep}
    # The platform looks them up when it makes a client.
    of_clock = partial(SharedLimiter, wall=clock.wall, **waits)
    monkeypatch.setattr(limiter, "SharedLimiter", of_clock)
    monkeypatch.setattr(http, "HttpClient", partial(HttpClient, jitter=lambda: 1.0, **waits))
    return clock


def content(lab: Lab, tables: Any = TABLES) -> dict[str, pd.DataFrame]:
    """All rows but for which run wrote them when."""
    return {
        table: lab.sql(f"SELECT * EXCLUDE (run_id, materialized_at) FROM {table} ORDER BY ALL")
        for table in tables
    }


def assert_same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    assert one.keys() == other.keys()
    for table, rows in one.items():
        assert len(rows), table
        pd.testing.assert_frame_equal(rows, other[table], check_exact=True)


def assert_true_closes(
    lab: Lab,
    coins: list[str],
    first: date,
    last: date,
    without: Collection[tuple[str, date]] = (),
) -> None:
    """The closes are those of the market model: of these coins, all of them, and no others.

    But for those `without`, by coin and day.
    """
    columns = ["date", "coin_id", "price_usd", "market_cap_usd", "volume_24h_usd"]
    stored = lab.sql(f"SELECT {', '.join(columns)} FROM market_caps ORDER BY date, coin_id")
    frames = [lab.market.daily(coin, first, last).assign(coin_id=coin) for coin in coins]
    truth = pd.concat(frames).sort_values(["date", "coin_id"], ignore_index=True)[columns]
    # Charts of ragged coins lack a cap every 29 hours and a volume every 31.
    ragged = truth["coin_id"].map({coin: lab.market.coin(coin).is_ragged for coin in coins})
    hours = (truth["date"] + pd.Timedelta(days=1) - pd.Timestamp(0)) // pd.Timedelta(hours=1)
    truth.loc[ragged & (hours % 29 == 0), "market_cap_usd"] = np.nan
    truth.loc[ragged & (hours % 31 == 0), "volume_24h_usd"] = np.nan
    is_left_out = [
        (coin, day.date()) in without
        for coin, day in zip(truth["coin_id"], truth["date"], strict=True)
    ]
    assert sum(is_left_out) == len(without)
    truth = truth[~np.array(is_left_out)].reset_index(drop=True)
    stored["date"] = stored["date"].astype(truth["date"].dtype)
    pd.testing.assert_frame_equal(stored, truth, check_exact=False, rtol=1e-9)


def largest(market: Market, count: int, at: datetime = NOON) -> list[str]:
    """The coins that a lab tracks when it begins at a moment."""
    return sorted({*market.snapshot(at)["coin_id"].head(count), *ALWAYS})


def sentence(text: str) -> str:
    """An error for people: one line, and no Python in it."""
    assert text
    assert "\n" not in text
    for noise in ("Traceback", "np.", "<crypto_assets", "Error(", "0x"):
        assert noise not in text
    return text


# 1, 2: limits


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        (format_datetime((NOON + timedelta(seconds=45)).replace(tzinfo=UTC), True), 45),
        (None, 60),
        ("soon", 60),
    ],
)
def test_a_429_is_waited_out_as_long_as_it_says_and_costs_one_call(
    tmp_path: Path, market: Market, time_flies: Clock, retry_after: str | None, seconds: int
) -> None:
    fetch = {"retry_budget_seconds": 100, "threads": 1}
    with open_lab(tmp_path, market, fetch=fetch) as lab:
        said = {"retry_after": retry_after} if retry_after else {}
        lab.server.faults.add({"kind": "status", "code": 429, "times": 1, "match": CHARTS, **said})
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert seconds <= time_flies.elapsed <= seconds + 1
        assert lab.server.stats()["calls"][CHART] == {"200": 10, "429": 1}
        assert_true_closes(lab, largest(market, 10), FIRST, YESTERDAY)


def test_an_absurd_wait_ends_the_step_and_a_run_after_the_pause_brings_all(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    limited = {"plan": "demo", "api_key": CANARY, "calls_per_minute": 100_000}
    with open_lab(tmp_path, market, coingecko=limited, fetch={"retry_budget_seconds": 60}) as lab:
        rule = {"kind": "status", "code": 429, "retry_after": "1000000000", "match": CHARTS}
        lab.server.faults.add({**rule, "times": 1})
        report = lab.run(["market_caps"], FIRST, YESTERDAY)
        told = sentence(report.failures["market_caps"])
        assert "coins/{id}/market_chart (id=" in told
        assert "pause" in told or "it asked for a wait of 1000000000 s" in told
        calls = lab.server.stats()["total"]
        # Before the pause is over nobody asks, neither this table nor another one.
        again = lab.run(["market_caps", "ohlc_daily"], FIRST, YESTERDAY)
        assert "run again after the pause" in sentence(again.failures["market_caps"])
        assert set(again.failures) == {"market_caps", "ohlc_daily"}
        assert lab.server.stats()["total"] == calls
        time_flies.elapsed += 900
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert_true_closes(lab, largest(market, 10), FIRST, YESTERDAY)


def test_tables_and_runs_share_one_budget_of_calls(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    limited = {"plan": "demo", "api_key": CANARY, "calls_per_minute": 4}
    with open_lab(tmp_path, market, coingecko=limited, universe={"tracked": 2}) as lab:
        # One snapshot and three charts.
        assert lab.run(["market_caps"], YESTERDAY).succeeded
        assert lab.server.stats()["total"] == 4
        assert time_flies.elapsed == 0
        # A run of its own with two more tables of three coins. A free plan has no hours of a whole
        # day in one call: 1 + 3 + 6 calls, for which three more minutes have to begin.
        assert lab.run(["coin_list", "ohlc_daily", "ohlc_hourly"], YESTERDAY).succeeded
        calls = lab.server.stats()["calls"]
        assert {status for of in calls.values() for status in of} == {"200"}
        assert lab.server.stats()["total"] == 14
        assert time_flies.elapsed >= 3 * 60


# 3, 4, 5: transport


def test_bursts_of_server_errors_cost_retries_and_nothing_else(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    with open_lab(tmp_path, market, fetch=PATIENT) as lab:
        coins = largest(market, 10)
        for code, coin in zip((500, 502, 503, 504), coins, strict=False):
            match = {"coin_id": coin}
            lab.server.faults.add({"kind": "status", "code": code, "times": 5, "match": match})
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        told = {"200": 10, "500": 5, "502": 5, "503": 5, "504": 5}
        assert lab.server.stats()["calls"][CHART] == told
        assert_true_closes(lab, coins, FIRST, YESTERDAY)


def test_a_provider_that_only_fails_is_given_up_with_a_sentence_and_what_is_stored_stays(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    with open_lab(tmp_path, market, fetch=PATIENT) as lab:
        lab.run(["market_caps"], FIRST, YESTERDAY)
        before = content(lab, ["market_caps"])
        lab.server.reset()
        lab.at(NOON + timedelta(hours=1))
        lab.server.faults.add({"kind": "status", "code": 503, "shape": "html"})
        report = lab.run(["market_caps", "ohlc_daily", "fear_greed"], FIRST, TODAY)
        assert set(report.failures) == {"market_caps", "ohlc_daily", "fear_greed"}
        for told in report.failures.values():
            assert "was asked for" in sentence(told)
            assert "gave up after 8 attempts" in told
            assert "HTTP 503" in told
            assert "try again later" in told
        # Eight attempts at a request, and no more requests than can be in flight.
        assert lab.server.stats()["total"] <= 8 * (1 + 16 + 1)
        assert_same(before, content(lab, ["market_caps"]))
        assert lab.sql("FROM ohlc_daily").empty
        assert lab.sql("FROM fear_greed").empty


# What is wrong with a coin's answer -> what its gap says of it.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "timeout": ({"seconds": 60}, "was too slow"),
    "hang": ({"seconds": 60}, "Read timed out"),
    "slow_drip": ({"seconds": 60}, "Read timed out"),
    "reset": ({}, "did not answer in full"),
    "truncate": ({}, "not JSON, or cut off"),
    "html": ({}, "not JSON, or cut off"),
    "html as JSON": ({"as_json": True}, "not JSON, or cut off"),
    "empty_body": ({}, "the body is empty"),
    "empty_object": ({}, "the body is an empty object"),
    "error_with_200": ({"message": "sorry"}, "sorry"),
    "challenge": ({"code": 200}, "not JSON, or cut off"),
    "status": ({"code": 404, "shape": "error", "message": "coin not found"}, "coin not found"),
}


@pytest.fixture(scope="module")
def afflicted(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Lab]:
    """A lab in which each of the broken answers struck one coin of thirty."""
    fetch = {**ONCE, "timeout_seconds": 2, "max_missing_share": 1, "threads": 4}
    home = tmp_path_factory.mktemp("afflicted")
    with open_lab(home, market, fetch=fetch, universe={"tracked": 30}) as lab:
        for (kind, (options, _)), coin in zip(BROKEN.items(), _struck(market), strict=True):
            rule = {"kind": kind.split()[0], "match": {"coin_id": coin}, **options}
            lab.server.faults.add(rule)
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        yield lab


def _struck(market: Market) -> list[str]:
    return largest(market, 30)[-len(BROKEN) :]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_answer_costs_its_coin_and_is_told_with_its_cause(
    afflicted: Lab, kind: str
) -> None:
    coin = _struck(afflicted.market)[list(BROKEN).index(kind)]
    told = afflicted.sql(
        "SELECT first_day, last_day, state, reason FROM gaps WHERE series = ?", coin
    )
    assert not told.empty
    assert told["first_day"].min().date() == FIRST
    assert told["last_day"].max().date() == YESTERDAY
    if kind != "status":
        assert list(told["state"]) == ["missing"]
        assert BROKEN[kind][1] in sentence(told["reason"][0])
    with closing(RawStore(afflicted.home / "raw" / "responses.sqlite")) as raw:
        assert not [meta for meta in raw.entries() if meta.path_params.get("id") == coin]


def test_coins_beside_broken_answers_are_stored_whole(afflicted: Lab) -> None:
    whole = sorted(set(largest(afflicted.market, 30)) - set(_struck(afflicted.market)))
    assert_true_closes(afflicted, whole, FIRST, YESTERDAY)
    for day in afflicted.sql("FROM coverage WHERE table_name = 'market_caps'").itertuples():
        assert not day.is_final
    first = afflicted.sql("SELECT missing FROM coverage WHERE date = ?", FIRST)["missing"][0]
    unknown = _struck(afflicted.market)[-1]
    assert set(first) == set(_struck(afflicted.market)) - {unknown}


def test_one_bad_body_and_one_bad_value_among_250_cost_a_retry_and_a_day(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 250}, fetch=PATIENT) as lab:
        coins = largest(market, 250)
        hasty, refused = coins[100], coins[200]
        lab.server.faults.add({"kind": "truncate", "times": 1, "match": {"coin_id": hasty}})
        bad = {"kind": "bad_price", "value": "infinity", "match": {"coin_id": refused}}
        lab.server.faults.add(bad)
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert lab.server.stats()["calls"] == {
            "coingecko/coins/markets": {"200": 1},
            CHART: {"200": 251},
        }
        assert_true_closes(lab, coins, FIRST, YESTERDAY, [(refused, FIRST)])
        told = lab.sql("SELECT series, first_day, last_day, state, reason FROM gaps")
        close = FIRST + timedelta(days=1)
        problem = "should be finite and greater than 0, not 'NaN or infinite'"
        reason = f"{refused}.prices at {close} 00:00:00 {problem}"
        day = pd.Timestamp(FIRST)
        assert [tuple(gap) for gap in told.to_numpy()] == [(refused, day, day, "missing", reason)]
        lab.server.reset()
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert lab.server.stats()["calls"] == {CHART: {"200": 1}}
        assert_true_closes(lab, coins, FIRST, YESTERDAY)
        assert lab.sql("FROM gaps").empty


def test_a_network_that_fails_every_fifth_request_leaves_the_same_tables(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    tables: list[dict[str, pd.DataFrame]] = []
    fetch = {**PATIENT, "timeout_seconds": 1}
    for name, probability in (("clean", 0.0), ("noisy", 0.07)):
        home = tmp_path / name
        home.mkdir()
        with open_lab(home, market, fetch=fetch, universe={"tracked": 15}) as lab:
            for kind, options in (
                ("status", {"code": 502}),
                ("timeout", {"seconds": 60}),
                ("truncate", {}),
            ):
                lab.server.faults.add({"kind": kind, "probability": probability, **options})
            report = lab.run(list(TABLES), FIRST, TODAY)
            assert report.succeeded, report.failures
            if probability:
                assert all(rule["hits"] >= 3 for rule in lab.server.faults.rules())
            assert lab.sql("FROM gaps WHERE state = 'missing' AND table_name <> 'etf_flows'").empty
            tables.append(content(lab))
    assert_same(*tables)


# 12: clocks


@pytest.mark.parametrize("hours", [3, -24])
def test_a_clock_that_is_hours_off_stores_nothing_and_says_by_how_much(
    tmp_path: Path, market: Market, hours: int
) -> None:
    with open_lab(tmp_path, market, fetch=ONCE) as lab:
        lab.server.clock.set(NOON - timedelta(hours=hours))
        reports = [lab.run(tables, YESTERDAY, TODAY) for tables in (["coin_list"], FETCHED[1:])]
        failures = {**reports[0].failures, **reports[1].failures}
        assert set(failures) == set(FETCHED)
        side = "ahead of" if hours > 0 else "behind"
        for told in failures.values():
            assert f"clock is {abs(hours)}.0 h {side} the provider's" in sentence(told)
            assert "set the clock right" in told
        for table in FETCHED:
            assert lab.sql(f"FROM {table}").empty, table
        with closing(RawStore(tmp_path / "raw" / "responses.sqlite")) as raw:
            assert raw.count() == 0
        # Set right, it finds nothing that stands in the way.
        lab.server.clock.set(NOON)
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert_true_closes(lab, largest(market, 10), FIRST, YESTERDAY)
        assert lab.sql("FROM gaps WHERE table_name = 'market_caps'").empty


def test_a_clock_that_is_minutes_off_is_what_machines_are(lab: Lab) -> None:
    lab.server.clock.set(NOON + timedelta(minutes=10))
    assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
    assert_true_closes(lab, largest(lab.market, 10), FIRST, YESTERDAY)
    lab.server.clock.set(NOON + timedelta(minutes=10, seconds=1))
    assert "0.2 h behind" in lab.run(["ohlc_daily"], YESTERDAY).failures["ohlc_daily"]


def test_a_clock_set_back_between_two_runs_changes_no_stored_row(lab: Lab) -> None:
    tables = ["market_caps", "ohlc_hourly"]
    lab.run(tables, YESTERDAY, TODAY)
    before = content(lab, tables)
    # By a day, while the provider's goes right.
    lab.now = NOON - timedelta(days=1)
    report = lab.run(tables, YESTERDAY)
    for told in report.failures.values():
        assert "clock is 24.0 h behind" in sentence(told)
    assert_same(before, content(lab, tables))
    # By minutes, as time synchronisation does: what is newer stays.
    lab.now = NOON - timedelta(minutes=5)
    assert lab.run(tables, YESTERDAY, TODAY).succeeded
    after = content(lab, tables)
    for table in tables:
        final = [rows[table][rows[table]["is_final"]] for rows in (before, after)]
        assert len(final[0]) >= 10
        pd.testing.assert_frame_equal(*final, check_exact=True)
    assert lab.sql("FROM restatements").empty
    assert lab.at(NOON + timedelta(days=1)).run(tables, YESTERDAY, TODAY).succeeded
    assert_true_closes(lab, largest(lab.market, 10), YESTERDAY, TODAY)


def test_a_clock_that_steps_back_in_the_middle_of_a_run_ends_it_with_a_sentence(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Callable[[periods.Clock], datetime] = periods.Clock.now

    def stepping(clock: periods.Clock) -> datetime:
        # From the third answer on it is yesterday.
        is_late = lab.server.stats()["total"] >= 3
        return real(clock) - timedelta(days=1 if is_late else 0)

    lab._overrides["fetch"] = {**ONCE, "threads": 1}
    with monkeypatch.context() as patched:
        patched.setattr(periods.Clock, "now", stepping)
        report = lab.run(["market_caps"], FIRST, YESTERDAY)
    assert "clock is 24.0 h behind the provider's" in sentence(report.failures["market_caps"])
    assert lab.sql("FROM market_caps WHERE date > ? OR observed_at > ?", YESTERDAY, NOON).empty
    assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
    assert_true_closes(lab, largest(lab.market, 10), FIRST, YESTERDAY)
    assert lab.sql("FROM gaps").empty


# A plan that is lower than configured


@pytest.mark.parametrize(
    ("plan", "configured", "table", "code", "advice"),
    [
        ("demo", "analyst", "market_caps", 10010, "CRYPTO_ASSETS_COINGECKO__PLAN"),
        ("analyst", "demo", "market_caps", 10011, "CRYPTO_ASSETS_COINGECKO__PLAN to demo"),
        ("basic", "analyst", "ohlc_daily", 10005, "CRYPTO_ASSETS_COINGECKO__PLAN"),
        ("basic", "analyst", "ohlc_hourly", 10005, "CRYPTO_ASSETS_COINGECKO__PLAN"),
        ("keyless", "unlimited", "ohlc_daily", 10005, "CRYPTO_ASSETS_COINGECKO__PLAN"),
    ],
)
def test_a_plan_lower_than_configured_is_told_at_once_with_the_setting_to_change(
    tmp_path: Path,
    market: Market,
    plan: str,
    configured: str,
    table: str,
    code: int,
    advice: str,
) -> None:
    chosen = {"plan": configured, "api_key": CANARY, "calls_per_minute": 100_000}
    fetch = {**ONCE, "threads": 1}
    with open_lab(tmp_path, market, plan, coingecko=chosen, fetch=fetch) as lab:
        report = lab.run([table, "fear_greed"], FIRST, YESTERDAY)
        told = sentence(report.failures[table])
        assert told.startswith("coingecko was asked for coins/")
        assert f"refused with code {code}" in told
        assert advice in told
        assert lab.sql(f"FROM {table}").empty
        # Not every coin has to be refused, and other providers go on.
        calls = lab.server.stats()["calls"]
        assert sum(of.get("401", 0) + of.get("400", 0) for of in calls.values()) <= 2
        truth = market.fear_greed(FIRST, YESTERDAY)
        stored = lab.sql("SELECT value FROM fear_greed ORDER BY date")
        assert list(stored["value"]) == list(truth["value"])


def test_days_beyond_a_lower_plans_history_are_told_and_later_ones_can_be_had(
    tmp_path: Path, market: Market
) -> None:
    chosen = {"plan": "analyst", "api_key": CANARY, "calls_per_minute": 100_000}
    old = TODAY - timedelta(days=800)
    history, universe = {"start": "2023-06-01"}, {"tracked": 3}
    with open_lab(
        tmp_path, market, "basic", coingecko=chosen, history=history, universe=universe, fetch=ONCE
    ) as lab:
        report = lab.run(["market_caps"], old, old + timedelta(days=3))
        told = sentence(report.failures["market_caps"])
        assert "refused with code 10012" in told
        assert "ask for later days or set CRYPTO_ASSETS_COINGECKO__PLAN" in told
        assert lab.sql("FROM market_caps").empty
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert_true_closes(lab, largest(market, 3), FIRST, YESTERDAY)


# 21: secrets


def test_a_key_is_nowhere_but_in_the_request_whatever_comes_back(
    tmp_path: Path, market: Market, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = {"plan": "demo", "api_key": CANARY, "calls_per_minute": 100_000}
    fetch = {**ONCE, "max_missing_share": 1, "threads": 1}
    universe = {"tracked": 12}
    with open_lab(
        tmp_path,
        market,
        "demo",
        coingecko=chosen,
        fetch=fetch,
        universe=universe,
        keeps_history=True,
    ) as lab:
        said = f"who is {CANARY}?"
        echoes: list[dict[str, Any]] = [
            {"kind": "status", "code": 200, "shape": "text", "message": said},
            {"kind": "status", "code": 500, "shape": "text", "message": said},
            {"kind": "status", "code": 404, "shape": "nested", "message": said},
            {"kind": "error_with_200", "message": said},
            {"kind": "retype_field", "field": "prices", "to": "object"},
            {"kind": "add_field", "field": CANARY, "value": said},
        ]
        # The last ones: three failures before any answer would be the provider's.
        coins = largest(market, 12)[-len(echoes) :]
        for coin, echo in zip(coins, echoes, strict=True):
            lab.server.faults.add({**echo, "match": {"coin_id": coin}})
        lab.server.faults.add({"kind": "add_field", "field": "note", "value": said})
        refused = {"kind": "status", "code": 401, "error_code": 10002, "message": said}
        lab.server.faults.add({**refused, "match": {"endpoint": "coins/list"}})
        reports = [lab.run(["market_caps"], FIRST, TODAY), lab.run(["coin_list"], TODAY)]
        assert reports[0].succeeded
        assert "who is ***?" in sentence(reports[1].failures["coin_list"])
        told = lab.sql("SELECT reason FROM gaps WHERE table_name = 'market_caps'")["reason"]
        assert any("who is ***?" in reason for reason in told)
        events = [str(e) for of in reports for e in lab.instance.all_logs(of.run_id)]
        with closing(RawStore(tmp_path / "raw" / "responses.sqlite")) as raw:
            bodies = [raw.read(meta.raw_id)[1].decode() for meta in raw.entries()]
            bodies += [delivery.details.decode() for delivery in raw.deliveries()]
        assert any("who is ***?" in body for body in bodies)
        tables = [lab.sql(f"FROM {table}").to_string() for table in (*TABLES, "gaps")]
        console = "".join(capfd.readouterr())
        texts = [*events, *bodies, *tables, console, str(reports), repr(lab.settings)]
        assert not [text for text in texts if CANARY in text]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


# 26: determinism


def test_a_rebuilt_warehouse_holds_the_same_and_takes_no_call(
    tmp_path: Path, market: Market
) -> None:
    fetch = {**ONCE, "max_missing_share": 1, "threads": 2}
    with open_lab(tmp_path, market, fetch=fetch, universe={"tracked": 6}) as lab:
        # A history with everything in it: a coin that fails, a hole, bad values, healing.
        lab.server.faults.add(
            {"kind": "truncate", "match": {"coin_id": "solana"}},
            {"kind": "missing_day", "coin_id": "tether", "date": str(FIRST)},
            {"kind": "bad_price", "value": "zero", "match": {"coin_id": "ripple"}},
        )
        lab.run(["market_caps", "ohlc_daily"], FIRST, TODAY)
        lab.server.faults.clear()
        lab.at(datetime(2026, 3, 11, 1, 0))
        tables = ["market_caps", "ranks", "ohlc_daily"]
        assert lab.run(tables, FIRST, lab.now.date()).succeeded
        before, gaps = content(lab, tables), lab.sql("FROM gaps ORDER BY ALL")
        lab.server.reset()
        report = rebuild(lab.settings, lab.instance, lambda *_: None)
        assert report.skipped == []
        assert lab.server.stats()["total"] == 0
        assert_same(before, content(lab, tables))
        pd.testing.assert_frame_equal(gaps, lab.sql("FROM gaps ORDER BY ALL"))


def test_candles_of_a_noisy_network_are_those_of_the_market(
    tmp_path: Path, market: Market, time_flies: Clock
) -> None:
    with open_lab(tmp_path, market, fetch=PATIENT) as lab:
        lab.server.faults.add({"kind": "reset", "probability": 0.3})
        assert lab.run(["ohlc_hourly"], FIRST, YESTERDAY).succeeded
        assert lab.server.faults.rules()[0]["hits"]
        assert lab.server.stats()["calls"]["coingecko/coins/{id}/ohlc/range"]["200"] == 10
        for coin in largest(market, 10):
            stored = lab.sql("FROM ohlc_hourly WHERE coin_id = ? ORDER BY open_time", coin)
            truth = market.candles(coin, "1h", FIRST, TODAY)
            assert list(stored["open_time"]) == list(truth["open_time"])
            np.testing.assert_allclose(stored[OHLC], truth[OHLC], rtol=1e-9)
