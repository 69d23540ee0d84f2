"""SIGKILL at any moment, full disks and read-only ones: whole tables, and a next run that works.

One home goes through all the kills. Batch n stamps its rows with n, so a half is seen, and what is
stored after batch n is known here without asking the warehouse.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from crypto_assets.tables import MARKET_CAPS, OHLC_DAILY
from crypto_assets.warehouse.backups import backup
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.publishing import LINK_NAME, publish_run, read_state
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.verifying import verify
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, caps

pytestmark = pytest.mark.slow

PATIENCE = 30.0
DELAYED, LOGGED, COPIED, FILED = 34, 8, 8, 26
Key = tuple[date, str]
State = tuple[dict[Key, int], dict[Key, int], dict[Key, int]]
"""The stamps of caps and candles by day and coin, and of gaps by day and table."""


def numbered(number: int) -> tuple[Batch, Write]:
    """Batch n: caps where n is even, candles where it is odd; it adds, replaces and finds gaps."""
    chosen = random.Random(number)
    days = [D1 + timedelta(days=chosen.randrange(20)) for _ in range(6)]
    coins = [f"coin-{chosen.randrange(80):02}" for _ in range(40)]
    rows = sorted({(day, coin) for day in days for coin in coins})
    make, table = (frames.candles, OHLC_DAILY) if number % 2 else (caps, MARKET_CAPS)
    # Values change in final rows, so restatements are part of the transaction too.
    frame = make(*[(day, coin, float(number)) for day, coin in rows])
    frame["observed_at"] += timedelta(seconds=number)
    missing = sorted(set(days))
    gaps = [Gap("lost", day, "missing", str(number)) for day in missing]
    return Batch(frame, Inspection({"lost": missing}, gaps)), Write(table, f"run-{number}")


def after(number: int, states: list[State]) -> State:
    """What is stored after batch n; `states` remembers those before."""
    while len(states) <= number:
        prices, closes, gaps = map(dict, states[-1]) if states else ({}, {}, {})
        if states:
            batch, to = numbered(len(states))
            assert batch.inspection is not None
            rows = prices if to.table is MARKET_CAPS else closes
            keys = zip(batch.rows["date"].dt.date, batch.rows["coin_id"], strict=True)
            rows |= dict.fromkeys(keys, len(states))
            gaps |= {(gap.day, to.table.name): len(states) for gap in batch.inspection.gaps}
        states.append((prices, closes, gaps))
    return states[number]


def found_in(connection: duckdb.DuckDBPyConnection) -> State:
    """What is stored, a doubled key being an error."""
    parts: list[dict[Key, int]] = []
    for column, table in (("price_usd", "market_caps"), ("close", "ohlc_daily")):
        rows = connection.execute(
            f"SELECT date, coin_id, {column}::INTEGER, run_id FROM {table} "
            "WHERE coin_id LIKE 'coin-%'"
        ).fetchall()
        assert all(run == f"run-{stamp}" for *_, stamp, run in rows)
        parts.append({(day, coin): stamp for day, coin, stamp, _ in rows})
        assert len(parts[-1]) == len(rows), f"a key is doubled in {table}"
    gaps = connection.execute(
        "SELECT table_name, unnest(range(first_day, last_day + 1, INTERVAL 1 DAY))::DATE, reason "
        "FROM gaps"
    ).fetchall()
    of_days = {(day, name): int(reason) for name, day, reason in gaps}
    assert len(of_days) == len(gaps), "gaps overlap"
    return parts[0], parts[1], of_days


def newest(state: State) -> int:
    return max((stamp for part in state for stamp in part.values()), default=0)


# Reads commands; each forks a writer that runs until it is killed, as its imports take a second.
NURSERY = """
import os, signal
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets_tests.warehouse.test_crashes import numbered
acknowledged = home.parent / 'acknowledged'

def work(number, files):
    left = files
    def count(event, arguments):
        nonlocal left
        if event in ('open', 'os.rename', 'os.remove', 'os.symlink', 'os.chmod', 'os.mkdir') and (
                str(home) in str(arguments[0]) or str(home) in str(arguments[-1])):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    if files:
        sys.addaudithook(count)
    while True:
        warehouse.write(*numbered(number))
        with acknowledged.open('a') as log:
            log.write(f'{number} ')
        publish_run(home, f'run-{number}')
        with acknowledged.open('a') as log:
            log.write('published ')
        number += 1

say('ready')
for line in sys.stdin:
    number, files = map(int, line.split())
    pid = os.fork()
    if not pid:
        try:
            work(number, files)
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(3)
    say(pid)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def soon(condition: Callable[[], bool]) -> bool:
    """Look without pause: what is watched for is there for less than a millisecond."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            return False
    return True


@pytest.fixture
def filled(warehouse: Warehouse) -> Warehouse:
    """Some megabytes, so that copying takes its time."""
    with warehouse.session("filling"):
        pass
    days = [D1 + timedelta(days=n) for n in range(100, 300)]
    rows = [(day, f"filler-{n:03}", float(n + 1)) for day in days for n in range(300)]
    warehouse.write(Batch(caps(*rows)), frames.to())
    return warehouse


def test_a_kill_at_any_moment_leaves_all_as_before_or_after(
    filled: Warehouse, home: Path, start: Start
) -> None:
    states: list[State] = []
    after(0, states)
    publish_run(home, "run-0")
    nursery = start(NURSERY)
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    assert nursery.stdout.readline() == "ready\n"
    seeded = random.Random(20260104)
    log = home.parent / "acknowledged"
    kinds = ["delay"] * DELAYED + ["log"] * LOGGED + ["copy"] * COPIED + ["file"] * FILED
    seeded.shuffle(kinds)
    number, visible, a_loop = 0, 0, 0.0
    hit: Counter[str] = Counter()
    for turn, kind in enumerate(["measure", *kinds]):
        log.write_text("")
        files = seeded.randrange(1, 60) if kind == "file" else 0
        nursery.stdin.write(f"{number + 1} {files}\n")
        nursery.stdin.flush()
        pid = int(nursery.stdout.readline())
        began = time.monotonic()
        if kind == "measure":
            assert soon(lambda: log.read_text().count("published") >= 5)
            a_loop = (time.monotonic() - began) / 5
        elif kind == "delay":
            time.sleep(seeded.uniform(0, 2 * a_loop))
        elif kind == "log":
            assert soon((home / "warehouse.duckdb.wal").exists)
            time.sleep(seeded.choice([0, 0, 0.001, 0.003]))
        elif kind == "copy":
            assert soon(lambda: any((home / "published").glob("*.unfinished")))
            time.sleep(seeded.choice([0, 0, 0.001, 0.005]))
        if kind != "file":
            os.kill(pid, signal.SIGKILL)
        assert int(nursery.stdout.readline()) == -signal.SIGKILL, nursery.communicate()[1]
        hit.update(traces(home))
        said = log.read_text().split()
        committed = [int(word) for word in said if word.isdigit()]
        about = f"kill {turn} ({kind}) after {said[-2:]}"

        # Readers first: they come while nobody has cleared up.
        with connect(home) as reader:
            seen = found_in(reader)
        assert seen == after(newest(seen), states), about
        published = committed[said.count("published") - 1] if "published" in said else visible
        assert newest(seen) >= published, about

        began = time.monotonic()
        with filled.session("looking after a kill") as connection:
            assert time.monotonic() - began < 10, about
            stored = found_in(connection)
            wrong = [verdict for verdict in verify(connection) if not verdict.is_fine]
        assert stored == after(newest(stored), states), about
        assert newest(stored) >= max([number, *committed]), f"{about}: a committed batch is lost"
        assert wrong == [], about

        number = newest(stored) + 1
        filled.write(*numbered(number))
        assert publish_run(home, f"run-{number}").withheld_by == (), about
        with connect(home) as reader:
            assert found_in(reader) == after(number, states), about
        assert traces(home) == set(), about
        visible = number
    print(f"killed in the midst of: {dict(hit)}")  # noqa: T201
    assert hit["log"] >= 5, hit
    assert hit["copy"] >= 2, hit
    assert hit["link"] + hit["unlinked"] + hit["state"] >= 2, hit
    assert len(list((home / "published").iterdir())) <= 3, "kills leave litter that stays"


def traces(home: Path) -> set[str]:
    """In the midst of what a process was killed."""
    published = home / "published"
    found = {
        "log": (home / "warehouse.duckdb.wal").exists(),
        "copy": any(published.glob("*.unfinished")),
        "link": (home / f"{LINK_NAME}.new").is_symlink(),
        "unlinked": f"published/{max(p.name for p in published.glob('*.duckdb'))}"
        != str((home / LINK_NAME).readlink()),
        "state": (home / "publication.json.new").exists(),
    }
    return {name for name, is_there in found.items() if is_there}


# Disks.


class Disk:
    """A small disk of its own, that can be filled and made read-only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int) -> None:
        """Leave so many bytes free."""
        free = shutil.disk_usage(self.path).free
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave)

    def make_room(self) -> None:
        self._ballast.unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.path)], check=True)


@contextmanager
def mounted(path: Path, megabytes: int) -> Iterator[Disk]:
    path.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("only root can mount a disk")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", 64) as made:
        yield made


@pytest.fixture
def on_disk(disk: Disk) -> Warehouse:
    """A warehouse with batch 2, published."""
    (disk.path / "home").mkdir()
    warehouse = Warehouse(disk.path / "home" / "warehouse.duckdb", frames.IDENTITY, 5)
    warehouse.write(*numbered(2))
    publish_run(warehouse.home, "run-2")
    return warehouse


def large(number: int, of_days: int = 80) -> Batch:
    """Megabytes that don't compress; DuckDB writes from 122,880 rows on past the log."""
    chosen = random.Random(number)
    days = [D1 + timedelta(days=n) for n in range(50, 50 + of_days)]
    rows = caps(*[(day, f"coin-{n:03}", chosen.random()) for day in days for n in range(900)])
    for column in ("market_cap_usd", "volume_24h_usd", "circulating_supply"):
        rows[column] = [chosen.random() for _ in range(len(rows))]
    return Batch(rows)


def has_batch_two(warehouse: Warehouse) -> None:
    """Nothing else is stored or seen, and nothing is wrong with it."""
    expected = after(2, [({}, {}, {}), ({}, {}, {})])
    with connect(warehouse.home) as reader:
        assert found_in(reader) == expected
    with warehouse.session("looking") as connection:
        assert found_in(connection) == expected
        assert [verdict for verdict in verify(connection) if not verdict.is_fine] == []


def resumes(warehouse: Warehouse) -> None:
    warehouse.write(*numbered(4))
    publish_run(warehouse.home, "run-4")
    with connect(warehouse.home) as reader:
        assert newest(found_in(reader)) == 4


def is_clear(error: BaseException) -> None:
    """One sentence for people, that says what to do."""
    assert isinstance(error, WarehouseError), f"{type(error).__name__}: {error}"
    text = str(error)
    assert len(text.splitlines()) == 1
    assert "disk" in text or "room" in text or "writable" in text, text


# The last one is committed by a checkpoint, for which there is no room.
@pytest.mark.parametrize(
    ("leave", "of_days"),
    [(16 << 10, 80), (300 << 10, 80), (16 << 10, 140), (1 << 20, 140), (7 << 20, 140)],
)
def test_a_full_disk_fails_a_write_and_nothing_else(
    on_disk: Warehouse, disk: Disk, leave: int, of_days: int
) -> None:
    disk.fill(leave)
    with pytest.raises((WarehouseError, duckdb.Error, OSError)) as caught:
        on_disk.write(large(1, of_days), frames.to())
    with connect(on_disk.home) as reader:
        assert newest(found_in(reader)) == 2
    disk.make_room()
    has_batch_two(on_disk)
    resumes(on_disk)
    is_clear(caught.value)


def test_a_full_disk_fails_a_publication_and_nothing_else(on_disk: Warehouse, disk: Disk) -> None:
    on_disk.write(*numbered(4))
    disk.fill(100 << 10)
    with pytest.raises(WarehouseError, match="can't publish") as caught:
        publish_run(on_disk.home, "run-4")
    is_clear(caught.value)
    with connect(on_disk.home) as reader:
        assert newest(found_in(reader)) == 2
    assert not list((on_disk.home / "published").glob("*.unfinished"))
    disk.make_room()
    publish_run(on_disk.home, "run-5")
    with connect(on_disk.home) as reader:
        assert newest(found_in(reader)) == 4


def test_no_room_for_the_state_of_a_publication_is_a_clear_error(
    on_disk: Warehouse, disk: Disk
) -> None:
    on_disk.write(*numbered(4))
    # A disk that is full for this file only: what is said of the publication comes last.
    (on_disk.home / "publication.json.new").symlink_to("/dev/full")
    with pytest.raises((WarehouseError, OSError)) as caught:
        publish_run(on_disk.home, "run-4")
    with connect(on_disk.home) as reader:
        assert newest(found_in(reader)) in (2, 4)
    (on_disk.home / "publication.json.new").unlink()
    resumes_at = publish_run(on_disk.home, "run-5")
    assert resumes_at == read_state(on_disk.home)
    is_clear(caught.value)


LIMITED = """
import resource
from crypto_assets_tests.warehouse import test_crashes
resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, resource.RLIM_INFINITY))
try:
    warehouse.write({batch})
except BaseException as error:
    say(f'{{type(error).__name__}}: {{error}}')
"""


@pytest.mark.parametrize(
    "batch", ["test_crashes.large(1), frames.to()", "*test_crashes.numbered(4)"]
)
@pytest.mark.parametrize("allowed", [4 << 10, 64 << 10, 1 << 20])
def test_a_file_that_may_not_grow_fails_a_write_and_nothing_else(
    warehouse: Warehouse, start: Start, allowed: int, batch: str
) -> None:
    warehouse.write(*numbered(2))
    publish_run(warehouse.home, "run-2")
    child = start(LIMITED.format(bytes=allowed, batch=batch))
    out, err = child.communicate()
    assert err == ""
    if out:
        has_batch_two(warehouse)
    resumes(warehouse)
    if out:
        assert out.startswith("WarehouseError: "), out
        assert len(out.splitlines()) == 1


def test_a_full_temporary_folder_fails_a_backup_and_nothing_else(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.write(*numbered(2))
    publish_run(warehouse.home, "run-2")
    with mounted(tmp_path / "temporary", 1) as temporary:
        temporary.fill(4 << 10)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary.path))
        with pytest.raises((WarehouseError, duckdb.Error, OSError)) as caught:
            backup(warehouse.home, tmp_path / "backups")
        temporary.make_room()
        backup(warehouse.home, tmp_path / "backups")
    has_batch_two(warehouse)
    is_clear(caught.value)


def test_a_read_only_home_is_read_and_left_as_it_is(on_disk: Warehouse, disk: Disk) -> None:
    disk.remount("ro")
    with pytest.raises(WarehouseError) as writing:
        on_disk.write(*numbered(4))
    with pytest.raises(WarehouseError) as publishing:
        publish_run(on_disk.home, "run-4")
    with connect(on_disk.home) as reader:
        assert newest(found_in(reader)) == 2
    disk.remount("rw")
    has_batch_two(on_disk)
    resumes(on_disk)
    is_clear(writing.value)
    is_clear(publishing.value)


# Readers.


def test_a_log_of_another_file_beside_the_publication_is_never_replayed(
    warehouse: Warehouse, home: Path, tmp_path: Path
) -> None:
    warehouse.write(*numbered(2))
    publish_run(home, "run-2")
    other = duckdb.connect(str(tmp_path / "other.duckdb"))
    other.execute("CREATE TABLE mine (a INTEGER)")
    other.execute("INSERT INTO mine VALUES (1)")
    stale = (tmp_path / "other.duckdb.wal").read_bytes()
    other.close()
    assert stale
    (home / f"{LINK_NAME}.wal").write_bytes(stale)
    with connect(home) as reader:
        assert newest(found_in(reader)) == 2
    warehouse.write(*numbered(4))
    publish_run(home, "run-4")
    # As a tool opens it that does not know of versions.
    with duckdb.connect(str(home / LINK_NAME), read_only=True) as reader:
        assert newest(found_in(reader)) == 4


HELD = """
from crypto_assets.warehouse.reading import connect
from crypto_assets_tests.warehouse.test_crashes import found_in
connection = connect(home)
first = found_in(connection)
say('held')
for line in sys.stdin:
    assert found_in(connection) == first
    with connect(home) as another:
        say(max(stamp for part in found_in(another) for stamp in part.values()))
"""


def test_who_holds_an_old_version_for_long_reads_on_and_hinders_nobody(
    warehouse: Warehouse, home: Path, start: Start
) -> None:
    warehouse.write(*numbered(1))
    publish_run(home, "run-1")
    child = start(HELD)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    for number in range(2, 14):
        warehouse.write(*numbered(number))
        publish_run(home, f"run-{number}")
        child.stdin.write("again\n")
        child.stdin.flush()
        assert child.stdout.readline() == f"{number}\n", child.communicate()[1]
    assert child.communicate()[1] == ""
