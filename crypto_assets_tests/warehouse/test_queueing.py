"""Who came first goes first, in threads and processes; the dead keep nobody waiting."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from crypto_assets.periods import wall_now
from crypto_assets.warehouse.queueing import TooLongError, turn
from crypto_assets_tests.warehouse.conftest import Start

PATIENCE = 20.0
# Takes its turn, notes its name, holds the place until it reads a line.
CHILD = """
from crypto_assets.warehouse.queueing import turn
with turn(home / 'queue', {purpose!r}, 20):
    with (home / 'turns').open('a') as turns:
        turns.write({name!r} + chr(10))
    say('held')
    sys.stdin.readline()
"""


@pytest.fixture
def queue(home: Path) -> Path:
    (home / "queue").mkdir(parents=True)
    return home / "queue"


def tickets(queue: Path) -> list[str]:
    return sorted(path.name for path in queue.iterdir() if path.name.isdigit())


def until(condition: Callable[[], bool]) -> None:
    """Wait for something other processes do."""
    ends = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < ends, "this never came to be"
        pause.wait(0.002)


def queued(queue: Path, number: int) -> None:
    until(lambda: len(tickets(queue)) == number)


def child(start: Start, name: str, purpose: str = "waiting") -> subprocess.Popen[str]:
    return start(CHILD.format(name=name, purpose=purpose))


def holding(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n", process.communicate()[1]


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture
def in_thread(queue: Path, home: Path) -> Iterator[Callable[[str], threading.Thread]]:
    """Starts a thread that takes its turn and notes its name."""
    threads = []

    def take(name: str) -> None:
        with turn(queue, "a thread", PATIENCE), (home / "turns").open("a") as turns:
            turns.write(f"{name}\n")

    def starter(name: str) -> threading.Thread:
        thread = threading.Thread(target=take, args=(name,), daemon=True)
        thread.start()
        threads.append(thread)
        return thread

    yield starter
    for thread in threads:
        thread.join(PATIENCE)


def turns(home: Path) -> list[str]:
    return (home / "turns").read_text().split()


def test_turns_go_by_arrival_over_processes_and_threads(
    queue: Path, home: Path, start: Start, in_thread: Callable[[str], threading.Thread]
) -> None:
    arrivals = ["p0", "t1", "p2", "t3", "t4", "p5"]
    waiting: list[threading.Thread] = []
    processes = []
    with turn(queue, "first of all", 0):
        for number, name in enumerate(arrivals):
            if name.startswith("p"):
                processes.append(child(start, name))
            else:
                waiting.append(in_thread(name))
            queued(queue, number + 2)
        assert not (home / "turns").exists()
    for process in processes:
        holding(process)
        release(process)
    for process in processes:
        assert process.wait(PATIENCE) == 0
    for thread in waiting:
        thread.join(PATIENCE)
    assert turns(home) == arrivals


def test_who_releases_and_comes_again_stands_behind_those_who_waited(
    queue: Path, home: Path, in_thread: Callable[[str], threading.Thread]
) -> None:
    with ExitStack() as held:
        held.enter_context(turn(queue, "first", 0))
        threads = []
        for number in range(8):
            threads.append(in_thread(str(number)))
            queued(queue, number + 2)
        held.close()
        with turn(queue, "again", PATIENCE), (home / "turns").open("a") as noted:
            noted.write("again\n")
    for thread in threads:
        thread.join(PATIENCE)
    assert turns(home) == [*map(str, range(8)), "again"]


def test_a_hundred_turns_of_threads_never_overlap(queue: Path) -> None:
    inside, most, done = 0, 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        for _ in range(10):
            with turn(queue, "work", PATIENCE):
                with lock:
                    inside += 1
                    most = max(most, inside)
                os.sched_yield()
                with lock:
                    inside -= 1
                    done += 1

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, done) == (1, 100)
    assert tickets(queue) == []


def test_a_killed_waiter_loses_its_place(
    queue: Path, home: Path, start: Start, in_thread: Callable[[str], threading.Thread]
) -> None:
    with turn(queue, "first", 0):
        dead = child(start, "dead")
        queued(queue, 2)
        behind = in_thread("behind")
        queued(queue, 3)
        dead.kill()
        dead.wait()
    behind.join(PATIENCE)
    assert turns(home) == ["behind"]
    assert tickets(queue) == []


def test_a_killed_holder_frees_the_first_place_at_once(
    queue: Path, home: Path, start: Start, in_thread: Callable[[str], threading.Thread]
) -> None:
    dead = child(start, "dead")
    holding(dead)
    behind = in_thread("behind")
    queued(queue, 2)
    dead.kill()
    dead.wait()
    began = time.monotonic()
    behind.join(PATIENCE)
    assert time.monotonic() - began < 2
    assert turns(home) == ["dead", "behind"]
    assert tickets(queue) == []


def test_who_waits_too_long_is_told_who_is_first(queue: Path, start: Start) -> None:
    began = wall_now()
    holder = child(start, "holder", "a backfill of 'ohlc_hourly'")
    holding(holder)
    with pytest.raises(TooLongError) as refused, turn(queue, "impatient", 0.05):
        pass
    told = re.fullmatch(
        r"process (\d+) \(a backfill of 'ohlc_hourly', since (.{19}) UTC\)", refused.value.holder
    )
    assert told is not None, refused.value.holder
    assert int(told[1]) == holder.pid
    since = datetime.fromisoformat(told[2])
    assert began.replace(microsecond=0) <= since <= wall_now()


def test_who_is_told_of_is_the_holder_not_the_one_that_waits_before(
    queue: Path, start: Start
) -> None:
    holder = child(start, "holder")
    holding(holder)
    child(start, "second")
    queued(queue, 2)
    with pytest.raises(TooLongError, match=f"^process {holder.pid} "), turn(queue, "third", 0):
        pass


def test_who_gave_up_keeps_no_place(queue: Path) -> None:
    with turn(queue, "first", 0):
        before = tickets(queue)
        with pytest.raises(TooLongError), turn(queue, "impatient", 0):
            pass
        assert tickets(queue) == before
    with turn(queue, "next", 0):
        pass


def test_a_time_out_does_not_come_early_nor_late(queue: Path) -> None:
    with turn(queue, "first", 0):
        began = time.monotonic()
        with pytest.raises(TooLongError), turn(queue, "second", 0.2):
            pass
        assert 0.2 <= time.monotonic() - began < 2


def test_a_counter_that_another_process_keeps_is_not_waited_for_longer(
    queue: Path, start: Start
) -> None:
    keeper = start("""
import fcntl
with (home / 'queue' / 'counter').open('a') as counter:
    fcntl.flock(counter, fcntl.LOCK_EX)
    say('held')
    sys.stdin.readline()
""")
    holding(keeper)
    began = time.monotonic()
    with pytest.raises(TooLongError, match="another process"), turn(queue, "second", 0.5):
        pass
    assert 0.5 <= time.monotonic() - began < 5
    assert tickets(queue) == []
    release(keeper)
    with turn(queue, "third", PATIENCE):
        pass


def test_an_error_in_a_turn_frees_the_place_and_is_told(queue: Path) -> None:
    with pytest.raises(RuntimeError, match="broken"), turn(queue, "first", 0):
        raise RuntimeError("broken")
    with turn(queue, "next", 0):
        pass


def test_a_ticket_that_was_only_half_written_is_somebody_without_a_name(
    queue: Path, start: Start
) -> None:
    child_ = child(start, "holder")
    holding(child_)
    (ticket,) = tickets(queue)
    (queue / ticket).write_text("{")
    with pytest.raises(TooLongError, match="another process"), turn(queue, "second", 0):
        pass


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    with turn(tmp_path / "a" / "b", "first", 0):
        assert (tmp_path / "a" / "b").is_dir()


def test_an_unusable_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere/queue")):
        with pytest.raises(OSError, match=r"."), turn(folder, "first", 0):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_an_error_of_the_system_and_leaves_no_place_taken(
    queue: Path, start: Start
) -> None:
    full = start("""
import resource, signal
from crypto_assets.warehouse.queueing import turn
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    with turn(home / 'queue', 'full', 0):
        say('had a turn')
except OSError as error:
    say(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with turn(home / 'queue', 'room again', 0):
    say('had a turn')
""")
    out, err = full.communicate(timeout=PATIENCE)
    assert (out, err) == ("File too large\nhad a turn\n", "")
    assert tickets(queue) == []


def test_no_files_pile_up(queue: Path, start: Start) -> None:
    for number in range(30):
        with turn(queue, str(number), 0), pytest.raises(TooLongError), turn(queue, "second", 0):
            pass
    dead = child(start, "dead")
    holding(dead)
    dead.kill()
    dead.wait()
    with turn(queue, "last", PATIENCE):
        pass
    assert len(list(queue.iterdir())) <= 1, sorted(queue.iterdir())
