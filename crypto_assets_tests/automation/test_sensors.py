import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from crypto_assets.automation.jobs import JOB_TAG
from crypto_assets.definitions import build_definitions
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.session import warehouse_lock
from crypto_assets_tests.lab import NOON, Lab, open_lab

FIRST, LAST = date(2026, 2, 20), date(2026, 3, 9)
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture(scope="module")
def filled_home(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A home whose closed days are all there, filled once."""
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market) as lab:
        assert lab.run(list(TABLES), FIRST, LAST).succeeded
    return home


@pytest.fixture
def filled(tmp_path: Path, filled_home: Path, market: Market) -> Iterator[Lab]:
    """A lab on a copy of it."""
    home = shutil.copytree(filled_home, tmp_path / "home", symlinks=True)
    with open_lab(home, market) as lab:
        yield lab


def evaluate(lab: Lab) -> Any:
    definitions = build_definitions(lab.settings)
    sensor = definitions.resolve_sensor_def("stale_days")
    repository = definitions.get_repository_def()
    with dg.build_sensor_context(instance=lab.instance, repository_def=repository) as context:
        return sensor.evaluate_tick(context)


def asked(lab: Lab) -> tuple[set[str], date, date]:
    (request,) = evaluate(lab).run_requests
    first, last = (date.fromisoformat(request.tags[tag]) for tag in RANGE)
    return {key.to_user_string() for key in request.asset_selection}, first, last


def launch(lab: Lab) -> dg.ExecuteInProcessResult:
    """Do what the daemon does with the one request of the sensor."""
    (request,) = evaluate(lab).run_requests
    job = build_definitions(lab.settings).resolve_job_def("derived_refresh")
    return job.execute_in_process(
        instance=lab.instance,
        asset_selection=request.asset_selection,
        tags=request.tags,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def restate(lab: Lab, day: date) -> None:
    """Let the close of bitcoin be another one, as if a provider had corrected it just now."""
    with lab.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE market_caps SET price_usd = price_usd * 1.5, "
            "market_cap_usd = market_cap_usd / 1000, materialized_at = now() AT TIME ZONE 'UTC' "
            "WHERE date = ? AND coin_id = 'bitcoin'",
            [day],
        )


def test_an_empty_home_has_nothing_to_recalculate(lab: Lab) -> None:
    found = evaluate(lab)
    assert found.run_requests == []
    assert "Nothing is stored yet" in found.skip_message


def test_nothing_is_asked_for_while_everything_is_newer_than_its_inputs(filled: Lab) -> None:
    found = evaluate(filled)
    assert found.run_requests == []
    assert "newer than what it is made of" in found.skip_message


@pytest.mark.slow
def test_a_late_mood_asks_for_the_snapshot_of_that_day_alone(filled: Lab) -> None:
    day = date(2026, 3, 3)
    with filled.warehouse.session("a test") as connection:
        connection.execute("DELETE FROM fear_greed WHERE date = ?", [day])
    filled.run(["daily_snapshot"], day)
    assert filled.sql("FROM daily_snapshot WHERE date = ?", day)["fear_greed"].isna().all()
    filled.run(["fear_greed"], day)
    assert asked(filled) == ({"daily_snapshot"}, day, day)
    assert launch(filled).success
    truth = filled.market.fear_greed(day, day)["value"][0]
    assert (filled.sql("FROM daily_snapshot WHERE date = ?", day)["fear_greed"] == truth).all()
    assert evaluate(filled).run_requests == []


@pytest.mark.slow
def test_a_restated_close_asks_for_all_days_after_it_and_one_run_heals_them(filled: Lab) -> None:
    before = filled.sql("FROM ema_signals WHERE date < '2026-02-25' ORDER BY ALL")
    restate(filled, date(2026, 2, 25))
    assert asked(filled) == ({"ranks", "ema_signals", "daily_snapshot"}, date(2026, 2, 25), LAST)
    assert launch(filled).success
    # Independent of the platform: pandas' own recursion over the stored closes.
    closes = filled.sql(
        "SELECT date, price_usd FROM market_caps WHERE coin_id = 'bitcoin' ORDER BY date"
    ).set_index("date")["price_usd"]
    signals = filled.sql("FROM ema_signals WHERE coin_id = 'bitcoin' ORDER BY date")
    for span, column in ((12, "ema_fast"), (26, "ema_slow")):
        stored = signals[signals["slow_span"] == 26][column]
        np.testing.assert_allclose(
            stored, closes.ewm(span=span, adjust=False).mean(), rtol=1e-9, atol=0
        )
    places = filled.sql("SELECT date, market_cap_rank FROM ranks WHERE coin_id = 'bitcoin'")
    places = places.set_index("date")["market_cap_rank"]
    assert places[pd.Timestamp(2026, 2, 24)] == 1
    assert places[pd.Timestamp(2026, 2, 25)] > 1
    assert places[pd.Timestamp(2026, 2, 26)] == 1
    # Nothing before the restated day was touched, and there is no endless loop.
    after = filled.sql("FROM ema_signals WHERE date < '2026-02-25' ORDER BY ALL")
    pd.testing.assert_frame_equal(before, after)
    assert "newer than what it is made of" in evaluate(filled).skip_message


@pytest.mark.slow
def test_a_closed_day_that_only_has_caps_asks_for_what_is_made_of_them(filled: Lab) -> None:
    filled.run(["market_caps"], FIRST - timedelta(days=1))
    tables, first, last = asked(filled)
    assert tables == {"ranks", "ema_signals", "daily_snapshot"}
    assert (first, last) == (FIRST - timedelta(days=1), LAST)
    assert launch(filled).success
    assert evaluate(filled).run_requests == []


def test_the_running_day_is_left_to_the_schedules(filled: Lab) -> None:
    filled.run(["market_caps"], NOON.date())
    assert evaluate(filled).run_requests == []


def test_a_day_that_just_closed_is_left_to_the_schedules_for_two_hours(filled: Lab) -> None:
    filled.run(["market_caps"], NOON.date())
    filled.at(datetime(2026, 3, 11, 1, 59))
    assert evaluate(filled).run_requests == []
    filled.at(datetime(2026, 3, 11, 2, 0))
    assert asked(filled)[1:] == (NOON.date(), NOON.date())


@pytest.mark.parametrize("status", ["NOT_STARTED", "STARTING", "STARTED"])
def test_it_does_not_ask_again_while_its_run_has_not_ended(filled: Lab, status: str) -> None:
    restate(filled, date(2026, 3, 8))
    run = dg.DagsterRun(
        job_name="derived_refresh",
        tags={JOB_TAG: "derived_refresh"},
        status=dg.DagsterRunStatus[status],
    )
    filled.instance.add_run(run)
    assert "has not ended" in evaluate(filled).skip_message
    filled.instance.delete_run(run.run_id)
    assert evaluate(filled).run_requests


def test_the_run_of_another_job_does_not_silence_it(filled: Lab) -> None:
    restate(filled, date(2026, 3, 8))
    filled.instance.add_run(
        dg.DagsterRun(
            job_name="everything",
            tags={JOB_TAG: "everything"},
            status=dg.DagsterRunStatus.STARTED,
        )
    )
    assert evaluate(filled).run_requests


def test_a_warehouse_in_use_is_skipped_with_who_uses_it(filled: Lab) -> None:
    restate(filled, date(2026, 3, 8))
    with warehouse_lock(filled.warehouse.path, "a long write"):
        found = evaluate(filled)
    assert found.run_requests == []
    assert "a long write" in found.skip_message
    assert evaluate(filled).run_requests


@pytest.mark.slow
def test_days_without_any_market_cap_do_not_ask_for_ever(filled: Lab) -> None:
    day = date(2026, 3, 5)
    with filled.warehouse.session("a test") as connection:
        connection.execute(
            "UPDATE market_caps SET market_cap_usd = NULL, "
            "materialized_at = now() AT TIME ZONE 'UTC' WHERE date = ?",
            [day],
        )
    assert evaluate(filled).run_requests
    launch(filled)
    assert evaluate(filled).run_requests == []
