"""The clients against the sandbox: real HTTP, the providers' quirks, faults on demand."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pandas as pd
import pytest
import requests

from crypto_assets.providers.alternative_me import FearGreed
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.providers.errors import (
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
)
from crypto_assets.providers.farside import Farside
from crypto_assets.providers.http import HttpClient
from crypto_assets.providers.limiter import SharedLimiter
from crypto_assets.providers.plans import PLANS
from crypto_assets.providers.raw import RawStore
from crypto_assets.sandbox.server import SandboxServer
from crypto_assets_tests.providers.conftest import Clock

NOW = datetime.fromisoformat("2026-07-06 12:00")


class Sandbox:
    """The three clients on one sandbox, and a way to order faults."""

    def __init__(self, url: str, limiter: SharedLimiter, raw: RawStore, clock: Clock) -> None:
        def http(provider: str, path: str, deadline_seconds: float = 5.0) -> HttpClient:
            client = HttpClient(
                provider,
                f"{url}/{path}",
                limiter=limiter,
                raw=raw,
                now=clock.now,
                expect_sandbox=True,
                deadline_seconds=deadline_seconds,
                max_attempts=3,
                sleep=clock.sleep,
                monotonic=clock.monotonic,
            )
            self.clients.append(client)
            return client

        self.url = url
        self.raw = raw
        self.clients: list[HttpClient] = []
        self.gecko = CoinGecko(http("coingecko", "coingecko/api/v3"), PLANS["unlimited"])
        # For what the sandbox has computed before; hangs and drips end sooner.
        self.hasty = CoinGecko(http("coingecko", "coingecko/api/v3", 0.4), PLANS["unlimited"])
        self.mood = FearGreed(http("alternative_me", "alternative_me"))
        self.farside = Farside(http("farside", "farside"))

    def fault(self, kind: str, **options: Any) -> None:
        reply = requests.post(
            f"{self.url}/_sandbox/faults", json={"kind": kind, **options}, timeout=5
        )
        assert reply.ok, reply.text


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(seed=7, clock=NOW, coins=600) as running:
        yield running


@pytest.fixture
def sandbox(
    server: SandboxServer, raw: RawStore, limiter: SharedLimiter, clock: Clock
) -> Iterator[Sandbox]:
    server.reset()
    made = Sandbox(server.url, limiter, raw, clock)
    yield made
    for client in made.clients:
        client.close()


def test_every_endpoint_answers_with_a_full_frame(sandbox: Sandbox) -> None:
    gecko, day = sandbox.gecko, pd.Timedelta(days=1)
    frames = [
        gecko.coin_list(include_inactive=True).data,
        gecko.all_markets(300).data.frame,
        gecko.market_chart("bitcoin", 365, "daily").data,
        gecko.market_chart_range("bitcoin", NOW - 30 * day, NOW).data,
        gecko.ohlc("bitcoin", 1).data,
        gecko.ohlc_range("bitcoin", NOW - 30 * day, NOW, "hourly").data,
        gecko.ohlc_range("bitcoin", NOW - 30 * day, NOW, "daily").data,
        sandbox.mood.history().data,
        sandbox.farside.flows("eth").data.flows,
    ]
    assert all(len(frame) > 20 for frame in frames)
    assert gecko.ping().source == "sandbox/coingecko/ping"
    assert gecko.key_usage().data.credits_left > 0


def test_now_is_the_last_point_of_a_daily_chart(sandbox: Sandbox) -> None:
    stamps = sandbox.gecko.market_chart("bitcoin", 30, "daily").data["stamp"]
    assert stamps.is_monotonic_increasing
    assert stamps.iloc[-2] == pd.Timestamp("2026-07-06")
    assert stamps.iloc[-1] > pd.Timestamp("2026-07-06")


def test_odd_ids_are_found_under_their_own_name(sandbox: Sandbox) -> None:
    ids = sandbox.gecko.coin_list().data["coin_id"]
    odd = [i for i in ids if not i.replace("-", "").isalnum()]
    assert any("/" in i for i in odd)
    assert any(" " in i for i in odd)
    for coin_id in odd:
        assert not sandbox.gecko.market_chart(coin_id, 30, "daily").data.empty


def test_a_renamed_id_is_empty_and_an_unknown_one_refused(sandbox: Sandbox) -> None:
    assert sandbox.gecko.market_chart("matic-network", 30).data.empty
    with pytest.raises(PermanentError, match="id=no such coin"):
        sandbox.gecko.market_chart("no such coin", 30)


def test_ranks_that_move_between_pages_leave_unique_coins_and_all_that_are_known(
    sandbox: Sandbox,
) -> None:
    known = list(sandbox.gecko.all_markets(500).data.frame["coin_id"])
    sandbox.fault("moving_pages")
    frame = sandbox.gecko.all_markets(500, also=known).data.frame
    assert frame["coin_id"].is_unique
    assert set(known) <= set(frame["coin_id"])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"code": 503}),
        ("status", {"code": 429, "retry_after": 7}),
        ("html", {}),
        ("challenge", {"code": 200}),
        ("empty_body", {}),
        ("empty_object", {}),
        ("error_with_200", {}),
        ("timeout", {"seconds": 2}),
        ("slow_drip", {"seconds": 5}),
        ("reset", {}),
        ("truncate", {}),
    ],
)
def test_a_passing_fault_costs_a_retry_and_nothing_else(
    sandbox: Sandbox, kind: str, options: dict[str, Any]
) -> None:
    clean = sandbox.gecko.market_chart("bitcoin", 365, "daily")
    sandbox.fault(kind, times=2, **options)
    again = sandbox.hasty.market_chart("bitcoin", 365, "daily")
    pd.testing.assert_frame_equal(clean.data, again.data)
    assert sandbox.raw.count() == 2
    sandbox.fault(kind, **options)
    with pytest.raises(TransientError):
        sandbox.hasty.market_chart("bitcoin", 365, "daily")
    assert sandbox.raw.count() == 2


def test_a_refused_bad_price_is_named_and_costs_no_other_coin(sandbox: Sandbox) -> None:
    sandbox.fault("bad_price", value="NaN", coin_id="ethereum")
    page = sandbox.gecko.all_markets(250).data
    assert list(page.refused) == ["ethereum"]
    assert len(page.frame) == 249
    with pytest.raises(ContractError, match="ethereum"):
        sandbox.gecko.market_chart("ethereum", 30, "daily")


@pytest.mark.parametrize("kind", ["etf_reordered_columns", "etf_new_column"])
def test_moved_and_new_columns_do_not_change_the_flows_of_a_fund(
    sandbox: Sandbox, kind: str
) -> None:
    def flows() -> pd.DataFrame:
        frame = sandbox.farside.flows("btc").data.flows
        return frame[frame["ticker"] == "IBIT"].reset_index(drop=True)

    before = flows()
    sandbox.fault(kind)
    pd.testing.assert_frame_equal(before, flows())


def test_a_page_without_a_table_is_an_error(sandbox: Sandbox) -> None:
    sandbox.fault("etf_no_table")
    with pytest.raises(ProviderError, match="no table of flows"):
        sandbox.farside.flows("btc")


def test_a_wrong_total_costs_its_day_only(sandbox: Sandbox) -> None:
    before = sandbox.farside.flows("btc").data
    day = before.days[before.days["is_complete"]].iloc[3]["date"]
    sandbox.fault("etf_wrong_total", date=str(day.date()), value=99_999.9)
    after = sandbox.farside.flows("btc").data
    assert list(after.refused) == [day.date()]
    assert before.flows["date"].nunique() - after.flows["date"].nunique() == 1


def test_fear_and_greed_without_data_is_an_error(sandbox: Sandbox) -> None:
    sandbox.fault("fng_null_data")
    with pytest.raises(TransientError):
        sandbox.mood.history()
