import json
import math
import time
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
import requests
from lxml import html

from crypto_assets.sandbox import Market
from crypto_assets.sandbox.faults import OPTIONS

NOON = datetime(2026, 3, 1, 12, 0)
FEB_20 = "2026-02-20"
FEB_20_CLOSE_MS = 1_771_632_000_000
CHART = "coins/ethereum/market_chart"
CANDLES = "coins/ethereum/ohlc/range"
WINDOW = {"from": 1_771_000_000, "to": 1_772_000_000, "interval": "daily"}


def test_a_rule_strikes_so_many_times_and_then_no_more(sandbox: Any):
    sandbox.faults({"kind": "status", "code": 503, "times": 2})
    assert [sandbox.get("ping").status_code for _ in range(4)] == [503, 503, 200, 200]
    assert sandbox.json("_sandbox/faults")[0]["hits"] == 2


def test_a_rule_can_wait_for_some_requests_first(sandbox: Any):
    sandbox.faults({"kind": "status", "code": 500, "after": 2, "times": 1})
    assert [sandbox.get("ping").status_code for _ in range(4)] == [200, 200, 500, 200]


def test_improbable_rules_strike_the_same_requests_of_a_seed(start: Callable[..., Any]):
    patterns = []
    for _ in range(2):
        sandbox = start()
        sandbox.faults({"kind": "status", "code": 500, "probability": 0.3})
        patterns.append([sandbox.get("ping").status_code for _ in range(60)])
    assert patterns[0] == patterns[1]
    assert 6 <= patterns[0].count(500) <= 32


def test_a_match_is_by_provider_endpoint_coin_and_query(sandbox: Any):
    sandbox.faults(
        {"kind": "status", "code": 500, "match": {"provider": "farside"}},
        {
            "kind": "status",
            "code": 501,
            "match": {"endpoint": "coins/markets", "query": {"page": 2}},
        },
        {"kind": "status", "code": 502, "match": {"coin_id": "some token"}},
        {"kind": "status", "code": 504, "match": {"endpoint": "coins/{id}/market_chart"}},
    )
    assert sandbox.get("farside/btc/").status_code == 500
    assert sandbox.get("coins/markets", page=1).status_code == 200
    assert sandbox.get("coins/markets", page=2).status_code == 501
    assert sandbox.get("coins/some%20token/ohlc", days=1).status_code == 502
    assert sandbox.get("coins/ethereum/ohlc", days=1).status_code == 200
    assert sandbox.get(CHART, days=1).status_code == 504


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "nonsense"},
        {"kind": "status"},
        {"kind": "status", "code": 500, "shape": "round"},
        {"kind": "restate", "coin_id": "bitcoin", "date": "yesterday", "factor": 2},
        {"kind": "moving_pages", "rows": 3},
        {"kind": "status", "code": 500, "match": {"coin": "bitcoin"}},
        "status",
    ],
)
def test_a_malformed_rule_is_refused_and_none_is_added(sandbox: Any, rule: Any):
    url = f"{sandbox.server.url}/_sandbox/faults"
    response = sandbox.session.post(url, json=[{"kind": "empty_body"}, rule])
    assert response.status_code == 400
    assert response.json()["error"]
    assert sandbox.json("_sandbox/faults") == []


def test_faults_can_be_added_in_process_listed_and_deleted(sandbox: Any):
    sandbox.server.faults.add({"kind": "empty_body"})
    assert [rule["kind"] for rule in sandbox.json("_sandbox/faults")] == ["empty_body"]
    sandbox.session.delete(f"{sandbox.server.url}/_sandbox/faults")
    assert sandbox.json("_sandbox/faults") == []


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("status", lambda r: r.json()["status"]["error_code"] == 429),
        ("nested", lambda r: r.json()["error"]["status"]["error_code"] == 429),
        ("error", lambda r: r.json() == {"error": "Injected by a fault"}),
        ("server", lambda r: r.json() == {"status": 500, "error": "Internal Server Error"}),
        ("text", lambda r: r.text == "Throttled"),
        ("html", lambda r: r.text.startswith("<!DOCTYPE")),
        ("empty", lambda r: r.content == b""),
    ],
)
def test_a_status_comes_in_any_shape(
    sandbox: Any, shape: str, expected: Callable[[requests.Response], bool]
):
    retry = {"status": 119, "text": "Fri, 31 Dec 2027 23:59:59 GMT", "error": 1e9}.get(shape)
    extra = {} if retry is None else {"retry_after": retry}
    sandbox.faults({"kind": "status", "code": 429, "shape": shape, **extra})
    response = sandbox.get("ping")
    assert response.status_code == 429
    assert expected(response)
    assert response.headers.get("Retry-After") == (None if retry is None else str(retry))


def test_bodies_that_are_not_what_they_should_be(sandbox: Any):
    def struck(**rule: Any) -> requests.Response:
        sandbox.server.faults.clear()
        sandbox.faults(rule)
        return sandbox.get("coins/list")

    assert struck(kind="empty_body").content == b""
    assert struck(kind="empty_object").json() == {}
    assert struck(kind="error_with_200", message="no").json() == {"error": "no"}
    page = struck(kind="html")
    assert page.headers["Content-Type"].startswith("text/html")
    disguised = struck(kind="html", as_json=True)
    assert disguised.headers["Content-Type"].startswith("application/json")
    assert disguised.content == page.content
    challenge = struck(kind="challenge")
    assert challenge.status_code == 403
    assert "Just a moment" in challenge.text
    assert struck(kind="challenge", code=200).status_code == 200
    cut = struck(kind="truncate", fraction=0.25)
    assert cut.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.content)


def test_a_reset_breaks_the_body_off(sandbox: Any):
    sandbox.faults({"kind": "reset", "times": 1})
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        sandbox.get("coins/list")
    assert sandbox.get("coins/list").status_code == 200
    assert sandbox.server.stats()["calls"]["coingecko/coins/list"] == {"0": 1, "200": 1}


@pytest.mark.parametrize("kind", ["timeout", "hang"])
def test_a_server_that_hangs_lets_go_when_it_stops(start: Callable[..., Any], kind: str):
    sandbox = start()
    sandbox.faults({"kind": kind, "seconds": 3_600})
    with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
        sandbox.session.get(f"{sandbox.server.url}/farside/btc/", timeout=0.1)
    sandbox.server.stop()  # would take an hour otherwise


def test_a_slow_drip_is_complete_in_the_end(sandbox: Any):
    clean = sandbox.get("coins/list").content
    sandbox.faults({"kind": "slow_drip", "seconds": 0.2, "chunks": 4})
    begin = time.monotonic()
    assert sandbox.get("coins/list").content == clean
    assert time.monotonic() - begin >= 0.15


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("nan", "NaN"),
        ("infinity", "Infinity"),
        ("-infinity", "-Infinity"),
        ("1e400", "1e400"),
        ("zero", "0"),
        ("negative", "-1.5"),
        ("string", '"12.5"'),
        ("null", "null"),
        (7.25, "7.25"),
    ],
)
def test_a_bad_price_is_in_markets_charts_and_candles(sandbox: Any, value: Any, token: str):
    sandbox.faults({"kind": "bad_price", "value": value, "coin_id": "ethereum"})
    markets = sandbox.get("coins/markets").text
    assert f'"current_price":{token},' in markets.split('"id":"ethereum"')[1].split('"id"')[0]
    assert sandbox.get(CHART, days=100).text.count(f",{token}]") == 1
    assert f",{token}]" in sandbox.get(CANDLES, **WINDOW).text


def test_a_bad_price_on_a_date_hits_that_days_close(sandbox: Any):
    sandbox.faults({"kind": "bad_price", "value": "zero", "coin_id": "ethereum", "date": FEB_20})
    prices = dict(sandbox.json(CHART, days=100)["prices"])
    assert [stamp for stamp, price in prices.items() if price == 0] == [FEB_20_CLOSE_MS]


def test_fields_go_missing_change_name_and_type_and_appear(sandbox: Any):
    def struck(path: str, **rule: Any) -> Any:
        sandbox.server.faults.clear()
        sandbox.faults(rule)
        return sandbox.json(path)

    for path in ("coins/markets", "coins/list"):
        assert "symbol" not in struck(path, kind="drop_field", field="symbol")[3]
        renamed = struck(path, kind="rename_field", field="symbol", to="ticker")[3]
        assert "ticker" in renamed
        assert "symbol" not in renamed
        assert isinstance(
            struck(path, kind="retype_field", field="name", to="list")[3]["name"], list
        )
        assert struck(path, kind="add_field", field="extra", value=1)[3]["extra"] == 1
    single = struck("coins/markets", kind="drop_field", field="symbol", coin_id="ethereum")
    assert [row["id"] for row in single if "symbol" not in row] == ["ethereum"]
    mood = struck("alternative_me/fng/", kind="retype_field", field="value", to="null")
    assert mood["data"][0]["value"] is None
    sandbox.server.faults.clear()
    sandbox.faults({"kind": "drop_field", "field": "prices"})
    assert set(sandbox.json(CHART, days=1)) == {"market_caps", "total_volumes"}
    sandbox.server.faults.clear()
    sandbox.faults({"kind": "drop_field", "field": "low"})
    assert {len(row) for row in sandbox.json(CANDLES, **WINDOW)} == {4}


def test_a_dropped_coin_is_on_no_page_but_has_its_own_endpoints(sandbox: Any):
    sandbox.faults({"kind": "drop_coin", "coin_id": "ethereum"})
    assert "ethereum" not in {row["id"] for row in sandbox.json("coins/markets")}
    assert sandbox.json(CHART, days=1)["prices"]


def test_a_vanished_coin_is_nowhere_and_comes_back(sandbox: Any):
    sandbox.faults({"kind": "vanish", "coin_id": "ethereum"})
    assert "ethereum" not in {row["id"] for row in sandbox.json("coins/list")}
    assert "ethereum" not in {row["id"] for row in sandbox.json("coins/markets")}
    response = sandbox.get(CHART, days=1)
    assert (response.status_code, response.json()) == (404, {"error": "coin not found"})
    sandbox.session.delete(f"{sandbox.server.url}/_sandbox/faults")
    assert sandbox.json(CHART, days=1)["prices"]


def test_moving_pages_show_a_coin_twice_and_another_on_no_page(sandbox: Any):
    clean = [
        row["id"]
        for page in (1, 2, 3)
        for row in sandbox.json("coins/markets", per_page=100, page=page)
    ]
    sandbox.faults({"kind": "moving_pages"})
    moved = [
        row["id"]
        for page in (1, 2, 3)
        for row in sandbox.json("coins/markets", per_page=100, page=page)
    ]
    assert len(moved) == 300
    assert {coin for coin in moved if moved.count(coin) == 2} == {clean[99], clean[199]}
    assert set(clean) - set(moved) == {clean[100], clean[200]}


def test_a_page_in_the_middle_can_be_short(sandbox: Any):
    sandbox.faults({"kind": "short_page", "rows": 3, "match": {"query": {"page": 2}}})
    sizes = [len(sandbox.json("coins/markets", per_page=50, page=page)) for page in (1, 2, 3)]
    assert sizes == [50, 3, 50]


def test_a_restated_day_has_its_new_value_in_every_history(sandbox: Any, market: Market):
    old = market.daily("ethereum", date(2026, 2, 20), date(2026, 2, 20)).iloc[0]
    before = {row[0]: row for row in sandbox.json(CANDLES, **WINDOW)}
    sandbox.faults({"kind": "restate", "coin_id": "ethereum", "date": FEB_20, "factor": 1.5})
    body = sandbox.json(CHART, days=100)
    assert dict(body["prices"])[FEB_20_CLOSE_MS] == old["price_usd"] * 1.5
    assert dict(body["market_caps"])[FEB_20_CLOSE_MS] == old["market_cap_usd"] * 1.5
    after = {row[0]: row for row in sandbox.json(CANDLES, **WINDOW)}
    assert [stamp for stamp in before if before[stamp] != after[stamp]] == [FEB_20_CLOSE_MS]
    history = sandbox.json("coins/ethereum/history", date="21-02-2026")["market_data"]
    assert history["current_price"]["usd"] == old["price_usd"] * 1.5
    other = dict(sandbox.json("coins/solana/market_chart", days=100)["prices"])
    truth = market.daily("solana", date(2026, 2, 20), date(2026, 2, 20))["price_usd"].item()
    assert other[FEB_20_CLOSE_MS] == truth


def test_a_missing_day_is_missing_in_charts_candles_moods_and_pages(sandbox: Any):
    sandbox.faults({"kind": "missing_day", "date": FEB_20})
    assert FEB_20_CLOSE_MS not in dict(sandbox.json(CHART, days=100)["prices"])
    assert FEB_20_CLOSE_MS not in {row[0] for row in sandbox.json(CANDLES, **WINDOW)}
    stamps = [row["timestamp"] for row in sandbox.json("alternative_me/fng/", limit=0)["data"]]
    assert str(FEB_20_CLOSE_MS // 1_000 - 86_400) not in stamps
    assert "20 Feb 2026" not in sandbox.get("farside/btc/").text
    assert "19 Feb 2026" in sandbox.get("farside/btc/").text


def test_stamps_can_be_double_out_of_order_and_off_the_grid(sandbox: Any):
    def stamps(**rule: Any) -> list[int]:
        sandbox.server.faults.clear()
        if rule:
            sandbox.faults(rule)
        return [row[0] for row in sandbox.json(CANDLES, **WINDOW)]

    clean = stamps()
    doubled = stamps(kind="duplicate_stamp", date=FEB_20, factor=1.1)
    assert sorted([*clean, FEB_20_CLOSE_MS]) == doubled
    mixed = stamps(kind="out_of_order")
    assert mixed != clean
    assert sorted(mixed) == clean
    assert stamps(kind="off_grid", seconds=90) == [stamp + 90_000 for stamp in clean]
    assert len(set(stamps(kind="duplicate_stamp"))) == len(clean)


def test_moods_can_be_double_out_of_range_and_absent(sandbox: Any):
    def moods(**rule: Any) -> Any:
        sandbox.server.faults.clear()
        sandbox.faults(rule)
        return sandbox.json("alternative_me/fng/", limit=30)

    stamp = str(FEB_20_CLOSE_MS // 1_000 - 86_400)
    doubled = [row["timestamp"] for row in moods(kind="duplicate_stamp", date=FEB_20)["data"]]
    assert doubled.count(stamp) == 2
    wild = moods(kind="fng_out_of_range", date=FEB_20, value=140)["data"]
    assert [row["value"] for row in wild if row["timestamp"] == stamp] == ["140"]
    broken = moods(kind="fng_null_data", error="Down")
    assert (broken["data"], broken["metadata"]) == (None, {"error": "Down"})


def etf_rows(sandbox: Any, *rules: dict[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    sandbox.server.faults.clear()
    sandbox.server.faults.add(*rules)
    tree = html.fromstring(sandbox.get("farside/btc/").content)
    rows = [
        [" ".join(cell.text_content().split()) for cell in row.xpath("./th|./td")]
        for row in tree.xpath("//table//tr")
    ]
    return rows[1][1:-1], {row[0]: row[1:] for row in rows[3:]}


def test_pages_of_funds_can_be_bent(sandbox: Any):
    tickers, rows = etf_rows(sandbox)
    reordered, back = etf_rows(sandbox, {"kind": "etf_reordered_columns"})
    assert reordered == tickers[::-1]
    assert back["20 Feb 2026"][:-1] == rows["20 Feb 2026"][:-1][::-1]
    added, more = etf_rows(sandbox, {"kind": "etf_new_column", "ticker": "NEWF", "value": 2.5})
    assert added == [*tickers, "NEWF"]
    assert more["20 Feb 2026"][-2] == "2.5"
    renamed, _ = etf_rows(sandbox, {"kind": "etf_renamed_column", "ticker": "IBIT", "to": "IBTX"})
    assert renamed[0] == "IBTX"
    _, closed = etf_rows(sandbox, {"kind": "etf_holiday_row", "date": FEB_20})
    assert closed["20 Feb 2026"] == ["-"] * len(tickers) + ["0.0"]
    revision = {"kind": "etf_revised_row", "ticker": "GBTC", "date": FEB_20, "value": -1234.5}
    _, revised = etf_rows(sandbox, revision)
    assert revised["20 Feb 2026"][tickers.index("GBTC")] == "(1,234.5)"
    _, wrong = etf_rows(sandbox, {"kind": "etf_wrong_total", "date": FEB_20, "value": 9999.9})
    assert wrong["20 Feb 2026"] == [*rows["20 Feb 2026"][:-1], "9,999.9"]
    sandbox.server.faults.clear()
    sandbox.faults({"kind": "etf_no_table"})
    assert "<table" not in sandbox.get("farside/btc/").text


def test_a_rule_is_not_used_up_by_requests_it_cannot_bend(sandbox: Any):
    sandbox.faults({"kind": "bad_price", "value": "nan", "times": 1})
    sandbox.get("ping")
    sandbox.get("coins/list")
    assert math.isnan(sandbox.json("coins/markets")[0]["current_price"])


def test_clean_answers_return_once_faults_are_gone(sandbox: Any):
    clean = sandbox.get(CHART, days=100).content
    sandbox.faults({"kind": "restate", "coin_id": "ethereum", "date": FEB_20, "factor": 2})
    assert sandbox.get(CHART, days=100).content != clean
    sandbox.server.faults.clear()
    assert sandbox.get(CHART, days=100).content == clean


@pytest.mark.parametrize("kind", sorted(OPTIONS))
def test_every_kind_leaves_the_server_able_to_answer(sandbox: Any, kind: str):
    options: dict[str, Any] = {
        "code": 500,
        "seconds": 0.01,
        "field": "name",
        "to": "null" if kind == "retype_field" else "other",
        "coin_id": "ethereum",
        "date": FEB_20,
        "factor": 2,
        "ticker": "IBIT",
        "value": 1.0,
    }
    if kind == "bad_price":
        options.pop("field")
    rule = {"kind": kind, **{name: options[name] for name in OPTIONS[kind] if name in options}}
    sandbox.faults(rule)
    for path, query in (
        ("ping", {}),
        ("coins/list", {}),
        ("coins/markets", {"page": 2}),
        (CHART, {"days": 30}),
        (CANDLES, WINDOW),
        ("coins/ethereum/history", {"date": "21-02-2026"}),
        ("global", {}),
        ("alternative_me/fng/", {"limit": 20}),
        ("farside/btc/", {}),
    ):
        try:
            response = sandbox.get(path, **query)
        except requests.RequestException:
            assert kind in {"timeout", "hang", "reset"}
            continue
        assert response.headers["X-Crypto-Assets-Sandbox"] == "7"
        assert "sandbox failed" not in response.text
    assert sandbox.json("_sandbox/faults")[0]["hits"] >= 1
    sandbox.server.faults.clear()
    assert sandbox.get("ping").status_code == 200


def test_stepping_the_clock_back_serves_the_earlier_world(sandbox: Any):
    before = sandbox.get(CHART, days=30).content
    sandbox.server.clock.set(NOON + timedelta(days=40))
    assert sandbox.get(CHART, days=30).content != before
    sandbox.server.clock.set(NOON)
    assert sandbox.get(CHART, days=30).content == before
