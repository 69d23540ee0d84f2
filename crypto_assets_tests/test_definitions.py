import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

from crypto_assets.definitions import build_definitions
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES

TOP = Path(__file__).parent.parent

# An accidental change of the graph is a diff here.
ASSETS = {
    "coin_list": ([], "market", {"coingecko", "duckdb"}),
    "market_caps": (["coin_list"], "market", {"coingecko", "duckdb"}),
    "ranks": (["market_caps"], "market", {"duckdb"}),
    "ema_signals": (["market_caps", "ranks"], "signals", {"duckdb"}),
    "ohlc_hourly": ([], "candles", {"coingecko", "duckdb"}),
    "ohlc_daily": ([], "candles", {"coingecko", "duckdb"}),
    "fear_greed": ([], "sentiment", {"alternative_me", "duckdb"}),
    "etf_flows": ([], "flows", {"farside", "duckdb"}),
    "daily_snapshot": (
        [
            "ema_signals",
            "etf_flows",
            "fear_greed",
            "market_caps",
            "ohlc_daily",
            "ohlc_hourly",
            "ranks",
        ],
        "snapshot",
        {"duckdb"},
    ),
}
OF_ALL = {"contract_holds", "is_fresh", "keys_unique", "source_fits_home"}
CHECKS = {
    "coin_list": OF_ALL,
    "market_caps": OF_ALL
    | {
        *("complete", "row_count_is_usual", "universe_is_stable", "cap_is_price_times_supply"),
        *("close_within_candle", "prices_do_not_jump", "prices_are_fresh"),
    },
    "ranks": OF_ALL
    | {
        *("row_count_is_usual", "ranks_are_1_to_n", "ranks_follow_market_caps"),
        *("larger_ranks_first", "shares_sum_to_1"),
    },
    "ema_signals": OF_ALL
    | {"row_count_is_usual", "signals_follow_prices", "spans_are_the_same", "emas_are_right"},
    "ohlc_hourly": OF_ALL
    | {
        *("complete", "row_count_is_usual", "hours_agree_with_day", "no_silent_holes"),
        "prices_are_fresh",
    },
    "ohlc_daily": OF_ALL
    | {"complete", "row_count_is_usual", "no_silent_holes", "prices_do_not_jump"},
    "fear_greed": OF_ALL | {"complete", "no_unknown_holes"},
    "etf_flows": OF_ALL
    | {
        *("complete", "row_count_is_usual", "no_weekend_rows", "active_funds_report"),
        "funds_are_known",
    },
    "daily_snapshot": OF_ALL | {"row_count_is_usual", "snapshot_follows_closes"},
}
JOBS = {
    "everything": set(ASSETS),
    "market_refresh": {"coin_list", "market_caps", "ranks", "ema_signals"},
    "hourly_candles_refresh": {"ohlc_hourly"},
    "fear_greed_refresh": {"fear_greed"},
    "daily_close": {
        "market_caps",
        "ranks",
        "ema_signals",
        "ohlc_hourly",
        "ohlc_daily",
        "daily_snapshot",
    },
    "etf_flows_refresh": {"etf_flows", "daily_snapshot"},
    "derived_refresh": {"ranks", "ema_signals", "daily_snapshot"},
    "restatements_check": {"market_caps", "ohlc_daily"},
    "healing_refresh": {
        *("coin_list", "market_caps", "ohlc_hourly", "ohlc_daily", "fear_greed", "etf_flows")
    },
    "backup": set(),
    "housekeeping": set(),
    "status_report": set(),
}
SCHEDULES = {
    "market_refresh": "0 * * * *",
    "hourly_candles_refresh": "30 * * * *",
    "fear_greed_refresh": "10 0 * * *",
    "daily_close": "0 1 * * *",
    "etf_flows_refresh": "30 9 * * *",
    "restatements_check": "45 2 * * *",
    "backup": "15 3 * * *",
    "housekeeping": "30 3 * * *",
    "status_report": "0 7 * * *",
}
SENSORS = {
    "stale_days": {"derived_refresh"},
    "healing": {"healing_refresh"},
    "watch": set(),
    "dead_runs": set(),
}


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    home = tmp_path_factory.mktemp("home")
    return build_definitions(validated({"home": home, "history": {"start": "2026-01-01"}}))


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> AssetGraph:
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def repository(definitions: dg.Definitions) -> dg.RepositoryDefinition:
    return definitions.get_repository_def()


def nodes(graph: AssetGraph) -> Iterator[tuple[str, Any]]:
    for key in graph.get_all_asset_keys():
        yield key.to_user_string(), graph.get(key)


def test_the_definitions_are_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_the_graph_is_the_one_that_was_agreed_on(graph: AssetGraph) -> None:
    found = {
        name: (
            sorted(key.to_user_string() for key in node.parent_keys),
            node.group_name,
            set(node.kinds),
        )
        for name, node in nodes(graph)
    }
    assert found == ASSETS


def test_each_table_has_its_checks_and_none_blocks(graph: AssetGraph) -> None:
    found: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        found.setdefault(key.asset_key.to_user_string(), set()).add(key.name)
        assert not graph.get_check_spec(key).blocking
        assert graph.get_check_spec(key).description
    assert found == CHECKS


def test_all_but_the_coin_list_share_one_partition_definition(graph: AssetGraph) -> None:
    for name, node in nodes(graph):
        if name == "coin_list":
            assert node.partitions_def is None
            continue
        assert node.partitions_def == dg.DailyPartitionsDefinition("2026-01-01", end_offset=1)
        assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_jobs_hold_their_assets_and_are_tagged_to_run_once_at_a_time(
    repository: dg.RepositoryDefinition,
) -> None:
    jobs = {job.name: job for job in repository.get_all_jobs() if job.name != "__ASSET_JOB"}
    held = {
        name: {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
        for name, job in jobs.items()
    }
    assert held == JOBS
    assert {name: job.tags["crypto_assets/job"] for name, job in jobs.items()} == {
        name: name for name in JOBS
    }


def test_everything_runs_in_one_process(repository: dg.RepositoryDefinition) -> None:
    assert {job.executor_def.name for job in repository.get_all_jobs()} == {"in_process"}


def test_schedules_run_by_default_in_utc(repository: dg.RepositoryDefinition) -> None:
    assert {s.job_name: s.cron_schedule for s in repository.schedule_defs} == SCHEDULES
    for schedule in repository.schedule_defs:
        assert schedule.execution_timezone == "UTC"
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.description


def test_sensors_run_by_default(repository: dg.RepositoryDefinition) -> None:
    launched = {s.name: {t.job_name for t in s.targets} for s in repository.sensor_defs}
    assert launched == SENSORS
    assert {s.default_status for s in repository.sensor_defs} == {dg.DefaultSensorStatus.RUNNING}


def test_every_asset_tells_what_it_is_and_whose(graph: AssetGraph) -> None:
    for name, node in nodes(graph):
        assert node.description.startswith(TABLES[name].row)
        assert f"Key: {', '.join(TABLES[name].key)}." in node.description
        assert node.owners == ["team:crypto_assets"]
        assert node.tags["made"] == ("calculated" if TABLES[name].derived else "fetched")
        assert node.metadata["dagster/table_name"] == f"main.{name}"


def test_the_column_schema_in_the_ui_is_the_contract(graph: AssetGraph) -> None:
    for name, node in nodes(graph):
        shown = node.metadata["dagster/column_schema"].columns
        contract = TABLES[name].all_columns
        assert [(c.name, c.type, c.constraints.nullable) for c in shown] == [
            (c.name, c.type, c.nullable) for c in contract
        ]
        for column, declared in zip(shown, contract, strict=True):
            assert column.description.startswith(declared.description)
            assert declared.unit is None or declared.unit in column.description


def test_loading_touches_neither_disk_nor_network_and_warns_of_nothing(tmp_path: Path) -> None:
    code = (
        "import warnings, dagster\n"
        "for kind in (DeprecationWarning, dagster.BetaWarning, dagster.PreviewWarning,\n"
        "             dagster.SupersessionWarning):\n"
        "    warnings.simplefilter('error', kind)\n"
        "import socket\n"
        "def refuse(*_): raise AssertionError('a connection at load')\n"
        "socket.socket.connect = refuse\n"
        "from crypto_assets.definitions import defs\n"
        "dagster.Definitions.validate_loadable(defs())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_workspace_loads_from_the_top_level_files(tmp_path: Path) -> None:
    for name in ("workspace.yaml", "dagster.yaml", "pyproject.toml"):
        (tmp_path / name).write_bytes((TOP / name).read_bytes())
    (tmp_path / "crypto_assets").symlink_to(TOP / "crypto_assets")
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert "Validation successful for code location crypto_assets.definitions" in told


def test_the_instance_settings_at_the_top_are_those_the_package_ships(tmp_path: Path) -> None:
    shipped = (TOP / "crypto_assets/operations/dagster.yaml").read_text()
    assert (TOP / "dagster.yaml").read_text() == shipped
    tree = yaml.safe_load(shipped)
    tree["storage"]["custom"]["config"]["base_dir"] = str(tmp_path / "dagster")
    tree["compute_logs"]["config"]["base_dir"] = str(tmp_path / "logs")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(tree))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 43200
        assert instance.run_retries_enabled
        assert not instance.run_retries_retry_on_asset_or_op_failure
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        assert limits.max_concurrent_runs == 2
        assert limits.tag_concurrency_limits == [
            {
                "key": "crypto_assets/job",
                "value": {"applyLimitPerUniqueValue": True},
                "limit": 1,
            }
        ]


def test_the_top_level_holds_what_the_design_lists_and_nothing_else() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    top = {Path(name).parts[0] for name in tracked}
    allowed = {
        "crypto_assets",
        "crypto_assets_tests",
        "workspace.yaml",
        "pyproject.toml",
        "dagster.yaml",
        "README.md",
        "LICENSE",
        "constraints.txt",
    }
    assert {name for name in top if not name.startswith(".")} <= allowed
