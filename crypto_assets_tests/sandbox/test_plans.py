from collections.abc import Callable
from typing import Any

import pytest
from requests import Response

DEMO = {"x-cg-demo-api-key": "CG-sandbox-demo"}
PRO = {"x-cg-pro-api-key": "CG-sandbox-pro"}


def error_code(response: Response) -> int:
    body = response.json()
    status = body["status"] if "status" in body else body["error"]["status"]
    return int(status["error_code"])


def test_the_unlimited_plan_takes_any_key_and_none(sandbox: Any):
    for headers in ({}, DEMO, PRO, {"x-cg-pro-api-key": "nonsense"}):
        assert sandbox.get("ping", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("plan", "headers", "status", "code"),
    [
        ("keyless", {"x-cg-demo-api-key": "wrong"}, 401, 10002),
        ("keyless", PRO, 400, 10010),
        ("demo", {}, 401, 10002),
        ("demo", {"x-cg-demo-api-key": "wrong"}, 401, 10002),
        ("demo", PRO, 400, 10010),
        ("basic", {}, 401, 10002),
        ("analyst", {"x-cg-pro-api-key": "wrong"}, 401, 10002),
        ("analyst", DEMO, 400, 10011),
    ],
)
def test_a_wrong_or_missing_key_is_refused(
    start: Callable[..., Any], plan: str, headers: dict[str, str], status: int, code: int
):
    response = start(plan=plan).get("ping", headers=headers)
    assert (response.status_code, error_code(response)) == (status, code)


@pytest.mark.parametrize(
    ("plan", "headers"), [("keyless", {}), ("demo", DEMO), ("basic", PRO), ("analyst", PRO)]
)
def test_the_right_key_is_accepted(start: Callable[..., Any], plan: str, headers: dict[str, str]):
    assert start(plan=plan).get("ping", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("plan", "headers", "limit"),
    [("keyless", {}, 3), ("demo", DEMO, 30), ("basic", PRO, 250), ("analyst", PRO, 500)],
)
def test_calls_beyond_the_minute_get_429_in_four_forms(
    start: Callable[..., Any], plan: str, headers: dict[str, str], limit: int
):
    sandbox = start(plan=plan)
    allowed = [sandbox.get("ping", headers=headers).status_code for _ in range(limit)]
    assert set(allowed) == {200}
    refused = [sandbox.get("ping", headers=headers) for _ in range(4)]
    assert {response.status_code for response in refused} == {429}
    forms = {
        ("Retry-After" in response.headers, response.text == "Throttled") for response in refused
    }
    assert forms == {(True, True), (True, False), (False, True), (False, False)}
    for response in refused:
        assert 1 <= int(response.headers.get("Retry-After", 30)) <= 60
        if response.text != "Throttled":
            assert error_code(response) == 429


def test_refused_and_failed_calls_count_against_the_minute_and_reset_forgets(
    start: Callable[..., Any],
):
    sandbox = start(plan="keyless")
    assert [sandbox.get("coins/nope/ohlc", days=1).status_code for _ in range(4)] == [404] * 3 + [
        429
    ]
    sandbox.session.post(f"{sandbox.server.url}/_sandbox/reset")
    assert sandbox.get("ping").status_code == 200


def test_only_coingecko_is_limited(start: Callable[..., Any]):
    sandbox = start(plan="keyless")
    assert {sandbox.get("alternative_me/fng/").status_code for _ in range(6)} == {200}


@pytest.mark.parametrize(("plan", "headers", "days"), [("demo", DEMO, 365), ("basic", PRO, 730)])
def test_history_beyond_the_plan_is_10012(
    start: Callable[..., Any], plan: str, headers: dict[str, str], days: int
):
    sandbox = start(plan=plan)

    def chart(**query: Any) -> Response:
        return sandbox.get("coins/bitcoin/market_chart", headers=headers, **query)

    now = 1_772_366_400
    assert chart(days=days).status_code == 200
    for response in (
        chart(days=days + 1),
        chart(days="max"),
        sandbox.get(
            "coins/bitcoin/market_chart/range",
            headers=headers,
            from_=now - (days + 1) * 86_400,
            to=now,
        ),
        sandbox.get("coins/bitcoin/history", headers=headers, date="01-01-2020"),
    ):
        assert (response.status_code, error_code(response)) == (401, 10012)
        assert "status" in response.json()["error"]


@pytest.mark.parametrize(("plan", "headers"), [("keyless", {}), ("demo", DEMO), ("basic", PRO)])
def test_candle_intervals_are_for_the_analyst_plan(
    start: Callable[..., Any], plan: str, headers: dict[str, str]
):
    sandbox = start(plan=plan)
    window = {"from": 1_770_000_000, "to": 1_770_086_400, "interval": "hourly"}
    for response in (
        sandbox.get("coins/bitcoin/ohlc/range", headers=headers, **window),
        sandbox.get("coins/bitcoin/ohlc", headers=headers, days=30, interval="daily"),
    ):
        assert (response.status_code, error_code(response)) == (401, 10005)
    assert sandbox.get("coins/bitcoin/ohlc", headers=headers, days=30).status_code == 200


def test_the_analyst_plan_has_candle_intervals_and_all_history(start: Callable[..., Any]):
    sandbox = start(plan="analyst")
    rows = sandbox.get("coins/bitcoin/ohlc", headers=PRO, days=30, interval="daily").json()
    assert len(rows) == 31
    old = {"from": 1_520_000_000, "to": 1_520_086_400, "interval": "hourly"}
    assert len(sandbox.get("coins/bitcoin/ohlc/range", headers=PRO, **old).json()) >= 24


def test_free_plans_have_no_inactive_list_no_key_and_no_range_interval(start: Callable[..., Any]):
    sandbox = start(plan="demo")
    window = {"from": 1_770_000_000, "to": 1_770_086_400, "interval": "hourly"}
    for response in (
        sandbox.get("coins/list", headers=DEMO, status="inactive"),
        sandbox.get("key", headers=DEMO),
        sandbox.get("coins/bitcoin/market_chart/range", headers=DEMO, **window),
    ):
        assert (response.status_code, error_code(response)) == (401, 10005)


def test_only_a_200_costs_a_credit(start: Callable[..., Any]):
    sandbox = start(plan="basic")
    assert sandbox.get("ping", headers=PRO).status_code == 200
    assert sandbox.get("coins/nope/ohlc", headers=PRO, days=1).status_code == 404
    usage = sandbox.get("key", headers=PRO).json()
    assert usage["current_total_monthly_calls"] == 1
    assert usage["current_remaining_monthly_calls"] == usage["monthly_call_credit"] - 1
    assert usage["rate_limit_request_per_minute"] == 250
