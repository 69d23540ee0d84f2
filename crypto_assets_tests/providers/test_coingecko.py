"""Which requests the CoinGecko client makes, and what it does when ranks move between pages."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest

from crypto_assets.providers.coingecko import CoinGecko, KeyUsage, auth_headers, candle_interval
from crypto_assets.providers.errors import ContractError, PermanentError
from crypto_assets.providers.http import HttpClient
from crypto_assets.providers.plans import PLANS
from crypto_assets.providers.raw import RawStore
from crypto_assets_tests.providers.stub import Reply, Stub
from crypto_assets_tests.providers.test_coingecko_frames import market

START = datetime.fromisoformat("2024-01-01")
EMPTY_CHART: dict[str, Any] = {"prices": [], "market_caps": [], "total_volumes": []}


@pytest.fixture
def gecko(client: Callable[..., HttpClient]) -> CoinGecko:
    return CoinGecko(client(), PLANS["unlimited"])


def asked(stub: Stub, call: int = -1) -> tuple[str, dict[str, str]]:
    parts = urlsplit(stub.seen[call].target)
    return parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}


def coins(first: int, last: int) -> list[dict[str, Any]]:
    return [market(f"coin-{rank}", market_cap_rank=rank) for rank in range(first, last + 1)]


def test_pages_are_read_until_enough_coins_are_there(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply(coins(1, 250)), Reply(coins(251, 500)), Reply(coins(501, 750))]
    page = gecko.all_markets(500).data
    assert len(stub.seen) == 2
    assert len(page.frame) == 500
    assert [asked(stub, i)[1]["page"] for i in (0, 1)] == ["1", "2"]
    assert asked(stub)[1]["per_page"] == "250"


def test_a_short_page_is_not_the_last_but_an_empty_one_is(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply(coins(1, 250)), Reply(coins(251, 260)), Reply([]), Reply(coins(7, 8))]
    page = gecko.all_markets(1000).data
    assert len(page.frame) == page.received == 260
    assert [asked(stub, i)[1]["page"] for i in range(len(stub.seen))] == ["1", "2", "3"]


def test_pages_that_come_short_are_made_up_for_by_the_next(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply(coins(1, 249)), Reply(coins(251, 499)), Reply(coins(501, 750))]
    assert len(gecko.all_markets(500).data.frame) == 249 + 249 + 250
    assert [asked(stub, i)[1]["page"] for i in range(len(stub.seen))] == ["1", "2", "3"]


def test_no_page_is_read_beyond_the_coins_that_are_wanted(stub: Stub, gecko: CoinGecko) -> None:
    # One short of a page, and still as many as are wanted.
    stub.replies = [Reply(coins(1, 249))]
    assert len(gecko.all_markets(249).data.frame) == 249
    assert len(stub.seen) == 1


def test_a_full_last_page_followed_by_an_empty_one_is_the_end(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply(coins(1, 250)), Reply([])]
    assert len(gecko.all_markets(1000).data.frame) == 250


def test_a_coin_that_moved_to_the_next_page_while_paging_is_there_once_and_newest(
    stub: Stub, gecko: CoinGecko
) -> None:
    first = coins(1, 250)
    second = [market("coin-250", current_price=9, market_cap_rank=251), *coins(252, 500)]
    stub.replies = [Reply(first), Reply(second)]
    frame = gecko.all_markets(500).data.frame
    assert frame["coin_id"].is_unique
    assert frame.set_index("coin_id").loc["coin-250", "price_usd"] == 9.0
    assert len(frame) == 499


def test_a_coin_that_fell_between_the_pages_is_asked_for_by_name(
    stub: Stub, gecko: CoinGecko, raw: RawStore
) -> None:
    stub.replies = [
        Reply(coins(1, 250)),
        Reply(coins(252, 501)),
        Reply([market("coin-251"), market("tail coin")]),
    ]
    fetched = gecko.all_markets(500, also=["coin-1", "coin-251", "tail coin", "gone"])
    assert len(stub.seen) == 3
    assert asked(stub)[1]["ids"] == "coin-251,gone,tail coin"
    assert asked(stub)[1]["per_page"] == "250"
    frame = fetched.data.frame.set_index("coin_id")
    assert {"coin-251", "tail coin"} <= set(frame.index)
    assert "gone" not in frame.index
    assert frame["raw_id"].nunique() == 3
    body = raw.read(frame.loc["coin-251", "raw_id"])[1]
    assert json.loads(body)[0]["id"] == "coin-251"
    assert fetched.observed_at == frame["observed_at"].min()
    assert fetched.raw_id is None


def test_no_extra_call_is_made_when_all_known_coins_are_on_the_pages(
    stub: Stub, gecko: CoinGecko
) -> None:
    stub.replies = [Reply(coins(1, 250))]
    fetched = gecko.all_markets(250, also=["coin-7"])
    assert len(stub.seen) == 1
    assert fetched.raw_id is not None


def test_ids_are_asked_for_in_calls_of_at_most_250(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply([])]
    gecko.markets_for([f"c{i}" for i in range(501)])
    sizes = [len(asked(stub, i)[1]["ids"].split(",")) for i in range(len(stub.seen))]
    assert sizes == [250, 250, 1]


def test_long_ids_make_shorter_batches_and_impossible_ones_are_left_out(
    stub: Stub, gecko: CoinGecko
) -> None:
    stub.replies = [Reply([])]
    gecko.markets_for(["a" * 4000, "b" * 4000, "x" * 10_000, "two,coins", ""])
    assert [asked(stub, i)[1]["ids"][0] for i in range(len(stub.seen))] == ["a", "b"]


def test_known_coins_are_asked_for_in_as_few_calls_all_of_one_size(
    stub: Stub, gecko: CoinGecko
) -> None:
    # Of 251, one by itself might be refused, and with it the whole answer.
    names = [f"coin-{rank}" for rank in range(1, 252)]
    stub.replies = [
        Reply([market(name) for name in sorted(names)[:126]]),
        Reply([market(name, current_price=0) for name in sorted(names)[-1:]] + coins(7, 7)),
    ]
    page = gecko.markets_of(names).data
    assert [len(asked(stub, i)[1]["ids"].split(",")) for i in (0, 1)] == [126, 125]
    assert list(page.refused) == [max(names)]
    assert len(page.frame) == len({*sorted(names)[:126], "coin-7"})


def test_no_answer_to_known_coins_is_no_answer(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply([])]
    with pytest.raises(ContractError, match="some of the coins that were asked for"):
        gecko.markets_of(["bitcoin", "ethereum"])


def test_a_refused_row_does_not_cost_the_other_coins(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply([*coins(1, 99), market("bad", current_price="1.5")])]
    page = gecko.all_markets(100).data
    assert len(page.frame) == 99
    assert list(page.refused) == ["bad"]


def test_a_world_without_coins_is_refused(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply([])]
    with pytest.raises(ContractError, match="at least one coin"):
        gecko.all_markets(100)
    with pytest.raises(ContractError, match="at least one coin"):
        gecko.coin_list()


def test_inactive_coins_come_from_a_second_call_and_lose_against_active_ones(
    stub: Stub, gecko: CoinGecko
) -> None:
    def coin(name: str) -> dict[str, Any]:
        return {"id": name, "symbol": name, "name": name, "platforms": {}}

    stub.replies = [Reply([coin("a"), coin("b")]), Reply([coin("b"), coin("dead")])]
    frame = gecko.coin_list(include_inactive=True).data
    assert dict(zip(frame["coin_id"], frame["is_active"], strict=True)) == {
        "a": True,
        "b": True,
        "dead": False,
    }
    assert asked(stub)[1] == {"include_platform": "true", "status": "inactive"}
    assert asked(stub, 0)[1] == {"include_platform": "true"}


def test_chart_requests_name_days_and_interval(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [Reply(EMPTY_CHART)]
    assert gecko.market_chart("renamed", 90, "daily").data.empty
    assert asked(stub) == (
        "/api/v3/coins/renamed/market_chart",
        {"vs_currency": "usd", "days": "90", "interval": "daily"},
    )
    gecko.market_chart_range("b", START, START + timedelta(days=1))
    assert asked(stub) == (
        "/api/v3/coins/b/market_chart/range",
        {"vs_currency": "usd", "from": "1704067200", "to": "1704153600"},
    )


def test_candle_requests_name_window_and_interval(stub: Stub, gecko: CoinGecko) -> None:
    stub.replies = [
        Reply([[1704067200000 + hours * 3_600_000, 1, 2, 1, 2]]) for hours in (1, 1, 4, 24)
    ]
    fetched = gecko.ohlc_range("b", START, START + timedelta(days=31), "hourly")
    assert asked(stub) == (
        "/api/v3/coins/b/ohlc/range",
        {"vs_currency": "usd", "from": "1704067200", "to": "1706745600", "interval": "hourly"},
    )
    assert fetched.data["open_time"].item() == pd.Timestamp("2024-01-01")
    assert gecko.ohlc("b", 1).data["open_time"].item() == pd.Timestamp("2024-01-01 00:30")
    assert gecko.ohlc("b", 30).data["open_time"].item() == pd.Timestamp("2024-01-01")
    assert gecko.ohlc("b", 30, "daily").data["open_time"].item() == pd.Timestamp("2024-01-01")
    assert asked(stub)[1] == {"vs_currency": "usd", "days": "30", "interval": "daily"}


def test_the_grid_of_candles_and_points_is_that_of_what_was_asked_for(
    stub: Stub, gecko: CoinGecko
) -> None:
    candle = Reply([[1704067200000 + 3_600_000, 1, 2, 1, 2]])
    stub.replies = [candle]
    assert len(gecko.ohlc_range("b", START, START + timedelta(days=1), "hourly").data) == 1
    for interval in ("daily", None):
        with pytest.raises(ContractError, match=r"b\.ohlc stamp should be a multiple of"):
            gecko.ohlc("b", 30, interval)
    points = [[1704067200000 + 3_600_000, 1], [1704067200000 + 7_200_000, 1]]
    stub.replies = [Reply({**EMPTY_CHART, "prices": points})]
    assert len(gecko.market_chart("b", 90).data) == 2
    for ask in (gecko.market_chart, gecko.market_chart_range):
        args = (90,) if ask == gecko.market_chart else (START, START + timedelta(days=1))
        with pytest.raises(ContractError, match=r"b\.prices stamp should be midnights"):
            ask("b", *args, "daily")


def test_the_automatic_candle_grows_with_the_days() -> None:
    hours = [candle_interval(d).total_seconds() / 3600 for d in (1, 7, 30, 90, 365)]
    assert hours == [0.5, 4, 4, 96, 96]


def test_days_and_times_that_make_no_sense_are_refused_without_a_call(
    stub: Stub, gecko: CoinGecko
) -> None:
    with pytest.raises(ValueError, match="days must be one of"):
        gecko.ohlc("b", 2)
    with pytest.raises(ValueError, match="before it starts"):
        gecko.market_chart_range("b", START, START - timedelta(days=1))
    with pytest.raises(ValueError, match="naive UTC"):
        gecko.market_chart_range("b", START.astimezone(), START.astimezone())
    assert stub.seen == []


def test_what_the_plan_does_not_have_costs_no_call(
    stub: Stub, client: Callable[..., HttpClient]
) -> None:
    demo, basic = (CoinGecko(client(), PLANS[name]) for name in ("demo", "basic"))
    for refused in (
        lambda: demo.ohlc("b", 30, "daily"),
        lambda: demo.market_chart_range("b", START, START, "daily"),
        lambda: demo.coin_list(include_inactive=True),
        lambda: demo.key_usage(),
        lambda: basic.ohlc_range("b", START, START, "daily"),
    ):
        stub.replies = [Reply([{"id": "a", "symbol": "a", "name": "a"}])]
        with pytest.raises(PermanentError, match="CRYPTO_ASSETS_COINGECKO__PLAN"):
            refused()
    assert len(stub.seen) == 0


def test_the_key_goes_into_the_header_of_its_plan() -> None:
    assert auth_headers(PLANS["demo"], "k") == {"x-cg-demo-api-key": "k"}
    assert auth_headers(PLANS["analyst"], "k") == {"x-cg-pro-api-key": "k"}
    assert auth_headers(PLANS["keyless"], None) == {}
    assert auth_headers(PLANS["unlimited"], "ignored") == {}
    with pytest.raises(PermanentError, match="CRYPTO_ASSETS_COINGECKO__API_KEY"):
        auth_headers(PLANS["analyst"], None)


def test_ping_and_key_usage_are_not_kept(
    stub: Stub, gecko: CoinGecko, raw: RawStore, recorded: Callable[[str], Any]
) -> None:
    stub.replies = [Reply(recorded("ping.json")["body"])]
    assert gecko.ping().data == "(V3) To the Moon!"
    stub.replies = [Reply(recorded("key_usage.json")["body"])]
    assert gecko.key_usage().data == KeyUsage("Other", 500, 1000, 4, 996)
    assert raw.count() == 0


def test_a_recorded_chart_passes_through_the_client_unchanged(
    stub: Stub, gecko: CoinGecko, recorded: Callable[[str], Any]
) -> None:
    stub.replies = [Reply(recorded("market_chart_btc_usd_days1.json")["body"])]
    fetched = gecko.market_chart("bitcoin", 1)
    assert len(fetched.data) == 289
    assert fetched.source == "coingecko/coins/{id}/market_chart"
