"""What an asset needs of the world: settings, clock, warehouse and providers, for one run.

Connections are opened on first use and closed when the run ends. No data flows through here.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

import dagster as dg

from crypto_assets.providers.alternative_me import FearGreed
from crypto_assets.providers.coingecko import CoinGecko, auth_headers
from crypto_assets.providers.farside import Farside
from crypto_assets.providers.http import HttpClient
from crypto_assets.providers.limiter import SharedLimiter
from crypto_assets.providers.plans import PLANS, Plan
from crypto_assets.providers.raw import RawStore
from crypto_assets.settings import Settings
from crypto_assets.warehouse.warehouse import Warehouse


class Platform:
    """Settings and what they lead to. One per run; `close()` when done."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = settings.clock
        self.warehouse = Warehouse.of(settings)
        self._clients: list[HttpClient] = []
        self._limiters: list[SharedLimiter] = []

    @cached_property
    def plan(self) -> Plan:
        """The CoinGecko plan, with what the settings change about it."""
        plan = PLANS[self.settings.coingecko.plan]
        limit = self.settings.coingecko.calls_per_minute
        return replace(plan, calls_per_minute=limit) if limit else plan

    @cached_property
    def coingecko(self) -> CoinGecko:
        """The CoinGecko client of the plan."""
        chosen = self.settings.coingecko
        key = chosen.api_key.get_secret_value() if chosen.api_key else None
        url = chosen.base_url or self.plan.base_url
        if url is None:
            raise ValueError(f"the plan '{self.plan.name}' has no host: set coingecko.base_url")
        client = self._client(
            "coingecko", url, self.plan.calls_per_minute, auth_headers(self.plan, key), key
        )
        return CoinGecko(client, self.plan)

    @cached_property
    def fear_greed(self) -> FearGreed:
        """The alternative.me client."""
        return FearGreed(self._client("alternative_me", self.settings.alternative_me.base_url))

    @cached_property
    def farside(self) -> Farside:
        """The Farside client."""
        return Farside(self._client("farside", self.settings.farside.base_url))

    def close(self) -> None:
        """Close every connection that was opened."""
        for client in self._clients:
            client.close()
        for limiter in self._limiters:
            limiter.close()
        if "_raw" in self.__dict__:
            self._raw.close()

    @cached_property
    def _raw(self) -> RawStore:
        return RawStore(self.settings.home / "raw" / "responses.sqlite")

    def _client(
        self,
        provider: str,
        base_url: str,
        calls_per_minute: int | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = None,
    ) -> HttpClient:
        fetch = self.settings.fetch
        # One bucket for a provider in this home: every asset, run and process shares it.
        path = self.settings.home / "limits" / f"{provider}.sqlite"
        if calls_per_minute is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        limiter = SharedLimiter(path, calls_per_minute)
        self._limiters.append(limiter)
        client = HttpClient(
            provider,
            base_url,
            limiter=limiter,
            now=self.clock.now,
            raw=self._raw,
            headers=headers,
            secrets=[key] if key else [],
            expect_sandbox=self.settings.is_sandbox,
            connect_seconds=min(10.0, fetch.timeout_seconds),
            read_seconds=fetch.timeout_seconds,
            deadline_seconds=2 * fetch.timeout_seconds,
            retry_budget_seconds=fetch.retry_budget_seconds,
            threads=fetch.threads,
        )
        self._clients.append(client)
        return client


def platform_resource(settings: Settings) -> dg.ResourceDefinition:
    """Return the resource that opens a platform for each run and closes it at its end."""

    @dg.resource(description="Settings, clock, warehouse and providers of this home.")
    def platform(_: dg.InitResourceContext) -> Iterator[Platform]:
        opened = Platform(settings)
        try:
            yield opened
        finally:
            opened.close()

    return platform
