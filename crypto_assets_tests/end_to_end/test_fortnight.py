"""A fortnight of unattended running, with everything going wrong that does: what is left of it.

Outages of each provider, bad data of each kind, killed processes, tampering and a day switched
off. The oracle is a clean backfill of another home by the same market.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import pandas as pd
import pytest
import yaml

from crypto_assets.monitoring.health import examine
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.end_to_end.simulation import Simulation, filled, open_simulation
from crypto_assets_tests.operations.commands import command
from crypto_assets_tests.webhook import Webhook, open_webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HISTORY = date(2026, 1, 1)
START, END = datetime(2026, 3, 10), datetime(2026, 3, 24, 12)
LAST = date(2026, 3, 23)
# The eight largest coins are the same all the time, so that both homes track the same.
SETTINGS: dict[str, Any] = {
    "universe": {"tracked": 8},
    "history": {"start": HISTORY},
    "fetch": {"retry_budget_seconds": 0.2, "max_missing_share": 0.5},
    # Fewer ticks than by default, so that a fortnight takes minutes.
    "schedules": {"market_refresh": "0 */4 * * *", "hourly_candles": "30 */6 * * *"},
}
OVER = "over: "


def at(text: str) -> datetime:
    """A moment of March 2026, as '12 08:30'."""
    return datetime.fromisoformat(f"2026-03-{text}")


def check(table: str, name: str) -> str:
    """How an alert calls a failed check."""
    return f"{table} fails its check {name}"


def failing(provider: str) -> dict[str, Any]:
    """An outage of a provider."""
    return {"kind": "status", "code": 503, "match": {"provider": provider}}


@dataclass(frozen=True)
class Planted:
    """A fault of a provider from one moment to another, and all that has to be told of it."""

    first: str
    until: str
    fault: dict[str, Any]
    told: tuple[str, ...]


MARKETS = {"provider": "coingecko", "endpoint": "coins/markets"}
PLANTED = (
    Planted(
        "12 00:00",
        "12 12:30",
        failing("coingecko"),
        (
            "the job market_refresh fails",
            "the job hourly_candles_refresh fails",
            "the job daily_close fails",
            "the job healing_refresh fails",
            "the job restatements_check fails",
            # Readers have the day before without its last hours until all of it is healed.
            check("ohlc_hourly", "no_silent_holes"),
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
        (
            "the job fear_greed_refresh fails",
            "the job healing_refresh fails",
            "fear_greed is late",
        ),
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
    # Wrong, and nothing about the number says so.
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
        "20 12:00",
        {"kind": "fng_out_of_range", "date": "2026-03-19", "value": 140},
        ("the job fear_greed_refresh fails", "fear_greed is late"),
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
        (check("ohlc_daily", "complete"), check("ohlc_hourly", "complete")),
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
        (check("market_caps", "complete"),),
    ),
    # Restated for good: both homes see it, one of them after it had been final. The rows it puts at
    # odds with each other are healed before anyone is told.
    Planted(
        "12 12:30",
        "24 12:00",
        {"kind": "restate", "coin_id": "bitcoin", "date": "2026-03-05", "factor": 1.02},
        (),
    ),
)
# By hand, in the warehouse: SQL, and what has to be told of it.
TAMPERED_AT = at("21 12:30")
TAMPERED = {
    "DELETE FROM ranks WHERE date = '2026-03-20' AND market_cap_rank = 1": (
        check("ranks", "ranks_are_1_to_n"),
        check("ranks", "shares_sum_to_1"),
    ),
    "UPDATE ema_signals SET ema_slow = 1.5 * ema_slow WHERE date = '2026-03-20'": (
        check("ema_signals", "emas_are_right"),
    ),
}
OFF = (at("17 22:00"), at("18 22:00"))
# A command is killed once it tells that so many steps are done.
KILLS = {at("14 06:20"): 1, at("14 18:20"): 5, at("15 10:20"): 9}
QUIET = ((START, at("12 00:00")), (at("14 04:00"), at("16 09:00")), (at("23 12:00"), END))


@dataclass(frozen=True)
class Told:
    """What arrived at the channel, and when by the home's clock."""

    at: datetime
    title: str
    body: str


@dataclass
class Fortnight:
    """What a fortnight left behind, and what a clean backfill did."""

    lived: Simulation
    clean: Simulation
    messages: list[Told]
    killed: int

    def wrong(self, first: datetime = START, until: datetime = END) -> list[str]:
        """The titles of what was told as wrong meanwhile."""
        starts = ("the job", "two daemons", "only", *TABLES)
        return [
            t.title for t in self.messages if first <= t.at < until and t.title.startswith(starts)
        ]


@pytest.fixture(scope="module")
def fortnight(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Fortnight]:
    home, other = tmp_path_factory.mktemp("fortnight"), tmp_path_factory.mktemp("clean")
    restated = [p.fault for p in PLANTED if p.fault["kind"] == "restate"]
    with pytest.MonkeyPatch.context() as patch, open_webhook() as hook:
        alerts = {"urls": [hook.url], "warnings": True, "daily_report": False}
        begin = START - timedelta(minutes=10)
        with open_simulation(home, market, begin, patch, alerts=alerts, **SETTINGS) as lived:
            filled(lived, list(TABLES), HISTORY, START.date() - timedelta(days=1))
            life = _Life(lived, hook)
            life.live()
            with open_simulation(other, market, END, patch, **SETTINGS) as clean:
                clean.server.faults.add(*restated)
                filled(clean, list(TABLES), HISTORY, END.date())
                yield Fortnight(lived, clean, life.messages, life.killed)


@dataclass
class _Life:
    """Goes through the fortnight from one planned moment to the next."""

    simulation: Simulation
    hook: Webhook
    messages: list[Told] = field(default_factory=list)
    killed: int = 0

    def live(self) -> None:
        self.simulation.on_look = self._take_messages
        plan: dict[datetime, list[Callable[[], None]]] = {END: [], TAMPERED_AT: [self._tamper]}
        for moment, steps in KILLS.items():
            plan[moment] = [partial(self._kill, steps)]
        for planted in PLANTED:
            plan.setdefault(at(planted.first), [])
            plan.setdefault(at(planted.until), [])
        plan |= {moment: [] for moment in OFF}
        for moment in sorted(plan):
            if moment == OFF[1]:
                self.simulation.switch_off(moment)
            else:
                self.simulation.play(moment)
            self.simulation.server.faults.clear()
            self.simulation.server.faults.add(
                *(p.fault for p in PLANTED if at(p.first) <= moment < at(p.until))
            )
            for happens in plan[moment]:
                happens()

    def _tamper(self) -> None:
        with self.simulation.warehouse.session("a test") as connection:
            for sql in TAMPERED:
                connection.execute(sql)

    def _kill(self, steps: int) -> None:
        """Kill a command in the middle: SIGKILL once it has told that so many steps are done."""
        home = self.simulation.settings.home
        tree = {
            **SETTINGS,
            "sandbox": {"seed": self.simulation.server.seed, "clock": self.simulation.now},
        }
        (home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
        words = command("refresh", "--home", home)
        with subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = re.match(r"\[(\d+)/\d+\]", line.strip())
                if told and int(told[1]) >= steps:
                    process.kill()
                    self.killed += 1
                    break

    def _take_messages(self) -> None:
        """Take apart what has arrived: several messages of one look come as one."""
        for message in self.hook.messages:
            title, body = message["title"], message["message"]
            parts = [(title, body)]
            if title.endswith(" messages"):
                parts = [_headed(part) for part in body.split("\n\n---\n\n")]
            self.messages += [
                Told(self.simulation.now, one.removeprefix("crypto_assets: "), text)
                for one, text in parts
            ]
        self.hook.messages.clear()


def _headed(part: str) -> tuple[str, str]:
    title, _, body = part.removeprefix("**").partition("**\n\n")
    return title, body


# --- who was told of what


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: f"{p.first} {p.fault['kind']}")
def test_a_planted_fault_is_caught_by_the_check_meant_for_it(
    fortnight: Fortnight, planted: Planted
) -> None:
    until = at(planted.until) + timedelta(hours=12)
    assert set(planted.told) <= set(fortnight.wrong(at(planted.first), until))


@pytest.mark.parametrize("sql", TAMPERED)
def test_tampering_is_caught_and_keeps_readers_at_the_last_good_version(
    fortnight: Fortnight, sql: str
) -> None:
    told = fortnight.wrong(TAMPERED_AT, TAMPERED_AT + timedelta(hours=12))
    assert set(TAMPERED[sql]) <= set(told)


def test_nothing_else_was_told(fortnight: Fortnight) -> None:
    for first, until in QUIET:
        assert fortnight.wrong(first, until) == []
    planted = {title for fault in PLANTED for title in fault.told}
    tampered = {title for told in TAMPERED.values() for title in told}
    assert set(fortnight.wrong()) <= planted | tampered


def test_what_began_was_told_once_and_its_end_once(fortnight: Fortnight) -> None:
    begun = Counter(fortnight.wrong())
    ended = Counter(
        t.title.removeprefix(OVER) for t in fortnight.messages if t.title.startswith(OVER)
    )
    assert begun == ended
    open_titles: set[str] = set()
    for told in fortnight.messages:
        if told.title.startswith(OVER):
            open_titles.remove(told.title.removeprefix(OVER))
        elif told.title in begun:
            assert told.title not in open_titles
            open_titles.add(told.title)
    assert not open_titles


def test_an_alert_says_what_since_when_where_and_what_to_do(fortnight: Fortnight) -> None:
    titles = set(fortnight.wrong())
    for told in fortnight.messages:
        if told.title in titles:
            assert f"Since: {told.at:%Y-%m-%d %H:%M} UTC" in told.body
            assert "Look: http://127.0.0.1:3000/" in told.body
            assert "\n\nDo: " in told.body


def test_processes_were_killed_in_the_middle(fortnight: Fortnight) -> None:
    assert fortnight.killed == len(KILLS)


# --- what is left


def test_nothing_is_missing_or_wrong_in_the_end(fortnight: Fortnight) -> None:
    lived = fortnight.lived
    assert lived.sql("FROM gaps WHERE state = 'missing'").empty
    unfinished = lived.sql(
        "FROM coverage WHERE NOT is_final AND date < ? AND table_name <> 'etf_flows'", LAST
    )
    assert unfinished.empty, unfinished
    health = examine(lived.settings, lived.instance, [])
    assert health.findings == []
    assert not any(fresh.is_late for fresh in health.freshness.values())
    assert health.given_up == []


def both(fortnight: Fortnight, sql: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The answers of both homes."""
    return fortnight.lived.sql(sql), fortnight.clean.sql(sql)


@pytest.mark.parametrize("table", ["ohlc_daily", "ohlc_hourly", "fear_greed", "etf_flows"])
def test_what_only_histories_tell_equals_a_clean_backfill_exactly(
    fortnight: Fortnight, table: str
) -> None:
    contract = TABLES[table]
    columns = ", ".join([*contract.content_columns, "is_final"])
    key = ", ".join(contract.key)
    until = f"{contract.time_column} < '{END.date()}'"
    sql = f"SELECT {columns} FROM {table} WHERE {until} ORDER BY {key}"
    lived, clean = both(fortnight, sql)
    assert len(lived) > 0
    pd.testing.assert_frame_equal(lived, clean, check_exact=True)


CAPS = "date, coin_id, price_usd, market_cap_usd, volume_24h_usd"


@pytest.mark.parametrize("day", ["2026-03-05", "2026-03-11", "2026-03-17"])
def test_a_close_healed_from_histories_equals_a_clean_backfill_exactly(
    fortnight: Fortnight, day: str
) -> None:
    lived, clean = both(
        fortnight, f"SELECT {CAPS} FROM market_caps WHERE date = '{day}' ORDER BY 2"
    )
    assert len(lived) == 8
    pd.testing.assert_frame_equal(lived, clean, check_exact=True)


def test_a_close_told_by_the_snapshot_of_midnight_is_near_that_of_the_history(
    fortnight: Fortnight,
) -> None:
    sql = f"SELECT {CAPS} FROM market_caps WHERE date <= '{LAST}' ORDER BY 1, 2"
    lived, clean = both(fortnight, sql)
    assert len(lived) == 8 * ((LAST - HISTORY).days + 1)
    # The snapshot tells a price in fewer digits, and a volume of some minutes before.
    near = {"price_usd": 1e-3, "market_cap_usd": 1e-2}
    for column, tolerance in near.items():
        assert ((lived[column] / clean[column] - 1).abs() <= tolerance).all(), column
    pd.testing.assert_frame_equal(lived[["date", "coin_id"]], clean[["date", "coin_id"]])


def test_ranks_signals_and_snapshots_are_those_of_a_clean_backfill(fortnight: Fortnight) -> None:
    lived, clean = both(
        fortnight,
        "SELECT s.date, s.coin_id, s.fast_span, r.market_cap_rank, s.is_warm, d.close_usd, "
        "s.ema_slow FROM ema_signals AS s JOIN ranks AS r USING (date, coin_id) "
        f"JOIN daily_snapshot AS d USING (date, coin_id) WHERE s.date <= '{LAST}' ORDER BY ALL",
    )
    assert len(lived) == 3 * 8 * ((LAST - HISTORY).days + 1)
    told = ["date", "coin_id", "fast_span", "market_cap_rank", "is_warm"]
    pd.testing.assert_frame_equal(lived[told], clean[told])
    for column in ("close_usd", "ema_slow"):
        assert ((lived[column] / clean[column] - 1).abs() <= 1e-3).all(), column


def test_what_the_provider_restated_is_kept_in_both_versions(fortnight: Fortnight) -> None:
    kept = fortnight.lived.sql(
        "SELECT DISTINCT table_name FROM restatements WHERE day = '2026-03-05' ORDER BY 1"
    )
    assert {"market_caps", "ohlc_daily", "ohlc_hourly"} <= set(kept["table_name"])


def test_a_day_switched_off_is_caught_up_with_one_run_of_each_schedule(
    fortnight: Fortnight,
) -> None:
    ran = Counter(run.job for run in fortnight.lived.runs if run.at == OFF[1])
    assert ran == Counter(
        [
            *("market_refresh", "hourly_candles_refresh", "fear_greed_refresh", "daily_close"),
            *("etf_flows_refresh", "restatements_check", "backup", "housekeeping"),
            "status_report",
        ]
    )
