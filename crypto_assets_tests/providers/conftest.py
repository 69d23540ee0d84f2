"""Fixtures of the provider tests: a stub server, a clock that tests move, recorded responses."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.providers.http import HttpClient
from crypto_assets.providers.limiter import SharedLimiter
from crypto_assets.providers.raw import RawStore
from crypto_assets_tests.providers.stub import Stub


class Clock:
    """Time that passes only when somebody sleeps; ``wall`` may be stepped by hand."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        self.step = 0.0
        self.naps: list[float] = []
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.naps.append(seconds)
            self.elapsed += seconds

    def monotonic(self) -> float:
        return self.elapsed

    def wall(self) -> float:
        return 1_780_000_000.0 + self.elapsed + self.step

    def now(self) -> datetime:
        return datetime.fromisoformat("2026-07-06 12:00") + timedelta(seconds=self.elapsed)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.close()


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawStore]:
    with closing(RawStore(tmp_path / "raw.sqlite")) as store:
        yield store


@pytest.fixture
def limiter(clock: Clock) -> SharedLimiter:
    return SharedLimiter(None, None, wall=clock.wall, monotonic=clock.monotonic, sleep=clock.sleep)


@pytest.fixture
def client(
    stub: Stub, clock: Clock, raw: RawStore, limiter: SharedLimiter
) -> Iterator[Callable[..., HttpClient]]:
    """Makes clients of the stub whose waits take no time."""
    made: list[HttpClient] = []

    def make(**options: Any) -> HttpClient:
        settings: dict[str, Any] = {
            "limiter": limiter,
            "now": clock.now,
            "raw": raw,
            "sleep": clock.sleep,
            "monotonic": clock.monotonic,
            "jitter": lambda: 1.0,
        }
        provider = options.pop("provider", "coingecko")
        base_url = options.pop("base_url", f"{stub.url}/api/v3")
        made.append(HttpClient(provider, base_url, **{**settings, **options}))
        return made[-1]

    yield make
    for http in made:
        http.close()


@pytest.fixture(scope="session")
def recordings() -> Path:
    folder = os.environ.get("CRYPTO_ASSETS_RECORDINGS")
    if not folder:
        pytest.skip("CRYPTO_ASSETS_RECORDINGS is not set: no recorded responses to read")
    return Path(folder)


@pytest.fixture(scope="session")
def recorded(recordings: Path) -> Callable[[str], Any]:
    """The response part (status, headers, body) of a recorded CoinGecko exchange."""

    def read(name: str) -> Any:
        return json.loads((recordings / "coingecko" / name).read_text())["response"]

    return read
