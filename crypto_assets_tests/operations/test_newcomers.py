"""What a newcomer runs into, each told in one sentence that says what to do."""

import ast
import errno
import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import crypto_assets
from crypto_assets.operations.disks import of_disk
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.serving import refuse_taken
from crypto_assets_tests.operations.commands import Done, call, command


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- Python

OLD = "import sys; sys.version_info = (3, 9, 18, 'final', 0); sys.version = '3.9.18 (main)'; "


def test_the_package_says_under_an_old_python_that_it_is_too_old() -> None:
    for arguments in (["-m", "status"], ["/somewhere/bin/crypto-assets", "status"]):
        code = f"{OLD}sys.argv = {arguments!r}; import crypto_assets"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        told = Done(done.returncode, done.stdout, done.stderr).sentence
        assert "needs Python 3.11 or newer and this is 3.9.18" in told
        assert "python3.11 -m venv" in told


def test_who_imports_the_package_under_an_old_python_gets_an_error_to_catch() -> None:
    code = (
        f"{OLD}sys.argv = ['theirs.py']\n"
        "try: import crypto_assets\nexcept ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs Python 3.11 or newer" in done.stdout


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_an_old_python_understands_the_files_that_say_so(name: str) -> None:
    source = Path(crypto_assets.__file__).with_name(name).read_text()
    ast.parse(source, feature_version=(3, 7))


# --- home and disk


@pytest.mark.parametrize(
    "words",
    [
        *(("status",), ("sql", "SELECT 1"), ("verify",), ("backup",), ("budget",), ("rebuild",)),
        *(("up", "--port", 0), ("demo",), ("init",), ("plan", "ranks", "--from", "2026-06-01")),
    ],
    ids=lambda words: words[0],
)
def test_a_file_in_place_of_the_home_is_named_whatever_is_typed(
    folder: Path, words: tuple[object, ...]
) -> None:
    (folder / "taken").write_text("")
    told = call(*words, "--home", "taken").sentence
    assert str(folder / "taken") in told
    assert "it is a file, not a folder" in told
    assert "--home" in told


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_at_the_end(folder: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300 * 1024, 300 * 1024))

    done = subprocess.run(
        command("demo", "--coins", 3, "--days", 3, "--home", folder / "full"),
        preexec_fn=small_files_only,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("crypto-assets: ")
    assert "make room" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_what_fills_the_disk_is_found_behind_what_it_made_of_it(number: int) -> None:
    try:
        try:
            raise OSError(number, os.strerror(number), "/some/file")
        except OSError as full:
            raise RuntimeError("theirs") from full
    except RuntimeError as error:
        told = of_disk(error)
    assert told is not None
    assert "the disk is full" in told
    assert "/some/file" in told


def test_what_is_no_matter_of_the_disk_stays_an_error() -> None:
    assert of_disk(KeyError("a")) is None
    assert of_disk(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    assert of_disk(sqlite3.OperationalError("no such table: a")) is None
    assert of_disk(sqlite3.OperationalError("database or disk is full")) is not None


# --- what is typed


def test_a_misspelt_asset_is_answered_with_the_one_meant(folder: Path) -> None:
    for words in (("backfill", "rank"), ("plan", "rank")):
        told = call(*words, "--from", "2026-06-01", "--home", folder / "new").sentence
        assert "did you mean ranks?" in told


def test_days_in_the_wrong_order_are_told_so(folder: Path) -> None:
    days = ("--from", "2026-06-02", "--to", "2026-06-01")
    told = call("plan", "ranks", *days, "--home", folder / "new").sentence
    assert "the first day comes after the last" in told


@pytest.mark.parametrize("host", ["1.2.3.4", "no-such-host.invalid"])
def test_a_host_that_is_not_here_asks_for_another_host(host: str) -> None:
    with pytest.raises(OperationError, match="choose another --host, for instance 127"):
        refuse_taken(host, 0)


def test_a_line_of_dotenv_that_is_ours_and_none_is_named(folder: Path) -> None:
    (folder / ".env").write_text("A=1\n\nCRYPTO_ASSETS_COINGECKO__PLAN demo\n")
    assert ".env can't be understood at line 3: write NAME=value" in call("status").sentence
    (folder / ".env").write_text("somebody else's syntax\nCRYPTO_ASSETS_UNIVERSE__TRACKED=0\n")
    assert "universe.tracked" in call("status").sentence


def test_a_plan_without_its_key_says_where_the_key_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__PLAN", "demo")
    told = call("refresh").sentence
    assert "CRYPTO_ASSETS_COINGECKO__API_KEY" in told
    assert "crypto-assets init" in told


# --- files


@pytest.mark.slow
def test_a_file_that_is_no_warehouse_is_told_with_what_to_do(demo_copy: Path) -> None:
    (demo_copy / "warehouse.duckdb").write_bytes(b"my notes, no database\n" * 1000)
    told = call("verify", "--home", demo_copy).sentence
    assert "move it away and run 'crypto-assets rebuild'" in told
    done = call("doctor", "--home", demo_copy)
    assert "1 of these need attention" in done.sentence
    assert "FAIL warehouse: can't open" in done.out


@pytest.mark.slow
def test_a_damaged_publication_is_told_with_what_to_do(demo_copy: Path) -> None:
    (demo_copy / "crypto.duckdb").resolve().write_bytes(b"garbage" * 10_000)
    for words in (("sql", "FROM ranks"), ("status",)):
        told = call(*words, "--home", demo_copy).sentence
        assert "'crypto-assets rebuild' or the next run that changes anything" in told


@pytest.mark.slow
def test_without_a_network_the_last_word_is_the_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for provider in ("COINGECKO", "ALTERNATIVE_ME", "FARSIDE"):
        monkeypatch.setenv(f"CRYPTO_ASSETS_{provider}__BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CRYPTO_ASSETS_FETCH__RETRY_BUDGET_SECONDS", "0")
    done = call("refresh", "--home", folder / "live")
    assert done.sentence.startswith(
        "crypto-assets: no provider could be reached: check the network"
    )
