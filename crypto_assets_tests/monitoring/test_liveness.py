import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crypto_assets.monitoring import liveness

HOLDS = """
import sys
from pathlib import Path
from crypto_assets.monitoring import liveness
with liveness.held(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(home: Path, run_id: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the lock of a run until its standard input ends."""
    command = [sys.executable, "-c", HOLDS, str(home), run_id]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_run_is_alive_while_its_process_is(tmp_path: Path) -> None:
    with holder(tmp_path, "one") as process:
        assert liveness.is_alive(tmp_path, "one")
        assert liveness.left_behind(tmp_path) == []
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not liveness.is_alive(tmp_path, "one")
        assert liveness.left_behind(tmp_path) == ["one"]


def test_a_run_that_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    with liveness.held(tmp_path, "one"):
        assert liveness.is_alive(tmp_path, "one")
    assert not liveness.is_alive(tmp_path, "one")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_nobody_has_heard_of_is_neither_alive_nor_left_behind(tmp_path: Path) -> None:
    assert not liveness.is_alive(tmp_path, "one")
    assert liveness.left_behind(tmp_path) == []


def test_the_dead_are_told_from_the_living_and_forgotten(tmp_path: Path) -> None:
    with holder(tmp_path, "living"):
        for name in ("dead", "gone"):
            with holder(tmp_path, name):
                pass
        assert liveness.left_behind(tmp_path) == ["dead", "gone"]
        liveness.forget(tmp_path, "gone")
        assert liveness.left_behind(tmp_path) == ["dead"]


def test_the_file_says_which_process_it_is(tmp_path: Path) -> None:
    with holder(tmp_path, "one") as process:
        assert (tmp_path / "runs" / "one.lock").read_text() == f"{process.pid}\n"


def test_a_program_started_by_a_run_does_not_keep_it_alive(tmp_path: Path) -> None:
    with liveness.held(tmp_path, "one"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        with liveness.held(tmp_path, "two"):
            (tmp_path / "runs" / "two.lock").rename(tmp_path / "runs" / "three.lock")
        assert child.poll() is None
        assert liveness.left_behind(tmp_path) == ["three"]
    finally:
        child.kill()
        child.communicate()
