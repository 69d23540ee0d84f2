"""A run that the month can't pay for ends before its first call, whoever starts it."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crypto_assets.assets.platform import Platform
from crypto_assets.automation.schedules import range_tags
from crypto_assets.definitions import build_definitions
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.forecasting import forecast
from crypto_assets.operations.running import refuse_beyond_budget
from crypto_assets.operations.surveying import survey
from crypto_assets.providers.usage import Used
from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab
from crypto_assets_tests.operations.commands import call

TODAY = NOON.date()
DAY = timedelta(days=1)
YESTERDAY = TODAY - DAY
CAPS = ["market_caps"]


@contextmanager
def metered(folder: Path, market: Market, credits: int | None, **coingecko: Any) -> Iterator[Lab]:
    """A lab of five coins on the demo plan with so many credits a month."""
    section = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
    section |= {"credits_per_month": credits, **coingecko}
    universe = {"tracked": 5, "always": []}
    with open_lab(folder, market, coingecko=section, universe=universe) as lab:
        yield lab


def used(lab: Lab) -> Used:
    with closing(Platform(lab.settings)) as platform:
        return platform.usage.month("coingecko", lab.settings.clock.today())


def start_job(lab: Lab, job: str, first: date, last: date, *tables: str) -> Any:
    """Execute a job as the daemon does: by name, with a range of partitions."""
    return (
        build_definitions(lab.settings)
        .resolve_job_def(job)
        .execute_in_process(
            instance=lab.instance,
            tags=range_tags(first, last),
            asset_selection=[dg.AssetKey(table) for table in tables] or None,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    )


def log_of(lab: Lab, run_id: str) -> str:
    entries = lab.instance.all_logs(run_id)
    return "\n".join(
        str(event)
        for entry in entries
        for event in (entry.user_message, entry.dagster_event)
        if event
    )


def test_a_run_beyond_the_month_is_refused_in_one_sentence_before_its_first_call(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        # One page of markets and five charts are six.
        with pytest.raises(OperationError) as told:
            refuse_beyond_budget(lab.settings, CAPS, (YESTERDAY - 5 * DAY, YESTERDAY))
        sentence = str(told.value)
        assert "needs 6 CoinGecko credits" in sentence
        assert "the month has 5 of 5 left" in sentence
        assert "plan 'demo'" in sentence
        assert "--over-budget" in sentence
        assert len(sentence.splitlines()) == 1
        assert "CG-sandbox" not in sentence
        assert lab.server.stats()["total"] == 0


def test_a_run_that_needs_exactly_what_is_left_may_start(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=6) as lab:
        refuse_beyond_budget(lab.settings, CAPS, (YESTERDAY - 5 * DAY, YESTERDAY))
        assert lab.run(CAPS, YESTERDAY - 5 * DAY, YESTERDAY).succeeded
        assert lab.server.stats()["total"] == 6
        assert used(lab) == Used(calls=6, credits=6)


def test_a_job_beyond_the_month_fails_before_its_first_call_and_its_log_says_why(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        result = start_job(lab, "everything", YESTERDAY - 5 * DAY, YESTERDAY, "market_caps")
        assert not result.success
        assert lab.server.stats()["total"] == 0
        assert lab.sql("FROM market_caps").empty
        assert "needs 6 CoinGecko credits" in log_of(lab, result.run_id)


def test_a_job_without_a_selection_is_weighed_by_all_its_tables(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=1) as lab:
        # The list of coins and a page of markets.
        result = start_job(lab, "market_refresh", TODAY, TODAY)
        assert not result.success
        assert lab.server.stats()["total"] == 0
        assert "needs 2 CoinGecko credits" in log_of(lab, result.run_id)


def test_a_single_partition_is_weighed_as_well(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=1) as lab:
        job = build_definitions(lab.settings).resolve_job_def("market_refresh")
        result = job.execute_in_process(
            instance=lab.instance,
            partition_key=TODAY.isoformat(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        assert not result.success
        assert lab.server.stats()["total"] == 0


@pytest.mark.slow
def test_a_job_within_the_month_runs(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=2) as lab:
        assert start_job(lab, "market_refresh", TODAY, TODAY).success
        assert lab.server.stats()["total"] == 2


def test_a_report_of_a_refused_run_is_no_success(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        report = lab.run(CAPS, YESTERDAY - 5 * DAY, YESTERDAY)
        assert not report.succeeded
        assert lab.server.stats()["total"] == 0
        # Whoever prints the report has something to print.
        assert any("CoinGecko credits" in reason for reason in report.failures.values())


def test_only_the_steps_that_would_ask_coingecko_fail_and_are_not_tried_again(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        tables = ["market_caps", "fear_greed"]
        result = start_job(lab, "everything", YESTERDAY - 5 * DAY, YESTERDAY, *tables)
        assert not result.success
        assert lab.server.stats()["calls"] == {"alternative_me/fng": {"200": 1}}
        events = [event for event in result.all_events if event.step_key]
        failed = [event.step_key for event in events if event.is_step_failure]
        assert failed == ["market_caps"]
        kinds = {event.event_type for event in events}
        assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in kinds
        assert dg.DagsterEventType.STEP_RESTARTED not in kinds
        # The resources came up: a failure there would be taken for a dead worker.
        assert not [event for event in result.all_events if event.is_resource_init_failure]
        assert len(lab.sql("FROM fear_greed")) == 6
        error = next(e for e in events if e.is_step_failure).step_failure_data
        assert error.user_failure_data is not None
        assert "needs 6 CoinGecko credits" in error.user_failure_data.description


def test_the_list_of_coins_alone_is_guarded_too(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=1) as lab:
        assert lab.run(["coin_list"], TODAY).succeeded
        calls = lab.server.stats()["total"]
        assert calls == 1
        report = lab.at(NOON + timedelta(hours=1)).run(["coin_list"], TODAY)
        assert not report.succeeded
        assert set(report.failures) == {"coin_list"}
        told = report.failures["coin_list"]
        assert "needs 1 CoinGecko credits and the month has 0 of 1 left" in told
        assert lab.server.stats()["total"] == calls


def test_weighing_a_run_founds_no_warehouse(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        with pytest.raises(OperationError):
            refuse_beyond_budget(lab.settings, CAPS, (YESTERDAY - 5 * DAY, YESTERDAY))
        assert not list(lab.home.glob("warehouse*"))


def test_a_setting_lets_a_run_start_all_the_same(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=5, may_exceed_credits=True) as lab:
        refuse_beyond_budget(lab.settings, CAPS, (YESTERDAY - 5 * DAY, YESTERDAY))
        assert lab.run(CAPS, YESTERDAY - 5 * DAY, YESTERDAY).succeeded
        assert used(lab).credits == 6


def test_what_was_used_before_counts_and_a_new_month_begins_anew(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=8) as lab:
        lab.run(CAPS, YESTERDAY, YESTERDAY)
        assert used(lab).credits == 6
        days = (YESTERDAY, YESTERDAY)
        with pytest.raises(OperationError, match=r"needs 5 .* has 2 of 8 left"):
            refuse_beyond_budget(lab.settings, ["ohlc_daily"], days)
        lab.at(datetime(2026, 4, 1, 0, 5))
        refuse_beyond_budget(lab.settings, ["ohlc_daily"], days)
        assert used(lab) == Used()


def test_what_is_over_used_is_told_as_nothing_left(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=5, may_exceed_credits=True) as lab:
        lab.run(CAPS, YESTERDAY, YESTERDAY)
    with (
        metered(tmp_path, market, credits=5) as lab,
        pytest.raises(OperationError, match="has 0 of 5 left"),
    ):
        refuse_beyond_budget(lab.settings, ["ohlc_daily"], (YESTERDAY, YESTERDAY))


@pytest.mark.slow
def test_a_run_that_needs_no_credit_may_start_when_none_is_left(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=6) as lab:
        lab.run(CAPS, YESTERDAY, YESTERDAY)
        others = ["ranks", "ema_signals", "fear_greed", "etf_flows", "daily_snapshot"]
        refuse_beyond_budget(lab.settings, others, (YESTERDAY, YESTERDAY))
        assert lab.run(others, YESTERDAY, YESTERDAY).succeeded
        assert lab.run(CAPS, YESTERDAY, YESTERDAY).succeeded


def test_refused_and_repeated_calls_cost_no_credit(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=100) as lab:
        lab.server.faults.add(
            {"kind": "status", "code": 404, "shape": "error", "match": {"coin_id": "ethereum"}},
            {"kind": "status", "code": 500, "times": 1, "match": {"endpoint": "coins/markets"}},
        )
        lab.run(CAPS, YESTERDAY - 2 * DAY, YESTERDAY)
        statuses: dict[str, int] = {}
        for by_status in lab.server.stats()["calls"].values():
            for status, n in by_status.items():
                statuses[status] = statuses.get(status, 0) + n
        assert statuses == {"200": 5, "404": 1, "500": 1}
        assert used(lab) == Used(calls=7, credits=5)


@pytest.mark.parametrize("plan", ["unlimited", "keyless"])
def test_a_plan_without_a_month_refuses_nothing(tmp_path: Path, market: Market, plan: str) -> None:
    with open_lab(tmp_path, market, coingecko={"plan": plan}) as lab:
        refuse_beyond_budget(lab.settings, CAPS, (date(2026, 1, 1), TODAY))
        assert lab.server.stats()["total"] == 0


def test_a_forecast_says_that_a_run_would_be_refused(tmp_path: Path, market: Market) -> None:
    with metered(tmp_path, market, credits=5) as lab:
        told = forecast(lab.settings, CAPS, (YESTERDAY - 5 * DAY, YESTERDAY))
        assert told.plan.credits == 6
        assert "A run would be refused: this needs 6 CoinGecko credits" in told.sentences[-1]
        assert lab.server.stats()["total"] == 0
        assert not lab.warehouse.path.exists()


def test_the_credits_so_far_are_told_with_the_month_and_the_plan(
    tmp_path: Path, market: Market
) -> None:
    with metered(tmp_path, market, credits=1_000) as lab:
        lab.run(CAPS, YESTERDAY - DAY, YESTERDAY)
        assert ("CoinGecko, March 2026: 6 calls, 6 of 1,000 credits (plan 'demo').") in survey(
            lab.settings
        ).sentences
        lab.at(datetime(2026, 4, 1))
        assert any("April 2026: 0 calls, 0 of" in s for s in survey(lab.settings).sentences)


def home_of(folder: Path, credits: int) -> Path:
    folder.mkdir()
    tree = {
        "sandbox": {"seed": 7, "clock": NOON.isoformat()},
        "coingecko": {"plan": "demo", "api_key": "CG-sandbox-test", "credits_per_month": credits},
        "universe": {"tracked": 3, "always": []},
        "history": {"start": "2026-03-01"},
        "schedules": {"enabled": False},
    }
    (folder / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.mark.slow
def test_the_commands_refuse_plan_and_count(tmp_path: Path) -> None:
    home = home_of(tmp_path / "home", credits=2)
    words = ("market_caps", "--from", "2026-03-08", "--to", "2026-03-09", "--home", home)
    told = call("plan", *words)
    assert told.code == 0, told.err
    assert "4 calls, 4 CoinGecko credits" in told.out
    assert "would be refused" in told.out
    refused = call("backfill", *words).sentence
    assert "needs 4 CoinGecko credits and the month has 2 of 2 left" in refused
    done = call("backfill", *words, "--over-budget")
    assert done.code == 0, done.err
    assert "market_caps: 6 rows changed" in done.out
    status = call("status", "--home", home)
    assert "CoinGecko, March 2026: 4 calls, 4 of 2 credits (plan 'demo')." in status.out
