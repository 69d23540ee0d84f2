from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import requests

from crypto_assets.sandbox import Clock, Market, SandboxServer

NOON = datetime(2026, 3, 1, 12, 0)
Start = Callable[..., SandboxServer]


class Caller:
    """Asks a sandbox like a client does: one session, a named agent."""

    def __init__(self, server: SandboxServer) -> None:
        self.server = server
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "crypto-assets-tests"

    def get(self, path: str, headers: dict[str, str] | None = None, **query: Any) -> Any:
        root = (
            ""
            if path.startswith(("_sandbox", "farside", "alternative_me"))
            else "coingecko/api/v3/"
        )
        query = {name.rstrip("_"): value for name, value in query.items()}
        if path.startswith("coins/") and path != "coins/list":
            query.setdefault("vs_currency", "usd")
        url = f"{self.server.url}/{root}{path}"
        return self.session.get(url, params=query, headers=headers, timeout=10)

    def json(self, path: str, **query: Any) -> Any:
        response = self.get(path, **query)
        assert response.status_code == 200, response.text
        return response.json()

    def faults(self, *rules: dict[str, Any]) -> None:
        response = self.session.post(f"{self.server.url}/_sandbox/faults", json=list(rules))
        assert response.status_code == 200, response.text


@pytest.fixture(scope="session")
def market() -> Market:
    return Market(seed=7)


@pytest.fixture(scope="session")
def shared(market: Market) -> Iterator[Caller]:
    """One server at noon of 2026-03-01 that no test changes."""
    with SandboxServer(market=market, clock=Clock(NOON)) as server:
        caller = Caller(server)
        yield caller
        caller.session.close()


@pytest.fixture
def start(market: Market) -> Iterator[Callable[..., Caller]]:
    """Starts servers of a test's own on the shared market, and stops them."""
    callers: list[Caller] = []

    def starter(clock: datetime | None = NOON, **options: Any) -> Caller:
        server = SandboxServer(market=market, clock=Clock(clock), **options).start()
        callers.append(Caller(server))
        return callers[-1]

    yield starter
    for caller in callers:
        caller.server.stop()
        caller.session.close()


@pytest.fixture
def sandbox(start: Callable[..., Caller]) -> Caller:
    return start()
