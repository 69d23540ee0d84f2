"""Which endpoint, in which windows, brings the days of one coin that are wanted on a plan.

Pure: from days to calls, without making one. Belongs here: the choice by plan. Does not belong
here: how a call is sent (`coingecko`), or which days are wanted (`assets`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from crypto_assets.periods import DAY, HOUR, close_of, midnight, windows
from crypto_assets.providers.plans import Plan

Endpoint = Literal["market_chart", "market_chart_range", "ohlc", "ohlc_range"]
Exactness = Literal["exact", "approximate"]

LONGEST_DAILY_WINDOW_DAYS = 180
LONGEST_HOURLY_WINDOW_DAYS = 31
# Up to 90 days come hourly; an hour before the first day is asked for too, so one day less.
LONGEST_PRICES_WINDOW_DAYS = 89
LONGEST_CHART_DAYS = 365
# The days that `/ohlc` offers with candles of 4 hours; the oldest candle of an answer is cut off.
FOUR_HOUR_CANDLE_DAYS = (7, 14, 30)


@dataclass(frozen=True)
class Call:
    """One request for one coin and what its answer will be used for: days [first, last]."""

    endpoint: Endpoint
    first: date
    last: date
    days: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    interval: Literal["hourly", "daily"] | None = None
    exactness: Exactness = "exact"


def reachable_from(plan: Plan, now: datetime) -> date:
    """Return the first day whose close the plan's history still holds."""
    if plan.history_days is None:
        return date(2013, 4, 28)
    return now.date() - plan.history_days * DAY


def daily_candle_window(plan: Plan) -> int:
    """Return how many days of daily candles one call brings."""
    return LONGEST_DAILY_WINDOW_DAYS if plan.has_ohlc_range else LONGEST_PRICES_WINDOW_DAYS


def hourly_candle_window(plan: Plan) -> int:
    """Return how many days of hourly candles one call brings."""
    return LONGEST_HOURLY_WINDOW_DAYS if plan.has_ohlc_range else LONGEST_PRICES_WINDOW_DAYS


def market_history(wanted: Sequence[date], now: datetime, plan: Plan) -> list[Call]:
    """Return the one call that brings the closes of the wanted days.

    `interval=daily` is always named: 90 days or less would otherwise come as unaligned hours.
    """
    first, last = min(wanted), max(wanted)
    days = (now.date() - first).days + 1
    if plan.is_paid and days > LONGEST_CHART_DAYS:
        start, end = close_of(first), close_of(last)
        return [Call("market_chart_range", first, last, start=start, end=end, interval="daily")]
    within_plan = min(days, plan.history_days or days)
    return [Call("market_chart", first, last, days=within_plan, interval="daily")]


def daily_candles(wanted: Sequence[date], now: datetime, plan: Plan) -> list[Call]:
    """Return the calls that bring daily candles: true ones where the plan has them."""
    first, last = min(wanted), max(wanted)
    if plan.has_ohlc_range:
        return [
            _ohlc_range(start, end, "daily")
            for start, end in windows(first, last, LONGEST_DAILY_WINDOW_DAYS)
        ]
    four_hourly_from = now.date() - (FOUR_HOUR_CANDLE_DAYS[-1] - 1) * DAY
    calls = _approximations(first, min(last, four_hourly_from - DAY), now, plan)
    recent = max(first, four_hourly_from)
    if recent <= last:
        needed = (now.date() - recent).days + 1
        days = next(offered for offered in FOUR_HOUR_CANDLE_DAYS if offered >= needed)
        calls.append(Call("ohlc", recent, last, days=days))
    return calls


def hourly_candles(wanted: Sequence[date], now: datetime, plan: Plan) -> list[Call]:
    """Return the calls that bring hourly candles.

    Without `/ohlc/range` only the last 24 hours are true candles, joined from half-hours; hours
    before that are approximated, and stored exact ones are never overwritten by them.
    """
    first, last = min(wanted), max(wanted)
    if plan.has_ohlc_range:
        return [
            _ohlc_range(start, end, "hourly")
            for start, end in windows(first, last, LONGEST_HOURLY_WINDOW_DAYS)
        ]
    day_ago = (now - DAY).date()
    calls = _approximations(first, min(last, day_ago), now, plan)
    if last >= day_ago:
        calls.append(Call("ohlc", max(first, day_ago), last, days=1))
    return calls


def _ohlc_range(first: date, last: date, interval: Literal["hourly", "daily"]) -> Call:
    return Call(
        "ohlc_range", first, last, start=midnight(first), end=close_of(last), interval=interval
    )


def _approximations(first: date, last: date, now: datetime, plan: Plan) -> list[Call]:
    reach = [now - plan.history_days * DAY] if plan.history_days else []
    return [
        Call(
            "market_chart_range",
            start,
            end,
            # The price before the first midnight opens the first candle.
            start=max([midnight(start) - HOUR - timedelta(minutes=55), *reach]),
            end=close_of(end),
            exactness="approximate",
        )
        for start, end in windows(first, last, LONGEST_PRICES_WINDOW_DAYS)
    ]
