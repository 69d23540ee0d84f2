import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from crypto_assets import connect
from crypto_assets.definitions import build_definitions
from crypto_assets.monitoring.looking import look
from crypto_assets.sandbox import Market
from crypto_assets.warehouse.session import open_warehouse
from crypto_assets_tests.lab import Lab, open_lab

FRIDAY, MONDAY = date(2026, 3, 6), date(2026, 3, 9)


@pytest.fixture
def filled(tmp_path: Path, filled_home: Path, market: Market) -> Iterator[Lab]:
    home = shutil.copytree(filled_home, tmp_path / "home", symlinks=True)
    with open_lab(home, market) as lab:
        yield lab


def change(lab: Lab, sql: str) -> None:
    with open_warehouse(lab.warehouse.path, "a test") as connection:
        connection.execute(sql)


def invent_a_coin(lab: Lab, day: date) -> None:
    """A row that no write of the platform replaces, from nowhere."""
    change(
        lab,
        "INSERT INTO ohlc_daily SELECT * REPLACE ('fake' AS coin_id, 'nowhere' AS source, "
        "now() AT TIME ZONE 'UTC' AS materialized_at) "
        f"FROM ohlc_daily WHERE date = '{day}' AND coin_id = 'bitcoin'",
    )


def forget_the_coin(lab: Lab) -> None:
    change(lab, "DELETE FROM ohlc_daily WHERE coin_id = 'fake'")


def published_coins(lab: Lab) -> set[str]:
    with connect(lab.home) as connection:
        return {row[0] for row in connection.execute("SELECT coin_id FROM ohlc_daily").fetchall()}


def test_a_run_of_a_range_is_judged_by_the_days_of_that_range(filled: Lab) -> None:
    invent_a_coin(filled, FRIDAY)
    assert filled.run(["ohlc_daily"], MONDAY).checks_failed == []
    assert filled.run(["ohlc_daily"], FRIDAY, MONDAY).checks_failed == [
        "ohlc_daily: source_fits_home (ERROR)"
    ]


def test_a_run_of_one_partition_is_judged_by_that_day(filled: Lab) -> None:
    invent_a_coin(filled, FRIDAY)
    job = build_definitions(filled.settings).resolve_job_def("everything")

    def verdict(day: date) -> bool:
        result = job.execute_in_process(
            instance=filled.instance,
            asset_selection=[dg.AssetKey("ohlc_daily")],
            partition_key=day.isoformat(),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        assert result.success
        return all(found.passed for found in result.get_asset_check_evaluations())

    assert verdict(MONDAY)
    assert not verdict(FRIDAY)


def test_a_failed_error_check_leaves_the_run_green_and_withholds_publication(filled: Lab) -> None:
    before = look(filled.home, filled.now).publication
    invent_a_coin(filled, MONDAY)
    report = filled.run(["ohlc_daily"], MONDAY)
    assert report.succeeded
    state = look(filled.home, filled.now)
    assert state.publication.version == before.version
    (by,) = state.publication.withheld_by
    assert (by.table, by.check, by.offending_rows) == ("ohlc_daily", "source_fits_home", 1)
    assert by.first <= MONDAY <= by.last
    assert state.is_behind
    assert "fake" not in published_coins(filled)


def test_once_the_days_are_healed_the_next_run_of_them_publishes(filled: Lab) -> None:
    version = look(filled.home, filled.now).publication.version
    invent_a_coin(filled, MONDAY)
    filled.run(["ohlc_daily"], MONDAY)
    forget_the_coin(filled)
    filled.run(["ohlc_daily"], MONDAY)
    state = look(filled.home, filled.now)
    assert state.publication.version == version + 1
    assert state.publication.withheld_by == ()
    assert not state.is_behind
    assert "fake" not in published_coins(filled)


def test_a_run_of_other_days_or_tables_does_not_lift_what_withholds(filled: Lab) -> None:
    version = look(filled.home, filled.now).publication.version
    invent_a_coin(filled, MONDAY)
    filled.run(["ohlc_daily"], MONDAY)
    filled.run(["ohlc_daily"], FRIDAY)
    filled.run(["fear_greed"], MONDAY)
    assert look(filled.home, filled.now).publication.version == version
    assert "fake" not in published_coins(filled)


def test_a_warning_withholds_nothing(filled: Lab) -> None:
    version = look(filled.home, filled.now).publication.version
    change(
        filled,
        "UPDATE ohlc_daily SET high = high * 1.5 WHERE date = '2026-03-09' AND coin_id = 'bitcoin'",
    )
    report = filled.run(["ohlc_hourly"], MONDAY)
    assert report.checks_failed == ["ohlc_hourly: hours_agree_with_day (WARN)"]
    state = look(filled.home, filled.now).publication
    assert (state.version, state.withheld_by) == (version + 1, ())


def test_checks_without_a_run_of_their_asset_look_at_all_days(filled: Lab) -> None:
    invent_a_coin(filled, FRIDAY)
    definitions = build_definitions(filled.settings)
    checks = [d for d in definitions.asset_checks or [] if d.node_def.name == "ohlc_daily_checks"]
    result = dg.materialize(
        checks,
        selection=dg.AssetSelection.all_asset_checks(),
        instance=filled.instance,
        resources=definitions.resources,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    verdicts = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert {name for name, passed in verdicts.items() if not passed} == {"source_fits_home"}
    assert {"contract_holds", "keys_unique", "complete", "no_silent_holes"} < set(verdicts)


def test_a_home_of_the_other_kind_is_refused_before_any_row_is_read(filled: Lab) -> None:
    # A sandbox's rows in a home that says it is live: refused before anything is read.
    change(filled, "UPDATE warehouse_info SET is_sandbox = false")
    report = filled.run(["fear_greed"], MONDAY)
    assert not report.succeeded
    assert "never mix" in report.failures["fear_greed"]
