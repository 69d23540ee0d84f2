import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from crypto_assets.sandbox import Clock, Market, SandboxServer


def test_the_clock_freezes_steps_and_returns_to_the_wall(start: Callable[..., Any], market: Market):
    sandbox = start(None)
    url = f"{sandbox.server.url}/_sandbox/clock"
    assert sandbox.json("_sandbox/clock")["frozen"] is False
    for text in ("2026-03-01T12:00:00", "2025-01-01T00:00:00+00:00", "2025-01-01T00:05:00Z"):
        answer = sandbox.session.post(url, json={"now": text}).json()
        at = datetime.fromisoformat(text.replace("Z", "+00:00")).replace(tzinfo=None)
        assert answer == {"now": at.isoformat(), "frozen": True}
        served = sandbox.json("coins/markets", ids="ethereum")[0]
        assert served["current_price"] == market.price("ethereum", at)
    sandbox.session.post(url, json={"now": None})
    now = datetime.fromisoformat(sandbox.json("_sandbox/clock")["now"])
    wall = datetime.now(UTC).replace(tzinfo=None)
    assert timedelta(0) <= wall - now < timedelta(seconds=20)
    assert sandbox.session.post(url, json={"now": "soon"}).status_code == 400


def test_stats_count_calls_by_endpoint_and_status(sandbox: Any):
    sandbox.get("ping")
    sandbox.get("coins/bitcoin/ohlc", days=1)
    sandbox.get("coins/ethereum/ohlc", days=1)
    sandbox.get("coins/nope/ohlc", days=1)
    sandbox.get("farside/btc/")
    expected = {
        "calls": {
            "coingecko/coins/{id}/ohlc": {"200": 2, "404": 1},
            "coingecko/ping": {"200": 1},
            "farside/btc": {"200": 1},
        },
        "total": 5,
    }
    assert sandbox.json("_sandbox/stats") == expected == sandbox.server.stats()
    sandbox.faults({"kind": "empty_body"})
    sandbox.session.post(f"{sandbox.server.url}/_sandbox/reset")
    assert sandbox.json("_sandbox/stats") == {"calls": {}, "total": 0}
    assert sandbox.json("_sandbox/faults") == []


def test_reset_keeps_the_clock_unless_asked(sandbox: Any):
    url = f"{sandbox.server.url}/_sandbox/reset"
    sandbox.session.post(url)
    assert sandbox.json("_sandbox/clock")["frozen"] is True
    sandbox.session.post(url, json={"clock": True})
    assert sandbox.json("_sandbox/clock")["frozen"] is False


def test_every_answer_carries_the_seed(sandbox: Any):
    for path in ("ping", "no/path", "farside/btc/", "alternative_me/fng/", "_sandbox/stats"):
        assert sandbox.get(path).headers["X-Crypto-Assets-Sandbox"] == "7"
    assert sandbox.json("_sandbox")["seed"] == 7
    assert sandbox.session.get(f"{sandbox.server.url}/elsewhere").status_code == 404


def test_one_connection_serves_many_requests(sandbox: Any):
    for _ in range(5):
        assert sandbox.get("ping").status_code == 200
    adapter = sandbox.session.get_adapter(sandbox.server.url)
    assert [pool.num_connections for pool in adapter.poolmanager.pools._container.values()] == [1]


def test_two_servers_of_one_seed_serve_the_same_bytes(sandbox: Any):
    with SandboxServer(seed=7, clock=datetime(2026, 3, 1, 12)) as other:
        for path in (
            "coingecko/api/v3/coins/markets?vs_currency=usd",
            "coingecko/api/v3/coins/solana/market_chart?vs_currency=usd&days=7",
            "coingecko/api/v3/coins/solana/ohlc?vs_currency=usd&days=1",
            "alternative_me/fng/?limit=0",
            "farside/btc/",
        ):
            bodies = {
                sandbox.session.get(f"{server.url}/{path}").content
                for server in (sandbox.server, other)
            }
            assert len(bodies) == 1


def test_many_clients_at_once_get_whole_and_equal_answers(sandbox: Any):
    url = f"{sandbox.server.url}/coingecko/api/v3/coins/{{}}/ohlc?vs_currency=usd&days=30"
    coins = ["bitcoin", "ethereum", "solana", "ripple"] * 8

    def ask(coin_id: str) -> tuple[str, bytes]:
        headers = {"User-Agent": "tests"}
        return coin_id, requests.get(url.format(coin_id), headers=headers, timeout=10).content

    with ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, coins))
    assert len(answers) == 4


@pytest.mark.parametrize("agent", ["", "Python-urllib/3.11"])
def test_clients_without_a_name_of_their_own_are_turned_away(sandbox: Any, agent: str):
    response = sandbox.get("ping", headers={"User-Agent": agent})
    assert (response.status_code, response.text) == (403, "error code: 1020")
    assert sandbox.get("alternative_me/fng/", headers={"User-Agent": agent}).status_code == 200


def test_an_unknown_plan_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="keyless, demo, basic, analyst"):
        SandboxServer(plan="gold")


def test_latency_is_added_to_providers_and_not_to_controls(start: Callable[..., Any]):
    sandbox = start(latency_seconds=0.05)
    begin = time.monotonic()
    sandbox.get("ping")
    assert time.monotonic() - begin >= 0.05


def test_a_stopped_server_refuses_connections_and_leaves_no_threads(market: Market):
    before = threading.active_count()
    server = SandboxServer(market=market, clock=Clock(datetime(2026, 3, 1))).start()
    with requests.Session() as session:
        session.headers["User-Agent"] = "tests"
        assert session.get(f"{server.url}/coingecko/api/v3/ping").status_code == 200
        server.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(f"{server.url}/coingecko/api/v3/ping", timeout=2)
    assert threading.active_count() <= before + 1


def test_serve_forever_runs_until_stopped(market: Market):
    server = SandboxServer(market=market)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    while server.url.endswith(":0"):
        time.sleep(0.005)
    with urllib.request.urlopen(f"{server.url}/_sandbox/stats", timeout=5) as response:
        assert response.status == 200
    server.stop()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_unknown_controls_are_404(sandbox: Any):
    assert sandbox.get("_sandbox/nothing").status_code == 404
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(urllib.request.Request(f"{sandbox.server.url}/_sandbox/x", b""))
    error.value.close()
    assert error.value.code == 404
