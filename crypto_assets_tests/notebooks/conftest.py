"""A kernel of this interpreter that leaves the user's own folders alone, and homes to look at."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

import crypto_assets
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, open_lab
from crypto_assets_tests.notebooks.kernel import Executed, execute

Run = Callable[..., Executed]
TODAY = NOON.date()


@pytest.fixture(scope="session")
def user_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment names of all that Jupyter, IPython and matplotlib keep for a user."""
    folder = tmp_path_factory.mktemp("user")
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_PATH")
    places = {name: str(folder / name) for name in (*names, "IPYTHONDIR", "MPLCONFIGDIR", "HOME")}
    kernel = folder / "JUPYTER_PATH" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(told))
    # Once, since building the font cache may say so on standard error.
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        env=dict(os.environ) | places,
        check=True,
        capture_output=True,
    )
    return places


@pytest.fixture
def run(tmp_path: Path, user_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a notebook on a home and returns what it found; it must not warn or leave anything."""
    for name, place in user_folders.items():
        monkeypatch.setenv(name, place)
    source = str(Path(crypto_assets.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", source)

    def runner(name: str, home: Path, *variables: str, **choices: int) -> Executed:
        monkeypatch.setenv("CRYPTO_ASSETS_HOME", str(home))
        found = execute(name, tmp_path, variables, choices)
        assert found.errors == []
        assert found["is_open"] is False
        return found

    return runner


@pytest.fixture(scope="session")
def filled_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """24 coins for 69 days, as a demo fills them: all at once, so never point in time."""
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market, universe={"tracked": 24}) as lab:
        tables = [name for name in TABLES if name != "ohlc_hourly"]
        assert lab.run(tables, date(2026, 1, 1), TODAY).succeeded
        assert lab.run(["ohlc_hourly"], TODAY - timedelta(days=1), TODAY).succeeded
    return home


FIRST_LIVE, LAST_LIVE = date(2026, 3, 8), date(2026, 3, 17)
GONE, VANISHED = "dogecoin", date(2026, 3, 11)
RESTATED, FACTOR = date(2026, 3, 7), 1.25
RECHECKED_AT = datetime(2026, 3, 17, 2, 45)


@pytest.fixture(scope="session")
def live_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A fortnight that was followed as it happened, after some days that were filled in.

    One coin vanishes on the way, one close is restated, and one fund is reported anew.
    """
    home = tmp_path_factory.mktemp("live")
    with open_lab(
        home,
        market,
        history={"start": "2026-02-26"},
        universe={"tracked": 12, "always": []},
        restatements={"coins_a_day": 20},
    ) as lab:
        tables = ["market_caps", "ranks"]
        first, day = date(2026, 2, 26), FIRST_LIVE
        lab.at(datetime(2026, 3, 8, 1, 0))
        assert lab.run([*tables, "fear_greed", "etf_flows"], first, day).succeeded
        while day < LAST_LIVE:
            day += timedelta(days=1)
            lab.at(datetime(day.year, day.month, day.day, 0, 6))
            if day == VANISHED:
                lab.server.faults.add({"kind": "vanish", "coin_id": GONE})
            assert lab.run(tables, day - timedelta(days=1), day).succeeded
        lab.server.faults.add(
            {"kind": "restate", "coin_id": "bitcoin", "date": str(RESTATED), "factor": FACTOR},
            {"kind": "etf_renamed_column", "ticker": "GBTC", "to": "NEW"},
        )
        yesterday = LAST_LIVE - timedelta(days=1)
        lab.at(datetime(2026, 3, 17, 2, 30))
        assert lab.recheck(["etf_flows"], first, date(2026, 3, 6)).success
        lab.at(RECHECKED_AT)
        assert lab.recheck(["market_caps"], first, yesterday).success
        assert lab.fill(["ranks"], yesterday).succeeded
    return home


@pytest.fixture(scope="session")
def first_day_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """The third day of a small home: three coins, and no flows and candles yet."""
    home = tmp_path_factory.mktemp("first")
    few = {"tracked": 3, "always": []}
    with open_lab(home, market, universe=few, history={"start": "2026-03-08"}) as lab:
        tables = ["coin_list", "market_caps", "ranks", "ema_signals", "fear_greed"]
        assert lab.run(tables, TODAY - timedelta(days=2), TODAY).succeeded
    return home


@pytest.fixture(scope="session")
def bare_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A home in which only the sentiment was ever asked for."""
    home = tmp_path_factory.mktemp("bare")
    with open_lab(home, market) as lab:
        assert lab.run(["fear_greed"], TODAY - timedelta(days=1)).succeeded
    return home
