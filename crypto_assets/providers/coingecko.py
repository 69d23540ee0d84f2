"""The CoinGecko v3 client: which request brings which frame.

Belongs here: endpoints, their parameters and what the plan allows. Does not belong here: reading
payloads (``coingecko_frames``), which calls are worth making (``routes``), limits and retries
(``http``).
"""

from __future__ import annotations

from calendar import timegm
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, TypeVar

import pandas as pd

from crypto_assets.providers import payloads
from crypto_assets.providers.coingecko_frames import (
    MarketsPage,
    parse_coin_list,
    parse_market_chart,
    parse_markets_page,
    parse_ohlc,
)
from crypto_assets.providers.errors import PERMANENT_CODES, ContractError, PermanentError
from crypto_assets.providers.fetched import Fetched, Source
from crypto_assets.providers.plans import Plan

T = TypeVar("T")

PROVIDER = "coingecko"
PER_PAGE = 250
_LONGEST_IDS = 6_000  # characters; well below the 8 kB that servers accept as a request line
OHLC_DAYS = (1, 7, 14, 30, 90, 180, 365)
_INTERVALS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1)}


@dataclass(frozen=True)
class KeyUsage:
    """What ``/key`` says about the key in use."""

    plan: str
    calls_per_minute: int
    credits_per_month: int
    credits_used: int
    credits_left: int


def auth_headers(plan: Plan, api_key: str | None) -> dict[str, str]:
    """The header that carries the key on this plan; none on plans without one.

    Raises PermanentError when the plan needs a key and there is none.
    """
    if plan.key_header is None:
        return {}
    if not api_key:
        raise PermanentError(
            f"the plan {plan.name} needs an API key",
            provider=PROVIDER,
            asked=f"the plan {plan.name}",
            advice="set CRYPTO_ASSETS_COINGECKO__API_KEY, or CRYPTO_ASSETS_COINGECKO__PLAN to "
            "keyless",
        )
    return {plan.key_header: api_key}


def candle_interval(days: int) -> timedelta:
    """The candle that ``/ohlc?days=`` chooses by itself: 30 minutes, 4 hours or 4 days."""
    if days <= 2:
        return timedelta(minutes=30)
    return timedelta(hours=4) if days <= 30 else timedelta(days=4)


class CoinGecko:
    """CoinGecko on one plan. Prices are in US dollars; times are naive UTC.

    All methods may raise PermanentError, TransientError and RawStoreError, as ``HttpClient.get``.
    """

    def __init__(self, source: Source, plan: Plan) -> None:
        self._source = source
        self.plan = plan

    def ping(self) -> Fetched[str]:
        """Ask whether host and key work; costs a call of the minute. Not kept."""
        return self._get("ping", {}, {}, _parse_ping, keep=False)

    def key_usage(self) -> Fetched[KeyUsage]:
        """Limits and credits left of a paid key. Not kept."""
        self._paid("key")
        return self._get("key", {}, {}, parse_key_usage, keep=False)

    def coin_list(self, include_inactive: bool = False) -> Fetched[pd.DataFrame]:
        """All coins, as ``parse_coin_list`` gives them; inactive ones only on paid plans.

        With inactive coins it takes two calls, and ``raw_id`` is None as no single answer is
        behind the frame. A coin in both lists is active.
        """
        if include_inactive:
            self._paid("coins/list")
        active = self._coins({}, parse_coin_list)
        if not include_inactive:
            return active
        inactive = self._coins(
            {"status": "inactive"}, lambda payload: parse_coin_list(payload, is_active=False)
        )
        both = pd.concat([active.data, inactive.data], ignore_index=True)
        both = both.drop_duplicates("coin_id", keep="first", ignore_index=True)
        return Fetched(both, active.source, active.observed_at, None)

    def markets(self, page: int = 1, per_page: int = PER_PAGE) -> Fetched[MarketsPage]:
        """One page of coins by market cap; a page with less than ``per_page`` rows is the last.

        An empty first page is refused: it would look like a world without coins.
        """
        params = _markets_params(page=page, per_page=per_page)
        parse = _parse_first_page if page == 1 else parse_markets_page
        return self._get("coins/markets", {}, params, parse)

    def markets_for(
        self, ids: Collection[str], parse: Callable[[Any], MarketsPage] = parse_markets_page
    ) -> list[Fetched[MarketsPage]]:
        """The markets of given coins, up to 250 a call; unknown coins are simply not there."""
        return [
            # per_page defaults to 100 at the provider, whatever the number of ids.
            self._get(
                "coins/markets",
                {},
                {**_markets_params(page=1, per_page=PER_PAGE), "ids": ",".join(batch)},
                parse,
            )
            for batch in _batches(sorted(set(ids)))
        ]

    def all_markets(self, top_n: int, also: Collection[str] = ()) -> Fetched[MarketsPage]:
        """At least the ``top_n`` largest coins and, wherever they rank, the coins ``also``.

        Takes one call for 250 coins, plus one for 250 coins of ``also`` that are on no page:
        ranks move while pages are read, so a coin may be on two pages (its later row counts) or
        fall between them. The frame has two more columns, observed_at and raw_id, as each row
        comes from its own answer; ``Fetched.observed_at`` is when the first call began.
        """
        answers = [self.markets(1)]
        received = answers[0].data.received
        # A page may come a coin or two short; only an empty one is the end of the market.
        while received < top_n and answers[-1].data.received:
            answers.append(self.markets(len(answers) + 1))
            received += answers[-1].data.received
        refused = {k: v for answer in answers for k, v in answer.data.refused.items()}
        seen = {c for answer in answers for c in answer.data.frame["coin_id"]} | refused.keys()
        answers += self.markets_for(set(also) - seen)
        return _merged(answers)

    def markets_of(self, coins: Collection[str]) -> Fetched[MarketsPage]:
        """Just these coins (at least one), as ``all_markets`` gives them; up to 250 a call.

        All calls are for about as many: of a few coins, one that is bad might be all there is.
        """
        names = sorted(set(coins))
        size = ceil(len(names) / ceil(len(names) / PER_PAGE))
        parts = [names[at : at + size] for at in range(0, len(names), size)]
        return _merged([a for part in parts for a in self.markets_for(part, _parse_known_coins)])

    def market_pages(self, count: int) -> Fetched[MarketsPage]:
        """The first ``count`` pages as one, as ``all_markets`` gives them."""
        return _merged([self.markets(page) for page in range(1, count + 1)])

    def market_chart(
        self, coin_id: str, days: int | str, interval: str | None = None
    ) -> Fetched[pd.DataFrame]:
        """The newest ``days`` days (or "max") of one coin, as ``parse_market_chart`` gives them.

        Without ``interval`` ("daily" or "hourly") the provider chooses: 5 minutes for one day,
        hours up to 90 days, days at 00:00 UTC beyond.
        """
        return self._get(
            "coins/{id}/market_chart",
            {"id": coin_id},
            _without_none(vs_currency="usd", days=days, interval=interval),
            lambda payload: parse_market_chart(payload, coin_id, interval),
        )

    def market_chart_range(
        self, coin_id: str, start: datetime, end: datetime, interval: str | None = None
    ) -> Fetched[pd.DataFrame]:
        """One coin from ``start`` to ``end``, both inclusive; ``interval`` only on paid plans."""
        if interval is not None:
            self._paid("coins/{id}/market_chart/range")
        return self._get(
            "coins/{id}/market_chart/range",
            {"id": coin_id},
            _without_none(vs_currency="usd", **_window(start, end), interval=interval),
            lambda payload: parse_market_chart(payload, coin_id, interval),
        )

    def ohlc(self, coin_id: str, days: int, interval: str | None = None) -> Fetched[pd.DataFrame]:
        """Candles of the newest ``days`` days, as ``parse_ohlc`` gives them.

        Only the days in ``OHLC_DAYS`` are allowed. The candle is ``candle_interval(days)`` unless
        a paid plan names ``interval`` ("daily" or "hourly").
        """
        if days not in OHLC_DAYS:
            raise ValueError(f"days must be one of {OHLC_DAYS}, not {days}")
        if interval is not None:
            self._paid("coins/{id}/ohlc")
        candle = candle_interval(days) if interval is None else _INTERVALS[interval]
        return self._get(
            "coins/{id}/ohlc",
            {"id": coin_id},
            _without_none(vs_currency="usd", days=days, interval=interval),
            lambda payload: parse_ohlc(payload, coin_id, candle),
        )

    def ohlc_range(
        self, coin_id: str, start: datetime, end: datetime, interval: str
    ) -> Fetched[pd.DataFrame]:
        """Candles of "daily" (180 days a call) or "hourly" (31 days) from ``start`` to ``end``."""
        candle = _INTERVALS[interval]
        self._allowed(self.plan.has_ohlc_range, "coins/{id}/ohlc/range")
        return self._get(
            "coins/{id}/ohlc/range",
            {"id": coin_id},
            {"vs_currency": "usd", **_window(start, end), "interval": interval},
            lambda payload: parse_ohlc(payload, coin_id, candle),
        )

    def _coins(
        self, params: dict[str, Any], parse: Callable[[Any], pd.DataFrame]
    ) -> Fetched[pd.DataFrame]:
        return self._get("coins/list", {}, {"include_platform": "true", **params}, parse)

    def _get(
        self,
        endpoint: str,
        path_params: dict[str, str],
        params: dict[str, Any],
        parse: Callable[[Any], T],
        *,
        keep: bool = True,
    ) -> Fetched[T]:
        body_parser = payloads.json_parser(parse, provider=PROVIDER)
        return self._source.get(endpoint, path_params, params, body_parser, keep=keep)

    def _paid(self, endpoint: str) -> None:
        self._allowed(self.plan.is_paid, endpoint)

    def _allowed(self, allowed: bool, endpoint: str) -> None:
        """Refuse what the plan does not have without spending a call on it."""
        if not allowed:
            raise PermanentError(
                f"this is not part of the plan {self.plan.name}",
                provider=PROVIDER,
                endpoint=endpoint,
                advice=PERMANENT_CODES[10005],
            )


def parse_key_usage(payload: Any) -> KeyUsage:
    """The limits and credits in the answer of ``/key``."""
    row = payloads.record(payload, "key")

    def whole(name: str) -> int:
        return int(payloads.number(payloads.field(row, name, "key"), f"key.{name}"))

    return KeyUsage(
        plan=payloads.text(payloads.field(row, "plan", "key"), "key.plan"),
        calls_per_minute=whole("rate_limit_request_per_minute"),
        credits_per_month=whole("monthly_call_credit"),
        credits_used=whole("current_total_monthly_calls"),
        credits_left=whole("current_remaining_monthly_calls"),
    )


def _parse_ping(payload: Any) -> str:
    row = payloads.record(payload, "ping")
    return payloads.text(payloads.field(row, "gecko_says", "ping"), "ping.gecko_says")


def _parse_first_page(payload: Any) -> MarketsPage:
    page = parse_markets_page(payload)
    if page.received == 0:
        raise ContractError("coins/markets page 1", "at least one coin", [])
    return page


def _parse_known_coins(payload: Any) -> MarketsPage:
    page = parse_markets_page(payload)
    if page.received == 0:
        raise ContractError("coins/markets", "some of the coins that were asked for", [])
    return page


def _merged(answers: Sequence[Fetched[MarketsPage]]) -> Fetched[MarketsPage]:
    """The pages as one; of a coin on several pages the latest row, good or refused, counts."""
    frames: list[pd.DataFrame] = []
    refused: dict[str, str] = {}
    caps: dict[str, float] = {}
    for answer in answers:
        frame = answer.data.frame.assign(observed_at=answer.observed_at, raw_id=answer.raw_id)
        frame["observed_at"] = frame["observed_at"].astype("datetime64[ns]")
        frame["raw_id"] = frame["raw_id"].astype(object)
        frames.append(frame)
        refused.update(answer.data.refused)
        caps.update(answer.data.refused_caps)
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    merged = pd.concat(filled, ignore_index=True)
    merged = merged.drop_duplicates("coin_id", keep="last", ignore_index=True)
    # A good row on either page is better than none.
    refused = {k: v for k, v in refused.items() if k not in set(merged["coin_id"])}
    received = sum(answer.data.received for answer in answers)
    caps = {k: v for k, v in caps.items() if k in refused}
    page = MarketsPage(merged, received, refused, caps)
    raw_id = answers[0].raw_id if len(answers) == 1 else None
    raw_ids = tuple(raw_id for answer in answers for raw_id in answer.raw_ids)
    return Fetched(page, answers[0].source, answers[0].observed_at, raw_id, raw_ids)


def _markets_params(*, page: int, per_page: int) -> dict[str, Any]:
    return {
        "vs_currency": "usd",
        "order": "market_cap_desc",
        "per_page": per_page,
        "page": page,
        "sparkline": "false",
    }


def can_be_named(coin_id: str) -> bool:
    """Tell whether a coin can be asked for by its id: one with a comma would be read as two."""
    return "," not in coin_id and 0 < len(coin_id) <= _LONGEST_IDS


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    """At most 250 ids and one URL's length each, of those that can be named."""
    batch: list[str] = []
    length = 0
    for coin_id in ids:
        if not can_be_named(coin_id):
            continue
        if len(batch) == PER_PAGE or length + len(coin_id) > _LONGEST_IDS:
            yield batch
            batch, length = [], 0
        batch.append(coin_id)
        length += len(coin_id) + 1
    if batch:
        yield batch


def _window(start: datetime, end: datetime) -> dict[str, int]:
    if start.tzinfo is not None or end.tzinfo is not None:
        raise ValueError("start and end must be naive UTC")
    if end < start:
        raise ValueError(f"the range ends ({end}) before it starts ({start})")
    return {"from": timegm(start.timetuple()), "to": timegm(end.timetuple())}


def _without_none(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}
