"""CoinGecko payloads to tidy frames: pure functions.

Belongs here: columns, types and the checks of each endpoint's payload. Does not belong here:
requests (``coingecko``), or what a stamp means for days and candles (``periods``,
``calculations``): stamps are passed on as the provider sets them.

Times are naive UTC ``datetime64[ns]``, numbers ``float64``; what is null becomes NaN only where a
column says so. A point or candle that cannot be is left out and told of; everything else that is
not as promised raises ContractError with the field.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_assets.providers import payloads
from crypto_assets.providers.errors import ContractError

log = logging.getLogger(__name__)

REFUSED = "refused"
"""Key in ``DataFrame.attrs``: by stamp, why a point or candle that came is not in the frame."""

Refused = dict[pd.Timestamp, str]
_POSITIVE = "finite and greater than 0"
_CANDLE = "a candle, low <= open and close <= high"

COIN_LIST_COLUMNS = ("coin_id", "symbol", "name", "platforms", "is_active")
MARKETS_COLUMNS = {
    "coin_id": "object",
    "symbol": "object",
    "name": "object",
    "price_usd": "float64",
    "market_cap_usd": "float64",
    "volume_24h_usd": "float64",
    "circulating_supply": "float64",
    "total_supply": "float64",
    "provider_rank": "Int64",
    "last_updated_at": "datetime64[ns]",
}
_MARKET_NUMBERS = {
    "market_cap_usd": "market_cap",
    "volume_24h_usd": "total_volume",
    "circulating_supply": "circulating_supply",
    "total_supply": "total_supply",
}
_KNOWN_COIN_FIELDS = frozenset({"id", "symbol", "name", "platforms"})
_KNOWN_CHART_FIELDS = frozenset({"prices", "market_caps", "total_volumes"})
# fmt: off
_KNOWN_MARKET_FIELDS = frozenset({
    "id", "symbol", "name", "image", "current_price", "market_cap", "market_cap_rank",
    "fully_diluted_valuation", "total_volume", "high_24h", "low_24h", "price_change_24h",
    "price_change_percentage_24h", "market_cap_change_24h", "market_cap_change_percentage_24h",
    "circulating_supply", "total_supply", "max_supply", "ath", "ath_change_percentage",
    "ath_date", "atl", "atl_change_percentage", "atl_date", "roi", "last_updated",
})
# fmt: on
_LARGEST_RANK = 1_000_000
_DAY_MS = 86_400_000
_EARLIEST_MS, _LATEST_MS = 1_230_768_000_000, 7_258_118_400_000  # 2009 to 2200


@dataclass(frozen=True)
class MarketsPage:
    """One page of markets: the frame, how many rows came, and which were refused and why.

    ``refused_caps`` are the market caps of refused coins in US dollars, as far as they can be read.
    """

    frame: pd.DataFrame
    received: int
    refused: Mapping[str, str] = field(default_factory=dict)
    refused_caps: Mapping[str, float] = field(default_factory=dict)


def parse_coin_list(payload: Any, *, is_active: bool = True) -> pd.DataFrame:
    """One row a coin: coin_id, symbol, name, platforms (JSON, sorted keys), is_active.

    Symbols and names may be empty and are not unique; ids hold any character.
    """
    rows: dict[str, tuple[str, str, str]] = {}
    items = payloads.records(payload, "coins/list")
    payloads.note_extra(items[:1], _KNOWN_COIN_FIELDS, "coingecko coins/list")
    for i, item in enumerate(items):
        row = payloads.record(item, f"coins/list[{i}]")
        coin_id = _coin_id(row, f"coins/list[{i}]")
        platforms = payloads.record(row.get("platforms") or {}, f"{coin_id}.platforms")
        rows[coin_id] = (
            payloads.text(payloads.field(row, "symbol", coin_id), "symbol", nullable=True),
            payloads.text(payloads.field(row, "name", coin_id), "name", nullable=True),
            json.dumps(platforms, sort_keys=True, separators=(",", ":")),
        )
    if not rows:
        raise ContractError("coins/list", "at least one coin", [])
    frame = pd.DataFrame(
        [(coin_id, *rest) for coin_id, rest in rows.items()], columns=COIN_LIST_COLUMNS[:4]
    )
    frame["is_active"] = is_active
    return frame


def parse_markets(payload: Any) -> pd.DataFrame:
    """One row a coin with the columns of ``MARKETS_COLUMNS``; every number may be NaN.

    A market cap of 0 means that CoinGecko does not know it and becomes NaN. A row with an
    impossible value (a price that is text, 0, infinite…) is left out: see ``parse_markets_page``.
    """
    return parse_markets_page(payload).frame


def parse_markets_page(payload: Any) -> MarketsPage:
    """``parse_markets`` with the rows that were refused: one bad coin must not cost the other 249.

    Raises ContractError when the page is no list of coins, or when every row is refused (a field
    that is gone or has another type).
    """
    items = payloads.records(payload, "coins/markets")
    payloads.note_extra(items[:1], _KNOWN_MARKET_FIELDS, "coingecko coins/markets")
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    caps: dict[str, float] = {}
    last: ContractError | None = None
    for i, item in enumerate(items):
        row = payloads.record(item, f"coins/markets[{i}]")
        coin_id = _coin_id(row, f"coins/markets[{i}]")
        try:
            rows.append(_market_row(coin_id, row))
        except ContractError as error:
            refused[coin_id] = error.problem
            caps |= _readable_cap(coin_id, row)
            last = error
    if last is not None and not rows:
        raise ContractError(last.field, f"{last.expected}, for all {len(items)} coins") from None
    for coin_id, reason in refused.items():
        log.warning("coingecko coins/markets: %r is left out: %s", coin_id, reason)
    frame = pd.DataFrame(rows, columns=list(MARKETS_COLUMNS)).astype(MARKETS_COLUMNS)
    return MarketsPage(frame, len(items), refused, caps)


def _readable_cap(coin_id: str, row: Mapping[str, Any]) -> dict[str, float]:
    try:
        return {coin_id: payloads.number(row.get("market_cap"), "market_cap", positive=True)}
    except ContractError:
        return {}


def _market_row(coin_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    def get(name: str) -> Any:
        return payloads.field(row, name, coin_id)

    price = get("current_price")
    result: dict[str, Any] = {
        "coin_id": coin_id,
        "symbol": payloads.text(get("symbol"), f"{coin_id}.symbol", nullable=True),
        "name": payloads.text(get("name"), f"{coin_id}.name", nullable=True),
        "price_usd": math.nan
        if price is None
        else payloads.number(price, f"{coin_id}.current_price", positive=True),
        "provider_rank": _rank(get("market_cap_rank"), f"{coin_id}.market_cap_rank"),
        "last_updated_at": _moment(get("last_updated"), f"{coin_id}.last_updated"),
    }
    for column, name in _MARKET_NUMBERS.items():
        result[column] = payloads.nullable_number(get(name), f"{coin_id}.{name}")
    if result["market_cap_usd"] == 0:
        result["market_cap_usd"] = math.nan
    return result


def parse_market_chart(payload: Any, coin_id: str, interval: str | None = None) -> pd.DataFrame:
    """Columns stamp, price_usd, market_cap_usd, volume_24h_usd; ascending, one row a stamp.

    The three arrays are joined on their stamps, and the rows are those of the prices. Of equal
    stamps the last one counts. A point whose price is null does not exist; one whose price is not
    finite and above 0 is left out and told of in ``attrs[REFUSED]``. Market caps of 0 or null and
    volumes of null are NaN. Volumes are those of the 24 hours before the stamp. Renamed ids answer
    empty arrays: an empty frame. With the interval "daily" all stamps but the appended "now" have
    to be midnights.
    """
    body = payloads.record(payload, f"{coin_id} market_chart")
    payloads.note_extra([body], _KNOWN_CHART_FIELDS, "coingecko market_chart")
    frame = _regular_chart(body, interval)
    return _any_chart(body, coin_id, interval) if frame is None else _telling(frame, {})


def _regular_chart(body: Mapping[str, Any], interval: str | None) -> pd.DataFrame | None:
    """Return the frame of a chart that is plainly good; None for `_any_chart` to look closer."""
    prices, caps, volumes = (
        _regular(body.get(name), 2) for name in ("prices", "market_caps", "total_volumes")
    )
    if prices is None or caps is None or volumes is None:
        return None
    stamps = prices[0]
    if not (np.array_equal(stamps, caps[0]) and np.array_equal(stamps, volumes[0])):
        return None
    if interval == "daily" and (stamps[:-1] % _DAY_MS).any():
        return None
    if not (prices[1] > 0).all():
        return None
    return pd.DataFrame(
        {
            "stamp": _datetimes(stamps),
            "price_usd": prices[1],
            "market_cap_usd": np.where(caps[1] > 0, caps[1], np.nan),
            "volume_24h_usd": volumes[1],
        },
        copy=False,
    )


def _any_chart(body: Mapping[str, Any], coin_id: str, interval: str | None) -> pd.DataFrame:
    prices, refused = _prices(body, coin_id)
    missing = np.isnan(prices.to_numpy())
    if missing.any():
        log.warning("coingecko %r: %d stamps have no price", coin_id, int(missing.sum()))
        prices = prices[~missing]
    if interval == "daily":
        _check_midnights(pd.DatetimeIndex(prices.index), coin_id)
    caps = _series(body, "market_caps", coin_id)
    volumes = _series(body, "total_volumes", coin_id)
    frame = pd.DataFrame(
        {
            "stamp": prices.index.to_numpy(),
            "price_usd": prices.to_numpy(),
            "market_cap_usd": caps.where(caps > 0).reindex(prices.index).to_numpy(),
            "volume_24h_usd": volumes.reindex(prices.index).to_numpy(),
        }
    )
    return _telling(frame, refused)


def parse_ohlc(payload: Any, coin_id: str, interval: timedelta) -> pd.DataFrame:
    """Columns open_time, close_time, open, high, low, close; ascending, one row a candle.

    CoinGecko stamps a candle with its close: ``close_time`` is that stamp and ``open_time`` is
    ``close_time - interval``. The newest candle is unfinished and its close lies in the future;
    the oldest one of ``/ohlc?days=`` may hold only the part since the window began. A candle that
    cannot be (a price that is not finite and above 0, a high below or a low above another price)
    is left out and told of in ``attrs[REFUSED]``.
    """
    rows = payloads.records(payload, f"{coin_id} ohlc")
    frame = _regular_ohlc(rows, interval)
    return _any_ohlc(rows, coin_id, interval) if frame is None else _telling(frame, {})


def _regular_ohlc(rows: Sequence[Any], interval: timedelta) -> pd.DataFrame | None:
    """Return the frame of candles that are plainly good; None for `_any_ohlc` to look closer."""
    regular = _regular(rows, 5)
    if regular is None:
        return None
    stamps, opens, highs, lows, closes = regular
    is_possible = (
        (lows > 0) & (lows <= np.minimum(opens, closes)) & (highs >= np.maximum(opens, closes))
    )
    length_ms = interval // timedelta(milliseconds=1)
    if not is_possible.all() or (length_ms <= _DAY_MS and (stamps % length_ms).any()):
        return None
    times = {"open_time": _datetimes(stamps - length_ms), "close_time": _datetimes(stamps)}
    prices = {"open": opens, "high": highs, "low": lows, "close": closes}
    return pd.DataFrame({**times, **prices}, copy=False)


def _any_ohlc(rows: Sequence[Any], coin_id: str, interval: timedelta) -> pd.DataFrame:
    for i, row in enumerate(rows):
        if not isinstance(row, list) or len(row) < 5:
            raise ContractError(f"{coin_id}.ohlc[{i}]", "[stamp, open, high, low, close]", row)
    stamps = _stamps([row[0] for row in rows], f"{coin_id}.ohlc")
    _check_grid(stamps, interval, coin_id)
    columns = {
        name: _floats([row[position] for row in rows], f"{coin_id}.{name}", stamps)
        for position, name in enumerate(("open", "high", "low", "close"), start=1)
    }
    times = {"open_time": stamps - np.timedelta64(interval), "close_time": stamps}
    frame = pd.DataFrame({**times, **columns})
    frame["open_time"] = frame["open_time"].astype("datetime64[ns]")
    frame = _ascending(frame, "close_time")
    refused = _impossible_candles(frame, coin_id)
    return _telling(frame[~frame["close_time"].isin(list(refused))].reset_index(drop=True), refused)


def _regular(rows: Any, width: int) -> tuple[npt.NDArray[Any], ...] | None:
    """Columns of ``[[ms, number, …], …]``: stamps as int64, then float64; None if in any doubt.

    No doubt is: finite numbers alone (no null, text or bool), as many in each row as ``width``,
    and possible stamps, each later than the one before.
    """
    if type(rows) is not list or set(map(type, rows)) != {list} or set(map(len, rows)) != {width}:
        return None
    values = list(chain.from_iterable(rows))
    if set(map(type, values[::width])) != {int} or not set(map(type, values)) <= {int, float}:
        return None
    try:
        columns = np.array(values, dtype=np.float64).reshape(-1, width).T
    except OverflowError:
        return None
    stamps = columns[0]
    ordered = (stamps[1:] > stamps[:-1]).all()
    if not ordered or stamps[0] < _EARLIEST_MS or stamps[-1] >= _LATEST_MS:
        return None
    if not np.isfinite(columns).all():
        return None
    first, *others = np.ascontiguousarray(columns)
    return first.astype(np.int64), *others


def _datetimes(stamps_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.datetime64]:
    return (stamps_ms * 1_000_000).view("datetime64[ns]")


def _prices(body: Mapping[str, Any], coin_id: str) -> tuple[pd.Series[float], Refused]:
    """The prices (null is NaN), and why others were left out."""
    prices = _series(body, "prices", coin_id, finite=False)
    values = prices.to_numpy()
    bad = np.isinf(values) | (values <= 0)
    where = f"{coin_id}.prices"
    refused = {
        pd.Timestamp(stamp): ContractError(f"{where} at {stamp}", _POSITIVE, _shown(value)).problem
        for stamp, value in zip(prices.index[bad], values[bad], strict=True)
    }
    _refuse_if_all_are(refused, len(prices), where)
    return prices[~bad], refused


def _impossible_candles(frame: pd.DataFrame, coin_id: str) -> Refused:
    prices = frame[["open", "high", "low", "close"]].to_numpy()
    opens, highs, lows, closes = prices.T
    not_prices = ~(np.isfinite(prices) & (prices > 0)).all(axis=1)
    twisted = (highs < np.maximum(opens, closes)) | (lows > np.minimum(opens, closes))
    refused: Refused = {}
    for expected, bad in ((_POSITIVE, not_prices), (_CANDLE, twisted & ~not_prices)):
        for at in np.flatnonzero(bad):
            stamp = pd.Timestamp(frame["close_time"].iloc[at])
            got = [_shown(price) for price in prices[at]]
            refused[stamp] = ContractError(f"{coin_id}.ohlc at {stamp}", expected, got).problem
    _refuse_if_all_are(refused, len(frame), f"{coin_id}.ohlc")
    return refused


def _shown(price: float) -> float | str:
    return float(price) if np.isfinite(price) else "NaN or infinite"


def _refuse_if_all_are(refused: Refused, rows: int, where: str) -> None:
    if refused and len(refused) == rows:
        first = next(iter(refused.values()))
        raise ContractError(where, f"possible prices, none of the {rows} is: {first}")


def _telling(frame: pd.DataFrame, refused: Refused) -> pd.DataFrame:
    for reason in refused.values():
        log.warning("coingecko: left out: %s", reason)
    frame.attrs[REFUSED] = refused
    return frame


def _check_midnights(stamps: pd.DatetimeIndex, coin_id: str) -> None:
    """Refuse daily points off their midnights: taken for no days, a coin would lose its history."""
    midnights = stamps[stamps == stamps.normalize()]
    newest = midnights.max() if len(midnights) else stamps.min()
    off = stamps[(stamps != stamps.normalize()) & (stamps < newest)]
    if len(off) or (not len(midnights) and len(stamps) > 1):
        stray = off[0] if len(off) else stamps[0]
        raise ContractError(f"{coin_id}.prices stamp", "midnights but the last", str(stray))


def _check_grid(stamps: npt.NDArray[np.datetime64], interval: timedelta, coin_id: str) -> None:
    if interval > timedelta(days=1):
        return
    off = stamps.astype(np.int64) % pd.Timedelta(interval).value != 0
    if off.any():
        stray = pd.Timestamp(stamps[int(off.argmax())])
        raise ContractError(f"{coin_id}.ohlc stamp", f"a multiple of {interval}", str(stray))


def _series(
    body: Mapping[str, Any], name: str, coin_id: str, *, finite: bool = True
) -> pd.Series[float]:
    """``[[ms, value], …]`` as floats by ascending, unique stamp; null is NaN.

    What is not finite is refused, or infinite where not ``finite``.
    """
    where = f"{coin_id}.{name}"
    points = payloads.records(payloads.field(body, name, coin_id), where)
    for i, point in enumerate(points):
        if not isinstance(point, list) or len(point) < 2:
            raise ContractError(f"{where}[{i}]", "[stamp, value]", point)
    stamps = _stamps([point[0] for point in points], where)
    values = _floats([point[1] for point in points], where, stamps)
    if finite and np.isinf(values).any():
        stray = pd.Timestamp(stamps[int(np.isinf(values).argmax())])
        raise ContractError(f"{where} at {stray}", "a finite number", math.inf)
    series = pd.Series(values, index=pd.DatetimeIndex(stamps), dtype="float64")
    # A stable sort keeps the provider's order among equal stamps, so that "last" means its last.
    series = series.sort_index(kind="stable")
    return series[~series.index.duplicated(keep="last")]


def _stamps(values: Sequence[Any], where: str) -> npt.NDArray[np.datetime64]:
    """Milliseconds since 1970 as datetime64[ns]."""
    for value in values:
        if type(value) is not int or not _EARLIEST_MS <= value < _LATEST_MS:
            raise ContractError(f"{where} stamp", "milliseconds between 2009 and 2200", value)
    return np.array(values, dtype="datetime64[ms]").astype("datetime64[ns]")


def _floats(
    values: Sequence[Any], where: str, stamps: npt.NDArray[np.datetime64]
) -> npt.NDArray[np.float64]:
    """Numbers as float64: null is NaN, what is not finite infinite; anything else is refused."""
    if not all(type(v) is float or type(v) is int or v is None for v in values):
        for value, stamp in zip(values, stamps, strict=True):
            if value is not None and type(value) not in (float, int):
                payloads.number(value, f"{where} at {pd.Timestamp(stamp)}")
    try:
        plain = [math.nan if v is None else v if v == v else math.inf for v in values]
        return np.array(plain, dtype=np.float64)
    except OverflowError:
        return np.array([_float(v) for v in plain], dtype=np.float64)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _ascending(frame: pd.DataFrame, by: str) -> pd.DataFrame:
    ordered = frame.sort_values(by, kind="stable").drop_duplicates(by, keep="last")
    return ordered.reset_index(drop=True)


def _coin_id(row: Mapping[str, Any], where: str) -> str:
    coin_id = payloads.text(payloads.field(row, "id", where), f"{where}.id")
    if not coin_id:
        raise ContractError(f"{where}.id", "not empty", coin_id)
    return coin_id


def _rank(value: Any, where: str) -> Any:
    if value is None:
        return pd.NA
    rank = payloads.number(value, where, positive=True)
    if rank != int(rank) or rank > _LARGEST_RANK:
        raise ContractError(where, f"a whole number up to {_LARGEST_RANK:,}", value)
    return int(rank)


def _moment(value: Any, where: str) -> pd.Timestamp | Any:
    if value is None:
        return pd.NaT
    try:
        moment = pd.Timestamp(payloads.text(value, where))
    except ValueError:
        raise ContractError(where, "an ISO 8601 time", value) from None
    return moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
