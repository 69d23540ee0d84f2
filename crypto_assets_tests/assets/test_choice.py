"""What a person chooses in the launchpad: some coins only, and final values once more."""

import shutil
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from crypto_assets.automation.schedules import range_tags
from crypto_assets.definitions import build_definitions
from crypto_assets.operations.rebuilding import rebuild
from crypto_assets.sandbox import Market
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
FIRST, LAST = TODAY - timedelta(days=6), TODAY - timedelta(days=1)
DAY = TODAY - timedelta(days=4)
FETCHED = ("market_caps", "ohlc_daily", "ohlc_hourly")
FORCED: dict[str, object] = {"force": True}
LATER = NOON + timedelta(hours=2)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Path:
    """A home with some days of caps and candles, all final."""
    home = tmp_path_factory.mktemp("filled")
    with open_lab(home, market) as made:
        assert made.run(FETCHED, FIRST, LAST).succeeded
    return home


@pytest.fixture
def lab(tmp_path: Path, filled: Path, market: Market) -> Iterator[Lab]:
    home = shutil.copytree(filled, tmp_path / "home", symlinks=True)
    with open_lab(home, market) as opened:
        yield opened


@pytest.fixture
def empty(tmp_path: Path, market: Market) -> Iterator[Lab]:
    with open_lab(tmp_path, market) as opened:
        yield opened


def launch(
    lab: Lab, table: str, config: dict[str, object], first: date = FIRST, last: date = LAST
) -> dg.ExecuteInProcessResult:
    """Do what the launchpad does with this configuration of an asset."""
    job = build_definitions(lab.settings).resolve_job_def("everything")
    return job.execute_in_process(
        instance=lab.instance,
        asset_selection=[dg.AssetKey(table)],
        tags=range_tags(first, last),
        run_config={
            "ops": {table: {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=False,
    )


def reason(result: dg.ExecuteInProcessResult) -> str:
    (failed,) = (event for event in result.all_events if event.is_step_failure)
    data = failed.step_failure_data
    assert data.user_failure_data is not None
    return str(data.user_failure_data.description)


def calls(lab: Lab) -> int:
    """CoinGecko calls since the last count."""
    found = lab.server.stats()["total"]
    lab.server.reset()
    return int(found)


def restate(lab: Lab, coin: str, factor: float) -> None:
    lab.server.faults.add({"kind": "restate", "coin_id": coin, "date": str(DAY), "factor": factor})


def closes(lab: Lab) -> dict[str, float]:
    rows = lab.sql("SELECT coin_id, price_usd FROM market_caps WHERE date = ?", DAY)
    return dict(rows.itertuples(index=False))


def true_close(lab: Lab, coin: str) -> float:
    midnight = datetime.combine(DAY + timedelta(days=1), datetime.min.time())
    return lab.market.price(coin, midnight)


def coins(lab: Lab) -> int:
    return int(lab.sql("SELECT count(DISTINCT coin_id) FROM market_caps").squeeze())


@pytest.mark.slow
def test_without_a_choice_final_days_cost_no_call(lab: Lab) -> None:
    for table in FETCHED:
        assert launch(lab, table, {}).success
    assert calls(lab) == 0


@pytest.mark.slow
@pytest.mark.parametrize("table", FETCHED)
def test_forced_all_coins_are_asked_once_more(lab: Lab, table: str) -> None:
    lab.at(LATER)
    before = lab.sql(f"FROM {table} ORDER BY ALL")
    assert launch(lab, table, FORCED).success
    assert calls(lab) == coins(lab) == 10
    # The provider tells the same, so that nothing has changed.
    pd.testing.assert_frame_equal(lab.sql(f"FROM {table} ORDER BY ALL"), before)
    assert lab.sql("FROM gaps").empty


def test_forced_what_the_provider_changed_is_written_and_kept(lab: Lab) -> None:
    restate(lab, "bitcoin", 1.25)
    assert launch(lab.at(LATER), "market_caps", FORCED | {"coins": ["bitcoin"]}).success
    assert calls(lab) == 1
    for coin, price in closes(lab).items():
        factor = 1.25 if coin == "bitcoin" else 1.0
        assert price == pytest.approx(true_close(lab, coin) * factor, rel=1e-9)
    told = lab.sql("FROM restatements WHERE column_name = 'price_usd'")
    assert [float(value) for value in told["old_value"]] == [
        pytest.approx(true_close(lab, "bitcoin"), rel=1e-9)
    ]


def test_a_choice_of_coins_keeps_the_others_changes_out(lab: Lab) -> None:
    restate(lab, "bitcoin", 1.25)
    assert launch(lab.at(LATER), "market_caps", FORCED | {"coins": ["ethereum"]}).success
    assert calls(lab) == 1
    assert closes(lab)["bitcoin"] == pytest.approx(true_close(lab, "bitcoin"), rel=1e-9)


@pytest.mark.slow
def test_the_running_day_is_asked_again_when_it_is_forced(lab: Lab) -> None:
    lab.at(LATER)
    assert launch(lab, "market_caps", {}, TODAY, TODAY).success
    assert calls(lab) == 1
    assert launch(lab, "market_caps", {}, TODAY, TODAY).success
    assert calls(lab) == 0
    assert launch(lab, "market_caps", FORCED, TODAY, TODAY).success
    assert calls(lab) == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", FETCHED)
def test_coins_left_out_of_a_new_day_are_known_to_be_missing(empty: Lab, table: str) -> None:
    if table != "market_caps":
        assert launch(empty, "market_caps", {}).success
        calls(empty)
    # The market's pages, to know the coins, and one history.
    assert launch(empty, table, {"coins": ["bitcoin"]}).success
    assert calls(empty) == (2 if table == "market_caps" else 1)
    days = empty.sql(
        "SELECT date, series_stored, series_missing, is_final FROM coverage "
        "WHERE table_name = ? AND date < ? ORDER BY date",
        table,
        TODAY,
    )
    assert len(days) == 6
    assert set(days["series_stored"]) == {1}
    assert set(days["series_missing"]) == {9}
    assert not days["is_final"].any()
    assert set(empty.sql("SELECT reason FROM gaps")["reason"]) == {"not fetched yet"}
    # And they are fetched by the next run, as if there had been no choice.
    assert launch(empty, table, {}).success
    assert calls(empty) == 9
    assert len(closes(empty)) == 10
    for coin, price in closes(empty).items():
        assert price == pytest.approx(true_close(empty, coin), rel=1e-9)
    rows = empty.sql(f"SELECT coin_id, count(*) AS rows FROM {table} GROUP BY ALL")
    assert set(rows["rows"]) == {6 * TABLES[table].rows_a_day}
    assert len(rows) == 10
    assert empty.sql("FROM gaps").empty


@pytest.mark.slow
@pytest.mark.parametrize("table", ["ohlc_daily", "ohlc_hourly"])
def test_forced_with_the_running_day_each_coin_is_asked_once(lab: Lab, table: str) -> None:
    for of_today in ("market_caps", table):
        assert launch(lab, of_today, {}, TODAY, TODAY).success
    calls(lab)
    assert launch(lab.at(LATER), table, FORCED, FIRST, TODAY).success
    assert calls(lab) == 10
    assert lab.sql("FROM gaps").empty
    assert lab.sql("FROM restatements").empty


def test_a_final_day_that_does_not_come_again_is_not_missing(lab: Lab) -> None:
    away = {"kind": "missing_day", "coin_id": "bitcoin", "date": str(DAY)}
    lab.server.faults.add(away)
    assert launch(lab.at(LATER), "market_caps", FORCED | {"coins": ["bitcoin"]}).success
    assert closes(lab)["bitcoin"] == pytest.approx(true_close(lab, "bitcoin"), rel=1e-9)
    assert lab.sql("FROM gaps").empty


@pytest.mark.slow
def test_days_too_old_for_the_plan_cannot_be_forced_and_it_is_said(
    tmp_path: Path, market: Market
) -> None:
    history = {"start": "2025-01-01"}
    old = date(2025, 1, 6), date(2025, 1, 8)
    with open_lab(tmp_path, market, history=history, universe={"tracked": 3}) as paid:
        assert launch(paid, "market_caps", {}, *old).success
        assert len(paid.sql("FROM market_caps WHERE is_final")) == 12
    free = {"plan": "demo", "api_key": "CG-sandbox-test", "calls_per_minute": 100_000}
    with open_lab(
        tmp_path, market, "demo", history=history, coingecko=free, universe={"tracked": 3}
    ) as lab:
        result = launch(lab, "market_caps", FORCED, *old)
        assert not result.success
        told = "market_caps: 12 final days of coins are older than the 365 days of the plan 'demo'"
        assert reason(result).startswith(told)
        assert calls(lab) == 0


@pytest.mark.parametrize("table", FETCHED)
def test_a_coin_that_is_not_tracked_is_named(lab: Lab, table: str) -> None:
    result = launch(lab, table, {"coins": ["bitcoin", "bitcion"]})
    assert not result.success
    assert reason(result).startswith("not tracked on the days asked for: bitcion. Choose")
    assert "universe.always" in reason(result)
    assert calls(lab) == 0


@pytest.mark.slow
def test_a_forced_run_beyond_the_month_is_refused_before_its_first_call(
    tmp_path: Path, filled: Path, market: Market
) -> None:
    home = shutil.copytree(filled, tmp_path / "home", symlinks=True)
    # The pages of the market and three histories of ten coins were asked to fill it.
    with open_lab(home, market, coingecko={"credits_per_month": 31 + 5}) as lab:
        assert launch(lab.at(LATER), "ohlc_daily", {}).success
        result = launch(lab, "ohlc_daily", FORCED)
        told = "this needs 10 CoinGecko credits and the month has 5 of 36 left"
        assert reason(result).startswith(told)
        assert calls(lab) == 0
        assert launch(lab, "ohlc_daily", FORCED | {"coins": ["bitcoin", "ethereum"]}).success
        assert calls(lab) == 2


@pytest.mark.slow
def test_what_was_forced_is_made_again_by_rebuild(lab: Lab) -> None:
    restate(lab, "bitcoin", 1.25)
    for table in FETCHED:
        assert launch(lab.at(LATER), table, FORCED | {"coins": ["bitcoin"]}).success
    before = {table: lab.sql(f"FROM {table} ORDER BY ALL") for table in FETCHED}
    rebuild(lab.settings, lab.instance, lambda *_: None)
    for table in FETCHED:
        content = list(TABLES[table].compared_columns)
        pd.testing.assert_frame_equal(
            lab.sql(f"FROM {table} ORDER BY ALL")[content], before[table][content]
        )


def test_in_an_empty_home_the_chosen_coins_count_against_the_month(
    tmp_path: Path, market: Market
) -> None:
    coins = ["bitcoin", "ethereum", "solana", "tron", "dogecoin"]
    with open_lab(tmp_path, market, coingecko={"credits_per_month": 4}) as lab:
        result = launch(lab, "market_caps", {"coins": coins})
        assert reason(result).startswith("this needs 6 CoinGecko credits and the month has 4 of 4")
        assert calls(lab) == 0


def test_coins_may_come_from_the_environment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_COIN", "bitcoin")
    config = FORCED | {"coins": [{"env": "A_COIN"}]}
    assert launch(lab.at(LATER), "ohlc_daily", config).success
    assert calls(lab) == 1


def test_the_launchpad_describes_its_options() -> None:
    definitions = build_definitions(validated({"history": {"start": "2026-01-01"}}))
    for table in TABLES:
        asset = definitions.resolve_assets_def(table)
        schema = asset.op.config_schema.as_field()
        fields = getattr(schema.config_type, "fields", {})
        assert set(fields) == ({"coins", "force"} if table in FETCHED else set())
        for field in fields.values():
            assert field.description
            assert not field.is_required
