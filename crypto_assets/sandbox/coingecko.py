"""CoinGecko's endpoints over the market: parameters in, bodies out. No sockets, no faults."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from crypto_assets.sandbox import charts
from crypto_assets.sandbox.cache import ByteLru
from crypto_assets.sandbox.charts import Window
from crypto_assets.sandbox.clock import parse_moment, seconds_since_epoch
from crypto_assets.sandbox.market import STEP_SECONDS, STEPS_PER_DAY, Market
from crypto_assets.sandbox.plans import Gate
from crypto_assets.sandbox.reply import (
    RefusedError,
    Reply,
    Request,
    json_reply,
    plain_error,
    server_error,
)

_OHLC_DAYS = {"1", "7", "14", "30", "90", "180", "365"}
_RANGE_LIMIT_DAYS = {"daily": 180, "hourly": 31}
_MAX_PER_PAGE = 250
# Fields of the real markets rows that nobody here computes: null, as any of them may be.
_NOT_MODELLED = (
    *("market_cap_change_24h", "market_cap_change_percentage_24h", "roi"),
    *("ath", "ath_change_percentage", "ath_date", "atl", "atl_change_percentage", "atl_date"),
)


class CoinGecko:
    """Answers requests below `/api/v3`."""

    def __init__(self, market: Market, gate: Gate) -> None:
        self._market = market
        self.gate = gate
        self._snapshots: ByteLru[pd.DataFrame] = ByteLru(8, lambda _: 1)

    def answer(self, request: Request) -> Reply:
        """The reply to an admitted request; RefusedError for what the provider refuses."""
        if request.endpoint == "key":
            return json_reply(self.gate.usage(request.now))
        routes: dict[str, Callable[[Request], Reply]] = {
            "ping": lambda _: json_reply({"gecko_says": "(V3) To the Moon!"}),
            "coins/list": self._list,
            "coins/markets": self._markets,
            "coins/{id}/market_chart": self._chart,
            "coins/{id}/market_chart/range": self._chart_range,
            "coins/{id}/ohlc": self._ohlc,
            "coins/{id}/ohlc/range": self._ohlc_range,
            "coins/{id}/history": self._history,
            "global": self._global,
        }
        if request.endpoint not in routes:
            raise RefusedError(plain_error(404, "Incorrect path"))
        if request.coin_id is not None:
            self._require_known(request)
        return routes[request.endpoint](request)

    def _require_known(self, request: Request) -> None:
        row = self._market.index.get(request.coin_id or "")
        if row is None or _step(request.now) <= self._market.listed[row] * STEPS_PER_DAY:
            raise RefusedError(plain_error(404, "coin not found"))

    def _list(self, request: Request) -> Reply:
        status = request.query.get("status", "active")
        if status == "inactive":
            self.gate.require_paid(request.now, "The list of inactive coins")
        with_platforms = request.query.get("include_platform", "false").lower() == "true"
        step = _step(request.now)
        rows = []
        for row, coin in enumerate(self._market.entries):
            if step <= self._market.listed[row] * STEPS_PER_DAY:
                continue
            is_active = step <= self._market.died[row] * STEPS_PER_DAY
            if is_active != (status == "active") or (not is_active and coin.renamed_to):
                continue
            entry: dict[str, Any] = {
                "id": coin.coin_id,
                "symbol": coin.symbol,
                "name": coin.name,
            }
            if with_platforms:
                entry["platforms"] = coin.platforms
            rows.append(entry)
        return json_reply(sorted(rows, key=lambda entry: str(entry["id"])), 300)

    def _snapshot(self, now: datetime) -> pd.DataFrame:
        step = _step(now)
        return self._snapshots.get(step, lambda: self._with_day_range(now))

    def _with_day_range(self, now: datetime) -> pd.DataFrame:
        frame = self._market.snapshot(now)
        rows = [self._market.index[coin_id] for coin_id in frame["coin_id"]]
        opens, highs, lows = self._market.last_24h(now)[:, rows]
        change = frame["price_usd"] - opens
        return frame.assign(
            high=highs, low=lows, change=change, change_percent=change / opens * 100
        )

    def _markets(self, request: Request) -> Reply:
        _require_usd(request)
        per_page = _integer(request, "per_page", 100)
        page = _integer(request, "page", 1)
        if page < 1 or per_page < 1:
            raise RefusedError(server_error())
        frame = self._snapshot(request.now)
        if "ids" in request.query:
            wanted = {part.strip() for part in request.query["ids"].split(",")}
            frame = frame[frame["coin_id"].isin(wanted)]
        frame = _ordered(frame, request.query.get("order", "market_cap_desc"))
        size = min(per_page, _MAX_PER_PAGE)
        frame = frame.iloc[(page - 1) * size : page * size]
        with_sparkline = request.query.get("sparkline", "false").lower() == "true"
        rows = [
            self._market_row(row, request.now, with_sparkline)
            for row in frame.to_dict(orient="records")
        ]
        return json_reply(rows, 30)

    def _market_row(
        self, truth: dict[Any, Any], now: datetime, with_sparkline: bool
    ) -> dict[str, Any]:
        row = self._market.index[truth["coin_id"]]
        coin = self._market.entries[row]
        total = _number(truth["total_supply"])
        price = _number(truth["price_usd"])
        entry: dict[str, Any] = {
            "id": coin.coin_id,
            "symbol": coin.symbol,
            "name": coin.name,
            "image": f"https://sandbox.invalid/coins/images/{row + 1}/large.png",
            "current_price": price,
            "market_cap": _number(truth["market_cap_usd"]),
            "market_cap_rank": _number(truth["market_cap_rank"]),
            "fully_diluted_valuation": None if None in (total, price) else _number(total * price),  # type: ignore[operator]
            "total_volume": _number(truth["volume_24h_usd"]),
            "high_24h": _number(truth["high"]),
            "low_24h": _number(truth["low"]),
            "price_change_24h": _number(truth["change"]),
            "price_change_percentage_24h": _number(truth["change_percent"]),
            "circulating_supply": _decimal(truth["circulating_supply"]),
            "total_supply": _decimal(truth["total_supply"]),
            "max_supply": 21_000_000.0 if coin.coin_id == "bitcoin" else None,
            **dict.fromkeys(_NOT_MODELLED),
            "last_updated": now.isoformat(timespec="milliseconds") + "Z",
        }
        if with_sparkline:
            entry["sparkline_in_7d"] = {"price": self._sparkline(row, now)}
        return entry

    def _sparkline(self, row: int, now: datetime) -> list[float]:
        if not self._market.entries[row].is_priced:
            return []
        step = _step(now) // 12 * 12
        first = max(step - 167 * 12, int(self._market.listed[row]) * STEPS_PER_DAY)
        hourly: list[float] = self._market.path(row, first, step)[::12].tolist()
        return hourly

    def _chart(self, request: Request) -> Reply:
        _require_usd(request)
        now = request.now
        days_text = _required(request, "days")
        days = 100_000.0 if days_text == "max" else _float(days_text)
        if days <= 0:
            raise RefusedError(plain_error(422, "Invalid days parameter"))
        self.gate.require_history(now, days)
        present = seconds_since_epoch(now)
        interval = request.query.get("interval") or charts.automatic_granularity(days)
        if interval not in {"5m", "hourly", "daily"}:
            raise RefusedError(plain_error(422, "Invalid interval parameter"))
        first = present - days * charts.DAY_SECONDS
        if interval == "daily":
            first += 1  # N midnights and now, not N + 1 midnights, also at 00:00 sharp
        return self._series(
            request, Window(first, present), interval, charts.CHART_READY_MINUTES, 30
        )

    def _chart_range(self, request: Request) -> Reply:
        _require_usd(request)
        window = _window(request)
        self.gate.require_history(request.now, _days_back(request.now, window))
        if "interval" in request.query:
            self.gate.require_paid(request.now, "interval")
        interval = request.query.get("interval") or charts.automatic_granularity(window.days)
        if interval not in {"5m", "hourly", "daily"}:
            raise RefusedError(plain_error(422, "Invalid interval parameter"))
        return self._series(request, window, interval, charts.RANGE_READY_MINUTES, 300)

    def _series(
        self, request: Request, window: Window, interval: str, ready: int, max_age: int
    ) -> Reply:
        content = charts.market_chart(
            self._market, request.coin_id or "", window, interval, request.now, ready
        )
        return json_reply(content, max_age)

    def _ohlc(self, request: Request) -> Reply:
        _require_usd(request)
        days = _required(request, "days")
        if days not in _OHLC_DAYS:
            raise RefusedError(plain_error(422, "Invalid days parameter"))
        coin_id, now = request.coin_id or "", request.now
        interval = request.query.get("interval")
        if interval is None:
            content = charts.recent_candles(self._market, coin_id, int(days), now)
            return json_reply(content, 1_800)
        self.gate.require_candle_intervals(now)
        if interval not in _RANGE_LIMIT_DAYS or int(days) > max(_RANGE_LIMIT_DAYS[interval], 90):
            raise RefusedError(plain_error(422, "Invalid interval parameter"))
        present = seconds_since_epoch(now)
        window = Window(present - int(days) * charts.DAY_SECONDS + 1, present)
        content = charts.stored_candles(self._market, coin_id, interval, window, now)
        return json_reply(content, 1_800)

    def _ohlc_range(self, request: Request) -> Reply:
        self.gate.require_candle_intervals(request.now)
        _require_usd(request)
        window = _window(request)
        interval = _required(request, "interval")
        if interval not in _RANGE_LIMIT_DAYS:
            raise RefusedError(plain_error(422, "Invalid interval parameter"))
        limit = _RANGE_LIMIT_DAYS[interval]
        if window.days > limit:
            message = f"The {interval} interval is limited to {limit} days per request"
            raise RefusedError(plain_error(422, message))
        since = seconds_since_epoch(datetime(2018, 2, 9))  # noqa: DTZ001
        window = Window(max(window.first, since), window.last)
        content = charts.stored_candles(
            self._market, request.coin_id or "", interval, window, request.now
        )
        return json_reply(content, 1_800)

    def _history(self, request: Request) -> Reply:
        try:
            day = datetime.strptime(_required(request, "date"), "%d-%m-%Y")  # noqa: DTZ007
        except ValueError as error:
            raise RefusedError(plain_error(422, "invalid date")) from error
        self.gate.require_history(request.now, (request.now - day) / timedelta(days=1))
        coin_id = request.coin_id or ""
        coin, row = self._market.coin(coin_id), self._market.index[coin_id]
        content: dict[str, Any] = {"id": coin_id, "symbol": coin.symbol, "name": coin.name}
        number = int(seconds_since_epoch(day) // charts.DAY_SECONDS)
        is_ready = day + timedelta(minutes=charts.RANGE_READY_MINUTES) <= request.now
        is_alive = self._market.listed[row] < number <= self._market.died[row]
        if (
            is_ready
            and is_alive
            and coin.is_priced
            and not charts.is_renamed(self._market, coin_id, request.now)
        ):
            close = self._market.daily(coin_id, *[(day - timedelta(days=1)).date()] * 2).iloc[0]
            content["market_data"] = {
                "current_price": {"usd": float(close["price_usd"])},
                "market_cap": {"usd": _decimal(close["market_cap_usd"])},
                "total_volume": {"usd": float(close["volume_24h_usd"])},
            }
        return json_reply(content, 1_800)

    def _global(self, request: Request) -> Reply:
        frame = self._snapshot(request.now)
        caps = frame.dropna(subset=["market_cap_usd"])
        total = float(caps["market_cap_usd"].sum())
        shares = {
            self._market.coin(row["coin_id"]).symbol: row["market_cap_usd"] / total * 100
            for row in caps.head(10).to_dict(orient="records")
        }
        data = {
            "active_cryptocurrencies": len(frame),
            "upcoming_icos": 0,
            "ongoing_icos": 0,
            "ended_icos": 0,
            "markets": 900,
            "total_market_cap": {"usd": total},
            "total_volume": {"usd": float(frame["volume_24h_usd"].sum())},
            "market_cap_percentage": shares,
            "market_cap_change_percentage_24h_usd": None,
            "updated_at": int(seconds_since_epoch(request.now)),
        }
        return json_reply({"data": data})


def _ordered(frame: pd.DataFrame, order: str) -> pd.DataFrame:
    columns = {"market_cap": "market_cap_usd", "volume": "volume_24h_usd", "id": "coin_id"}
    name, _, direction = order.rpartition("_")
    if name not in columns or direction not in {"asc", "desc"}:
        raise RefusedError(plain_error(422, "Invalid order parameter"))
    if order == "market_cap_desc":
        return frame
    return frame.sort_values(
        columns[name], ascending=direction == "asc", kind="stable", na_position="last"
    )


def _number(value: Any) -> float | int | None:
    """A number as the markets show it: whole ones from 1,000 up as integers, none as null."""
    if value is None or value is pd.NA or value != value:
        return None
    number = float(value)
    is_rank = not isinstance(value, float)
    return int(number) if number.is_integer() and (is_rank or number >= 1_000) else number


def _decimal(value: float) -> float | None:
    return None if value != value else float(value)


def _required(request: Request, name: str) -> str:
    if not request.query.get(name):
        raise RefusedError(plain_error(422, f"Missing parameter {name}"))
    return request.query[name]


def _require_usd(request: Request) -> None:
    if _required(request, "vs_currency").lower() != "usd":
        raise RefusedError(plain_error(422, "invalid vs_currency"))


def _integer(request: Request, name: str, default: int) -> int:
    try:
        return int(request.query.get(name, default))
    except ValueError as error:
        raise RefusedError(server_error()) from error


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise RefusedError(server_error()) from error


def _window(request: Request) -> Window:
    return Window(_moment(_required(request, "from")), _moment(_required(request, "to")))


def _moment(text: str) -> float:
    """UNIX seconds from UNIX seconds or ISO 8601."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return seconds_since_epoch(parse_moment(text))
    except ValueError as error:
        raise RefusedError(server_error()) from error


def _days_back(now: datetime, window: Window) -> float:
    return (seconds_since_epoch(now) - window.first) / charts.DAY_SECONDS


def _step(now: datetime) -> int:
    return int(seconds_since_epoch(now) // STEP_SECONDS)
