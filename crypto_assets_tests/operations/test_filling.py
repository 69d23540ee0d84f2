"""`refresh` and `backfill`."""

from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

from crypto_assets import connect
from crypto_assets.sandbox import Market
from crypto_assets_tests.operations.commands import call

CONTENT = {
    "ranks": "date, coin_id, market_cap_rank, market_cap_usd, market_share, rank_change_1d, "
    "rank_change_7d, is_final",
    "ema_signals": "* EXCLUDE (observed_at, source, run_id, materialized_at, raw_id)",
    "daily_snapshot": "* EXCLUDE (observed_at, source, run_id, materialized_at, raw_id)",
}


def sandbox_home(folder: Path) -> Path:
    """A home of a sandbox that stands still at noon of 10 March."""
    folder.mkdir()
    tree = {
        "sandbox": {"seed": 7, "clock": "2026-03-10T12:20:00"},
        "universe": {"tracked": 5},
        "history": {"start": "2026-02-20"},
        "schedules": {"enabled": False},
    }
    (folder / "crypto_assets.yaml").write_text(yaml.safe_dump(tree))
    return folder


def backfill(home: Path, first: str, last: str, *tables: str) -> None:
    done = call("backfill", *tables, "--from", first, "--to", last, "--home", home)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_refresh_brings_the_running_day_and_what_the_week_before_lacks(
    tmp_path: Path, market: Market
) -> None:
    home = sandbox_home(tmp_path / "home")
    done = call("refresh", "--home", home)
    assert done.code == 0, done.err
    with connect(home) as connection:
        days = connection.execute(
            "SELECT date, price_usd, is_final FROM market_caps WHERE coin_id = 'bitcoin' ORDER BY 1"
        ).fetchall()
    expected = [date(2026, 3, day) for day in range(3, 10)]
    assert days[:-1] == [
        (day, market.price("bitcoin", datetime(2026, 3, day.day + 1)), True) for day in expected
    ]
    now = datetime(2026, 3, 10, 12, 20)
    assert days[-1] == (date(2026, 3, 10), market.price("bitcoin", now), False)
    again = call("refresh", "--home", home)
    assert "market_caps: 0 rows changed" in again.out


@pytest.mark.slow
def test_days_filled_out_of_order_equal_days_filled_in_one_go(tmp_path: Path) -> None:
    sources = ("market_caps", "ohlc_daily", "fear_greed", "etf_flows")
    derived = ("ranks", "ema_signals", "daily_snapshot")
    pieces, whole = sandbox_home(tmp_path / "pieces"), sandbox_home(tmp_path / "whole")
    backfill(whole, "2026-02-20", "2026-03-09", *sources, *derived)
    backfill(pieces, "2026-03-01", "2026-03-09", *sources, *derived)
    # What is made of these days, before and after, follows by itself.
    backfill(pieces, "2026-02-20", "2026-02-28", *sources)
    with connect(whole) as one, connect(pieces) as many:
        for table, columns in CONTENT.items():
            sql = f"SELECT {columns} FROM {table} ORDER BY date, coin_id"
            sql += ", fast_span" if table == "ema_signals" else ""
            expected, found = one.execute(sql).fetchdf(), many.execute(sql).fetchdf()
            assert len(expected), table
            pd.testing.assert_frame_equal(expected, found, check_exact=False, rtol=1e-9)
        closes = one.execute(
            "SELECT price_usd FROM market_caps WHERE coin_id = 'ethereum' ORDER BY date"
        ).fetchdf()["price_usd"]
        slow = many.execute(
            "SELECT ema_slow FROM ema_signals WHERE coin_id = 'ethereum' AND slow_span = 200 "
            "ORDER BY date"
        ).fetchdf()["ema_slow"]
    np.testing.assert_allclose(slow, closes.ewm(span=200, adjust=False).mean(), rtol=1e-9)


@pytest.mark.slow
def test_a_backfill_ends_today_unless_told_otherwise(demo_copy: Path) -> None:
    with duckdb.connect(str(demo_copy / "warehouse.duckdb")) as connection:
        (today,) = connection.execute("SELECT max(date) FROM market_caps").fetchone() or ()
        connection.execute("DELETE FROM fear_greed WHERE date >= ?", [today - timedelta(days=2)])
    done = call("backfill", "fear_greed", "--from", today - timedelta(days=2), "--home", demo_copy)
    assert done.code == 0, done.err
    assert "fear_greed: 3 rows changed" in done.out


def test_an_unknown_asset_is_answered_with_those_there_are(demo_copy: Path) -> None:
    told = call("backfill", "rank", "--from", "2026-03-01", "--home", demo_copy).sentence
    assert "there is no asset rank" in told
    assert "ranks" in told.split("choose from")[1]


def test_days_outside_history_are_refused_with_its_bounds(tmp_path: Path) -> None:
    home = sandbox_home(tmp_path / "home")
    for first, last in (
        ("2026-02-19", "2026-03-01"),
        ("2026-03-01", "2026-03-11"),
        ("2026-03-05", "2026-03-01"),
    ):
        told = call("backfill", "ranks", "--from", first, "--to", last, "--home", home).sentence
        assert f"can't fill {first} to {last}" in told
        assert "2026-02-20" in told
        assert "2026-03-10" in told
    assert not (home / "warehouse.duckdb").exists()


def test_a_day_that_is_none_is_refused(demo_copy: Path) -> None:
    done = call("backfill", "ranks", "--from", "2026-02-30", "--home", demo_copy)
    assert done.code != 0
    assert "2026-02-30" in done.err
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_a_table_without_its_inputs_says_what_to_fill_first(tmp_path: Path) -> None:
    home = sandbox_home(tmp_path / "home")
    for table in ("ranks", "ema_signals", "daily_snapshot"):
        told = call("backfill", table, "--from", "2026-03-01", "--home", home)
        assert "is stored for 2026-03-01" in told.err, table
        assert "materialize market_caps" in told.err, table
        assert told.code != 0


def test_unreachable_providers_are_named_and_what_is_stored_stays(tmp_path: Path) -> None:
    (tmp_path / "crypto_assets.yaml").write_text(
        yaml.safe_dump(
            {
                "history": {"start": "2026-03-01"},
                "coingecko": {"base_url": "http://127.0.0.1:9/api/v3"},
                "alternative_me": {"base_url": "http://127.0.0.1:9"},
                "farside": {"base_url": "http://127.0.0.1:9"},
                "fetch": {"retry_budget_seconds": 0},
            }
        )
    )
    done = call("refresh", "--home", tmp_path)
    assert "what was stored stays" in done.sentence
    told = done.out
    for provider in ("coingecko", "alternative_me", "farside"):
        assert provider in told.lower()
