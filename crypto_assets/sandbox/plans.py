"""CoinGecko's plans: keys, calls a minute, credits, which endpoints and how much history.

Limits run in wall time, over all clients of the sandbox together: the keyless pool is shared too.
"""

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from crypto_assets.sandbox.reply import (
    TEXT_TYPE,
    RefusedError,
    Reply,
    Request,
    dump,
    flat_error,
    nested_error,
)

KEY_PREFIX = "CG-sandbox"
WINDOW_SECONDS = 60.0
_DEMO_HEADER, _PRO_HEADER = "x-cg-demo-api-key", "x-cg-pro-api-key"


@dataclass(frozen=True)
class Plan:
    """What a plan allows; None is no limit."""

    name: str
    calls_per_minute: int | None
    monthly_credits: int | None
    history_days: int | None
    key_header: str | None
    is_paid: bool
    has_candle_intervals: bool


PLANS = {
    plan.name: plan
    for plan in (
        Plan("unlimited", None, None, None, None, True, True),
        Plan("keyless", 3, None, 365, None, False, False),
        Plan("demo", 30, 10_000, 365, _DEMO_HEADER, False, False),
        Plan("basic", 250, 100_000, 730, _PRO_HEADER, True, False),
        Plan("analyst", 500, 500_000, None, _PRO_HEADER, True, True),
    )
}


class Gate:
    """Counts calls and credits of one plan and refuses what it does not allow."""

    def __init__(self, plan: str) -> None:
        self.plan = PLANS[plan]
        self._lock = threading.Lock()
        self._calls: deque[float] = deque()
        self._credits = 0
        self._refusals = 0

    def reset(self) -> None:
        """Forget all calls and credits."""
        with self._lock:
            self._calls.clear()
            self._credits = self._refusals = 0

    def count_credit(self) -> None:
        """A 200 costs a credit."""
        with self._lock:
            self._credits += 1

    def admit(self, request: Request) -> None:
        """Count the call; RefusedError if it is one too many or its key is not accepted."""
        self._check_rate(request.now)
        self._check_key(request)

    def usage(self, now: datetime) -> dict[str, object]:
        """The body of GET /key."""
        if not self.plan.is_paid:
            raise RefusedError(nested_error(401, 10005, "This endpoint needs a paid plan.", now))
        total = self.plan.monthly_credits or 1_000_000_000
        with self._lock:
            used = self._credits
        return {
            "plan": self.plan.name.capitalize(),
            "rate_limit_request_per_minute": self.plan.calls_per_minute or 1_000_000,
            "monthly_call_credit": total,
            "current_total_monthly_calls": used,
            "current_remaining_monthly_calls": max(total - used, 0),
        }

    def require_paid(self, now: datetime, what: str) -> None:
        """Refuse what free plans do not have."""
        if not self.plan.is_paid:
            raise RefusedError(nested_error(401, 10005, f"{what} is for paid plans only.", now))

    def require_candle_intervals(self, now: datetime) -> None:
        """Refuse chosen candle intervals on plans below analyst."""
        if not self.plan.has_candle_intervals:
            message = "Candles by interval are for the analyst plan and up."
            raise RefusedError(nested_error(401, 10005, message, now))

    def require_history(self, now: datetime, days_back: float) -> None:
        """Refuse history older than the plan's."""
        allowed = self.plan.history_days
        # A range computed a moment ago is not a day too long.
        if allowed is not None and days_back > allowed + 0.02:
            message = f"The requested time range is beyond the last {allowed} days of this plan."
            raise RefusedError(nested_error(401, 10012, message, now))

    def _check_rate(self, now: datetime) -> None:
        limit = self.plan.calls_per_minute
        with self._lock:
            moment = time.monotonic()
            while self._calls and self._calls[0] <= moment - WINDOW_SECONDS:
                self._calls.popleft()
            self._calls.append(moment)
            if limit is None or len(self._calls) <= limit:
                return
            # Refused calls count too: room comes when the window holds fewer than the limit again.
            wait = self._calls[len(self._calls) - limit] + WINDOW_SECONDS - moment
            self._refusals += 1
            shape = self._refusals
        raise RefusedError(throttled(shape, math.ceil(wait), now))

    def _check_key(self, request: Request) -> None:
        demo, pro = request.headers.get(_DEMO_HEADER), request.headers.get(_PRO_HEADER)
        header, now = self.plan.key_header, request.now
        if self.plan.name == "unlimited":
            return
        if header != _PRO_HEADER and pro is not None:
            message = "A pro key does not work on this host."
            raise RefusedError(flat_error(400, 10010, message, now))
        if header == _PRO_HEADER and demo is not None:
            message = "A demo key does not work on this host."
            raise RefusedError(flat_error(400, 10011, message, now))
        key = demo if demo is not None else pro
        if (key is None and header is not None) or (
            key is not None and not key.startswith(KEY_PREFIX)
        ):
            raise RefusedError(flat_error(401, 10002, "API Key Missing", now))


def throttled(shape: int, wait_seconds: int, now: datetime) -> Reply:
    """A 429 in one of the forms seen: as JSON or plain text, with and without Retry-After."""
    headers = {"Retry-After": str(wait_seconds)} if shape % 2 else {}
    if shape % 4 in {0, 3}:
        return Reply(429, b"Throttled", TEXT_TYPE, headers)
    stamp = now.isoformat(timespec="milliseconds") + "+00:00"
    message = "You've exceeded the Rate Limit."
    status = {"timestamp": stamp, "error_code": 429, "error_message": message}
    return Reply(429, dump({"status": status}), headers=headers)
