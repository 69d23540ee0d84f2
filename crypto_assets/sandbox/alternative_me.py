"""alternative.me's fear & greed endpoint: every number a string, newest day first."""

from datetime import timedelta
from typing import Any

from crypto_assets.sandbox.clock import seconds_since_epoch
from crypto_assets.sandbox.market import Market
from crypto_assets.sandbox.reply import (
    RefusedError,
    Reply,
    Request,
    day_start,
    json_reply,
    plain_error,
)
from crypto_assets.sandbox.sentiment import FIRST_DAY


def answer(market: Market, request: Request) -> Reply:
    """The reply to `/fng/?limit=`: 0 is all days, none is the newest."""
    if request.endpoint != "fng":
        raise RefusedError(plain_error(404, "Not found"))
    try:
        limit = int(request.query.get("limit", "1"))
    except ValueError:
        limit = 1
    today = request.now.date()
    first = FIRST_DAY if limit <= 0 else today - timedelta(days=limit + 8)
    frame = market.fear_greed(first, today).iloc[::-1]
    if limit > 0:
        frame = frame.head(limit)
    data: list[dict[str, Any]] = [
        {
            "value": str(value),
            "value_classification": label,
            "timestamp": str(int(day.timestamp())),
        }
        for day, value, label in zip(frame["date"], frame["value"], frame["label"], strict=True)
    ]
    if data:
        midnight = day_start(request.now) + timedelta(days=1)
        left = seconds_since_epoch(midnight) - seconds_since_epoch(request.now)
        data[0]["time_until_update"] = str(int(left))
    content = {"name": "Fear and Greed Index", "data": data, "metadata": {"error": None}}
    return json_reply(content)
