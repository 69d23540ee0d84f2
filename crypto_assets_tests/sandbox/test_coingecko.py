import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crypto_assets.sandbox import Market

NOON = datetime(2026, 3, 1, 12, 0)


@pytest.fixture
def recordings() -> Path:
    folder = os.environ.get("CRYPTO_ASSETS_RECORDINGS")
    if not folder:
        pytest.skip("CRYPTO_ASSETS_RECORDINGS is not set")
    return Path(folder) / "coingecko"


def recorded(recordings: Path, name: str) -> Any:
    return json.loads((recordings / name).read_text())["response"]


def all_pages(sandbox: Any, per_page: int = 250) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for page in range(1, 100):
        found = sandbox.json("coins/markets", per_page=per_page, page=page)
        rows += found
        if len(found) < per_page:
            return rows
    raise AssertionError("The pages never end.")


def test_the_list_holds_the_living_coins_and_only_them(shared: Any, market: Market):
    listed = shared.json("coins/list", include_platform="true")
    living = market.snapshot(NOON)["coin_id"]
    assert sorted(row["id"] for row in listed) == sorted(living)
    assert {"id", "symbol", "name", "platforms"} == set(listed[0])
    platforms = market.coins.set_index("coin_id")["platforms"]
    assert all(row["platforms"] == platforms[row["id"]] for row in listed)
    assert set(shared.json("coins/list")[0]) == {"id", "symbol", "name"}


def test_inactive_coins_are_a_list_of_their_own_without_old_ids(shared: Any):
    inactive = {row["id"] for row in shared.json("coins/list", status="inactive")}
    assert "luna-collapsed" in inactive
    assert not inactive & {"matic-network", "bitcoin", "newly-minted"}


def test_markets_equal_the_truth_to_the_last_bit(shared: Any, market: Market):
    rows = all_pages(shared)
    truth = market.snapshot(NOON)
    assert [row["id"] for row in rows] == truth["coin_id"].tolist()
    for served, column in (
        ("current_price", "price_usd"),
        ("market_cap", "market_cap_usd"),
        ("total_volume", "volume_24h_usd"),
        ("circulating_supply", "circulating_supply"),
        ("total_supply", "total_supply"),
        ("market_cap_rank", "market_cap_rank"),
    ):
        expected = [None if pd.isna(value) else value for value in truth[column]]
        assert [row[served] for row in rows] == expected, served


def test_markets_mix_integers_floats_and_nulls_in_one_column(shared: Any):
    rows = {row["id"]: row for row in all_pages(shared)}
    assert isinstance(rows["bitcoin"]["current_price"], int)
    assert isinstance(rows["tiny-treasure"]["current_price"], int)
    assert isinstance(rows["ethereum"]["current_price"], float)
    assert rows["never-traded"]["current_price"] is None
    assert rows["capless"]["market_cap"] is rows["capless"]["market_cap_rank"] is None
    assert rows["unranked"]["market_cap_rank"] is None
    assert isinstance(rows["unranked"]["market_cap"], int)
    assert rows["supply-unknown"]["circulating_supply"] is None
    assert rows["staked-ether"]["circulating_supply"] > rows["staked-ether"]["total_supply"]


def test_a_page_holds_250_coins_at_most_and_the_last_is_short(shared: Any):
    assert len(shared.json("coins/markets", per_page=1_000, page=1)) == 250
    rows = all_pages(shared)
    assert len(rows) % 250
    assert shared.json("coins/markets", per_page=250, page=50) == []


def test_markets_of_given_ids(shared: Any):
    ids = "some token,[old]-thing,a/b,what?x=1,50%-off,no-such-coin"
    rows = shared.json("coins/markets", ids=ids)
    assert {row["id"] for row in rows} == set(ids.split(",")[:-1])


@pytest.mark.parametrize("order", ["market_cap_asc", "volume_desc", "id_asc"])
def test_markets_in_another_order(shared: Any, order: str):
    field = {"market_cap": "market_cap", "volume": "total_volume", "id": "id"}[
        order.rsplit("_", 1)[0]
    ]
    values = [row[field] for row in shared.json("coins/markets", order=order, per_page=50)]
    assert values == sorted(values, reverse=order.endswith("desc"))


def test_a_sparkline_is_seven_days_of_hourly_prices(shared: Any, market: Market):
    row = shared.json("coins/markets", ids="ethereum", sparkline="true")[0]
    prices = row["sparkline_in_7d"]["price"]
    assert len(prices) == 168
    assert prices[-1] == market.price("ethereum", NOON)
    assert prices[0] == market.price("ethereum", NOON - pd.Timedelta(hours=167))


def test_the_day_range_holds_the_price(shared: Any, market: Market):
    row = shared.json("coins/markets", ids="ethereum")[0]
    path = market.candles("ethereum", "30min", NOON - pd.Timedelta(days=1), NOON)
    assert (row["high_24h"], row["low_24h"]) == (path["high"].max(), path["low"].min())
    assert row["price_change_24h"] == row["current_price"] - path["open"].iloc[0]


@pytest.mark.parametrize("coin_id", ["some token", "[old]-thing", "a/b", "what?x=1", "50%-off"])
def test_odd_ids_are_reached_by_their_encoded_path(shared: Any, coin_id: str):
    from urllib.parse import quote

    body = shared.json(f"coins/{quote(coin_id, safe='')}/market_chart", days=100)
    assert len(body["prices"]) == 101


def test_global_totals_are_those_of_the_market(shared: Any, market: Market):
    data = shared.json("global")["data"]
    snapshot = market.snapshot(NOON)
    assert data["active_cryptocurrencies"] == len(snapshot)
    assert data["total_market_cap"]["usd"] == pytest.approx(snapshot["market_cap_usd"].sum())
    assert data["updated_at"] == 1_772_366_400


@pytest.mark.parametrize(
    ("path", "query", "status", "body"),
    [
        ("coins/markets", {"vs_currency": ""}, 422, {"error": "Missing parameter vs_currency"}),
        ("coins/bitcoin/market_chart", {}, 422, {"error": "Missing parameter days"}),
        ("coins/bitcoin/market_chart/range", {"from": 1}, 422, {"error": "Missing parameter to"}),
        ("coins/bitcoin/ohlc", {"days": 2}, 422, {"error": "Invalid days parameter"}),
        ("coins/no-such-coin/ohlc", {"days": 1}, 404, {"error": "coin not found"}),
        ("coins/newly-minted/ohlc", {"days": 1}, 404, {"error": "coin not found"}),
        ("no/such/path", {}, 404, {"error": "Incorrect path"}),
        (
            "coins/markets",
            {"page": "x"},
            500,
            {"status": 500, "error": "Internal Server Error"},
        ),
        (
            "coins/bitcoin/market_chart",
            {"days": "x"},
            500,
            {"status": 500, "error": "Internal Server Error"},
        ),
    ],
)
def test_client_mistakes_get_the_providers_errors(
    shared: Any, path: str, query: dict[str, Any], status: int, body: dict[str, Any]
):
    response = shared.get(path, **query)
    assert (response.status_code, response.json()) == (status, body)


@pytest.mark.parametrize(("interval", "limit"), [("daily", 180), ("hourly", 31)])
def test_candle_windows_over_the_limit_are_refused(shared: Any, interval: str, limit: int):
    for days, status in ((limit, 200), (limit + 1, 422)):
        query = {"from": 1_700_000_000, "to": 1_700_000_000 + days * 86_400, "interval": interval}
        assert shared.get("coins/bitcoin/ohlc/range", **query).status_code == status


def test_headers_are_the_providers(shared: Any):
    for path, query, age in (
        ("coins/list", {}, 300),
        ("coins/markets", {}, 30),
        ("coins/bitcoin/market_chart", {"days": 1}, 30),
        ("coins/bitcoin/ohlc", {"days": 1}, 1_800),
        ("coins/bitcoin/history", {"date": "01-02-2026"}, 1_800),
    ):
        headers = shared.get(path, **query).headers
        assert headers["Cache-Control"] == f"max-age=30, public, must-revalidate, s-maxage={age}"
        assert headers["ETag"].startswith('W/"')
        assert headers["Content-Type"] == "application/json; charset=utf-8"
        assert headers["X-Crypto-Assets-Sandbox"] == "7"
        assert not [name for name in headers if name.lower().startswith("x-ratelimit")]


def test_a_coin_listed_later_is_unknown_before(start: Callable[..., Any]):
    sandbox = start(datetime(2026, 9, 1))
    assert sandbox.json("coins/newly-minted/ohlc", days=1)
    assert "newly-minted" in {row["id"] for row in sandbox.json("coins/list")}


def test_shapes_are_those_of_the_recordings(shared: Any, recordings: Path):
    row = recorded(recordings, "coins_markets_usd_100.json")["body"][0]
    assert set(shared.json("coins/markets")[0]) == set(row)
    chart = recorded(recordings, "market_chart_btc_usd_days1.json")["body"]
    served = shared.json("coins/bitcoin/market_chart", days=1)
    assert list(served) == list(chart)
    assert abs(len(served["prices"]) - len(chart["prices"])) <= 1
    candles = recorded(recordings, "ohlc_btc_days1.json")["body"]
    assert abs(len(shared.json("coins/bitcoin/ohlc", days=1)) - len(candles)) <= 1
    for name, path in (("key_usage", "key"), ("ping", "ping"), ("coins_list", "coins/list")):
        body, mine = recorded(recordings, f"{name}.json")["body"], shared.json(path)
        if isinstance(body, list):
            body, mine = body[0], mine[0]
        assert set(mine) == set(body)
    totals = recorded(recordings, "global.json")["body"]["data"]
    assert set(shared.json("global")["data"]) == set(totals)
    history = recorded(recordings, "history_btc_20171230.json")["body"]["market_data"]
    mine = shared.json("coins/bitcoin/history", date="30-12-2017")["market_data"]
    assert set(mine) == set(history)
