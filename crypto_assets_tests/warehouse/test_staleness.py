"""Calculated days are stale when an input of theirs was written after them."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import pandas as pd
import pytest

from crypto_assets.tables import TABLES
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.session import open_warehouse
from crypto_assets.warehouse.staleness import impatient, stale_days
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import caps

DAYS = [date(2026, 1, 1) + timedelta(days=n) for n in range(12)]
NOON = datetime.fromisoformat("2026-02-01 12:00")
LONG_AFTER = datetime.fromisoformat("2026-03-01 00:00")


def minutes(number: float) -> pd.Timestamp:
    return pd.Timestamp(NOON) + pd.Timedelta(minutes=number)


def calculated(name: str, days: list[date], at: pd.Timestamp) -> pd.DataFrame:
    """One row a day of a calculated table, written at `at`."""
    content: dict[str, dict[str, object]] = {
        "ranks": {"market_cap_rank": 1, "market_cap_usd": 1.0, "market_share": 1.0},
        "ema_signals": {
            "fast_span": 2,
            "slow_span": 3,
            "price_usd": 1.0,
            "ema_fast": 1.0,
            "ema_slow": 1.0,
            "strength": 0.0,
            "state": 0,
            "is_warm": False,
        },
        "daily_snapshot": {"close_usd": 1.0},
    }
    columns = {
        "date": pd.to_datetime(days),
        "coin_id": "a",
        "is_final": True,
        "observed_at": pd.Timestamp(frames.SEEN),
        "source": "calculated",
        "materialized_at": at,
    }
    if name != "ema_signals":
        columns["is_point_in_time"] = True
    return pd.DataFrame({**columns, **content[name]})


def put(warehouse: Warehouse, name: str, rows: pd.DataFrame) -> None:
    warehouse.write(Batch(rows), frames.to(TABLES[name]))


@pytest.fixture
def fresh(warehouse: Warehouse) -> Warehouse:
    """Twelve days of which everything was calculated after its inputs."""
    prices = caps(*[(day, "a", 1.0) for day in DAYS], materialized_at=minutes(0))
    with warehouse.session("test") as connection:
        write(connection, Batch(prices), frames.to())
        for place, name in enumerate(("ranks", "ema_signals", "daily_snapshot"), start=1):
            rows = calculated(name, DAYS, minutes(place))
            write(connection, Batch(rows), frames.to(TABLES[name]))
    return warehouse


def test_what_was_calculated_after_its_inputs_is_not_stale(fresh: Warehouse) -> None:
    assert stale_days(fresh, LONG_AFTER) == {}


def test_a_changed_price_asks_for_the_days_that_look_back_to_it(fresh: Warehouse) -> None:
    put(fresh, "market_caps", caps((DAYS[2], "a", 2.0), materialized_at=minutes(10)))
    assert stale_days(fresh, LONG_AFTER) == {
        "ranks": DAYS[2:10],
        "ema_signals": DAYS[2:],
        "daily_snapshot": DAYS[2:11],
    }


def test_a_changed_fear_and_greed_asks_for_its_snapshot_alone(fresh: Warehouse) -> None:
    rows = pd.DataFrame(
        {
            "date": [pd.Timestamp(DAYS[3])],
            "value": [10],
            "label": ["Extreme Fear"],
            "band": ["extreme fear"],
            "is_final": [True],
            "observed_at": [pd.Timestamp(frames.SEEN)],
            "source": ["sandbox/test"],
            "materialized_at": [minutes(10)],
        }
    )
    put(fresh, "fear_greed", rows)
    assert stale_days(fresh, LONG_AFTER) == {"daily_snapshot": [DAYS[3]]}


def test_a_changed_hour_asks_for_the_snapshot_of_its_day(fresh: Warehouse) -> None:
    put(fresh, "ohlc_hourly", frames.hours(DAYS[4], [23], materialized_at=minutes(10)))
    assert stale_days(fresh, LONG_AFTER) == {"daily_snapshot": [DAYS[4]]}


def test_calculating_again_follows_the_graph_to_its_end(fresh: Warehouse) -> None:
    put(fresh, "market_caps", caps((DAYS[11], "a", 2.0), materialized_at=minutes(10)))
    for place, name in enumerate(("ranks", "ema_signals", "daily_snapshot"), start=11):
        assert name in stale_days(fresh, LONG_AFTER)
        put(fresh, name, calculated(name, [DAYS[11]], minutes(place)))
    assert stale_days(fresh, LONG_AFTER) == {}


def test_an_unchanged_price_makes_nothing_stale(fresh: Warehouse) -> None:
    put(fresh, "market_caps", caps((DAYS[2], "a", 1.0), materialized_at=minutes(10)))
    assert stale_days(fresh, LONG_AFTER) == {}


def test_a_day_that_was_never_calculated_is_stale(fresh: Warehouse) -> None:
    new = DAYS[11] + timedelta(days=1)
    put(fresh, "market_caps", caps((new, "a", 1.0), materialized_at=minutes(0)))
    assert stale_days(fresh, LONG_AFTER) == {"ranks": [new], "daily_snapshot": [new]}


def test_a_day_is_left_to_the_schedules_for_two_hours_after_its_close(fresh: Warehouse) -> None:
    put(fresh, "market_caps", caps((DAYS[11], "a", 2.0), materialized_at=minutes(10)))
    closed = datetime.fromisoformat("2026-01-13 00:00")
    assert stale_days(fresh, closed + timedelta(minutes=119)) == {}
    assert stale_days(fresh, closed + timedelta(minutes=120))["ranks"] == [DAYS[11]]


def test_a_day_that_became_complete_without_a_new_row_is_stale(fresh: Warehouse) -> None:
    # Ranked as not final while a coin was missing; then the provider turns out not to have it.
    ranked = calculated("ranks", [DAYS[5]], minutes(4)).assign(is_final=False)
    put(fresh, "ranks", ranked)
    for name in ("ema_signals", "daily_snapshot"):
        put(fresh, name, calculated(name, [DAYS[5]], minutes(5)))
    nothing = Gap("b", DAYS[5], "no_data_at_provider", "the provider has no value")
    fresh.write(Batch(pd.DataFrame(), Inspection({"b": [DAYS[5]]}, [nothing])), frames.to())
    assert stale_days(fresh, LONG_AFTER)["ranks"] == [DAYS[5]]


def test_an_impatient_caller_does_not_wait_for_a_write(fresh: Warehouse) -> None:
    with (
        open_warehouse(fresh.path, "a write"),
        pytest.raises(WarehouseError, match="in use for 1 s by process"),
    ):
        stale_days(impatient(fresh), LONG_AFTER)
