import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crypto_assets import connect
from crypto_assets.operations.home import open_instance
from crypto_assets.sandbox import Market
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES
from crypto_assets_tests.end_to_end.platforms import eventually, words
from crypto_assets_tests.operations.commands import call, carrying, command, environment
from crypto_assets_tests.operations.conftest import Demo


def contents(home: Path) -> dict[str, pd.DataFrame]:
    with connect(home) as connection:
        return {name: connection.execute(f"FROM {name} ORDER BY ALL").fetchdf() for name in TABLES}


def test_a_demo_from_an_empty_folder_fills_all_tables_and_says_what_next(demo: Demo) -> None:
    told = demo.told
    assert told.code == 0, told.err
    assert "Traceback" not in told.err
    lines = told.out.splitlines()
    for table in TABLES:
        assert sum(line.split()[:1] == [table] for line in lines) == 1, table
    assert "Checks: 70 of 70 passed." in lines
    assert f"DuckDB file: {demo.home}/crypto.duckdb" in lines
    assert "Dagster UI:  crypto-assets up --home made" in lines
    assert any(line.startswith("Notebook:    import crypto_assets; ") for line in lines)


def test_the_notebook_line_works_as_it_stands(demo: Demo) -> None:
    (line,) = [line for line in demo.told.out.splitlines() if line.startswith("Notebook:")]
    code = line.removeprefix("Notebook:").strip()
    done = subprocess.run(
        [sys.executable, "-c", f"{code.replace('; ', '; frame = ', 1)}; print(len(frame))"],
        cwd=demo.home.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 88  # eight coins, ten closed days and the running one


def test_a_demo_holds_what_the_market_model_says(demo: Demo, market: Market) -> None:
    with connect(demo.home) as connection:
        stored = connection.execute(
            "FROM market_caps WHERE is_final ORDER BY coin_id, date"
        ).fetchdf()
        ranks = connection.execute("FROM ranks WHERE is_final").fetchdf()
    assert len(stored) == 80
    for coin, rows in stored.groupby("coin_id"):
        days = rows["date"].dt.date
        truth = market.daily(str(coin), days.min(), days.max())
        np.testing.assert_allclose(rows["price_usd"], truth["price_usd"], rtol=1e-9)
        np.testing.assert_allclose(rows["market_cap_usd"], truth["market_cap_usd"], rtol=1e-9)
    for _, of_day in ranks.groupby("date"):
        assert sorted(of_day["market_cap_rank"]) == list(range(1, 9))


def test_a_second_demo_changes_no_data_and_says_so(demo: Demo, demo_copy: Path) -> None:
    before = contents(demo_copy)
    again = call("demo", "--home", demo_copy)
    assert again.code == 0
    assert "no data changed" in again.out
    assert all(table in again.out for table in TABLES)
    for name, frame in contents(demo_copy).items():
        pd.testing.assert_frame_equal(before[name], frame)


@pytest.mark.slow
def test_a_demo_that_lost_days_brings_back_just_these(demo_copy: Path, demo: Demo) -> None:
    import duckdb

    with duckdb.connect(str(demo_copy / "warehouse.duckdb")) as connection:
        (day,) = connection.execute("SELECT min(date) + 3 FROM ranks").fetchone() or ()
        for table in ("market_caps", "ranks", "fear_greed"):
            connection.execute(f"DELETE FROM {table} WHERE date = ?", [day])
    assert call("demo", "--home", demo_copy).code == 0
    made_by = ["run_id", "materialized_at", "raw_id", "observed_at"]
    before, after = contents(demo.home), contents(demo_copy)
    for table in ("ranks", "ema_signals", "fear_greed", "daily_snapshot"):
        pd.testing.assert_frame_equal(
            before[table].drop(columns=made_by), after[table].drop(columns=made_by)
        )
    prices = ["date", "coin_id", "price_usd", "market_cap_usd", "is_final"]
    pd.testing.assert_frame_equal(before["market_caps"][prices], after["market_caps"][prices])


def test_another_number_of_coins_or_days_on_a_made_home_is_refused(demo: Demo) -> None:
    for option in (("--coins", 9), ("--days", 11)):
        told = call("demo", *option, "--home", demo.home).sentence
        assert "was made for 8 coins and 10 days" in told
    assert call("demo", "--coins", 8, "--days", 10, "--home", demo.home).code == 0


def test_a_live_home_is_not_turned_into_a_demo(tmp_path: Path) -> None:
    (tmp_path / "warehouse.duckdb").write_bytes(b"live")
    assert "holds live data" in call("demo", "--home", tmp_path).sentence
    assert [path.name for path in tmp_path.iterdir()] == ["warehouse.duckdb"]


def test_a_home_with_live_settings_is_not_turned_into_a_demo(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text("universe: {tracked: 5}\n")
    assert "is not a demo home" in call("demo", "--home", tmp_path).sentence


def test_a_file_in_place_of_the_home_is_one_sentence(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    told = call("demo", "--coins", 3, "--days", 2, "--home", taken).sentence
    assert "--home" in told


def test_a_home_whose_path_looks_like_yaml_keeps_its_history_to_itself(tmp_path: Path) -> None:
    home = tmp_path / "it's #1: 100% {mine}"
    with open_instance(validated({"home": home})) as instance:
        assert instance.get_runs_count() == 0
        assert (home / "dagster").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == [home.name]


@pytest.mark.slow
def test_the_sandbox_of_a_demo_ends_when_the_demo_is_killed(tmp_path: Path) -> None:
    mark = f"mark-{uuid.uuid4()}"
    with subprocess.Popen(
        command("demo", "--coins", 50, "--days", 300, "--home", "killed"),
        cwd=tmp_path,
        env=environment({"TEST_MARK": mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            # By its own words: a child that was just forked has its parent's mark, and none in
            # the moment in which it becomes another program.
            eventually(
                "the sandbox", 60, lambda: any("sandbox" in words(pid) for pid in carrying(mark))
            )
        finally:
            process.kill()
    eventually("the end of the sandbox", 10, lambda: not carrying(mark))
