"""README and docs as a newcomer follows them: a fresh clone, a fresh environment, its commands."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
import requests
import yaml

import crypto_assets
from crypto_assets.docs import generate
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.docs.pages import DOCS, PAGES, Block, all_blocks, prose
from crypto_assets_tests.webhook import open_webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REPOSITORY = Path(__file__).parents[2]
README = REPOSITORY / "README.md"
# Those of `extending.md` change the package, so they have a copy of their own.
BLOCKS = [block for block in all_blocks() if block.page.name != "extending.md"]
INSTALL, TEST, *OTHER_BLOCKS = [block for block in BLOCKS if block.language == "sh"]
# They ask, serve or take an hour, so that each has a test of its own.
INIT, JUPYTER, BENCHMARKS = (
    next(block for block in OTHER_BLOCKS if word in block.text)
    for word in ("crypto-assets init", "jupyter lab", "crypto_assets_tests.benchmarks")
)
SHELL_BLOCKS = [block for block in OTHER_BLOCKS if block not in (INIT, JUPYTER, BENCHMARKS)]
PYTHON_BLOCKS = [block for block in BLOCKS if block.language == "python"]
# Commands in the text and in tables; `dagster dev` among them.
WRITTEN = [prose(page) for page in PAGES if page.name not in generate.pages()]
NAMED = re.findall(r"`(?:\.venv/bin/)?((?:crypto-assets|dagster) [^`]+)`", "\n".join(WRITTEN))
# Where the clone of `operations.md` is.
PLACE = "/srv/crypto_assets"


@dataclass(frozen=True)
class Clone:
    """A fresh clone in which the README's first command was run."""

    folder: Path
    said: str

    @property
    def home(self) -> Path:
        return self.folder / "data" / "demo"

    def run(
        self, command: str, folder: Path | None = None, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command line as typed in the clone, or in another folder, by nobody to ask."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder or self.folder,
            env=clean_environment() | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )


def clean_environment() -> dict[str, str]:
    """The environment without anything that could help our own package or settings along."""
    ours = ("CRYPTO_ASSETS", "DAGSTER", "PYTHON", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    folder = tmp_path_factory.mktemp("newcomer") / "crypto_assets"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(folder)], check=True)
    fresh = Clone(folder, "")
    done = fresh.run(INSTALL.text)
    assert done.returncode == 0, done.stdout + done.stderr
    return Clone(folder, done.stdout)


@pytest.fixture(scope="module")
def tables(clone: Clone) -> dict[str, pd.DataFrame]:
    with crypto_assets.connect(clone.home) as connection:
        return {name: connection.sql(f'FROM "{name}"').df() for name in TABLES}


@pytest.fixture(scope="module")
def days(clone: Clone) -> tuple[date, date]:
    """The first and the last closed day of the demo."""
    settings = yaml.safe_load((clone.home / "crypto_assets.yaml").read_text())
    today = date.fromisoformat(settings["sandbox"]["clock"][:10])
    return date.fromisoformat(settings["history"]["start"]), today - timedelta(days=1)


def test_the_summary_tells_what_is_there_and_how_to_go_on(clone: Clone) -> None:
    for name in TABLES:
        assert re.search(rf"^\s*{name}\s+[\d,]+ ", clone.said, flags=re.MULTILINE), name
    assert re.search(r"Checks: (\d+) of \1 passed", clone.said)
    assert str(clone.home / "crypto.duckdb") in clone.said
    assert "crypto-assets up --home data/demo" in clone.said
    assert "crypto_assets.connect" in clone.said


def test_all_nine_tables_hold_rows_without_a_doubled_key(tables: dict[str, pd.DataFrame]) -> None:
    for name, table in TABLES.items():
        assert len(tables[name]), name
        assert not tables[name].duplicated(list(table.key)).any(), name


def test_ranks_of_each_closed_day_are_exactly_one_to_n(
    tables: dict[str, pd.DataFrame], days: tuple[date, date]
) -> None:
    by_day = tables["ranks"].groupby(tables["ranks"]["date"].dt.date)["market_cap_rank"]
    found = {day: sorted(ranks) for day, ranks in by_day}
    for n in range((days[1] - days[0]).days + 1):
        ranks = found[days[0] + timedelta(days=n)]
        assert ranks == list(range(1, len(ranks) + 1))


def test_closed_days_hold_every_listed_tracked_coin_with_the_models_values(
    tables: dict[str, pd.DataFrame], days: tuple[date, date], market: Market
) -> None:
    caps, candles = tables["market_caps"], tables["ohlc_daily"]
    closed = caps["date"].dt.date <= days[1]
    coins = sorted(set(caps["coin_id"]))
    assert len(coins) == 100
    truth = pd.concat([market.daily(c, *days).assign(coin_id=c) for c in coins])
    truth = truth.sort_values(["date", "coin_id"], ignore_index=True)
    stored = caps[closed].sort_values(["date", "coin_id"], ignore_index=True)
    assert stored[["date", "coin_id"]].to_numpy().tolist() == (
        truth[["date", "coin_id"]].to_numpy().tolist()
    )
    for column in ("price_usd", "market_cap_usd", "volume_24h_usd"):
        np.testing.assert_allclose(stored[column], truth[column], rtol=1e-9)
    assert stored["is_final"].all()
    daily = candles[candles["date"].dt.date <= days[1]]
    assert len(daily) == len(truth)
    merged = daily.merge(truth, on=["date", "coin_id"], validate="one_to_one")
    np.testing.assert_allclose(merged["close"], merged["price_usd"], rtol=1e-9)


def test_hourly_candles_equal_the_model(
    tables: dict[str, pd.DataFrame], days: tuple[date, date], market: Market
) -> None:
    hourly = tables["ohlc_hourly"]
    first, last = (pd.Timestamp(day).to_pydatetime() for day in (days[0], days[1]))
    for coin in ("bitcoin", "ethereum", "tron"):
        stored = hourly[(hourly["coin_id"] == coin) & (hourly["open_time"].dt.date <= days[1])]
        stored = stored.sort_values("open_time")
        truth = market.candles(coin, "1h", first, last + timedelta(days=1))
        assert stored["open_time"].tolist() == truth["open_time"].tolist()
        for column in ("open", "high", "low", "close"):
            np.testing.assert_allclose(stored[column], truth[column], rtol=1e-9)


def test_emas_equal_an_independent_computation_over_the_whole_history(
    tables: dict[str, pd.DataFrame], days: tuple[date, date], market: Market
) -> None:
    signals = tables["ema_signals"]
    closed = signals[signals["date"].dt.date <= days[1]]
    for (coin, span), rows in closed.groupby(["coin_id", "slow_span"]):
        truth = market.daily(str(coin), *days)
        expected = truth["price_usd"].ewm(span=span, adjust=False).mean()
        np.testing.assert_allclose(rows.sort_values("date")["ema_slow"], expected, rtol=1e-9)


def test_a_second_demo_changes_no_data_and_says_so(
    clone: Clone, tables: dict[str, pd.DataFrame]
) -> None:
    again = clone.run(".venv/bin/crypto-assets demo")
    assert again.returncode == 0, again.stderr
    assert "no data changed" in again.stdout
    with crypto_assets.connect(clone.home) as connection:
        for name, before in tables.items():
            order = list(TABLES[name].key)
            after = connection.sql(f'FROM "{name}"').df().sort_values(order, ignore_index=True)
            pd.testing.assert_frame_equal(
                before.sort_values(order, ignore_index=True), after, check_exact=True
            )


def test_ci_runs_the_command_that_tests() -> None:
    assert TEST.page == README
    (line,) = TEST.text.splitlines()
    runner = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    (grepped,) = re.findall(r"readme_command '([^']+)'", runner)
    assert [text for text in README.read_text("utf-8").splitlines() if grepped in text] == [line]


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_a_shell_block_runs_in_the_clone(clone: Clone, block: Block) -> None:
    done = clone.run(block.text)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if "data/restored" in block.text:
        assert_restored(clone)


def assert_restored(clone: Clone) -> None:
    """What was restored has the content of what was backed up."""
    with (
        crypto_assets.connect(clone.home) as before,
        crypto_assets.connect(clone.folder / "data" / "restored") as after,
    ):
        for name, table in TABLES.items():
            frames = [one.sql(f'FROM "{name}" ORDER BY ALL').df() for one in (before, after)]
            columns = list(table.content_columns)
            pd.testing.assert_frame_equal(frames[0][columns], frames[1][columns])


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=str)
def test_a_python_block_runs_in_the_clone(clone: Clone, block: Block) -> None:
    done = clone.run(f".venv/bin/python -W error -c {shlex.quote(block.text)}")
    assert done.returncode == 0, done.stderr


def test_the_frame_of_the_readme_holds_the_crossovers(clone: Clone) -> None:
    code = next(block.text for block in PYTHON_BLOCKS if "signals = " in block.text)
    done = clone.run(f".venv/bin/python -c {shlex.quote(code + 'print(len(signals))')}")
    with crypto_assets.connect(clone.home) as connection:
        signals = connection.sql("FROM ema_signals").df()
    crossed = signals[(signals["fast_span"] == 12) & signals["event"].isin([-1, 1])]
    assert int(done.stdout) == len(crossed) > 0


def test_the_service_serves_until_systemd_ends_it(clone: Clone) -> None:
    (unit,) = [block.text for block in BLOCKS if block.language == "ini"]
    unit = unit.replace(f"{PLACE}/data", str(clone.home)).replace(PLACE, str(clone.folder))
    told = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
    name, value = told["Environment"].split("=", 1)
    port = free_port()
    process = subprocess.Popen(
        [*shlex.split(told["ExecStart"]), "--port", str(port)],
        cwd=told["WorkingDirectory"],
        env=clean_environment() | {name: value},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info")
    finally:
        process.terminate()
        ended_with = process.wait(60)
    assert ended_with == 0


def test_the_line_of_the_crontab_says_nothing_while_all_is_well(clone: Clone) -> None:
    (line,) = [block.text.strip() for block in BLOCKS if block.language == "crontab"]
    command = line.split(" ", 5)[5].replace("--home data", "--home data/demo")
    done = clone.run(command.replace(PLACE, str(clone.folder)))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_container_installs_runs_from_an_empty_folder(
    clone: Clone, tmp_path: Path
) -> None:
    (file,) = [block.text for block in BLOCKS if block.language == "dockerfile"]
    context, installed, home = (tmp_path / name for name in ("context", "installed", "home"))
    context.mkdir()
    for copied in re.findall(r"^COPY (.+) \S+$", file, flags=re.MULTILINE):
        for name in copied.split():
            source = clone.folder / name
            if source.is_dir():
                shutil.copytree(source, context / name)
            else:
                shutil.copy(source, context)
    (install,) = re.findall(r"^RUN (pip install .+)$", file, flags=re.MULTILINE)
    # The libraries are in the clone's environment already, by the same constraints.
    typed = install.replace("pip install", f"pip install --no-deps --target {installed}")
    done = clone.run(f"cd {context} && {clone.folder}/.venv/bin/{typed}")
    assert done.returncode == 0, done.stderr
    assert {page.name for page in DOCS.glob("*.md")} == {
        page.name for page in (installed / "crypto_assets" / "docs").glob("*.md")
    }
    home.mkdir()
    shutil.copy(clone.home / "crypto_assets.yaml", home)
    (started,) = re.findall(r"^CMD (\[.+\])$", file, flags=re.MULTILINE)
    program, *words = json.loads(started)
    assert program == "crypto-assets"
    port = free_port()
    command = f"{clone.folder}/.venv/bin/python -m crypto_assets {shlex.join(words)} --port {port}"
    own = {"PYTHONPATH": str(installed), "CRYPTO_ASSETS_HOME": str(home)}
    with served(clone, command, folder=tmp_path, **own):
        wait_for(f"http://127.0.0.1:{port}/server_info")
    assert (home / "dagster.yaml").exists()


def backed_up(clone: Clone) -> str:
    """Make a backup of the demo and return where it is."""
    target = clone.folder.parent / "backups"
    done = clone.run(f".venv/bin/crypto-assets backup --to {target} --home {clone.home}")
    assert done.returncode == 0, done.stderr
    (made,) = target.iterdir()
    return str(made)


def new_home(clone: Clone) -> Path:
    """Return an empty home with the settings of the demo's."""
    home = clone.folder.parent / "new"
    home.mkdir()
    shutil.copy(clone.home / "crypto_assets.yaml", home)
    return home


def commands_that_end() -> list[str]:
    """The commands that work on a home, but those that serve until they are told to end."""
    others = ("up", "sandbox", "demo", "init")
    tested_alone = ("dagster dev", *(f"crypto-assets {name}" for name in others))
    return sorted({command for command in NAMED if not command.startswith(tested_alone)})


@pytest.mark.parametrize("command", commands_that_end())
def test_a_command_of_the_readme_works(clone: Clone, command: str) -> None:
    # The demo's home stands in for a live one, whose hosts can't be reached from a test.
    typed = command.replace("SELECT …", "SELECT 1")
    first, last = "2026-06-01", "2026-06-30"
    if first in typed:
        (start,) = clone_start(clone)
        typed = typed.replace(first, start).replace(last, start)
    typed = re.sub(r"\b[AB]\b", str(clone.home), typed)
    if "BACKUP" in typed:
        typed = typed.replace("BACKUP", backed_up(clone)).replace("NEW", str(new_home(clone)))
    with open_webhook() as hook:
        done = clone.run(
            f".venv/bin/{typed}",
            CRYPTO_ASSETS_HOME=str(clone.home),
            # A demo's own file wins over the environment, and names no channel.
            CRYPTO_ASSETS_ALERTS__URLS=hook.url,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def typed_to_init() -> list[str]:
    """The README's ways to make the settings: a block of its own, and the table's."""
    named = [f".venv/bin/{name}" for name in NAMED if name.startswith("crypto-assets init")]
    return [INIT.text, *named]


@pytest.mark.parametrize("typed", typed_to_init())
def test_the_settings_that_the_readme_makes_are_those_of_who_presses_enter(
    clone: Clone, tmp_path: Path, typed: str
) -> None:
    (tmp_path / ".venv").symlink_to(clone.folder / ".venv")
    # The live host can't be reached from a test: what is written is marked so.
    nowhere = {"CRYPTO_ASSETS_COINGECKO__BASE_URL": "http://127.0.0.1:9"}
    done = clone.run(typed, tmp_path, **nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "they fit" in done.stdout
    made = yaml.safe_load((tmp_path / "crypto_assets.yaml").read_text())
    assert made["coingecko"] == {"plan": "keyless"}
    assert made["universe"]["tracked"] == (50 if "--tracked 50" in typed else 100)


def test_the_readme_shows_how_settings_are_made() -> None:
    assert len(typed_to_init()) >= 2


def clone_start(clone: Clone) -> list[str]:
    settings = yaml.safe_load((clone.home / "crypto_assets.yaml").read_text())
    return [settings["history"]["start"]]


def test_the_commands_that_serve_do_so_until_they_are_told_to_end(clone: Clone) -> None:
    assert {"crypto-assets up", "crypto-assets sandbox"} <= set(NAMED)
    port = free_port()
    with served(clone, f".venv/bin/crypto-assets up --home data/demo --port {port}"):
        answer = wait_for(f"http://127.0.0.1:{port}/server_info")
        assert "dagster_webserver_version" in answer.json()
    port = free_port()
    with served(clone, f".venv/bin/crypto-assets sandbox --port {port}"):
        assert wait_for(f"http://127.0.0.1:{port}/_sandbox").json()["seed"] == 7


def test_dagster_dev_loads_the_platform_and_keeps_its_history(clone: Clone) -> None:
    port = free_port()
    with served(clone, f"PATH=$PWD/.venv/bin:$PATH dagster dev -p {port}"):
        query = "{ assetNodes { assetKey { path } } }"
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/server_info")
        answer = requests.post(f"{url}/graphql", json={"query": query}, timeout=60).json()
        names = {node["assetKey"]["path"][0] for node in answer["data"]["assetNodes"]}
        assert names == set(TABLES)
    assert (clone.folder / "data" / "dagster" / "history").is_dir()


def test_jupyter_opens_the_notebooks_and_one_runs_on_the_demo(clone: Clone) -> None:
    install, opening = JUPYTER.text.strip().split(" && ")
    done = clone.run(install)
    assert done.returncode == 0, done.stderr
    port = free_port()
    options = f"-y --no-browser --allow-root --port {port} --IdentityProvider.token=''"
    with served(clone, f"{opening} {options}"):
        names = wait_for(f"http://127.0.0.1:{port}/api/contents").json()["content"]
        found = {file["name"] for file in names if file["type"] == "notebook"}
        assert found == set(
            re.findall(r"crypto_assets/notebooks/(\w+\.ipynb)", README.read_text("utf-8"))
        )
        assert len(found) == 5
        specs = wait_for(f"http://127.0.0.1:{port}/api/kernelspecs").json()["kernelspecs"]
        assert "python3" in specs
    # Run as a newcomer's kernel would: on the demo, which nobody named.
    made = clone.run(
        ".venv/bin/jupyter execute crypto_assets/notebooks/point_in_time.ipynb --output=../../told"
    )
    assert made.returncode == 0, made.stderr
    told = (clone.folder / "told.ipynb").read_text()
    assert "180 final days is point in time" in told
    assert str(clone.home) in told


def test_the_benchmarks_run_once_the_rivals_are_installed(clone: Clone) -> None:
    # In small, and some of them: all are run so by the benchmarks' own tests.
    done = clone.run(f"{BENCHMARKS.text.strip()} --quick ema loading")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not installed" not in done.stdout
    assert "| `ema` |" in done.stdout


def test_the_notebooks_are_part_of_an_installed_package(clone: Clone) -> None:
    done = clone.run(".venv/bin/pip wheel -q --no-deps -w wheels .")
    assert done.returncode == 0, done.stderr
    (wheel,) = (clone.folder / "wheels").glob("*.whl")
    names = ZipFile(wheel).namelist()
    packed = {name for name in names if name.startswith("crypto_assets/notebooks/")}
    tracked = clone.run("git ls-files crypto_assets/notebooks").stdout.split()
    assert packed == set(tracked)
    assert len(tracked) >= 5


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str, deadline_seconds: float = 120) -> requests.Response:
    """Return the first answer of a server that is starting."""
    until = time.monotonic() + deadline_seconds
    while True:
        try:
            return requests.get(url, timeout=10)
        except requests.ConnectionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


@contextmanager
def served(
    clone: Clone, command: str, folder: Path | None = None, **environment: str
) -> Iterator[None]:
    """Run a command while the test looks at what it serves; end its whole session after."""
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}" if "=" not in command else command],
        cwd=folder or clone.folder,
        env=clean_environment() | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(60) is not None
