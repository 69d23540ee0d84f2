"""A backfill that is killed again and again ends as one that never was.

The real command line in processes of its own, killed with SIGKILL at moments drawn by a seed
(another one: KILLS_SEED=…): while it fetches, while it writes and while it publishes.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
import yaml

import crypto_assets
from crypto_assets.assets.histories import SLICE_ROWS
from crypto_assets.providers.raw import RawMeta, RawStore
from crypto_assets.providers.usage import UsageLog
from crypto_assets.sandbox import Market, SandboxServer
from crypto_assets.sandbox.reply import Reply, Request
from crypto_assets.settings import load_settings
from crypto_assets.tables import OHLC_HOURLY, TABLES, Table
from crypto_assets.warehouse.publishing import is_behind
from crypto_assets.warehouse.session import ROWS_PAST_LOG
from crypto_assets.warehouse.staleness import recalculation
from crypto_assets.warehouse.verifying import verify
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets_tests.operations.commands import carrying, command, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SEED = os.environ.get("KILLS_SEED", "1")
CLOCK = datetime(2026, 3, 10, 12, 20)
TODAY = CLOCK.date()
YESTERDAY = TODAY - timedelta(days=1)
BACKFILLED = ("market_caps", "ohlc_daily", "ohlc_hourly", "ranks", "ema_signals")
# What the command writes and publishes, in this order; the last two after a recalculation.
WRITES = (*(f"writing {name}" for name in BACKFILLED), "publishing", "writing daily_snapshot")
THREADS = 16
LATENCY_SECONDS = 0.15
LONGEST_ATTEMPT_SECONDS = 300
# A write of few rows makes it grow by less, a row group of hours by more.
GROWTH_BYTES = 1_000_000

Asked = tuple[str, str, frozenset[tuple[str, str]]]
"""A request as both sides know it: provider, path and parameters."""
Content = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Case:
    """What is backfilled, what the home holds before, and how often it is killed."""

    first: date
    last: date
    coins: int
    calls: int
    """Kills after so many calls."""
    writes: int
    """Kills while it writes."""
    before: tuple[str, ...] = ()

    @property
    def hours(self) -> int:
        """Rows of hours, if each coin had them all."""
        return self.coins * ((self.last - self.first).days + 1) * OHLC_HOURLY.rows_a_day


# As many that their hours are written in two transactions: one too large for DuckDB's log, which
# is committed past it, and a small one.
COINS = 110
SLICE_DAYS = SLICE_ROWS // (COINS * OHLC_HOURLY.rows_a_day)
CLOSED_DAYS = Case(YESTERDAY - timedelta(days=SLICE_DAYS + 1), YESTERDAY, COINS, calls=5, writes=5)
UNTIL_NOW = Case(TODAY - timedelta(days=40), TODAY, 40, calls=2, writes=2, before=("fear_greed",))


class Witness(SandboxServer):
    """A sandbox that remembers what it was asked."""

    def __init__(self, market: Market) -> None:
        # Without the plan's rate, which would make each run of so many calls wait for a minute.
        super().__init__(market=market, clock=CLOCK, latency_seconds=LATENCY_SECONDS)
        self._guard = threading.Lock()
        self.asked: list[Asked] = []
        self.answered = 0
        self.statuses: set[int] = set()

    def answer(self, request: Request) -> tuple[Reply, Any]:
        """Note a request that has arrived."""
        path = "/".join(request.parts).strip("/")
        with self._guard:
            self.asked.append((request.provider, path, frozenset(request.query.items())))
        return super().answer(request)

    def count(self, request: Request, status: int) -> None:
        """Count one that is about to be answered."""
        super().count(request, status)
        with self._guard:
            self.answered += 1
            self.statuses.add(status)

    def settled(self) -> list[Asked]:
        """Return what was asked for once nothing is under way any more."""
        quiet_since, seen = time.monotonic(), -1
        while time.monotonic() - quiet_since < 2 * LATENCY_SECONDS:
            if seen != len(self.asked) or self.answered != len(self.asked):
                quiet_since, seen = time.monotonic(), len(self.asked)
            time.sleep(0.01)
        assert self.statuses <= {200}
        return self.asked[:]


@dataclass(frozen=True)
class Moment:
    """When to kill: after some calls of all, or some seconds after a write has begun.

    `at_commit`: not when the write begins but when DuckDB starts its write-ahead log. `past_log`:
    when its file grows instead, as it does for a write that is too large for the log.
    """

    calls: int = 0
    doing: str = ""
    at_commit: bool = False
    past_log: bool = False
    seconds: float = 0.0


@dataclass
class Home:
    """A sandbox home, its provider, and what its runs have left so far."""

    path: Path
    server: Witness
    case: Case
    in_flight: list[int] = field(default_factory=list)
    told: str = ""
    _read: dict[Path, Content] = field(default_factory=dict)

    def write_settings(self) -> None:
        """Make it a sandbox home whose providers are in this process."""
        url = self.server.url
        tree = {
            "sandbox": {"seed": self.server.seed, "clock": CLOCK.isoformat()},
            "coingecko": {
                "plan": "analyst",
                "api_key": "CG-sandbox-kills",
                "base_url": f"{url}/coingecko/api/v3",
                "calls_per_minute": 10_000,
            },
            "alternative_me": {"base_url": f"{url}/alternative_me"},
            "farside": {"base_url": f"{url}/farside"},
            "universe": {"tracked": self.case.coins},
            "history": {"start": self.case.first.isoformat()},
            "fetch": {"threads": THREADS},
            "schedules": {"enabled": False},
        }
        self.path.mkdir(exist_ok=True)
        (self.path / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))

    def stored(self) -> set[Asked]:
        """Return the requests whose answers are in the raw store."""
        with copied(self.path / "raw" / "responses.sqlite", "-wal") as copy:
            if not copy.exists():
                return set()
            raw = RawStore(copy)
            entries = list(raw.entries())
            assert raw.count() == len(entries)
            raw.close()
        asked = {as_asked(meta) for meta in entries}
        assert len(asked) == len(entries), "an answer was kept twice"
        return asked

    def doing(self, pid: int) -> str:
        """Return for what this process has the warehouse open, if it has."""
        queue = self.path / "warehouse.duckdb.queue"
        with suppress(OSError, ValueError):
            first = min(path for path in queue.iterdir() if path.name.isdigit())
            told = json.loads(first.read_text())
            if told["pid"] == pid:
                return str(told["purpose"])
        return ""

    @property
    def has_log(self) -> bool:
        """Whether something is in DuckDB's write-ahead log only."""
        return (self.path / "warehouse.duckdb.wal").exists()

    @property
    def size(self) -> int:
        """Bytes of DuckDB's file, without its log."""
        with suppress(FileNotFoundError):
            return (self.path / "warehouse.duckdb").stat().st_size
        return 0

    @property
    def versions(self) -> list[Path]:
        """What is still there of all publications, oldest first."""
        return sorted((self.path / "published").glob("*.duckdb"))

    def published(self) -> Content | None:
        """Return what a reader sees; None where nothing was ever published."""
        link = self.path / "crypto.duckdb"
        if not link.exists():
            assert not link.is_symlink(), "the link leads nowhere"
            return None
        version = link.resolve()
        if version not in self._read:
            with crypto_assets.connect(self.path) as connection:
                self._read[version] = content_of(connection)
        return self._read[version]

    def own(self) -> Content:
        """Return what the next run of the pipeline will find."""
        with copied(self.path / "warehouse.duckdb", ".wal") as copy:
            if not copy.exists():
                return {}
            with duckdb.connect(str(copy)) as connection:
                found = content_of(connection)
                if found:
                    assert_together(connection)
                return found


@contextmanager
def copied(file: Path, log_suffix: str) -> Iterator[Path]:
    """Yield a copy of a database with its log: to open it would repair what a kill has left."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (file.name, file.name + log_suffix):
            with suppress(FileNotFoundError):
                shutil.copy(file.with_name(name), folder)
        yield Path(folder) / file.name


def as_asked(meta: RawMeta) -> Asked:
    """Return the request behind a stored answer as the sandbox saw it."""
    path = meta.endpoint.format(**meta.path_params).strip("/")
    query = {name: str(value) for name, value in meta.params.items()}
    return meta.provider, path, frozenset(query.items())


def content_of(connection: duckdb.DuckDBPyConnection) -> Content:
    """Return all that is stored but who wrote it when; nothing of a warehouse without tables."""
    tables = {
        name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    }
    if not tables:
        return {}
    for beside in ("schema_migrations", "warehouse_info"):
        assert connection.execute(f"SELECT count(*) FROM {beside}").fetchone() == (1,)
    found = {}
    for name, table in TABLES.items():
        keys = ", ".join(table.key)
        found[name] = connection.execute(
            f"SELECT * EXCLUDE (run_id, materialized_at) FROM {name} ORDER BY {keys}"
        ).df()
    for name, columns in {
        "gaps": "*",
        "coverage": "* REPLACE (CAST(missing AS VARCHAR) AS missing)",
        "restatements": "* EXCLUDE (run_id, restated_at)",
    }.items():
        found[name] = connection.execute(f"SELECT {columns} FROM {name} ORDER BY ALL").df()
    return found


def is_same(one: Content, other: Content) -> bool:
    return one.keys() == other.keys() and all(one[name].equals(other[name]) for name in one)


def assert_whole(found: Content) -> None:
    """Nothing doubled, nothing half there: whole days of hours, ranks without a hole."""
    for name, table in TABLES.items():
        if found:
            assert not found[name].duplicated(list(table.key)).any(), name
            assert_whole_days(found[name], table)


def assert_together(connection: duckdb.DuckDBPyConnection) -> None:
    """What one transaction wrote is all there: rows, what is noted of them, and of their lack."""
    wrong = [
        f"{verdict.table}: {verdict.told}"
        for verdict in verify(connection)
        # Rules hold once a run has ended.
        if not verdict.is_fine and verdict.what != "quality rules"
    ]
    assert not wrong, (wrong, connection.execute("FROM gaps ORDER BY ALL").fetchall())


def assert_whole_days(rows: pd.DataFrame, table: Table) -> None:
    if table.name == "ohlc_hourly":
        closed = rows[rows["open_time"] < pd.Timestamp(TODAY)]
        counts = closed.groupby(["coin_id", closed["open_time"].dt.normalize()]).size()
        assert set(counts) <= {24}
    if table.name == "ranks":
        for _, ranks in rows.groupby("date")["market_cap_rank"]:
            assert sorted(ranks) == list(range(1, len(ranks) + 1))


# --- runs


@contextmanager
def started(home: Home, *tables: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a backfill in a session of its own, of which nothing is left in the end."""
    case, mark = home.case, uuid.uuid4().hex
    days = ("--from", case.first, "--to", case.last)
    log = home.path.with_name(f"{home.path.name}-{mark}.log")
    with log.open("wb") as out:
        process = subprocess.Popen(
            command("backfill", *(tables or case.before), *days, "--home", home.path),
            cwd=home.path.parent,
            env=environment({"KILLS_TEST": mark}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        try:
            yield process
            # Its own sandbox must notice by itself that its user is gone.
            until = time.monotonic() + 20
            while left := carrying(mark):
                assert time.monotonic() < until, f"left behind: {left}"
                time.sleep(0.05)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            home.told = log.read_text()


def run_to_the_end(home: Home, *tables: str, watch: Callable[[int], None] = lambda _: None) -> None:
    """Run a backfill of these tables, or of what the home holds before; nobody kills it."""
    with started(home, *tables) as process:
        until = time.monotonic() + LONGEST_ATTEMPT_SECONDS
        while process.poll() is None:
            assert time.monotonic() < until, "hangs"
            watch(process.pid)
            time.sleep(0.002)
    assert process.returncode == 0, home.told
    assert "Traceback" not in home.told, home.told


def run_and_kill(home: Home, moment: Moment, asked_before: int) -> None:
    """Run the backfill until its moment has come."""
    with started(home, *BACKFILLED) as process:
        until = time.monotonic() + LONGEST_ATTEMPT_SECONDS
        has_begun = False
        size = 0
        while True:
            if moment.past_log:
                if not size and home.doing(process.pid).endswith(moment.doing):
                    size = home.size
                if size and home.size >= size + GROWTH_BYTES:
                    break
            elif moment.doing:
                doing = home.doing(process.pid)
                is_now = doing.endswith(moment.doing)
                # A log that came and went unseen: then just after the write.
                if (is_now and (home.has_log or not moment.at_commit)) or (
                    has_begun and not is_now
                ):
                    break
                has_begun |= is_now
            elif len(home.server.asked) - asked_before >= moment.calls:
                break
            assert process.poll() is None, f"ended before {moment}: {home.told}"
            assert time.monotonic() < until, f"hangs before {moment}"
            time.sleep(0.0005)
        time.sleep(moment.seconds)
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"ended before {moment}: {home.told}"


def drawn(case: Case, chance: random.Random, calls_before: dict[str, int]) -> list[Moment]:
    """Return moments to kill at, in the order of a run.

    `calls_before` tells how many calls an undisturbed run has made at the last write of a table.
    """
    total = max(calls_before.values())
    after = [Moment(calls=n) for n in chance.sample(range(1, total), case.calls)]
    chosen = {"writing ohlc_hourly", "publishing"}
    others = [doing for doing in WRITES if doing not in chosen]
    chosen |= set(chance.sample(others, case.writes - len(chosen)))
    writing = []
    for doing in chosen:
        past_log = doing == "writing ohlc_hourly" and case.hours >= ROWS_PAST_LOG
        at_commit = not past_log and doing != "publishing" and chance.random() < 0.6
        seconds = chance.uniform(0, 0.2 if past_log else 0.03 if at_commit else 0.4)
        writing.append(Moment(0, doing, at_commit, past_log, seconds))
    # Calls that come before a write of the same number are made before it.
    placed = [((moment.calls, -1), moment) for moment in after]
    placed += [((calls_before[m.doing], WRITES.index(m.doing)), m) for m in writing]
    return [moment for _, moment in sorted(placed, key=lambda place: place[0])]


@pytest.mark.parametrize("case", [CLOSED_DAYS, UNTIL_NOW], ids=["closed_days", "until_now"])
def test_killed_at_any_moment_a_backfill_costs_and_brings_the_same(
    case: Case, tmp_path: Path, market: Market, record_property: Callable[[str, object], None]
) -> None:
    with Witness(market) as of_clean, Witness(market) as of_killed:
        clean = Home(tmp_path / "clean", of_clean, case)
        clean.write_settings()
        if case.before:
            run_to_the_end(clean)
        killed = Home(tmp_path / "killed", of_killed, case)
        shutil.copytree(clean.path, killed.path, symlinks=True)
        killed.write_settings()
        seen = [clean.published()]

        calls_before: dict[str, int] = {}
        steps: list[str] = []
        began = time.monotonic()
        already = len(of_clean.asked)

        def note(pid: int) -> None:
            doing = clean.doing(pid).partition("run ")[2].partition(" ")[2]
            if not doing:
                return
            if doing not in calls_before:
                steps.append(f"{doing} at {time.monotonic() - began:.1f} s")
            calls_before[doing] = len(of_clean.asked) - already

        run_to_the_end(clean, *BACKFILLED, watch=note)
        clean_seconds = time.monotonic() - began
        assert set(WRITES) <= set(calls_before)
        asked_clean = of_clean.settled()
        assert max(Counter(asked_clean).values()) == 1
        assert set(asked_clean) == clean.stored()
        total = len(asked_clean) - already
        wanted = clean.published()
        assert wanted is not None
        assert wanted["restatements"].empty
        for version in clean.versions:
            with duckdb.connect(str(version), read_only=True) as connection:
                seen.append(content_of(connection))
        assert_whole(wanted)

        chance = random.Random(f"{SEED} {case.coins}")
        moments = drawn(case, chance, calls_before)
        stored = killed.stored()
        known = len(stored)
        began = time.monotonic()
        lines = []
        for moment in moments:
            before = len(of_killed.asked)
            left = total + known - len(stored)
            if moment.calls:
                # Of all calls; what earlier attempts brought is not asked for again.
                if left == 0:
                    moment = Moment(doing="writing ranks", seconds=chance.uniform(0, 0.2))
                else:
                    now = max(1, moment.calls - (len(stored) - known))
                    moment = Moment(min(now, left), seconds=chance.uniform(0, LATENCY_SECONDS))
            at = time.monotonic()
            run_and_kill(killed, moment, before)
            asked = of_killed.settled()[before:]
            again = set(asked) & stored
            assert not again, f"asked for although it was stored: {again}"
            stored_now = killed.stored()
            assert stored <= stored_now
            in_flight = len(asked) - len(stored_now - stored)
            lines.append(
                f"{moment}: {len(asked)} calls, {in_flight} in flight, {len(stored_now)} stored, "
                f"{'a log' if killed.has_log else 'no log'} left, {time.monotonic() - at:.1f} s"
            )
            assert 0 <= in_flight <= THREADS, lines
            killed.in_flight.append(in_flight)
            stored = stored_now
            visible = killed.published()
            assert any(
                visible is None
                if state is None
                else visible is not None and is_same(visible, state)
                for state in seen
            ), f"readers see what no run has finished: {lines}"
            assert_whole(killed.own())

        before = len(of_killed.asked)
        at = time.monotonic()
        run_to_the_end(killed, *BACKFILLED)
        asked = of_killed.settled()
        lines.append(f"to the end: {len(asked) - before} calls, {time.monotonic() - at:.1f} s")
        lines.insert(0, f"clean: {total} calls, {clean_seconds:.1f} s, {', '.join(steps)}")
        lines.append(f"killed: {len(asked)} calls, {time.monotonic() - began:.1f} s")
        record_property("kills", lines)
        if "KILLS_SEED" in os.environ:
            # For whoever measures: shown by pytest -s.
            os.write(1, ("\n" + "\n".join(lines) + "\n").encode())

    assert not set(asked[before:]) & stored
    of_killed_only, of_clean_only = (
        killed.stored() - clean.stored(),
        clean.stored() - killed.stored(),
    )
    assert (of_killed_only, of_clean_only) == (set(), set()), (lines, killed.own()["gaps"].values)
    assert len(asked) <= total + sum(killed.in_flight)
    usage = UsageLog(killed.path / "limits" / "usage.sqlite")
    used = usage.month("coingecko", TODAY)
    usage.close()
    of_coingecko = sum(provider == "coingecko" for provider, _, _ in asked)
    assert of_coingecko - sum(killed.in_flight) <= used.credits <= of_coingecko

    found = killed.published()
    assert found is not None
    assert_whole(found)
    for name, rows in wanted.items():
        pd.testing.assert_frame_equal(found[name], rows, check_exact=True, obj=name)
    settings = load_settings(killed.path)
    assert not is_behind(killed.path)
    assert recalculation(Warehouse.of(settings), CLOCK, settings.signals.span_pairs) is None
    assert not list((killed.path / "published").glob("*.unfinished"))
