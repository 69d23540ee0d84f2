"""`init`: asks or takes options, checks, writes the settings whole or not at all."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import SecretStr

from crypto_assets.operations import settings_files
from crypto_assets.operations.choosing import Choices, draft
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.settings_files import FileDraft
from crypto_assets.sandbox import SandboxServer
from crypto_assets.settings import load_settings
from crypto_assets_tests.end_to_end.platforms import eventually
from crypto_assets_tests.operations.commands import call, command, environment, is_waiting
from crypto_assets_tests.webhook import open_webhook

KEY = "CG-sandbox-of-init-5b1f"
WRONG = "CG-not-a-key-of-theirs-99"
NOWHERE = "http://127.0.0.1:9/coingecko/api/v3"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `init` is called in; the provider is nowhere unless a test starts one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__BASE_URL", NOWHERE)
    monkeypatch.setenv("CRYPTO_ASSETS_FETCH__RETRY_BUDGET_SECONDS", "0")
    return tmp_path


@pytest.fixture
def provider(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A sandbox that enforces the plan of the test's parameter (default: demo); its plan."""
    plan = str(getattr(request, "param", "demo"))
    # Answers of a sandbox are refused by whoever does not say that it wants one.
    monkeypatch.setenv("CRYPTO_ASSETS_SANDBOX__SEED", "7")
    with SandboxServer(plan=plan) as server:
        monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__BASE_URL", f"{server.url}/coingecko/api/v3")
        yield plan


def written(folder: Path) -> set[str]:
    """What is in the folder."""
    return {path.name for path in folder.iterdir()}


# --- without a terminal


def test_nothing_given_is_the_keyless_plan_with_the_defaults(folder: Path) -> None:
    done = call("init")
    assert done.code == 0, done.err
    tree = yaml.safe_load((folder / "crypto_assets.yaml").read_text())
    assert tree == {
        "coingecko": {"plan": "keyless"},
        "universe": {
            "tracked": 100,
            "always": ["bitcoin", "ethereum", "solana"],
            "headline": ["bitcoin", "ethereum", "solana"],
        },
        "history": {"start": date(2026, 1, 1)},
    }
    assert written(folder) == {"crypto_assets.yaml"}
    assert "the plan 'keyless' has no monthly limit and 180 calls an hour: they fit" in done.out
    assert "crypto-assets up" in done.out


def test_without_a_network_it_is_written_and_marked_unchecked(folder: Path) -> None:
    done = call("init", "--plan", "demo", "--api-key", KEY)
    assert done.code == 0, done.err
    assert "not checked: coingecko was asked for ping: could not be reached" in done.out
    assert "# Not checked with CoinGecko yet" in (folder / "crypto_assets.yaml").read_text()
    assert load_settings().coingecko.plan == "demo"


@pytest.mark.parametrize(
    ("provider", "credits"),
    [("demo", ""), ("basic", "100000 credits left"), ("analyst", "500000 credits left")],
    indirect=["provider"],
)
def test_the_right_key_is_checked_by_one_call_and_kept_in_dotenv_only(
    folder: Path, provider: str, credits: str
) -> None:
    done = call("init", "--plan", provider, "--api-key", KEY)
    assert done.code == 0, done.err
    assert "CoinGecko: reachable" in done.out
    assert f"of {credits}" in done.out or not credits
    assert KEY not in done.out + done.err
    file = (folder / "crypto_assets.yaml").read_text()
    assert KEY not in file
    assert "Not checked" not in file
    assert (folder / ".env").read_text() == f"CRYPTO_ASSETS_COINGECKO__API_KEY={KEY}\n"
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    stored = load_settings().coingecko
    assert (stored.plan, stored.api_key) == (provider, SecretStr(KEY))


@pytest.mark.parametrize("provider", ["demo", "basic"], indirect=True)
def test_a_wrong_key_is_refused_and_nothing_is_written(folder: Path, provider: str) -> None:
    told = call("init", "--plan", provider, "--api-key", WRONG).sentence
    assert f"the plan '{provider}' or its key was refused" in told
    assert "CRYPTO_ASSETS_COINGECKO__API_KEY to a valid key" in told
    assert "--anyway" in told
    assert WRONG not in told
    assert written(folder) == set()


@pytest.mark.parametrize(
    ("provider", "plan", "advice"),
    [
        ("demo", "analyst", "COINGECKO__PLAN to the plan the key belongs to"),
        ("basic", "demo", "COINGECKO__PLAN to demo"),
        ("basic", "analyst", "set coingecko.plan to basic"),
    ],
    indirect=["provider"],
)
def test_a_key_of_another_plan_is_refused_and_named(
    folder: Path, provider: str, plan: str, advice: str
) -> None:
    assert advice in call("init", "--plan", plan, "--api-key", KEY).sentence
    assert written(folder) == set()


@pytest.mark.usefixtures("provider")
def test_what_is_refused_is_written_if_told_so(folder: Path) -> None:
    done = call("init", "--plan", "demo", "--api-key", WRONG, "--anyway")
    assert done.code == 0, done.err
    assert "was refused" in done.out
    assert "# Not checked with CoinGecko yet" in (folder / "crypto_assets.yaml").read_text()


def test_a_plan_without_its_key_is_one_sentence(folder: Path) -> None:
    told = call("init", "--plan", "demo").sentence
    assert "needs a key: set CRYPTO_ASSETS_COINGECKO__API_KEY" in told
    assert written(folder) == set()


def test_the_key_may_come_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_COINGECKO__API_KEY", KEY)
    assert call("init", "--plan", "demo").code == 0
    monkeypatch.delenv("CRYPTO_ASSETS_COINGECKO__API_KEY")
    assert load_settings().coingecko.api_key == SecretStr(KEY)


def test_what_does_not_fit_the_plan_is_not_written_and_says_what_to_change(folder: Path) -> None:
    done = call("init", "--tracked", 1000)
    assert "these settings do not fit the plan" in done.sentence
    assert "Any one of these would fit: universe.tracked: " in done.out
    assert written(folder) == set()
    fitting = re.search(r"universe.tracked: (\d+)", done.out)
    assert fitting
    assert call("init", "--tracked", fitting[1]).code == 0
    assert call("init", "--tracked", 1000, "--anyway", "--overwrite").code == 0
    assert load_settings().universe.tracked == 1000


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--tracked", 0), "'universe.tracked' is '0': a whole number from 1 to 5,000 is needed"),
        (("--history-start", "2009-01-03"), "a day from 2013-04-28 to today is needed"),
        (("--history-start", "2199-01-01"), "history.start"),
        (("--headline", ","), "'universe.headline' is ',': at least one coin is needed"),
        (("--headline", "-"), "'universe.headline' is '-': at least one coin is needed"),
        (("--always", "[1, {}]"), "coins by their ids are needed"),
        (("--alert-url", "slack"), "alerts.urls"),
        (("--alert-url", "slack://secret-but-short"), "alerts.urls[0] (slack)"),
        (("--alert-url", "nosuchservice://secret"), "alerts.urls[0] (nosuchservice)"),
    ],
    ids=str,
)
def test_a_choice_that_is_not_allowed_is_named(
    folder: Path, words: tuple[str, object], named: str
) -> None:
    told = call("init", *words).sentence
    assert named in told
    assert "secret" not in told
    assert written(folder) == set()


@pytest.mark.parametrize("none", ["-", " - ", ""])
def test_no_coin_can_be_said_as_an_option(none: str) -> None:
    assert call("init", "--always", none).code == 0
    assert load_settings().universe.always == []


@pytest.mark.usefixtures("provider")
def test_coins_that_the_provider_does_not_list_are_named(folder: Path) -> None:
    words = ("init", "--plan", "demo", "--api-key", KEY)
    words += ("--always", "bitcoin,no-such-coin-at-all", "--headline", "Etherium,bitcoin")
    told = call(*words).sentence
    assert "not listed by CoinGecko: no-such-coin-at-all, Etherium; did you mean " in told
    assert "ethereum" in told.partition("did you mean")[2]
    assert "--anyway" in told
    assert written(folder) == set()
    done = call(*words, "--anyway")
    assert done.code == 0, done.err
    assert "not listed by CoinGecko: no-such-coin-at-all, Etherium" in done.out
    assert load_settings().universe.headline == ["Etherium", "bitcoin"]


def test_without_a_network_coins_are_taken_as_they_are() -> None:
    done = call("init", "--headline", "no-such-coin-at-all")
    assert done.code == 0, done.err
    assert "not listed" not in done.out
    assert load_settings().universe.headline == ["no-such-coin-at-all"]


def test_an_unknown_plan_names_those_there_are(folder: Path) -> None:
    done = call("init", "--plan", "gold")
    assert done.code == 2
    assert "keyless, demo, basic, analyst, lite, enterprise" in done.err


# --- what is there already


def test_an_existing_file_is_shown_and_changed_only_when_told(folder: Path) -> None:
    file = folder / "crypto_assets.yaml"
    before = (
        f"# mine\nuniverse: {{tracked: 40}}\nfetch: {{threads: 3}}\ncoingecko: {{api_key: {KEY}}}\n"
    )
    file.write_text(before)
    done = call("init", "--tracked", 41)
    assert "--overwrite" in done.sentence
    assert "-# mine" in done.out
    assert "-universe: {tracked: 40}" in done.out
    assert "+  tracked: 41" in done.out
    # What can't be done anyway costs nothing.
    assert "credits" not in done.out
    assert KEY not in done.out
    assert file.read_text() == before
    assert written(folder) == {"crypto_assets.yaml"}
    assert call("init", "--tracked", 41, "--overwrite").code == 0
    assert load_settings().universe.tracked == 41
    assert load_settings().fetch.threads == 3
    assert KEY not in file.read_text()


def test_the_help_says_that_comments_are_lost() -> None:
    said = " ".join(call("init", "--help").out.split())
    assert "comments of your own in crypto_assets.yaml are lost" in said


def test_a_second_time_there_is_nothing_to_change(folder: Path) -> None:
    words = ("init", "--plan", "demo", "--api-key", KEY, "--tracked", 30)
    assert call(*words).code == 0
    before = {path.name: path.read_text() for path in folder.iterdir()}
    done = call("init")
    assert done.code == 0, done.err
    assert "nothing was changed" in done.out
    assert {path.name: path.read_text() for path in folder.iterdir()} == before


def test_every_other_line_of_dotenv_is_kept(folder: Path) -> None:
    others = (
        "# mine\n\nexport EDITOR='vi -n'\nCRYPTO_ASSETS_FETCH__THREADS=2 # few\nLAST=no newline"
    )
    (folder / ".env").write_text(others)
    assert call("init", "--plan", "demo", "--api-key", KEY).code == 0
    after = (folder / ".env").read_text()
    assert after == f"{others}\nCRYPTO_ASSETS_COINGECKO__API_KEY={KEY}\n"
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600
    assert load_settings().fetch.threads == 2


def test_another_key_takes_the_place_of_the_one_before(folder: Path) -> None:
    (folder / ".env").write_text("A=1\nCRYPTO_ASSETS_COINGECKO__API_KEY=CG-old-one\nB=2\n")
    words = ("init", "--plan", "demo", "--api-key", KEY)
    done = call(*words)
    assert "--overwrite" in done.sentence
    assert "CG-old-one" not in done.out
    assert call(*words, "--overwrite").code == 0
    kept = f"A=1\nCRYPTO_ASSETS_COINGECKO__API_KEY={KEY}\nB=2\n"
    assert (folder / ".env").read_text() == kept


def test_what_would_win_over_the_file_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRYPTO_ASSETS_UNIVERSE__TRACKED", "7")
    told = call("init", "--tracked", 8).sentence
    assert "CRYPTO_ASSETS_UNIVERSE__TRACKED in the environment or .env would win" in told
    assert written(folder) == set()
    assert call("init", "--tracked", 7).code == 0


def test_a_home_with_settings_of_its_own_is_refused(folder: Path) -> None:
    (folder / "made").mkdir()
    (folder / "made" / "crypto_assets.yaml").write_text("universe: {tracked: 3}\n")
    assert "has settings of its own" in call("init", "--home", "made").sentence
    (folder / "taken").write_text("")
    assert "is a file, not a folder" in call("init", "--home", "taken").sentence
    assert "is a file, not a folder" in call("init", "--home", "taken/below").sentence
    assert written(folder) == {"made", "taken"}


def test_a_broken_settings_file_is_named_and_left_alone(folder: Path) -> None:
    (folder / "crypto_assets.yaml").write_text("universe:\n\ttracked: 5\n")
    assert "not valid YAML (line 2)" in call("init", "--overwrite").sentence
    (folder / "crypto_assets.yaml").write_text("universe: {traked: 5}\n")
    assert "did you mean 'tracked'" in call("init", "--overwrite").sentence


def test_a_repository_that_would_take_the_secrets_is_told_of(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    words = ("init", "--plan", "demo", "--api-key", KEY)
    assert "add it to .gitignore" in call(*words).out
    (folder / ".env").unlink()
    (folder / ".gitignore").write_text(".env\n")
    assert "add it to .gitignore" not in call(*words).out


# --- files

NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12
)
TRICKY = st.sampled_from(
    ["0x", "1inch", "off", "no", "1e3", "0o7", "1_0", "~", "null", "2026-01-01"]
)
IDS = st.lists(TRICKY | NAMES, max_size=4)
KEYS = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1, max_size=20)
CHOICES = st.builds(
    Choices,
    home=st.sampled_from(["data", "other", "de ep/er", "1e3", "off"]).map(Path),
    plan=st.sampled_from(["demo", "basic", "analyst", "lite", "enterprise"]),
    api_key=KEYS.filter(lambda key: "${" not in key).map(SecretStr),
    tracked=st.integers(1, 5000),
    always=IDS.map(tuple),
    headline=IDS.filter(len).map(tuple),
    start=st.dates(date(2013, 4, 28), datetime.now(UTC).date()),
    alert_urls=st.lists(
        st.from_regex(r"[a-z]{2,6}://[A-Za-z0-9@:/?&=%#'_.-]{1,20}", fullmatch=True).map(SecretStr),
        max_size=3,
    ).map(tuple),
)


@given(chosen=CHOICES, dotenv=st.sampled_from(["", "A=1\n", "# none", "X='two\nlines'\n\n"]))
@hypothesis_settings(max_examples=100, deadline=None)
def test_what_is_written_loads_as_it_was_chosen(chosen: Choices, dotenv: str) -> None:
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name).resolve()
        patch.chdir(folder)
        patch.delenv("CRYPTO_ASSETS_COINGECKO__BASE_URL", raising=False)
        (folder / ".env").write_text(dotenv)
        settings_files.write(draft(folder, chosen, is_checked=True).files)
        loaded = load_settings()
        assert loaded.home == folder / chosen.home
        assert Choices.of(chosen.home, loaded) == chosen
        assert (folder / ".env").read_text().startswith(dotenv)


def test_a_key_that_dotenv_can_not_hold_is_refused(folder: Path) -> None:
    told = call("init", "--plan", "demo", "--api-key", "CG-${HOME}").sentence
    assert "CRYPTO_ASSETS_COINGECKO__API_KEY holds characters" in told
    assert written(folder) == set()


@pytest.mark.parametrize("before", [None, "as it was\n"])
def test_where_one_file_can_not_be_written_none_is(folder: Path, before: str | None) -> None:
    first = folder / ".env"
    if before:
        first.write_text(before)
    # A folder can't be replaced by a file.
    (folder / "taken" / "within").mkdir(parents=True)
    files = (
        FileDraft(first, before, "after\n", is_secret=True),
        FileDraft(folder / "taken", None, "after\n", is_secret=False),
    )
    with pytest.raises(OperationError, match="can't write the settings"):
        settings_files.write(files)
    assert (first.read_text() if first.exists() else None) == before
    assert written(folder) == {"taken"} | ({".env"} if before else set())


def test_a_folder_that_can_not_be_written_is_one_sentence() -> None:
    # Nobody can make files there, not even root.
    lost = FileDraft(Path("/proc/self/fdinfo/.env"), None, "x", is_secret=True)
    with pytest.raises(OperationError, match="make it writable, or run this in another folder"):
        settings_files.write([lost])


# --- in a terminal

# Makes a terminal its own, where hidden answers are read from.
IN_TERMINAL = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"


@dataclass
class Talk:
    """A conversation with a command in a terminal."""

    process: "subprocess.Popen[bytes]"
    end: int
    shown: str = ""
    _read: int = 0

    def expect(self, text: str, seconds: float = 60) -> None:
        """Wait until this is shown after what was expected before."""
        until = time.monotonic() + seconds
        while text not in self.shown[self._read :]:
            assert time.monotonic() < until, f"no {text!r} in {self.shown!r}"
            if not self._more():
                time.sleep(0.01)
                assert text in self.shown[self._read :], f"no {text!r} in {self.shown!r}"
        self._read = self.shown.index(text, self._read) + len(text)

    def say(self, text: str) -> None:
        """Type a line."""
        os.write(self.end, text.encode() + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C once the prompt waits, as a person is never too early."""
        eventually("the prompt to wait", 30, lambda: is_waiting(self.process.pid))
        os.kill(self.process.pid, signal.SIGINT)

    def finish(self) -> int:
        """Read to the end and return the exit code."""
        while self._more():
            pass
        return self.process.wait(30)

    def _more(self) -> bool:
        try:
            assert select.select([self.end], [], [], 60)[0], f"silence after {self.shown!r}"
            read = os.read(self.end, 4096)
        except OSError:  # the other side has closed it
            return False
        self.shown += read.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(read)


@contextmanager
def talk(folder: Path, *words: object) -> Iterator[Talk]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, str(theirs), *command(*words)],
        cwd=folder,
        env=environment({"TERM": "dumb"}),
        pass_fds=[theirs],
    )
    os.close(theirs)
    try:
        yield Talk(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.slow
def test_who_presses_enter_only_gets_the_keyless_plan(folder: Path) -> None:
    with talk(folder, "init") as terminal:
        for question in (
            "Folder of the data [data]:",
            "CoinGecko plan",
            "Go on without this check? [Y/n]:",
            "Coins by market cap [100]:",
            "[bitcoin, ethereum, solana]:",
            "[bitcoin, ethereum, solana]:",
            "First day of the warehouse [2026-01-01]:",
            "Alert URLs",
        ):
            terminal.expect(question)
            terminal.say("")
        assert terminal.finish() == 0, terminal.shown
    assert load_settings().coingecko.plan == "keyless"
    assert written(folder) == {"crypto_assets.yaml"}


@pytest.mark.slow
@pytest.mark.usefixtures("provider")
def test_a_person_is_asked_again_and_secrets_do_not_show(folder: Path) -> None:
    with open_webhook() as hook, talk(folder, "init") as terminal:
        terminal.expect("Folder of the data")
        terminal.say("mine")
        terminal.expect("CoinGecko plan")
        terminal.say("gold")
        terminal.expect("Error:")
        terminal.expect("CoinGecko plan")
        terminal.say("demo")
        terminal.expect("API key")
        terminal.say(WRONG)
        terminal.expect("the plan 'demo' or its key was refused")
        terminal.expect("Choose plan and key again? [Y/n]")
        terminal.say("")
        terminal.expect("CoinGecko plan")
        terminal.say("")
        terminal.expect("API key")
        terminal.say(KEY)
        terminal.expect("CoinGecko: reachable")
        terminal.expect("Coins by market cap")
        terminal.say("many")
        terminal.expect("Error: setting 'universe.tracked' is 'many': a whole number from 1 to")
        terminal.say("20")
        terminal.expect("Coins always tracked")
        terminal.say("-")
        terminal.expect("Coins with hourly candles")
        terminal.say("-")
        terminal.expect("at least one coin is needed")
        terminal.say("0x, etherium")
        terminal.expect("not listed by CoinGecko: 0x, etherium; did you mean ethereum?")
        terminal.expect("Choose them again? [Y/n]")
        terminal.say("")
        terminal.expect("Coins always tracked (- for none) [-]")
        terminal.say("")
        terminal.expect("Coins with hourly candles on free plans [0x, etherium]")
        terminal.say("0x, 1inch")
        terminal.expect("Choose them again? [Y/n]")
        terminal.say("n")
        terminal.expect("First day")
        terminal.say("tomorrow")
        terminal.expect("Error: setting 'history.start' is 'tomorrow': a day from")
        terminal.say("2026-02-03")
        terminal.expect("Alert URLs")
        terminal.say("slack://secret-but-short")
        terminal.expect("is no URL that apprise understands")
        terminal.expect("Alert URLs")
        terminal.say(hook.url)
        terminal.expect("Send a test message there? [Y/n]")
        terminal.say("")
        terminal.expect(": sent")
        assert terminal.finish() == 0, terminal.shown
    assert len(hook.messages) == 1
    for secret in (KEY, WRONG, hook.url, "secret-but-short"):
        assert secret not in terminal.shown
    stored = load_settings()
    assert stored.home == folder / "mine"
    assert stored.coingecko.api_key == SecretStr(KEY)
    assert (stored.universe.tracked, stored.universe.always) == (20, [])
    assert stored.universe.headline == ["0x", "1inch"]
    assert stored.history.start == date(2026, 2, 3)
    assert [url.get_secret_value() for url in stored.alerts.urls] == [hook.url]


@pytest.mark.slow
@pytest.mark.parametrize("at", ["CoinGecko plan", "API key", "Coins by market cap", "Alert URLs"])
def test_ctrl_c_leaves_nothing_behind(folder: Path, at: str) -> None:
    with talk(folder, "init", "--plan", "demo") as terminal:
        for question, answer in (
            ("Folder", ""),
            ("CoinGecko plan", ""),
            ("API key", KEY),
            ("without this check?", ""),
            ("Coins by market cap", ""),
            ("always", ""),
            ("hourly", ""),
            ("First day", ""),
            ("Alert URLs", ""),
        ):
            terminal.expect(question)
            if question == at:
                terminal.expect(":")
                terminal.interrupt()
                break
            terminal.say(answer)
        assert terminal.finish() == 1
    assert "crypto-assets: stopped" in terminal.shown
    assert "Traceback" not in terminal.shown
    assert written(folder) == set()


@pytest.mark.slow
def test_a_person_is_asked_before_anything_is_changed(folder: Path) -> None:
    (folder / "crypto_assets.yaml").write_text("universe: {tracked: 40}\n")
    for answer, tracked in (("", 40), ("y", 9)):
        with talk(folder, "init", "--tracked", 9) as terminal:
            for question in ("Folder", "plan", "check?", "cap", "always", "hourly", "First"):
                terminal.expect(question)
                terminal.say("")
            terminal.expect("Alert")
            terminal.say("")
            terminal.expect("Change it? [y/N]")
            terminal.say(answer)
            terminal.finish()
        assert load_settings().universe.tracked == tracked
