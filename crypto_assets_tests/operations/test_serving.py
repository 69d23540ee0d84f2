"""The lock of a home's platform, the leash of its programs; whole platforms are in end_to_end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crypto_assets.operations import serving
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.serving import only_one
from crypto_assets.settings import Settings, validated

# A program on a leash that starts another one.
LEASHED = """
import os, subprocess, sys, threading
from crypto_assets.operations import leash
threading.Thread(target=leash._die_with, args=(int(sys.argv[1]),), daemon=True).start()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture(autouse=True)
def _refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_LAST_ONE_ENDS_SECONDS", 0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return validated({"home": tmp_path})


@pytest.fixture
def sleeper() -> list[str]:
    return [sys.executable, "-c", "import time; time.sleep(600)"]


def refusal(settings: Settings) -> str:
    with pytest.raises(OperationError) as refused, only_one(settings):
        pass
    return str(refused.value)


def test_a_second_one_is_told_who_is_the_first(settings: Settings) -> None:
    with only_one(settings):
        told = refusal(settings)
    assert f"process {os.getpid()} runs the platform of {settings.home} already" in told
    assert f"'kill {os.getpid()}'" in told


def test_homes_have_platforms_of_their_own(settings: Settings, tmp_path: Path) -> None:
    with only_one(settings), only_one(validated({"home": tmp_path / "other"})):
        pass


def test_after_one_has_ended_there_may_be_another(settings: Settings) -> None:
    for _ in range(2):
        with only_one(settings):
            pass


def test_what_it_started_keeps_the_lock_and_is_named(
    settings: Settings, sleeper: list[str]
) -> None:
    with only_one(settings) as lock:
        child = subprocess.Popen(sleeper, pass_fds=[lock.fileno()])
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
    try:
        (settings.home / "up.lock").write_text(f"{gone.pid} {child.pid}")
        assert f"process {child.pid} runs the platform" in refusal(settings)
    finally:
        child.kill()
        child.wait()
    with only_one(settings):
        pass


def test_other_programs_do_not_keep_the_lock(settings: Settings, sleeper: list[str]) -> None:
    with only_one(settings):
        child = subprocess.Popen(sleeper)
    try:
        with only_one(settings):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_leash_ends_a_program_and_what_it_has_started() -> None:
    theirs, ours = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-c", LEASHED, str(theirs)],
        pass_fds=[theirs],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    assert program.stdout
    child = int(program.stdout.readline())
    assert program.poll() is None
    os.kill(child, 0)
    os.close(ours)
    assert program.wait(10) == -signal.SIGKILL
    program.stdout.close()
    deadline = time.monotonic() + 10
    while is_running(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_program_on_a_leash_is_that_program() -> None:
    theirs, ours = os.pipe()
    leash = [sys.executable, "-m", "crypto_assets.operations.leash", str(theirs)]
    done = subprocess.run(
        [*leash, "dagster-daemon", "--version"],
        pass_fds=[theirs],
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    os.close(theirs)
    os.close(ours)
    assert "dagster-daemon, version 1." in done.stdout
