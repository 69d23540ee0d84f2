"""The platform as a person uses it: `crypto-assets up`, all else through the API of the UI."""

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import requests

from crypto_assets import connect
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.publishing import read_state
from crypto_assets_tests.end_to_end.platforms import eventually
from crypto_assets_tests.operations.commands import (
    carrying,
    command,
    environment,
    free_port,
    spawn,
)

# The daemon looks for backfills every half minute and for queued runs every five seconds.
pytestmark = pytest.mark.slow

COINS, DAYS = 8, 6
LAUNCH = """mutation($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  ... on InvalidSubsetError { message }
  ... on RunConfigValidationInvalid { errors { message } } } }"""
STATUS = "query($r: ID!) { runOrError(runId: $r) { ... on Run { status } } }"
BACKFILL = """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
BACKFILL_STATUS = """query($b: String!) { partitionBackfillOrError(backfillId: $b) {
  ... on PartitionBackfill { status } ... on PythonError { message } } }"""
ASSETS = """{ assetNodes { assetKey { path } description groupName kinds
  owners { ... on TeamAssetOwner { team } }
  metadataEntries { label ... on TextMetadataEntry { text }
    ... on TableSchemaMetadataEntry { schema { columns { name type description } } } } } }"""


@dataclass(frozen=True)
class Server:
    """A platform that is up: its home, where it answers, and what all its processes carry."""

    home: Path
    url: str
    mark: str
    process: "subprocess.Popen[bytes]"

    def ask(self, query: str, **variables: Any) -> Any:
        """Send one GraphQL operation and return its data."""
        body = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer
        return answer["data"]


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    made = spawn("demo", "--coins", COINS, "--days", DAYS, "--home", "home", cwd=folder)
    assert made.code == 0, made.err
    port, mark = free_port(), f"mark-{uuid.uuid4()}"
    process = subprocess.Popen(
        command("up", "--home", "home", "--port", port),
        cwd=folder,
        env=environment({"TEST_MARK": mark}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    up = Server(folder / "home", f"http://127.0.0.1:{port}", mark, process)
    try:
        eventually("the webserver", 60, lambda: answers(up.url) or process.poll() is not None)
        assert process.poll() is None
        yield up
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        for left in carrying(mark):
            os.kill(left, signal.SIGKILL)


def forget(home: Path, day: date, last: date, *tables: str) -> None:
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table} WHERE date BETWEEN ? AND ?", [day, last])


def assert_true_to_the_market(home: Path, market: Market, first: date, last: date) -> None:
    with connect(home) as connection:
        stored = connection.execute(
            "FROM market_caps WHERE date BETWEEN ? AND ? ORDER BY coin_id, date", [first, last]
        ).fetchdf()
        ranks = connection.execute(
            "FROM ranks WHERE date BETWEEN ? AND ? ORDER BY date, market_cap_rank", [first, last]
        ).fetchdf()
    days = (last - first).days + 1
    assert len(stored) == len(ranks) == COINS * days
    for coin, rows in stored.groupby("coin_id"):
        truth = market.daily(str(coin), first, last)
        np.testing.assert_allclose(rows["price_usd"], truth["price_usd"], rtol=1e-9)
        np.testing.assert_allclose(rows["market_cap_usd"], truth["market_cap_usd"], rtol=1e-9)
    assert list(ranks["market_cap_rank"]) == list(range(1, COINS + 1)) * days


def first_day(home: Path) -> date:
    with connect(home) as connection:
        (day,) = connection.execute("SELECT min(date) FROM market_caps").fetchone() or ()
    assert isinstance(day, date)
    return day


def test_assets_are_shown_with_what_they_are(server: Server) -> None:
    shown = {node["assetKey"]["path"][-1]: node for node in server.ask(ASSETS)["assetNodes"]}
    assert set(shown) == set(TABLES)
    for name, node in shown.items():
        assert node["description"].startswith(TABLES[name].row)
        assert node["owners"] == [{"team": "crypto_assets"}]
        entries = {entry["label"]: entry for entry in node["metadataEntries"]}
        assert entries["dagster/table_name"]["text"] == f"main.{name}"
        columns = entries["dagster/column_schema"]["schema"]["columns"]
        assert [(c["name"], c["type"]) for c in columns] == [
            (c.name, c.type) for c in TABLES[name].all_columns
        ]


def test_one_partition_launched_in_the_ui_brings_its_day(server: Server, market: Market) -> None:
    day = first_day(server.home) + timedelta(days=2)
    version = read_state(server.home).version
    forget(server.home, day, day, "market_caps", "ranks")
    launched = server.ask(
        LAUNCH,
        p={
            "selector": {
                "repositoryLocationName": "crypto_assets.definitions",
                "repositoryName": "__repository__",
                "jobName": "__ASSET_JOB",
                "assetSelection": [{"path": ["market_caps"]}, {"path": ["ranks"]}],
            },
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": str(day)}]},
            "runConfigData": {},
        },
    )["launchRun"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    run_id = launched["run"]["runId"]

    def status() -> str:
        return str(server.ask(STATUS, r=run_id)["runOrError"]["status"])

    eventually("the run", 90, lambda: status() in {"SUCCESS", "FAILURE", "CANCELED"})
    assert status() == "SUCCESS"
    assert_true_to_the_market(server.home, market, day, day)
    assert read_state(server.home).version == version + 1


def test_a_range_backfilled_in_the_ui_brings_its_days(server: Server, market: Market) -> None:
    first = first_day(server.home) + timedelta(days=1)
    last = first + timedelta(days=3)
    version = read_state(server.home).version
    forget(server.home, first, last, "market_caps", "ranks")
    names = [str(first + timedelta(days=n)) for n in range(4)]
    launched = server.ask(
        BACKFILL,
        p={
            "assetSelection": [{"path": ["market_caps"]}, {"path": ["ranks"]}],
            "partitionNames": names,
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def status() -> str:
        found = server.ask(BACKFILL_STATUS, b=launched["backfillId"])
        return str(found["partitionBackfillOrError"]["status"])

    eventually("the backfill", 150, lambda: status().startswith("COMPLETED"))
    assert status() == "COMPLETED_SUCCESS"
    assert_true_to_the_market(server.home, market, first, last)
    assert read_state(server.home).version > version


def test_told_to_end_it_leaves_no_process_behind(server: Server) -> None:
    assert len(carrying(server.mark)) >= 4  # up itself, its sandbox, webserver and daemon
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    eventually("the last process", 10, lambda: not carrying(server.mark))
