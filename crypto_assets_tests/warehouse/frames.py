"""Frames and literals that the tests of this folder write."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import duckdb
import pandas as pd

from crypto_assets.tables import MARKET_CAPS, OHLC_DAILY, Table
from crypto_assets.warehouse.schema import Identity
from crypto_assets.warehouse.writer import Write

IDENTITY = Identity(is_sandbox=True, history_start=date(2026, 1, 1))
D1, D2, D3 = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)
SEEN = datetime.fromisoformat("2026-02-01 00:00:00")
LATER = datetime.fromisoformat("2026-02-02 00:00:00")


def caps(*rows: tuple[date, str, float], **columns: Any) -> pd.DataFrame:
    """Rows of `market_caps` from (day, coin, price)."""
    frame = pd.DataFrame(
        {
            "date": pd.Series([pd.Timestamp(day) for day, _, _ in rows], dtype="datetime64[ns]"),
            "coin_id": pd.Series([coin for _, coin, _ in rows], dtype="object"),
            "price_usd": pd.Series([price for _, _, price in rows], dtype="float64"),
            "market_cap_usd": 1000.0,
            "volume_24h_usd": 10.0,
            "circulating_supply": 21.0,
            "provider_rank": 1,
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
            "raw_id": "r1",
        }
    )
    return frame.assign(**columns)


def candles(*rows: tuple[date, str, float], **columns: Any) -> pd.DataFrame:
    """Rows of `ohlc_daily` from (day, coin, close)."""
    frame = pd.DataFrame(
        {
            "date": pd.Series([pd.Timestamp(day) for day, _, _ in rows], dtype="datetime64[ns]"),
            "coin_id": pd.Series([coin for _, coin, _ in rows], dtype="object"),
            "open": 5.0,
            "high": 1e6,
            "low": 0.5,
            "close": pd.Series([close for _, _, close in rows], dtype="float64"),
            "exactness": "exact",
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
        }
    )
    return frame.assign(**columns)


def hours(day: date, of: Sequence[int], **columns: Any) -> pd.DataFrame:
    """Hourly candles of bitcoin that open at these hours."""
    frame = pd.DataFrame(
        {
            "open_time": [pd.Timestamp(day) + pd.Timedelta(hours=hour) for hour in of],
            "coin_id": "bitcoin",
            "open": 5.0,
            "high": 9.0,
            "low": 2.0,
            "close": [float(3 + hour / 10) for hour in of],
            "session": [("Asia", "Europe", "US")[hour // 8] for hour in of],
            "exactness": "exact",
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
        }
    )
    return frame.assign(**columns)


def to(table: Table = MARKET_CAPS, first: date | None = None, last: date | None = None) -> Write:
    """A write of run `run-1`, to these days only where they are given."""
    return Write(table, "run-1", (first, last or first) if first else None)


def to_candles() -> Write:
    return Write(OHLC_DAILY, "run-1")


def prices(connection: duckdb.DuckDBPyConnection) -> dict[tuple[date, str], float]:
    """What `market_caps` holds."""
    rows = connection.execute("SELECT date, coin_id, price_usd FROM market_caps").fetchall()
    assert len({row[:2] for row in rows}) == len(rows), "a key is stored twice"
    return {(day, coin): price for day, coin, price in rows}


def everything(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table with their provenance, in a fixed order."""
    return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()
