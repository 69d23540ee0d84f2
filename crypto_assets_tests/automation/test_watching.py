"""The sensor that looks at the home each minute, and the job that writes the report of the day."""

import logging
import sqlite3
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from crypto_assets.automation.watching import job_names, look_after, status_report
from crypto_assets.definitions import build_definitions
from crypto_assets.monitoring.alerts import AlertBook
from crypto_assets.monitoring.conditions import conditions
from crypto_assets.monitoring.health import examine
from crypto_assets.sandbox import Market
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.publishing import Debounce, publish_run, read_state
from crypto_assets.warehouse.session import warehouse_lock
from crypto_assets_tests.lab import NOON, WEEK, Lab, open_lab
from crypto_assets_tests.monitoring.prometheus import parsed
from crypto_assets_tests.webhook import Webhook, open_webhook

TODAY = NOON.date()
YESTERDAY = TODAY - timedelta(days=1)
SECRET = "hook-secret-8c1d"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with open_webhook() as opened:
        yield opened


@pytest.fixture
def watched(week: Lab, hook: Webhook, market: Market) -> Lab:
    """The home of a week with a channel; it has seen prices for a week."""
    week._overrides["alerts"] = {"urls": [hook.url]}
    with week.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE market_caps SET observed_at = '2026-03-03 00:20' WHERE date = '2026-03-02'"
        )
    publish_run(week.home, "a test")
    return week


def look(lab: Lab) -> list[str]:
    """Look once; return the keys of what is wrong."""
    book = AlertBook(lab.home)
    try:
        health = look_after(lab.settings, lab.instance, job_names(), book)
    finally:
        book.close()
    judged = conditions(health, lab.settings) if health else []
    return [condition.key for condition in judged if not condition.is_suspended]


def tick(lab: Lab) -> Any:
    definitions = build_definitions(lab.settings)
    sensor = definitions.resolve_sensor_def("watch")
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=lab.instance, repository_def=repository) as context:
        return sensor.evaluate_tick(context)


def texts(hook: Webhook) -> str:
    return "\n".join(message["title"] + "\n" + message["message"] for message in hook.messages)


def report(lab: Lab) -> str:
    return status_report(lab.settings, lab.instance, job_names())


def break_rule(lab: Lab, table: str = "fear_greed") -> None:
    """Let rows say that they come from elsewhere, as no provider's answer can make them."""
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            f"UPDATE {table} SET source = 'nowhere', materialized_at = now() AT TIME ZONE 'UTC' "
            "WHERE date = ?",
            [YESTERDAY],
        )
    publish_run(lab.home, "a test")


def test_all_jobs_are_watched() -> None:
    definitions = build_definitions(validated({"sandbox": {}}))
    jobs = {job.name for job in definitions.get_repository_def().get_all_jobs()}
    assert jobs == set(job_names())


def test_a_home_in_order_tells_nothing(watched: Lab, hook: Webhook) -> None:
    assert look(watched) == []
    assert hook.messages == []


def test_an_empty_home_tells_nothing(lab: Lab) -> None:
    assert look(lab) == []
    assert "0 thing(s) are wrong" in tick(lab).skip_message


@pytest.mark.slow
def test_late_tables_are_told_once_and_so_is_that_they_came(watched: Lab, hook: Webhook) -> None:
    watched.at(datetime(2026, 3, 10, 13, 44, 59))
    assert look(watched) == []
    watched.at(datetime(2026, 3, 10, 13, 45))
    late = ["late:market_caps", "late:ranks", "late:ema_signals"]
    assert look(watched) == look(watched) == late
    assert len(hook.messages) == 1
    assert watched.run(["market_caps", "ranks", "ema_signals"], TODAY).succeeded
    assert look(watched) == look(watched) == []
    assert len(hook.messages) == 2
    over = hook.messages[-1]["message"]
    assert all(f"over: {name} is late" in over for name in ("market_caps", "ranks", "ema_signals"))


@pytest.mark.slow
def test_an_old_backfill_does_not_make_a_late_table_fresh(watched: Lab) -> None:
    watched.at(datetime(2026, 3, 10, 13, 45))
    with watched.warehouse.session("a test") as connection:
        connection.execute("DELETE FROM market_caps WHERE date = '2026-03-04'")
    assert watched.run(["market_caps", "ranks", "ema_signals"], date(2026, 3, 4)).succeeded
    assert "late:market_caps" in look(watched)


def test_a_failing_job_is_told_with_its_reason_and_so_is_its_recovery(
    watched: Lab, hook: Webhook
) -> None:
    watched.server.faults.add({"kind": "status", "code": 404, "match": {"endpoint": "fng"}})
    assert not watched.run(["fear_greed"], TODAY).succeeded
    assert look(watched) == look(watched) == ["run:everything"]
    (message,) = hook.messages
    assert message["title"] == "crypto_assets: a run started by hand failed"
    assert "fear_greed: " in message["message"]
    watched.server.faults.clear()
    assert watched.run(["fear_greed"], TODAY).succeeded
    assert look(watched) == []
    assert hook.titles[1:] == ["crypto_assets: over: a run started by hand failed"]


def test_a_failed_run_is_told_when_its_retry_failed_and_once(watched: Lab, hook: Webhook) -> None:
    failure = dg.DagsterRunStatus.FAILURE
    will_retry = {"dagster/will_retry": "true"}
    watched.instance.add_run(dg.DagsterRun("daily_close", status=failure, tags=will_retry))
    assert look(watched) == []
    watched.instance.add_run(dg.DagsterRun("daily_close", status=failure))
    assert look(watched) == look(watched) == ["run:daily_close"]
    assert len(hook.messages) == 1


def test_a_withheld_publication_is_told_and_hides_that_tables_are_late(
    watched: Lab, hook: Webhook
) -> None:
    break_rule(watched)
    watched.at(datetime(2026, 3, 10, 15, 0))
    assert look(watched) == look(watched) == ["check:fear_greed.source_fits_home"]
    assert hook.titles == ["crypto_assets: fear_greed fails its check source_fits_home"]
    with watched.warehouse.session("a test") as connection:
        connection.execute("UPDATE fear_greed SET source = 'sandbox' WHERE source = 'nowhere'")
    publish_run(watched.home, "a test")
    watched.at(NOON)
    assert look(watched) == []
    assert hook.titles[1:] == ["crypto_assets: over: fear_greed fails its check source_fits_home"]


def test_what_is_mended_is_over_also_where_its_publication_is_put_off(
    watched: Lab, hook: Webhook
) -> None:
    break_rule(watched)
    assert look(watched) == ["check:fear_greed.source_fits_home"]
    with watched.warehouse.session("a test") as connection:
        connection.execute("UPDATE fear_greed SET source = 'sandbox' WHERE source = 'nowhere'")
    before = read_state(watched.home).version
    assert publish_run(watched.home, "a test", Debounce(0, 60)).version == before
    assert look(watched) == []
    assert hook.titles[-1] == "crypto_assets: over: fear_greed fails its check source_fits_home"


def drop_coin(lab: Lab) -> None:
    """Let a coin be missing yesterday, of which a check warns."""
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "INSERT INTO gaps VALUES ('ohlc_daily', 'solana', ?, ?, 'missing', 'a test', ?)",
            [YESTERDAY, YESTERDAY, NOON],
        )
        connection.execute(
            "DELETE FROM ohlc_daily WHERE coin_id = 'solana' AND date = ?", [YESTERDAY]
        )
    publish_run(lab.home, "a test")


def test_a_check_that_warns_waits_for_the_report_unless_wanted_at_once(
    watched: Lab, hook: Webhook
) -> None:
    drop_coin(watched)
    assert look(watched) == ["check:ohlc_daily.complete"]
    assert hook.messages == []
    watched._overrides["alerts"] |= {"warnings": True}
    look(watched)
    assert hook.titles == ["crypto_assets: ohlc_daily fails its check complete"]
    assert [message["type"] for message in hook.messages] == ["warning"]


def test_the_budget_is_told_at_80_percent_and_at_all_of_it(watched: Lab, hook: Webhook) -> None:
    with_credits(watched, 7_999)
    assert look(watched) == []
    add_credits(watched, 1)
    assert look(watched) == look(watched) == ["budget:80%"]
    assert "80% of the month's CoinGecko credits are used" in hook.titles[0]
    add_credits(watched, 1_999)
    assert look(watched) == ["budget:80%"]
    add_credits(watched, 1)
    assert look(watched) == look(watched) == ["budget:100%", "budget:80%"]
    assert "8,000 of 10,000" in hook.messages[0]["message"]
    assert "10,000 of 10,000" in texts(hook)
    # The next month begins with all of them.
    watched.at(datetime(2026, 4, 1, 0, 1))
    assert not [key for key in look(watched) if key.startswith("budget")]


def add_credits(lab: Lab, count: int) -> None:
    path = next(lab.home.rglob("usage.sqlite"))
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO usage VALUES ('coingecko', '2026-03-10', ?, ?) "
            "ON CONFLICT (provider, day) DO UPDATE SET credits = credits + excluded.credits",
            (count, count),
        )
    connection.close()


def with_credits(lab: Lab, used: int) -> None:
    """Let the plan have 10,000 credits of which so many are used."""
    lab._overrides["coingecko"] = {"credits_per_month": 10_000}
    path = next(lab.home.rglob("usage.sqlite"))
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM usage")
    connection.close()
    add_credits(lab, used)


def test_the_writers_lock_holds_up_nobody_who_looks(watched: Lab) -> None:
    with warehouse_lock(watched.home / "warehouse.duckdb", "a long write"):
        assert look(watched) == []


def test_metrics_are_written_beside(watched: Lab) -> None:
    look(watched)
    found = parsed((watched.home / "metrics.prom").read_text())
    (caps,) = watched.sql("SELECT count(*) AS n FROM market_caps")["n"]
    assert found["crypto_assets_table_rows", (("table", "market_caps"),)] == caps
    assert found["crypto_assets_errors", ()] == 0


def test_the_check_of_freshness_is_told_to_dagster_when_it_changes(watched: Lab) -> None:
    def changes() -> dict[str, bool]:
        return {
            event.asset_key.to_user_string(): event.passed for event in tick(watched).asset_events
        }

    assert changes() == dict.fromkeys(TABLES, True)
    assert changes() == {}
    watched.at(datetime(2026, 3, 10, 13, 45))
    assert changes() == dict.fromkeys(["market_caps", "ranks", "ema_signals"], False)
    assert changes() == {}


def test_a_channel_that_is_down_does_not_stop_the_look_and_is_told_by_status_alone(
    watched: Lab, hook: Webhook
) -> None:
    hook.status = 500
    watched.at(datetime(2026, 3, 10, 13, 45))
    look(watched)
    assert look(watched)[-1] == "alerts"
    hook.status = 200
    look(watched)
    assert "could not be delivered" not in texts(hook)
    assert "alerts" not in look(watched)


@pytest.mark.parametrize("what", ["publication.json", "crypto.duckdb"])
def test_a_home_that_cannot_be_read_is_told_of(watched: Lab, hook: Webhook, what: str) -> None:
    (watched.home / what).unlink()
    (watched.home / what).write_text("{")
    look(watched)
    assert len(hook.messages) == 1


def test_the_url_is_nowhere_to_be_found(
    watched: Lab,
    hook: Webhook,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    break_rule(watched)
    for status in (500, 200):
        hook.status = status
        look(watched)
        tick(watched)
        report(watched)
    assert hook.messages
    told = capfd.readouterr()
    assert SECRET not in caplog.text + told.out + told.err + repr(watched.settings)
    for path in watched.home.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


# --- the report of the day


def test_the_report_says_what_the_issue_lists(watched: Lab, hook: Webhook) -> None:
    watched.at(datetime(2026, 3, 10, 13, 45))
    drop_coin(watched)
    look(watched)
    text = report(watched)
    (caps,) = watched.sql("SELECT count(*) AS n FROM market_caps")["n"]
    assert f"| market_caps | {caps:,} | 2026-03-10 | 2026-03-09 | late | 0 | 0 |" in text
    (days,) = watched.sql("SELECT count(*) AS n FROM ohlc_daily")["n"]
    assert f"| ohlc_daily | {days:,} | 2026-03-10 | 2026-03-09 | yes | 1 | 1 |" in text
    for part in (
        "# crypto_assets, 2026-03-10 13:45 UTC",
        "**3 thing(s) are wrong.**",
        "- ERROR: market_caps is late (since 2026-03-10 13:45 UTC).",
        "- WARN: ohlc_daily fails its check complete",
        "## Runs of the last 24 hours",
        "1 day(s) of series are missing and may still come.",
        "- ohlc_daily solana, 2026-03-09 to 2026-03-09: a test",
        "CoinGecko credits of the month (plan 'unlimited').",
        "GB of disk are free.",
    ):
        assert part in text


@pytest.mark.slow
def test_the_report_counts_the_runs_of_the_day(watched: Lab) -> None:
    assert watched.run(["fear_greed"], TODAY).succeeded
    watched.server.faults.add({"kind": "status", "code": 404, "match": {"endpoint": "fng"}})
    for _ in range(2):
        assert not watched.run(["fear_greed"], TODAY).succeeded
    assert "\n2 failure, 1 success.\n" in report(watched)


def test_the_report_is_kept_in_the_home_and_sent_where_wanted(watched: Lab, hook: Webhook) -> None:
    text = report(watched)
    assert (watched.home / "reports" / "status-2026-03-10.md").read_text() == text
    (message,) = hook.messages
    assert (message["title"], message["type"]) == ("crypto_assets: 2026-03-10", "info")
    assert message["message"].strip() == text.strip()
    assert "All is well." in text


def test_a_report_that_nobody_wants_is_kept_and_not_sent(watched: Lab, hook: Webhook) -> None:
    watched._overrides["alerts"] |= {"daily_report": False}
    text = report(watched)
    assert (watched.home / "reports" / "status-2026-03-10.md").read_text() == text
    assert hook.messages == []


def heal(lab: Lab) -> None:
    assert lab.run(["ohlc_daily"], YESTERDAY).succeeded


@pytest.mark.slow
@pytest.mark.parametrize("is_wanted", [True, False])
def test_healed_days_are_told_once_as_a_digest_even_without_the_report(
    watched: Lab, hook: Webhook, is_wanted: bool
) -> None:
    watched._overrides["alerts"] |= {"daily_report": is_wanted}
    drop_coin(watched)
    report(watched)
    before = len(hook.messages)
    heal(watched)
    text = report(watched)
    assert "1 day(s) of series that were missing are there now." in text
    assert "- healed: ohlc_daily solana 2026-03-09" in text
    (message,) = hook.messages[before:]
    assert "ohlc_daily" in message["message"]
    # The report of the day keeps it; the digest is told once.
    assert "1 day(s) of series that were missing are there now." in report(watched)
    assert len(hook.messages) - before == (2 if is_wanted else 1)


@pytest.mark.slow
def test_what_the_provider_turned_out_not_to_have_is_not_healed(watched: Lab) -> None:
    drop_coin(watched)
    report(watched)
    with watched.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE gaps SET state = 'no_data_at_provider' WHERE series = 'solana' "
            "AND table_name = 'ohlc_daily'"
        )
    publish_run(watched.home, "a test")
    assert "0 day(s) of series that were missing" in report(watched)


def test_a_day_that_was_never_asked_for_is_missing_and_healed_in_the_report(watched: Lab) -> None:
    with watched.warehouse.session("a test") as connection:
        connection.execute("DELETE FROM fear_greed WHERE date = '2026-03-05'")
    publish_run(watched.home, "a test")
    assert "1 day(s) of series are missing" in report(watched)
    assert watched.run(["fear_greed"], date(2026, 3, 5)).succeeded
    assert "1 day(s) of series that were missing are there now" in report(watched)


@pytest.mark.slow
def test_a_second_report_of_a_day_keeps_what_the_first_said_of_healed_days(watched: Lab) -> None:
    drop_coin(watched)
    report(watched)
    heal(watched)
    report(watched)
    report(watched)
    kept = "".join(path.read_text() for path in (watched.home / "reports").iterdir())
    assert "- healed: ohlc_daily solana 2026-03-09" in kept


def test_a_second_report_of_a_day_takes_the_place_of_the_first(watched: Lab) -> None:
    report(watched)
    watched.at(datetime(2026, 3, 10, 13, 45))
    text = report(watched)
    (file,) = (watched.home / "reports").iterdir()
    assert file.read_text() == text
    assert "2026-03-10 13:45 UTC" in text


def test_an_empty_home_has_a_report_too(lab: Lab) -> None:
    assert "Version 0 was published at never." in report(lab)


def test_the_job_of_the_report_writes_it(watched: Lab, hook: Webhook) -> None:
    job = build_definitions(watched.settings).resolve_job_def("status_report")
    assert job.execute_in_process(instance=watched.instance).success
    assert (watched.home / "reports" / "status-2026-03-10.md").exists()
    assert len(hook.messages) == 1


@pytest.mark.slow
def test_what_was_found_is_looked_for_again_when_something_new_is_published(watched: Lab) -> None:
    look(watched)
    drop_coin(watched)
    assert look(watched) == look(watched) == ["check:ohlc_daily.complete"]
    heal(watched)
    assert look(watched) == []
    fresh = examine(watched.settings, watched.instance, job_names())
    assert fresh.findings == []


def test_a_home_whose_schedules_are_off_is_not_watched_by_default(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, **WEEK, schedules={"enabled": False}) as lab:
        definitions = build_definitions(lab.settings)
        for name in ("stale_days", "healing", "watch"):
            sensor = definitions.resolve_sensor_def(name)
            assert sensor.default_status is dg.DefaultSensorStatus.STOPPED
