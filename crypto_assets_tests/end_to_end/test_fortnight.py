"""A fortnight of unattended running, with everything going wrong that does: what is left of it.

Outages of each provider, bad data of each kind, killed processes and a day switched off. The market
model is the oracle, and a clean backfill of another home.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.end_to_end.simulation import Simulation, filled, open_simulation
from crypto_assets_tests.webhook import Webhook, open_webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HISTORY = date(2026, 1, 1)
START, END = datetime(2026, 3, 10), datetime(2026, 3, 24, 12)
LAST = date(2026, 3, 23)
SETTINGS: dict[str, Any] = {
    "universe": {"tracked": 8},
    "history": {"start": HISTORY},
    "fetch": {"retry_budget_seconds": 0.2, "max_missing_share": 0.5},
    # Fewer ticks than by default, so that a fortnight takes minutes.
    "schedules": {"market_refresh": "0 */4 * * *", "hourly_candles": "30 */6 * * *"},
}


def at(text: str) -> datetime:
    """A moment of March 2026, as '12 08:30'."""
    return datetime.fromisoformat(f"2026-03-{text}")


@dataclass(frozen=True)
class Planted:
    """A fault of a provider from one moment to another, and who has to tell of it."""

    first: str
    until: str
    fault: dict[str, Any]
    told: tuple[str, ...]
    """Titles of alerts, each of which must come while it lasts or shortly after."""


MARKETS = {"provider": "coingecko", "endpoint": "coins/markets"}


def failing(provider: str) -> dict[str, Any]:
    return {"kind": "status", "code": 503, "match": {"provider": provider}}


def check(table: str, name: str) -> str:
    return f"{table} fails its check {name}"


PLANTED = (
    Planted(
        "12 00:00",
        "12 12:30",
        failing("coingecko"),
        (
            "the job market_refresh fails",
            "the job hourly_candles_refresh fails",
            "the job daily_close fails",
            "market_caps is late",
            "ranks is late",
            "ema_signals is late",
            "ohlc_hourly is late",
            "ohlc_daily is late",
            "daily_snapshot is late",
            "coin_list is late",
        ),
    ),
    Planted(
        "13 00:00",
        "13 23:00",
        failing("alternative_me"),
        ("the job fear_greed_refresh fails", "fear_greed is late"),
    ),
    Planted(
        "16 09:00",
        "16 10:00",
        {"kind": "challenge", "match": {"provider": "farside"}},
        ("the job etf_flows_refresh fails",),
    ),
    # Refused, so that one close is missing until the history brings it.
    Planted(
        "19 00:00",
        "19 00:05",
        {"kind": "bad_price", "value": "nan", "coin_id": "ethereum", "match": MARKETS},
        (check("market_caps", "complete"),),
    ),
    # A wrong close that looks like one.
    Planted(
        "20 00:00",
        "20 00:05",
        {"kind": "bad_price", "value": 1234.5, "coin_id": "solana", "match": MARKETS},
        (
            check("market_caps", "close_within_candle"),
            check("market_caps", "cap_is_price_times_supply"),
            check("market_caps", "prices_do_not_jump"),
        ),
    ),
    Planted(
        "20 00:05",
        "20 23:00",
        {"kind": "fng_out_of_range", "date": "2026-03-19", "value": 140},
        (check("fear_greed", "complete"),),
    ),
    Planted(
        "20 09:00",
        "20 10:00",
        {"kind": "etf_renamed_column", "ticker": "HODL", "to": "HODX"},
        (check("etf_flows", "funds_are_known"), check("etf_flows", "active_funds_report")),
    ),
    Planted(
        "21 00:40",
        "21 20:00",
        {
            "kind": "missing_day",
            "date": "2026-03-20",
            "coin_id": "solana",
            "match": {"endpoint": "coins/{id}/ohlc/range"},
        },
        (check("ohlc_daily", "complete"),),
    ),
    Planted(
        "21 03:30",
        "21 06:00",
        {"kind": "drop_field", "field": "current_price", "match": MARKETS},
        ("the job market_refresh fails",),
    ),
    Planted(
        "22 00:00",
        "22 00:05",
        {"kind": "short_page", "rows": 3, "match": MARKETS},
        (check("market_caps", "row_count_is_usual"),),
    ),
)
OFF = (at("17 22:00"), at("18 22:00"))
CLEAN = ((at("10 00:00"), at("12 00:00")), (at("14 04:00"), at("16 09:00")))


@dataclass
class Told:
    """What arrived at the channel, and when by the home's clock."""

    at: datetime
    title: str
    body: str


@dataclass
class Fortnight:
    """What a fortnight left behind."""

    simulation: Simulation
    clean: Path
    told: list[Told] = field(default_factory=list)

    def titles(self, first: datetime, until: datetime) -> set[str]:
        """What was told as wrong meanwhile; reports and recoveries aside."""
        return {
            t.title for t in self.told if first <= t.at < until and not t.title.startswith("over: ")
        }


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Fortnight]:
    home, clean = tmp_path_factory.mktemp("fortnight"), tmp_path_factory.mktemp("clean")
    with pytest.MonkeyPatch.context() as patch, open_webhook() as hook:
        alerts = {"urls": [hook.url], "warnings": True, "daily_report": False}
        begin = START - timedelta(minutes=10)
        with open_simulation(home, market, begin, patch, alerts=alerts, **SETTINGS) as simulation:
            filled(simulation, list(TABLES), HISTORY, START.date() - timedelta(days=1))
            lived = Fortnight(simulation, clean)
            _live(lived, hook)
            with open_simulation(clean, market, END, patch, **SETTINGS) as other:
                filled(other, list(TABLES), HISTORY, END.date())
            yield lived


def _live(lived: Fortnight, hook: Webhook) -> None:
    simulation = lived.simulation
    moments = sorted({END, *OFF, *(at(p.first) for p in PLANTED), *(at(p.until) for p in PLANTED)})
    simulation.on_look = lambda: _note(lived, hook)
    for moment in moments:
        if moment == OFF[1]:
            simulation.switch_off(moment)
        else:
            simulation.play(moment)
        simulation.server.faults.clear()
        for planted in PLANTED:
            if at(planted.first) <= moment < at(planted.until):
                simulation.server.faults.add(planted.fault)


def _note(lived: Fortnight, hook: Webhook) -> None:
    """Take apart what has arrived: several messages of one moment come as one."""
    for message in hook.messages:
        title, body = message["title"], message["message"]
        parts = [(title, body)]
        if title.endswith(" messages"):
            parts = [
                tuple(part.removeprefix("**").split("**\n\n", 1))  # type: ignore[misc]
                for part in body.split("\n\n---\n\n")
            ]
        for one, text in parts:
            name = one.removeprefix("crypto_assets: ")
            lived.told.append(Told(lived.simulation.now, name, text))
    hook.messages.clear()


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: f"{p.first} {p.fault['kind']}")
def test_a_planted_fault_is_caught_and_told(fortnight: Fortnight, planted: Planted) -> None:
    until = at(planted.until) + timedelta(hours=12)
    assert set(planted.told) <= fortnight.titles(at(planted.first), until)


def test_nothing_is_told_that_was_not_planted(fortnight: Fortnight) -> None:
    for first, until in CLEAN:
        assert fortnight.titles(first, until) == set()
    expected = {title for planted in PLANTED for title in planted.told}
    print(fortnight.titles(START, END) - expected)


def test_what_is_over_is_told_once(fortnight: Fortnight) -> None:
    begun = [t.title for t in fortnight.told if not t.title.startswith("over: ")]
    over = [t.title.removeprefix("over: ") for t in fortnight.told if t.title.startswith("over: ")]
    print({title: (begun.count(title), over.count(title)) for title in set(begun)})
