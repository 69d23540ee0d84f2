"""Funds and their daily net flows as their page shows them at a moment. No HTML, no HTTP."""

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache

import numpy as np
import pandas as pd

from crypto_assets.sandbox import noise


@dataclass(frozen=True)
class Fund:
    """A fund: its column on the page, and how large its days are (US$ millions)."""

    ticker: str
    issuer: str
    first_day: date
    fee: str
    scale: float
    old_ticker: str | None = None
    renamed_on: date | None = None

    def ticker_on(self, day: date) -> str:
        """The ticker in the page's header on a day."""
        if self.old_ticker and self.renamed_on and day < self.renamed_on:
            return self.old_ticker
        return self.ticker


_BTC = date(2024, 1, 11)
_ETH = date(2024, 7, 23)
FUNDS: dict[str, tuple[Fund, ...]] = {
    "btc": (
        Fund("IBIT", "BlackRock", _BTC, "0.25%", 180),
        Fund("FBTC", "Fidelity", _BTC, "0.25%", 90),
        Fund("BITB", "Bitwise", _BTC, "0.20%", 20),
        Fund("ARKB", "ARK 21Shares", _BTC, "0.21%", 35),
        Fund("BTCO", "Invesco Galaxy", _BTC, "0.25%", 6),
        Fund("EZBC", "Franklin", _BTC, "0.19%", 5),
        Fund("BRRR", "CoinShares Valkyrie", _BTC, "0.25%", 5),
        Fund("HODL", "VanEck", _BTC, "0.20%", 9),
        Fund("BTCW", "WisdomTree", _BTC, "0.25%", 4),
        Fund("MSBT", "Morgan Stanley", date(2026, 4, 8), "0.14%", 8),
        Fund("GBTC", "Grayscale", _BTC, "1.50%", 60),
        Fund("BTC", "Grayscale mini", date(2024, 7, 31), "0.15%", 14),
    ),
    "eth": (
        Fund("ETHA", "BlackRock", _ETH, "0.25%", 70),
        Fund("ETHB", "BlackRock staked", date(2026, 3, 12), "0.25%", 8),
        Fund("FETH", "Fidelity", _ETH, "0.25%", 30),
        Fund("ETHW", "Bitwise", _ETH, "0.20%", 7),
        Fund("TETH", "21Shares", _ETH, "0.21%", 3, "CETH", date(2025, 2, 10)),
        Fund("ETHV", "VanEck", _ETH, "0.20%", 4),
        Fund("QETH", "Invesco Galaxy", _ETH, "0.25%", 2),
        Fund("EZET", "Franklin", _ETH, "0.19%", 2),
        Fund("ETHE", "Grayscale", _ETH, "2.50%", 30),
        Fund("ETH", "Grayscale mini", _ETH, "0.15%", 15),
    ),
    "sol": (
        Fund("SLNA", "Northfield", date(2025, 10, 28), "0.20%", 25),
        Fund("SLNB", "Harbour", date(2025, 10, 29), "0.30%", 8),
        Fund("SLNC", "Old Mill", date(2025, 11, 18), "0.25%", 4),
    ),
}
PUBLISHED_AT = time(9, 0)
# (asset, ticker, day) -> (first shown, final), both measured on the real page.
_KNOWN_REVISIONS = {
    ("btc", "GBTC", date(2024, 10, 2)): (0.0, -27.3),
    ("btc", "GBTC", date(2024, 10, 10)): (0.0, -18.5),
}


class EtfMarket:
    """Net flows of the funds by seed; what a page shows depends on when it is read."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def flows(self, asset: str, as_of: datetime, since: date | None) -> pd.DataFrame:
        """Rows of the page at `as_of` from `since` on; columns as in `Market.etf_flows`."""
        funds = FUNDS[asset]
        first = min(fund.first_day for fund in funds)
        days = weekdays(max(first, since or first), as_of.date())
        records = [
            (day, fund.ticker_on(as_of.date()), self.shown(asset, fund, day, as_of))
            for day in days
            for fund in funds
        ]
        frame = pd.DataFrame(records, columns=["date", "ticker", "net_flow_usd_millions"])
        frame["date"] = pd.to_datetime(frame["date"]).astype("datetime64[ns]")
        return frame.astype({"net_flow_usd_millions": float})

    def shown(self, asset: str, fund: Fund, day: date, as_of: datetime) -> float:
        """One cell in US$ millions; NaN where the page shows `-`."""
        published = datetime.combine(day + timedelta(days=1), PUBLISHED_AT)
        if day < fund.first_day or is_us_market_holiday(day) or as_of < published:
            return float("nan")
        first, final, late_days, revised_days = _cell(self._seed, asset, fund.ticker, day)
        if as_of < published + timedelta(days=late_days):
            return float("nan")
        return first if as_of < published + timedelta(days=revised_days) else final


@lru_cache(maxsize=65_536)
def _cell(seed: int, asset: str, ticker: str, day: date) -> tuple[float, float, int, int]:
    """First shown and final flow (US$ millions), days until first shown and until revised."""
    if (asset, ticker, day) in _KNOWN_REVISIONS:
        return (*_KNOWN_REVISIONS[asset, ticker, day], 0, 6)
    if asset == "btc" and day == _BTC:
        launch = _launch_flow(ticker)
        return (launch, launch, 0, 0)
    fund = next(fund for fund in FUNDS[asset] if fund.ticker == ticker)
    final = _flow(seed, asset, fund, day)
    draws = noise.uniform(noise.key(seed, "etf", asset, ticker, day), np.arange(4))[0]
    late_days = 1 if fund.scale <= 4 and draws[0] < 0.05 else 0
    if draws[1] >= 0.02:
        return (final, final, late_days, 0)
    first = 0.0 if draws[2] < 0.7 else round(final / 2, 1)
    return (first, final, late_days, late_days + 2 + int(draws[3] * 6))


def _launch_flow(ticker: str) -> float:
    # The first day's total (+655.3) and GBTC's outflow are well-known figures; the split is ours.
    flows = {"GBTC": -95.1, "IBIT": 140.4, "FBTC": 250.0, "BITB": 210.0, "ARKB": 80.0}
    return flows.get(ticker, {"BTCO": 20.0, "EZBC": 30.0, "BRRR": 9.0, "HODL": 10.0}.get(ticker, 1))


def _flow(seed: int, asset: str, fund: Fund, day: date) -> float:
    number = day.toordinal() * 4
    mood = float(noise.fat_tailed(noise.key(seed, "etf-mood", asset), number, 4)[0, 0])
    own = noise.fat_tailed(noise.key(seed, "etf-flow", asset, fund.ticker), number, 4)[0]
    quiet = 0.05 if fund.scale > 50 else 0.4
    if abs(float(own[1])) < quiet * 0.9:
        return 0.0
    return round(fund.scale * (0.15 + 0.6 * mood + 0.7 * float(own[0])), 1) + 0.0


def weekdays(first: date, last: date) -> list[date]:
    """Mondays to Fridays, both ends included."""
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [day for day in days if day.weekday() < 5]


def is_us_market_holiday(day: date) -> bool:
    """Whether the New York Stock Exchange is closed on a weekday."""
    return day in us_market_holidays(day.year)


@lru_cache(maxsize=128)
def us_market_holidays(year: int) -> frozenset[date]:
    """Weekdays of a year on which the New York Stock Exchange is closed all day.

    By its rules: a holiday on a Sunday moves to Monday, one on a Saturday to Friday, except New
    Year's Day, which is then not observed. Juneteenth since 2022; the day of mourning of 2025.
    """
    days = {
        _nth_weekday(year, 1, 0, 3),
        _nth_weekday(year, 2, 0, 3),
        _easter(year) - timedelta(days=2),
        _nth_weekday(year, 6, 0, 1) - timedelta(days=7),
        _nth_weekday(year, 9, 0, 1),
        _nth_weekday(year, 11, 3, 4),
        _observed(date(year, 7, 4)),
        _observed(date(year, 12, 25)),
    }
    if date(year, 1, 1).weekday() != 5:
        days.add(_observed(date(year, 1, 1)))
    if year >= 2022:
        days.add(_observed(date(year, 6, 19)))
    if year == 2025:
        days.add(date(2025, 1, 9))
    return frozenset(days)


def _observed(day: date) -> date:
    return day + timedelta(days={5: -1, 6: 1}.get(day.weekday(), 0))


def _nth_weekday(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _easter(year: int) -> date:
    """Easter Sunday by the anonymous Gregorian algorithm (Meeus, Astronomical Algorithms)."""
    a, (b, c) = year % 19, divmod(year, 100)
    d, e = divmod(b, 4)
    g = (8 * b + 13) // 25
    h = (19 * a + b - d - g + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1)
