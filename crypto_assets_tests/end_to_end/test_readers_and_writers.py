"""Eight readers without pause and four runs at once on one home: nobody fails, all is consistent.

Each is a process of its own. The runs fill days of the same tables side by side; readers ask what
only a half-written or half-copied state would answer wrongly.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from crypto_assets.sandbox import Market, SandboxServer
from crypto_assets.warehouse.publishing import read_state
from crypto_assets_tests.lab import NOON

pytestmark = pytest.mark.slow

SECONDS = 60
START = date(2026, 1, 1)
YESTERDAY = NOON.date() - timedelta(days=1)
Spawn = Callable[..., "subprocess.Popen[str]"]

# Runs chunk after chunk of its days until the time is over and some runs are done.
WRITER = """
import json, sys, time
from datetime import date, datetime, timedelta
from pathlib import Path
import dagster as dg
from crypto_assets.operations.running import run
from crypto_assets.settings import sandbox_base_urls, validated
home, url, clock, tables, first, last, step, seconds, least = sys.argv[1:]
settings = validated({
    **sandbox_base_urls(url), 'home': Path(home), 'sandbox': {'seed': 7, 'clock': clock},
    'history': {'start': '2026-01-01'}, 'universe': {'tracked': 10},
    'fetch': {'retry_budget_seconds': 10},
})
day, last, step = date.fromisoformat(first), date.fromisoformat(last), timedelta(days=int(step))
told = {'runs': 0, 'rows': 0, 'failed': [], 'longest': 0.0}
with dg.DagsterInstance.ephemeral() as instance:
    until = time.time() + float(seconds)
    while day <= last and (time.time() < until or told['runs'] < int(least)):
        days = (day, min(last, day + step - timedelta(days=1)))
        began = time.time()
        report = run(settings, instance, tables.split(','), days, lambda *_: None)
        told['longest'] = max(told['longest'], time.time() - began)
        told['runs'] += 1
        told['rows'] += sum(report.rows_changed.values())
        if not report.succeeded:
            told['failed'].append([str(days), report.failures])
        day += step
print(json.dumps(told))
"""

READER = """
import json, os, sys, time
from pathlib import Path
import crypto_assets
home, holds, stop = sys.argv[1], sys.argv[2] == 'holds', Path(sys.argv[3])
os.nice(10)  # eight that never pause would leave a small machine nothing to write with
# Each returns rows only where a state is no state.
RULES = {
    'a day is ranked whole and by its own caps': '''
        SELECT date, coin_id FROM (FROM ranks WHERE date < DATE '2026-03-10') AS r
        FULL JOIN (FROM market_caps WHERE date IN (SELECT date FROM ranks)
            AND date < DATE '2026-03-10' AND market_cap_usd IS NOT NULL) AS m
        USING (date, coin_id) WHERE r.market_cap_usd IS DISTINCT FROM m.market_cap_usd''',
    'a day of ranks comes from one run': '''
        SELECT date FROM ranks GROUP BY date HAVING count(DISTINCT run_id) > 1''',
    'a day of signals comes from one run': '''
        SELECT date FROM ema_signals GROUP BY date HAVING count(DISTINCT run_id) > 1''',
    'ranks are 1 to n': '''
        SELECT date FROM ranks GROUP BY date
        HAVING max(market_cap_rank) <> count(*) OR count(DISTINCT market_cap_rank) <> count(*)''',
    'no key twice': '''
        SELECT date, coin_id FROM market_caps GROUP BY ALL HAVING count(*) > 1
        UNION ALL SELECT date, coin_id FROM ohlc_daily GROUP BY ALL HAVING count(*) > 1
        UNION ALL SELECT CAST(open_time AS DATE), coin_id || hour(open_time)
        FROM ohlc_hourly GROUP BY ALL HAVING count(*) > 1''',
    'what is written down of a day is of this state': '''
        SELECT day FROM (FROM partitions WHERE table_name = 'ohlc_daily') AS p
        FULL JOIN (SELECT date AS day, count(*) AS n FROM ohlc_daily GROUP BY date) USING (day)
        WHERE rows_stored IS DISTINCT FROM n''',
}
SIZE = 'SELECT (SELECT count(*) FROM market_caps) + (SELECT count(*) FROM ohlc_hourly)'
told = {'queries': 0, 'opened': 1, 'sizes': [], 'broken': []}
connection = crypto_assets.connect(home)
size = connection.execute(SIZE).fetchone()
while not stop.exists():
    if not holds:
        connection.close()
        connection = crypto_assets.connect(home)
        told['opened'] += 1
    for rule, query in RULES.items():
        rows = connection.execute(query).fetchall()
        told['queries'] += 1
        if rows:
            told['broken'].append([rule, str(rows[:3])])
    now = connection.execute(SIZE).fetchone()
    if holds and now != size:
        told['broken'].append(['an open connection keeps its version', f'{size} {now}'])
    if now < size:
        told['broken'].append(['newer states hold more', f'{size} {now}'])
    size = now
    if size[0] not in told['sizes']:
        told['sizes'].append(size[0])
    if not holds:
        time.sleep(0.1)
print(json.dumps(told))
"""


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Starts Python code in another process."""
    children: list[subprocess.Popen[str]] = []

    def starter(code: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield starter
    for child in children:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str]) -> dict:
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    return json.loads(out)


@pytest.mark.timeout(600)
def test_eight_readers_and_four_writers_at_once(
    tmp_path: Path, market: Market, spawn: Spawn
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    middle = START + timedelta(days=33)
    market_tables = "market_caps,ranks,ema_signals"
    works = (
        (market_tables, START + timedelta(days=1), middle, 2),
        (market_tables, middle + timedelta(days=1), YESTERDAY, 2),
        ("ohlc_hourly,ohlc_daily", START, YESTERDAY, 3),
        ("fear_greed,etf_flows,ohlc_daily", START, YESTERDAY, 3),
    )
    with SandboxServer(market=market, plan="unlimited", clock=NOON) as server:
        common = (home, server.url, NOON.isoformat())
        first = spawn(WRITER, *common, market_tables, START, START, 1, SECONDS, 1)
        assert said(first)["failed"] == []
        before = read_state(home).version
        readers = [
            spawn(READER, home, "holds" if number % 2 else "reconnects", tmp_path / "stop")
            for number in range(8)
        ]
        writers = [spawn(WRITER, *common, *work, SECONDS, 3) for work in works]
        wrote = [said(writer) for writer in writers]
        (tmp_path / "stop").touch()
        read = [said(reader) for reader in readers]
    print(*wrote, *read, sep="\n")  # noqa: T201
    assert [failed for told in wrote for failed in told["failed"]] == []
    assert [broken for told in read for broken in told["broken"]] == []
    assert all(told["runs"] >= 3 and told["rows"] for told in wrote)
    assert all(told["queries"] >= 50 for told in read)
    assert read_state(home).version >= before + 4
    assert max(len(told["sizes"]) for told in read) >= 3
