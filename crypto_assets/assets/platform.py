"""What an asset needs of the world: settings, clock, warehouse and providers, for one run.

Connections are opened on first use and closed when the run ends. No data flows through here.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from functools import cached_property, partial
from math import ceil
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.assets.deliveries import Details, dumped
from crypto_assets.assets.progress import Meter, RunLog
from crypto_assets.assets.universe import Fresh, KnownDays
from crypto_assets.providers import coingecko as coingecko_client
from crypto_assets.providers.alternative_me import FearGreed
from crypto_assets.providers.coingecko import CoinGecko, auth_headers
from crypto_assets.providers.farside import Farside
from crypto_assets.providers.plans import PLANS, Plan
from crypto_assets.providers.raw import Delivery, RawStore
from crypto_assets.providers.replay import Probe, Recorded, ReplayFirst
from crypto_assets.providers.usage import UsageLog
from crypto_assets.settings import Settings
from crypto_assets.tables import Table
from crypto_assets.warehouse.warehouse import Warehouse

if TYPE_CHECKING:
    from crypto_assets.providers.http import HttpClient
    from crypto_assets.providers.limiter import SharedLimiter

# So long may an answer take and the plan's rate still be used.
_SLOW_ANSWER_SECONDS = 1.5
# Threads beyond need take turns for one interpreter. Only a sandbox has no limit, and it answers
# at once.
_FEW_THREADS = 2
# Days are told by our clock; a few minutes off is what machines are, and what a close may be.
CLOCK_TOLERANCE = timedelta(minutes=10)


class Platform:
    """Settings and what they lead to. One per run; `close()` when done."""

    def __init__(self, settings: Settings, run_id: str = "", run_log: RunLog | None = None) -> None:
        self.settings = settings
        self.clock = settings.clock
        self.warehouse = Warehouse.of(settings)
        self._run_id = run_id
        self._run_log = run_log
        self.recheck_on: date | None = None
        """On which day's behalf this run looks at final values again, if it does."""
        self.refusal: str | None = None
        """Why CoinGecko is not to be asked by this run."""
        self._clients: list[HttpClient] = []
        self._limiters: list[SharedLimiter] = []

    @cached_property
    def plan(self) -> Plan:
        """The CoinGecko plan, with what the settings change about it."""
        return plan_of(self.settings)

    @property
    def threads(self) -> int:
        """How many requests to CoinGecko are in flight: as many as use the plan's rate."""
        limit = self.plan.calls_per_minute
        if limit is None:
            return min(self.settings.fetch.threads, _FEW_THREADS)
        of_rate = ceil(limit / 60 * _SLOW_ANSWER_SECONDS)
        return min(self.settings.fetch.threads, limit, max(of_rate, _FEW_THREADS))

    @property
    def calls(self) -> int:
        """Requests sent so far, to all providers."""
        return sum(client.calls for client in self._clients)

    @property
    def credits(self) -> int:
        """CoinGecko credits used so far."""
        return self._coingecko_http.credits if "_coingecko_http" in self.__dict__ else 0

    @cached_property
    def coingecko(self) -> CoinGecko:
        """The CoinGecko client of the plan."""
        return CoinGecko(self._coingecko_http, self.plan)

    @cached_property
    def fear_greed(self) -> FearGreed:
        """The alternative.me client."""
        return FearGreed(self._client("alternative_me", self.settings.alternative_me.base_url))

    @cached_property
    def farside(self) -> Farside:
        """The Farside client."""
        return Farside(self._client("farside", self.settings.farside.base_url))

    @cached_property
    def raw(self) -> RawStore:
        """Every response the rows were made from."""
        return RawStore(self.settings.home / "raw" / "responses.sqlite")

    @cached_property
    def usage(self) -> UsageLog:
        """How many calls and credits were used."""
        return UsageLog(self.settings.home / "limits" / "usage.sqlite")

    def resuming(self, fresh: Fresh, known: KnownDays) -> CoinGecko:
        """CoinGecko, but for what it answered to a run that ended before it could use it."""

        accept = partial(fresh.accepts, known)
        source = ReplayFirst(
            coingecko_client.PROVIDER,
            self._coingecko_http,
            self.raw,
            accept,
            sandbox=self.settings.is_sandbox,
        )
        return CoinGecko(source, self.plan)

    def probing(self, fresh: Fresh, known: KnownDays) -> CoinGecko:
        """The same, but only to be told whether it would have to be asked."""
        accept = partial(fresh.accepts, known)
        sandbox = self.settings.is_sandbox
        probe = Probe(coingecko_client.PROVIDER, self.raw, accept, sandbox=sandbox)
        return CoinGecko(probe, self.plan)

    def recorded(self, raw_ids: Iterable[str]) -> Recorded:
        """These stored answers, in order, as a provider gives them."""
        return Recorded(self.raw, raw_ids, sandbox=self.settings.is_sandbox)

    def note(self, table: Table, details: Details) -> None:
        """Note in the raw store what is about to be written."""
        delivery = Delivery(table.name, self._run_id, self.clock.now(), dumped(details))
        self.raw.deliver(delivery)

    def tell(self, sentence: str) -> None:
        """Write a line into the run's log, if there is one."""
        if self._run_log is not None:
            self._run_log.info(sentence)

    def meter(self, step: str, requests: int) -> Meter:
        """Return what tells the progress of a step that makes so many requests to CoinGecko."""
        return Meter(step, requests, lambda: self._coingecko_http.calls, self._run_log)

    def close(self) -> None:
        """Close every connection that was opened."""
        for client in self._clients:
            client.close()
        for limiter in self._limiters:
            limiter.close()
        if "raw" in self.__dict__:
            self.raw.close()
        if "usage" in self.__dict__:
            self.usage.close()

    def bound_raw_store(self) -> None:
        """Prune the oldest responses beyond what the settings keep; only where new ones came."""
        if not sum(client.credits for client in self._clients):
            return
        kept = self.settings.raw
        self.raw.bound(
            self.clock.now() - timedelta(days=kept.keep_days), kept.keep_megabytes * 1_000_000
        )

    @cached_property
    def _coingecko_http(self) -> "HttpClient":
        if self.refusal:
            # In a step, whose failure is told where it belongs and retried by nobody.
            raise dg.Failure(self.refusal, allow_retries=False)
        chosen = self.settings.coingecko
        key = chosen.api_key.get_secret_value() if chosen.api_key else None
        url = chosen.base_url or self.plan.base_url
        if url is None:
            raise ValueError(f"the plan '{self.plan.name}' has no host: set coingecko.base_url")
        return self._client(
            coingecko_client.PROVIDER,
            url,
            self.plan.calls_per_minute,
            auth_headers(self.plan, key),
            key,
        )

    def _client(
        self,
        provider: str,
        base_url: str,
        calls_per_minute: int | None = None,
        headers: dict[str, str] | None = None,
        key: str | None = None,
    ) -> "HttpClient":
        # Imported here: what HTTP needs takes long to load, and only who fetches needs it.
        from crypto_assets.providers.http import HttpClient
        from crypto_assets.providers.limiter import SharedLimiter

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
            raw=self.raw,
            usage=self.usage,
            headers=headers,
            secrets=[key] if key else [],
            expect_sandbox=self.settings.is_sandbox,
            connect_seconds=min(10.0, fetch.timeout_seconds),
            read_seconds=fetch.timeout_seconds,
            deadline_seconds=2 * fetch.timeout_seconds,
            clock_tolerance=CLOCK_TOLERANCE,
            retry_budget_seconds=fetch.retry_budget_seconds,
            threads=fetch.threads,
        )
        self._clients.append(client)
        return client


def plan_of(settings: Settings) -> Plan:
    """Return the CoinGecko plan of the settings, with what they change about it."""
    chosen = settings.coingecko
    plan = PLANS[chosen.plan]
    return replace(
        plan,
        calls_per_minute=chosen.calls_per_minute or plan.calls_per_minute,
        credits_per_month=chosen.credits_per_month or plan.credits_per_month,
    )
