"""What holds for every command, and those that serve until they are told to end."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from crypto_assets.cli import cli
from crypto_assets_tests.operations.commands import call, command, free_port, spawn

COMMANDS = [
    *("alert-test", "backfill", "backup", "budget", "demo", "diff", "doctor", "init", "plan"),
    *("rebuild", "refresh", "restore", "sandbox", "sql", "status", "up", "verify"),
]


def test_the_commands_are_those_of_the_readme() -> None:
    assert sorted(cli.commands) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_shows_an_example_that_parses(name: str) -> None:
    shown = call(name, "--help")
    assert shown.code == 0
    _, _, rest = " ".join(shown.out.split("Options:")[0].split()).partition("Example: ")
    assert rest.startswith(f"crypto-assets {name}")
    if name != "sql":
        words = rest.split()[2:]
        cli.commands[name].make_context(name, words)


def test_every_option_is_explained() -> None:
    for name, of_cli in cli.commands.items():
        for option in of_cli.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{name} {option.name}"


def test_an_unknown_command_names_itself() -> None:
    done = call("refesh")
    assert done.code == 2
    assert "refesh" in done.err


@pytest.mark.parametrize("words", [("refresh",), ("backfill", "ranks", "--from", "2026-03-01")])
def test_a_file_in_place_of_the_home_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    told = call(*words, "--home", taken).sentence
    assert str(taken) in told
    assert "--home" in told


@contextmanager
def listening() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


@pytest.mark.parametrize("name", ["up", "sandbox"])
def test_a_port_in_use_is_one_sentence(tmp_path: Path, name: str) -> None:
    with listening() as port:
        home = ("--home", tmp_path) if name == "up" else ()
        told = spawn(name, "--port", port, *home, cwd=tmp_path).sentence
    assert str(port) in told
    assert "--port" in told


@pytest.mark.parametrize(
    "words",
    [
        ("sandbox", "--port", 99999),
        ("up", "--port", 99999),
        ("sandbox", "--port", -1),
        ("sandbox", "--clock", "noon"),
        ("sandbox", "--plan", "gold"),
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_an_option_out_of_range_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        done = call(*words)
    except Exception as error:
        pytest.fail(f"a traceback: {error!r}")
    assert done.code != 0
    assert done.err.strip().splitlines()[-1].startswith(("Error:", "crypto-assets:"))
    assert str(words[2]) in done.err


@contextmanager
def sandbox(*words: object) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A sandbox of its own process and its URL; ended in any case."""
    process = subprocess.Popen(
        command("sandbox", *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield process, next(word for word in line.split() if word.startswith("http"))
    finally:
        process.kill()
        process.communicate()


def answer(url: str) -> dict[str, object]:
    # The sandbox refuses the names that CoinGecko's CDN refuses, Python's own among them.
    request = urllib.request.Request(url, headers={"User-Agent": "tests"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return dict(json.load(response))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_sandbox_serves_until_it_is_interrupted(number: signal.Signals) -> None:
    with sandbox("--port", free_port(), "--seed", 3) as (process, url):
        assert "gecko_says" in answer(f"{url}/coingecko/api/v3/ping")
        stats = answer(f"{url}/_sandbox/stats")
        assert stats["total"] == 1
        process.send_signal(number)
        _, told = process.communicate(timeout=10)
    assert "Traceback" not in told
    if number == signal.SIGINT:
        assert process.returncode == 0


def test_a_sandbox_enforces_the_plan_it_is_told(tmp_path: Path) -> None:
    with sandbox("--port", 0, "--plan", "demo") as (_, url):
        with pytest.raises(urllib.error.HTTPError) as refused:
            answer(f"{url}/coingecko/api/v3/coins/list")
        assert refused.value.code == 401
        refused.value.close()


def test_an_attached_sandbox_ends_with_its_standard_input() -> None:
    with sandbox("--port", 0, "--attached", "--clock", "2026-03-01T12:00") as (process, url):
        assert "gecko_says" in answer(f"{url}/coingecko/api/v3/ping")
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        assert process.wait(10) == 0
