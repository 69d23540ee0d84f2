"""What becomes of runs whose process, or whose whole platform, was killed: real processes."""

import logging
import signal
import subprocess
import time
from collections.abc import Iterator

import dagster as dg
import numpy as np
import pytest

from crypto_assets import connect
from crypto_assets_tests.end_to_end.platforms import COINS, DAYS, Site, Up, eventually, open_site
from crypto_assets_tests.operations.commands import carrying, command, environment, spawn

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TABLES = ("market_caps", "ranks")
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, market: object) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("site"), market) as opened:  # type: ignore[arg-type]
        opened.write_settings()
        yield opened


@pytest.fixture
def up(site: Site) -> Up:
    """A platform that is up, the last one or a new one."""
    if site.started and site.started[-1].process.poll() is None:
        return site.started[-1]
    return site.up()


def tell(what: str, began: float) -> None:
    """Note how long something took, for `--log-cli-level=INFO`."""
    logging.getLogger(__name__).info("%s: %.1f s", what, time.monotonic() - began)


def start_hanging(site: Site) -> None:
    """Let the third call and all later ones go unanswered."""
    forget(site)
    site.server.faults.clear()
    site.server.faults.add({"kind": "hang", "seconds": 600, "after": 2})


def await_hang(site: Site) -> None:
    eventually("a call that hangs", 60, lambda: site.server.faults.rules()[0]["hits"])


def launch_and_hang(site: Site, up: Up) -> tuple[str, int]:
    """Launch a run that comes to hang; return it and its process."""
    start_hanging(site)
    run_id = up.launch("market_refresh", TABLES, site.first, site.last)
    worker = site.worker(run_id)
    await_hang(site)
    return run_id, worker


def forget(site: Site) -> None:
    """Let no call be answered from what was kept."""
    for path in (site.home / "raw").glob("responses.sqlite*"):
        path.unlink()
    for path in site.home.glob("warehouse.duckdb*"):
        if path.is_file():
            path.unlink()


def assert_retried_once(site: Site, run_id: str, seconds: float) -> None:
    """The run failed, one retry of it succeeded, and the table is what the market says."""
    assert site.ended(run_id, seconds).status == FAILURE
    failed = time.monotonic()
    retry = eventually("the retry", 90, lambda: site.retries(run_id))[0]
    assert site.ended(retry.run_id, 90).status == SUCCESS
    tell("retry succeeded after the failure was told", failed)
    (retry,) = site.retries(run_id)
    assert retry.parent_run_id == run_id
    assert retry.tags["dagster/retry_number"] == "1"
    assert retry.asset_selection == {dg.AssetKey(table) for table in TABLES}
    assert_true(site)


def assert_true(site: Site) -> None:
    with connect(site.home) as connection:
        stored = connection.execute(
            "FROM market_caps WHERE date <= ? ORDER BY coin_id, date", [site.last]
        ).fetchdf()
        ranks = connection.execute(
            "FROM ranks WHERE date <= ? ORDER BY date, market_cap_rank", [site.last]
        ).fetchdf()
    assert len(stored) == len(ranks) == COINS * DAYS
    for coin, rows in stored.groupby("coin_id"):
        truth = site.server.market.daily(str(coin), site.first, site.last)
        np.testing.assert_allclose(rows["price_usd"], truth["price_usd"], rtol=1e-9)
    assert list(ranks["market_cap_rank"]) == list(range(1, COINS + 1)) * DAYS


def failure_of(site: Site, run_id: str) -> str:
    (entry,) = site.instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    assert entry.dagster_event
    return entry.dagster_event.message or ""


def test_a_killed_worker_is_retried_once(site: Site, up: Up) -> None:
    run_id, worker = launch_and_hang(site, up)
    site.server.faults.clear()
    up.kill(worker)
    began = time.monotonic()
    site.ended(run_id, 60)
    tell("worker killed -> FAILURE", began)
    assert_retried_once(site, run_id, 60)


def test_a_killed_command_is_told_failed_and_left_to_who_gave_it(site: Site, up: Up) -> None:
    start_hanging(site)
    days = ("--from", site.first, "--to", site.last)
    known = {run.run_id for run in site.instance.get_runs()}
    process = subprocess.Popen(
        command("backfill", *TABLES, *days, "--home", site.home),
        cwd=site.home.parent,
        env=environment({"TEST_MARK": up.mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    await_hang(site)
    process.kill()
    process.wait()
    site.server.faults.clear()
    runs = site.instance.get_runs(dg.RunsFilter(job_name="everything"))
    (run_id,) = {run.run_id for run in runs} - known
    run = site.ended(run_id, 60)
    assert run.status == FAILURE
    # Dagster says so a moment after it said that the run failed.
    tag = "dagster/will_retry"
    eventually("whether it is retried", 30, lambda: tag in site.run(run_id).tags)
    assert site.run(run_id).tags[tag] == "false"
    assert "give the command again" in failure_of(site, run_id)


def test_a_second_platform_on_the_home_is_refused(site: Site, up: Up) -> None:
    told = spawn("up", "--home", site.home, cwd=site.home.parent)
    assert f"process {up.process.pid} runs the platform of {site.home} already" in told.sentence
    assert f"'kill {up.process.pid}'" in told.sentence
    assert up.is_answering()


def test_without_its_daemon_the_platform_ends_and_says_so(site: Site, up: Up) -> None:
    run_id, _ = launch_and_hang(site, up)
    began = time.monotonic()
    up.kill(up.pid_of("dagster-daemon"))
    assert up.process.wait(90) == 1
    tell("daemon killed -> up ended", began)
    assert "dagster-daemon ended by itself (exit code -9)" in up.prints
    assert carrying(up.mark) == []
    site.server.faults.clear()
    site.up()
    began = time.monotonic()
    site.ended(run_id, 90)
    tell("up answers -> FAILURE", began)
    assert_retried_once(site, run_id, 1)


def test_told_to_end_it_ends_its_runs_and_the_next_one_retries_them(site: Site, up: Up) -> None:
    run_id, _ = launch_and_hang(site, up)
    began = time.monotonic()
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(90) == 0
    tell("told to end -> up ended", began)
    assert carrying(up.mark) == []
    site.server.faults.clear()
    site.up()
    assert_retried_once(site, run_id, 90)


def began_of(up: Up) -> float:
    return (up.home / "up.lock").stat().st_mtime


def ticked_since(site: Site, since: float) -> bool:
    moods = dg.RunsFilter(job_name="fear_greed_refresh", statuses=[SUCCESS])
    runs = site.instance.get_run_records(moods)
    return any(run.create_timestamp.timestamp() > since for run in runs)


def test_a_killed_platform_takes_its_runs_with_it_and_the_next_one_retries_them(
    site: Site, up: Up
) -> None:
    run_id, _ = launch_and_hang(site, up)
    assert len(carrying(up.mark)) >= 5  # up, webserver, daemon, a code server each, the run
    began = time.monotonic()
    up.kill()
    up.process.wait()
    eventually("the end of all it had started", 10, lambda: not carrying(up.mark))
    tell("up killed -> no process left", began)
    assert site.run(run_id).status == dg.DagsterRunStatus.STARTED
    site.server.faults.clear()
    site.write_settings(fear_greed="* * * * *")
    again = site.up()
    began = time.monotonic()
    site.ended(run_id, 90)
    tell("up answers -> FAILURE", began)
    assert_retried_once(site, run_id, 1)
    assert "died before it ended" in failure_of(site, run_id)
    eventually("a tick of a schedule", 90, lambda: ticked_since(site, began_of(again)))
