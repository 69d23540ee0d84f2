"""What content faults do to a body: JSON as Python objects in, bent objects out. No sockets.

A restated day, a missing one or a vanished coin stays consistent over all endpoints for as long as
its rule is in force.
"""

import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

from crypto_assets.sandbox.clock import seconds_since_epoch
from crypto_assets.sandbox.farside import FlowPage
from crypto_assets.sandbox.faults import Rule
from crypto_assets.sandbox.reply import RefusedError, Request, plain_error

HUGE_TOKEN = "\ue000huge\ue000"  # stands for 1e400, which no float can hold
_CANDLE = ("time", "open", "high", "low", "close")
_SERIES = ("prices", "market_caps", "total_volumes")
_BAD_VALUES: dict[str, Any] = {
    "nan": math.nan,
    "infinity": math.inf,
    "-infinity": -math.inf,
    "1e400": HUGE_TOKEN,
    "zero": 0,
    "negative": -1.5,
    "string": "12.5",
    "null": None,
}


def bend(content: Any, rule: Rule, request: Request, clean: Callable[[Request], Any]) -> Any:
    """The content after one rule; `clean` gives the unbent content of another request."""
    return _BENDERS[rule.kind](content, rule, request, clean)


Bender = Callable[[Any, Rule, Request, Callable[[Request], Any]], Any]


def _bad_price(content: Any, rule: Rule, request: Request, _: object) -> Any:
    named = rule.options.get("value", "nan")
    value = _BAD_VALUES.get(named, named) if isinstance(named, str) else named
    if request.endpoint == "coins/markets":
        rows = [row for row in content if row["id"] == rule.options.get("coin_id", row["id"])]
        for row in rows if "coin_id" in rule.options else rows[:1]:
            row[rule.options.get("field", "current_price")] = value
        return content
    rows, column = _numbers(content, rule)
    for row in _chosen(rows, rule):
        row[column] = value
    return content


def _numbers(content: Any, rule: Rule) -> tuple[list[list[Any]], int]:
    """Rows with a stamp of a chart or candle body, and the column the rule is about."""
    name = rule.options.get("field")
    if isinstance(content, list):
        return content, _CANDLE.index(name if name in _CANDLE else "close")
    return content[name if name in _SERIES else "prices"], 1


def _chosen(rows: list[list[Any]], rule: Rule) -> list[list[Any]]:
    if "date" not in rule.options:
        return rows[len(rows) // 2 : len(rows) // 2 + 1]
    return [row for row in rows if _is_of_day(row[0], _date(rule))]


def _drop_field(content: Any, rule: Rule, *_: object) -> Any:
    name = rule.options["field"]
    if _is_candles(content):
        return [[v for n, v in zip(_CANDLE, row, strict=False) if n != name] for row in content]
    for record in _records(content, rule):
        record.pop(name, None)
    return content


def _rename_field(content: Any, rule: Rule, *_: object) -> Any:
    for record in _records(content, rule):
        if rule.options["field"] in record:
            record[rule.options["to"]] = record.pop(rule.options["field"])
    return content


def _retype_field(content: Any, rule: Rule, *_: object) -> Any:
    makers: dict[str, Callable[[Any], Any]] = {
        "string": str,
        "list": lambda value: [value],
        "object": lambda value: {"value": value},
        "bool": bool,
        "null": lambda _: None,
    }
    make, name = makers[rule.options.get("to", "string")], rule.options["field"]
    if _is_candles(content):
        if name not in _CANDLE:
            return content
        place = _CANDLE.index(name)
        return [[*row[:place], make(row[place]), *row[place + 1 :]] for row in content]
    for record in _records(content, rule):
        if name in record:
            record[name] = make(record[name])
    return content


def _add_field(content: Any, rule: Rule, *_: object) -> Any:
    value = rule.options.get("value", "unexpected")
    if _is_candles(content):
        return [[*row, value] for row in content]
    for record in _records(content, rule):
        record[rule.options["field"]] = value
    return content


def _is_candles(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and isinstance(content[0], list)


def _records(content: Any, rule: Rule) -> Iterator[dict[str, Any]]:
    """The objects of a body that carry its fields."""
    rows = content.get("data", content) if isinstance(content, dict) else content
    wanted = rule.options.get("coin_id")
    for row in rows if isinstance(rows, list) else [rows]:
        if isinstance(row, dict) and (wanted is None or row.get("id", wanted) == wanted):
            yield row


def _drop_coin(content: Any, rule: Rule, *_: object) -> Any:
    return [row for row in content if row["id"] != rule.options["coin_id"]]


def _vanish(content: Any, rule: Rule, request: Request, _: object) -> Any:
    if request.coin_id is not None:
        raise RefusedError(plain_error(404, "coin not found"))
    return _drop_coin(content, rule) if isinstance(content, list) else content


def _moving_pages(content: Any, _: Rule, request: Request, clean: Callable[[Request], Any]) -> Any:
    """The last coin of a page rises to the top of the next; the one it displaces is on no page."""
    page = int(request.query.get("page", "1"))
    if page < 2 or not content:
        return content
    query = {**request.query, "page": str(page - 1)}
    before = clean(
        Request(request.provider, request.parts, query, request.headers, request.now, request.plan)
    )
    return [before[-1], *content[1:]] if before else content


def _short_page(content: Any, rule: Rule, *_: object) -> Any:
    return content[: int(rule.options.get("rows", max(len(content) - 1, 0)))]


def _restate(content: Any, rule: Rule, request: Request, _: object) -> Any:
    factor, day = float(rule.options["factor"]), _date(rule)
    if request.endpoint.endswith("/history"):
        if request.query.get("date") == f"{day + timedelta(days=1):%d-%m-%Y}":
            for name in ("current_price", "market_cap"):
                value = content.get("market_data", {}).get(name, {})
                if value.get("usd") is not None:
                    value["usd"] *= factor
        return content
    if request.coin_id is None:
        return content
    rows = content if isinstance(content, list) else content["prices"] + content["market_caps"]
    for row in rows:
        if _is_of_day(row[0], day):
            row[:] = _scaled(row, factor)
    return content


def _missing_day(content: Any, rule: Rule, request: Request, _: object) -> Any:
    day = _date(rule)
    if request.provider == "alternative_me":
        content["data"] = [row for row in content["data"] if row["timestamp"] != _stamp(day)]
    elif _is_candles(content):
        return [row for row in content if not _is_of_day(row[0], day)]
    elif isinstance(content, dict) and "prices" in content:
        for name in _SERIES:
            content[name] = [row for row in content[name] if not _is_of_day(row[0], day)]
    return content


def _duplicate_stamp(content: Any, rule: Rule, request: Request, _: object) -> Any:
    factor = float(rule.options.get("factor", 1))
    if request.provider == "alternative_me":
        rows = content["data"]
        wanted = _stamp(_date(rule)) if "date" in rule.options else rows[-1]["timestamp"]
        content["data"] = [
            copy for row in rows for copy in [row] * (2 if row["timestamp"] == wanted else 1)
        ]
        return content
    for rows in _series_of(content):
        doubled = {id(row) for row in _chosen(rows, rule)}
        rows[:] = [
            copy
            for row in rows
            for copy in (
                [row, [row[0], *_scaled(row[1:], factor)]] if id(row) in doubled else [row]
            )
        ]
    return content


def _scaled(row: list[Any], factor: float) -> list[Any]:
    return [row[0], *(None if value is None else value * factor for value in row[1:])]


def _out_of_order(content: Any, _: Rule, request: Request, *__: object) -> Any:
    if request.provider == "alternative_me":
        content["data"].reverse()
    for rows in _series_of(content):
        half = len(rows) // 2
        rows[:] = rows[half:] + rows[:half]
    return content


def _off_grid(content: Any, rule: Rule, *_: object) -> Any:
    shift = int(float(rule.options.get("seconds", 7)) * 1_000)
    for rows in _series_of(content):
        for row in rows:
            row[0] += shift
    return content


def _series_of(content: Any) -> list[list[list[Any]]]:
    if _is_candles(content):
        return [content]
    if isinstance(content, dict) and "prices" in content:
        return [content[name] for name in _SERIES]
    return []


def _fng_out_of_range(content: Any, rule: Rule, *_: object) -> Any:
    for row in content["data"]:
        if row["timestamp"] == _stamp(_date(rule)):
            row["value"] = str(rule.options["value"])
    return content


def _fng_null_data(content: Any, rule: Rule, *_: object) -> Any:
    error = rule.options.get("error", "Something went wrong")
    return {**content, "data": None, "metadata": {"error": error}}


_BENDERS: dict[str, Bender] = {
    "bad_price": _bad_price,
    "drop_field": _drop_field,
    "rename_field": _rename_field,
    "retype_field": _retype_field,
    "add_field": _add_field,
    "drop_coin": _drop_coin,
    "vanish": _vanish,
    "moving_pages": _moving_pages,
    "short_page": _short_page,
    "restate": _restate,
    "missing_day": _missing_day,
    "duplicate_stamp": _duplicate_stamp,
    "out_of_order": _out_of_order,
    "off_grid": _off_grid,
    "fng_out_of_range": _fng_out_of_range,
    "fng_null_data": _fng_null_data,
}


def bend_page(page: FlowPage, rule: Rule) -> None:
    """Bend a page of funds before it is rendered."""
    options, columns = rule.options, page.columns
    ticker = str(options.get("ticker", "NEWF"))
    if rule.kind == "etf_no_table":
        page.has_table = False
    elif rule.kind == "etf_reordered_columns":
        columns.reverse()
        page.fees.reverse()
        page.issuers.reverse()
        for values in page.rows.values():
            values.reverse()
    elif rule.kind == "etf_new_column":
        columns.append(ticker)
        page.fees.append("0.50%")
        page.issuers.append("Newcomer")
        for values in page.rows.values():
            is_reported = any(value == value for value in values)
            values.append(float(options.get("value", 1.5)) if is_reported else math.nan)
    elif rule.kind == "etf_renamed_column":
        page.columns = [options["to"] if name == ticker else name for name in columns]
    elif _date(rule) in page.rows:
        day = _date(rule)
        if rule.kind in {"etf_holiday_row", "missing_day"}:
            page.rows[day] = [math.nan] * len(columns)
        elif rule.kind == "etf_wrong_total":
            page.totals[day] = float(options["value"])
        elif ticker in columns:
            page.rows[day][columns.index(ticker)] = float(options["value"])
        if rule.kind == "missing_day":
            del page.rows[day]


def _date(rule: Rule) -> date:
    return date.fromisoformat(str(rule.options["date"]))


def _stamp(day: date) -> str:
    return str(_midnight_ms(day) // 1_000)


def _midnight_ms(day: date) -> int:
    return int(seconds_since_epoch(datetime(day.year, day.month, day.day)) * 1_000)  # noqa: DTZ001


def _is_of_day(stamp: int, day: date) -> bool:
    """Whether a stamp tells of a day: after its 00:00, up to and with the 00:00 that ends it."""
    begin = _midnight_ms(day)
    return begin < stamp <= begin + 86_400_000
