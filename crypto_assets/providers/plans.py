"""What each CoinGecko plan may do, as data.

Belongs here: hosts, headers, limits and features by plan. Does not belong here: keys, settings,
or which call to make (``routes`` decides that from these facts).

Limits move (demo went from 30 to 100 calls a minute in 2026), so these are safe defaults that
settings may override with ``dataclasses.replace``.
"""

from __future__ import annotations

from dataclasses import dataclass

FREE_URL = "https://api.coingecko.com/api/v3"
PAID_URL = "https://pro-api.coingecko.com/api/v3"


@dataclass(frozen=True)
class Plan:
    """One CoinGecko plan; ``None`` means without a limit (or, for a key header, without a key).

    ``base_url`` is None where there is no live host (the sandbox), so that it must be given.
    ``has_ohlc_range``: the endpoint ``/coins/{id}/ohlc/range``. ``is_paid`` plans may also name
    the candle interval of ``/ohlc`` and ``/market_chart/range``, list inactive coins and ask for
    their usage.
    """

    name: str
    base_url: str | None
    key_header: str | None
    calls_per_minute: int | None
    credits_per_month: int | None
    history_days: int | None
    has_ohlc_range: bool
    is_paid: bool


_DEMO_HEADER = "x-cg-demo-api-key"
_PRO_HEADER = "x-cg-pro-api-key"

PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("keyless", FREE_URL, None, 3, None, 365, False, False),
        Plan("demo", FREE_URL, _DEMO_HEADER, 30, 10_000, 365, False, False),
        Plan("basic", PAID_URL, _PRO_HEADER, 250, 100_000, 730, False, True),
        Plan("analyst", PAID_URL, _PRO_HEADER, 500, 500_000, None, True, True),
        Plan("lite", PAID_URL, _PRO_HEADER, 500, 2_000_000, None, True, True),
        Plan("enterprise", PAID_URL, _PRO_HEADER, 500, None, None, True, True),
        # For the sandbox: no key, no limit and no live host.
        Plan("unlimited", None, None, None, None, None, True, True),
    )
}
