"""`crypto-assets status` for people and for programs, and `crypto-assets alert-test`."""

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from crypto_assets.monitoring.alerts import AlertBook
from crypto_assets.monitoring.attempts import Memory
from crypto_assets.monitoring.channels import channels
from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.conditions import conditions
from crypto_assets.monitoring.health import examine
from crypto_assets.operations.home import open_instance
from crypto_assets.settings import SettingsError, load_settings
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.session import open_warehouse, warehouse_lock
from crypto_assets_tests.lab import NOON, WEEK, Lab
from crypto_assets_tests.monitoring.prometheus import parsed
from crypto_assets_tests.operations.commands import Done, call, spawn
from crypto_assets_tests.webhook import Webhook, open_webhook

SECRET = "hook-secret-8c1d"
CANARY = "canary-93e0"
YESTERDAY = date(2026, 3, 9)
URLS = "CRYPTO_ASSETS_ALERTS__URLS"


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with open_webhook() as opened:
        yield opened


@pytest.fixture
def home(week_home: Path, tmp_path: Path) -> Path:
    """The home of a week as the command line finds it, that has seen prices for a week."""
    copy = shutil.copytree(week_home, tmp_path / "home", symlinks=True)
    at(copy, NOON)
    change(
        copy, "UPDATE market_caps SET observed_at = '2026-03-03 00:20' WHERE date = '2026-03-02'"
    )
    return copy


def at(home: Path, moment: datetime, **sections: Any) -> None:
    """Let it be this moment, with these settings."""
    tree = {"sandbox": {"seed": 7, "clock": moment.isoformat()}, **WEEK, **sections}
    (home / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))


def change(home: Path, *statements: str) -> None:
    with open_warehouse(home / "warehouse.duckdb", "a test") as connection:
        for statement in statements:
            connection.execute(statement)
    publish_run(home, "a test")


def break_rule(home: Path) -> None:
    change(
        home,
        "UPDATE fear_greed SET source = 'nowhere', materialized_at = now() AT TIME ZONE 'UTC' "
        "WHERE date = '2026-03-09'",
    )


def status(home: Path, *words: str) -> Done:
    return call("status", *words, "--home", home)


def tree(home: Path, code: int = 0) -> Any:
    done = status(home, "--json")
    assert done.code == code, done.out + done.err
    assert done.err == ""
    return json.loads(done.out)


def add_run(home: Path, status: dg.DagsterRunStatus, job: str = "daily_close") -> str:
    with open_instance(load_settings(home)) as instance:
        return instance.add_run(dg.DagsterRun(job, status=status)).run_id


def test_a_home_in_order_is_one_screen_and_exit_code_0(home: Path) -> None:
    done = status(home)
    assert done.code == 0, done.out
    lines = done.out.splitlines()
    assert len(lines) < 40
    assert lines[-1] == "All is well."
    assert all(table in done.out for table in TABLES)
    assert "LATE" not in done.out


def test_what_is_wrong_is_an_exit_code_of_1_in_every_form(home: Path) -> None:
    at(home, datetime(2026, 3, 10, 13, 45))
    for words in ((), ("--json",), ("--prometheus",)):
        assert status(home, *words).code == 1
    told = status(home).out
    assert "ERROR: market_caps is late." in told
    assert told.splitlines()[-1] == "Not to be trusted until that is mended."


def test_a_warning_is_told_and_leaves_the_exit_code_alone(home: Path) -> None:
    change(
        home,
        "DELETE FROM ohlc_daily WHERE date = '2026-03-09' AND coin_id = 'solana'",
        "INSERT INTO gaps VALUES ('ohlc_daily', 'solana', '2026-03-09', '2026-03-09', 'missing', "
        "'a test', '2026-03-10')",
    )
    done = status(home)
    assert done.code == 0
    assert "WARN: ohlc_daily fails its check complete." in done.out
    found = tree(home)
    assert found["is_fine"]
    assert found["tables"]["ohlc_daily"]["missing_days"] == 1
    assert found["tables"]["ohlc_daily"]["failed_checks"] == ["complete"]
    assert found["missing"] == [
        {
            "table": "ohlc_daily",
            "series": "solana",
            "first": "2026-03-09",
            "last": "2026-03-09",
            "reason": "a test",
        }
    ]


def test_the_names_in_json_are_stable(home: Path) -> None:
    found = tree(home)
    assert set(found) == {
        *("at", "is_fine", "conditions", "tables", "missing", "given_up", "runs", "failed_jobs"),
        *("credits", "publication", "is_behind", "free_bytes", "undelivered_alerts"),
    }
    assert set(found["tables"]) == set(TABLES)
    assert set(found["tables"]["ranks"]) == {
        *("name", "rows", "first", "last", "last_final", "unfinished", "reaches", "wanted"),
        *("is_late", "missing_days", "failed_checks"),
    }
    assert set(found["credits"]) == {"plan", "calls", "used", "limit"}
    assert set(found["publication"]) == {
        *("version", "published_at", "run_id", "withheld_since", "withheld_by", "of_warehouse"),
    }
    caps = found["tables"]["market_caps"]
    assert (caps["first"], caps["last"], caps["last_final"]) == (
        "2026-03-02",
        "2026-03-10",
        "2026-03-09",
    )
    assert found["at"] == "2026-03-10 12:20:00"


@pytest.mark.slow
def test_conditions_in_json_say_since_when_as_far_as_the_watch_noticed(home: Path) -> None:
    at(home, datetime(2026, 3, 10, 13, 45))
    found = {one["key"]: one for one in tree(home, code=1)["conditions"]}
    assert set(found) == {"late:market_caps", "late:ranks", "late:ema_signals"}
    assert set(found["late:ranks"]) == {
        *("key", "title", "detail", "advice", "link", "is_error", "of_check", "since"),
    }
    assert found["late:ranks"]["since"] is None
    settings = load_settings(home)
    with dg.DagsterInstance.ephemeral() as instance, closing(AlertBook(home)) as book:
        health = examine(settings, instance, [])
        book.update(conditions(health, settings), [], NOON)
    since = {one["key"]: one["since"] for one in tree(home, code=1)["conditions"]}
    assert set(since.values()) == {"2026-03-10 12:20:00"}


def test_the_metrics_are_the_figures_of_the_json(home: Path) -> None:
    at(home, datetime(2026, 3, 10, 13, 45))
    found = tree(home, code=1)
    figures = parsed(status(home, "--prometheus").out)
    for table, told in found["tables"].items():
        of_table = {
            name.removeprefix("crypto_assets_table_"): value
            for (name, labels), value in figures.items()
            if labels == (("table", table),)
        }
        reaches = datetime.fromisoformat(f"{told['reaches']}+00:00").timestamp()
        assert of_table == {
            "rows": told["rows"],
            "reaches_seconds": reaches,
            "is_late": told["is_late"],
            "missing_days": told["missing_days"],
            "unfinished_days": told["unfinished"],
            "failed_checks": len(told["failed_checks"]),
        }
    assert figures["crypto_assets_errors", ()] == 3
    assert figures["crypto_assets_warnings", ()] == 0
    assert figures["crypto_assets_credits_used", ()] == found["credits"]["used"] > 0
    assert figures["crypto_assets_publication_version", ()] == found["publication"]["version"]
    assert figures["crypto_assets_publication_is_withheld", ()] == 0
    assert figures["crypto_assets_runs_unfinished", ()] == 0


def test_running_and_failed_runs_are_told(home: Path) -> None:
    running = add_run(home, dg.DagsterRunStatus.STARTED, "backup")
    assert "backup: started" in status(home).out
    failed = add_run(home, dg.DagsterRunStatus.FAILURE)
    found = tree(home, code=1)
    assert [run["run_id"] for run in found["runs"]] == [running]
    assert [run["run_id"] for run in found["failed_jobs"]] == [failed]
    assert [one["key"] for one in found["conditions"]] == ["run:daily_close"]
    add_run(home, dg.DagsterRunStatus.SUCCESS)
    assert tree(home)["failed_jobs"] == []


def test_given_up_days_are_listed(home: Path) -> None:
    place = ("fear_greed", date(2026, 3, 5))
    with closing(Memory(home)) as memory:
        memory.note([place, ("fear_greed", date(2026, 3, 6))], NOON)
        memory.settle([], [place])
    assert tree(home)["given_up"] == [{"table": "fear_greed", "day": "2026-03-05"}]
    assert "Given up and not asked for again: 1 days (--json)." in status(home).out


def test_a_withheld_publication_is_an_error_and_the_last_good_rows_are_shown(home: Path) -> None:
    break_rule(home)
    done = status(home)
    assert done.code == 1
    assert "row(s) of fear_greed break 'source_fits_home' on " in done.out
    found = tree(home, code=1)
    assert found["publication"]["withheld_by"][0]["check"] == "source_fits_home"
    assert found["tables"]["fear_greed"]["rows"] == 9
    figures = parsed(status(home, "--prometheus").out)
    assert figures["crypto_assets_publication_is_withheld", ()] == 1


@pytest.mark.slow
def test_the_check_that_withholds_is_a_failed_check_of_its_table(home: Path) -> None:
    break_rule(home)
    assert tree(home, code=1)["tables"]["fear_greed"]["failed_checks"] == ["source_fits_home"]


def test_status_waits_for_no_writer(home: Path) -> None:
    with warehouse_lock(home / "warehouse.duckdb", "a long write"):
        assert status(home).code == 0


def test_a_home_without_the_history_of_dagster_is_shown(home: Path) -> None:
    assert not (home / "dagster").exists()
    found = tree(home)
    assert (found["runs"], found["failed_jobs"]) == ([], [])


@pytest.mark.parametrize("words", [(), ("--json",), ("--prometheus",)])
def test_nothing_published_is_a_sentence_and_exit_code_1(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert "nothing has been published" in status(tmp_path, *words).sentence


def test_a_withheld_first_publication_is_told(lab: Lab) -> None:
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "INSERT INTO fear_greed VALUES ('2026-03-08', 50, 'Neutral', 'neutral', true, "
            "'2026-03-09', 'nowhere', 'r', now() AT TIME ZONE 'UTC', NULL, NULL)"
        )
    lab.run(["fear_greed"], YESTERDAY)
    at(lab.home, NOON)
    assert "source_fits_home" in status(lab.home).sentence


@pytest.mark.slow
def test_a_home_whose_first_run_failed_says_why(lab: Lab) -> None:
    at(lab.home, NOON)
    add_run(lab.home, dg.DagsterRunStatus.FAILURE, "market_refresh")
    done = status(lab.home)
    assert "the job market_refresh fails" in done.out + done.err


@pytest.mark.parametrize("file", ["alerts.sqlite", "healing.sqlite"])
def test_a_file_that_cannot_be_read_is_one_sentence(home: Path, file: str) -> None:
    (home / file).write_text("no database at all, but long enough to be read as one")
    assert file in status(home).sentence


# --- channels


def with_urls(home: Path, *urls: str, **more: Any) -> None:
    at(home, NOON, alerts={"urls": list(urls), **more})


def test_alert_test_sends_to_every_channel(home: Path, hook: Webhook) -> None:
    with open_webhook() as other:
        with_urls(home, hook.url, other.url)
        done = call("alert-test", "--home", home)
        assert done.code == 0, done.err
        assert done.out.splitlines() == [
            "alerts.urls[0] (json): sent",
            "alerts.urls[1] (json): sent",
        ]
        assert hook.titles == other.titles == ["crypto_assets: a test"]


@pytest.mark.slow
def test_alert_test_names_the_channels_that_took_nothing_and_shows_no_url(
    home: Path, hook: Webhook
) -> None:
    with open_webhook() as bad:
        bad.status = 500
        with_urls(home, hook.url, bad.url, f"nosuch://{CANARY}/x")
        done = spawn("alert-test", "--home", home, cwd=home)
    assert done.out.splitlines() == [
        "alerts.urls[0] (json): sent",
        "alerts.urls[1] (json): not sent",
        "alerts.urls[2] (nosuch): not sent",
    ]
    assert "alerts.urls[1] (json), alerts.urls[2] (nosuch) took no message" in done.sentence
    for secret in (SECRET, CANARY, str(bad.port)):
        assert secret not in done.out + done.err
    assert hook.titles == ["crypto_assets: a test"]


def test_alert_test_without_a_channel_says_how_to_set_one(home: Path) -> None:
    told = call("alert-test", "--home", home).sentence
    assert "there is no channel" in told
    assert URLS in told


def test_alert_test_needs_no_data(tmp_path: Path, hook: Webhook) -> None:
    with_urls(tmp_path, hook.url)
    assert call("alert-test", "--home", tmp_path).code == 0


def test_the_url_is_in_no_form_of_status_and_in_no_file(home: Path, hook: Webhook) -> None:
    with_urls(home, hook.url)
    break_rule(home)
    settings = load_settings(home)
    hook.status = 500
    with closing(AlertBook(home)) as book:
        book.update([Condition("k", "t", "d", "a", "l")], channels(settings.alerts.urls), NOON)
        book.deliver(channels(settings.alerts.urls), NOON)
    for words in ((), ("--json",), ("--prometheus",)):
        done = status(home, *words)
        assert SECRET not in done.out + done.err
    assert "1 alert(s) could not be delivered" in status(home).out
    for path in home.rglob("*"):
        if path.is_file() and path.name != "crypto_assets.yaml":
            assert SECRET.encode() not in path.read_bytes(), path


BAD = [
    CANARY,
    f"https:/{CANARY}",
    f"://{CANARY}",
    f"slack:// {CANARY}",
    f"json://a/{CANARY}, {CANARY}",
    f"[{CANARY}",
    f"['{CANARY}']",
    f"{{'a': '{CANARY}'}}",
]


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("place", ["environment", "dotenv", "yaml", "yaml list"])
def test_a_malformed_url_is_told_by_its_setting_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if place == "environment":
        monkeypatch.setenv(URLS, value)
    elif place == "dotenv":
        (tmp_path / ".env").write_text(f'{URLS}="{value}"\n')
    else:
        told: object = value if place == "yaml" else ["json://fine/x", value]
        (tmp_path / "crypto_assets.yaml").write_text(yaml.safe_dump({"alerts": {"urls": told}}))
    done = call("alert-test", "--home", tmp_path)
    assert "alerts.urls" in done.sentence
    assert CANARY not in done.out + done.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CRYPTO_ASSETS_ALERTS", f"json://{CANARY}/x"),
        ("CRYPTO_ASSETS_ALERTS__URL", f"json://{CANARY}/x"),
        ("CRYPTO_ASSETS_ALERTS__URLS__0", f"json://{CANARY}/x"),
        ("CRYPTO_ASSETS_ALERT__URLS", f"json://{CANARY}/x"),
    ],
)
def test_a_url_in_the_wrong_place_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path)
    assert CANARY not in str(caught.value) + repr(caught.value)


def test_urls_are_masked_wherever_settings_are_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URLS, f"json://a.invalid/{CANARY}, slack://a/b/{CANARY}")
    settings = load_settings(tmp_path)
    assert len(settings.alerts.urls) == 2
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.alerts)):
        assert CANARY not in text


def test_a_url_with_a_comma_in_it_is_given_as_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URLS, "['mailto://a:b@c.invalid?to=x@c.invalid,y@c.invalid']")
    (url,) = load_settings(tmp_path).alerts.urls
    assert url.get_secret_value().endswith(",y@c.invalid")
