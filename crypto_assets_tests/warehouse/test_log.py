"""A kill cuts DuckDB's log off anywhere: of a write there is all or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import duckdb
import pandas as pd
import pytest

from crypto_assets.warehouse.gaps import Gap, GapState, Inspection
from crypto_assets.warehouse.session import ROWS_PAST_LOG
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import D1, LATER

COINS = 3_000
BEGINNINGS = 12
"""As many are replayed, and each that lacks no more than so many bytes."""


class Stored(NamedTuple):
    """What a write leaves in four tables."""

    rows: int
    of_days: int
    """What `partitions` says of the rows."""
    price: float
    gaps: tuple[str, ...]
    restated: int


def batch(price: float, days: int, state: GapState) -> Batch:
    """Rows of so many days, each value of them as large as the price; and a coin without any."""
    found = [D1 + timedelta(days=n) for n in range(days)]
    frame = pd.DataFrame({"date": pd.to_datetime(found)}).merge(
        pd.DataFrame({"coin_id": [f"coin-{n:04}" for n in range(COINS)]}), how="cross"
    )
    one = frames.caps((D1, "any", price), market_cap_usd=price, volume_24h_usd=price)
    rows = frame.merge(one.drop(columns=["date", "coin_id"]), how="cross")
    return Batch(rows, Inspection({"late": [D1]}, [Gap("late", D1, state, "why")]))


def stored(path: Path) -> Stored:
    with duckdb.connect(str(path)) as connection:
        row = connection.execute(
            """SELECT count(*), (SELECT coalesce(sum(rows_stored), 0) FROM partitions),
                avg(price_usd), (SELECT list(state) FROM gaps),
                (SELECT count(*) FROM restatements) FROM market_caps"""
        ).fetchone()
    assert row is not None
    rows, of_days, price, gaps, restated = row
    return Stored(rows, int(of_days), price, tuple(gaps), restated)


def beginnings(log: bytes) -> Iterator[bytes]:
    step = max(1, len(log) // BEGINNINGS)
    near = range(max(0, len(log) - BEGINNINGS), len(log))
    for length in sorted({*range(0, len(log), step), *near}):
        yield log[:length]


@pytest.mark.parametrize(
    ("days", "is_past_log"),
    [
        pytest.param(2, False, id="few rows"),
        # Below the bound are the rows, above it what is restated of them: three values each.
        pytest.param(ROWS_PAST_LOG // COINS, True, id="many restatements"),
        pytest.param(ROWS_PAST_LOG // COINS + 1, True, id="many rows"),
    ],
)
def test_a_log_that_breaks_off_brings_all_of_a_write_or_nothing(
    warehouse: Warehouse, tmp_path: Path, days: int, is_past_log: bool
) -> None:
    warehouse.write(batch(1.0, 2, "missing"), frames.to())
    if is_past_log:
        warehouse.write(batch(1.0, days, "missing"), frames.to())
    before = stored(warehouse.path)
    assert before == (before.rows, before.rows, 1.0, ("missing",), 0)

    later = batch(2.0, days, "no_data_at_provider")
    later.rows["observed_at"] = pd.Timestamp(LATER)
    home, copy = warehouse.home, tmp_path / "killed.duckdb"
    # What is in the log is there for as long as the file is open.
    with warehouse.session("writing"):
        warehouse.write(later, frames.to())
        file = (home / FILE_NAME).read_bytes()
        log = home / f"{FILE_NAME}.wal"
        logged = log.read_bytes() if log.exists() else b""
    after = stored(warehouse.path)
    rows = days * COINS
    assert after == (rows, rows, 2.0, ("no_data_at_provider",), 3 * before.rows)

    for beginning in beginnings(logged):
        copy.write_bytes(file)
        Path(f"{copy}.wal").write_bytes(beginning)
        assert stored(copy) == before, f"{len(beginning)} of {len(logged)} bytes"
    copy.write_bytes(file)
    Path(f"{copy}.wal").write_bytes(logged)
    assert stored(copy) == after
    # What is small is committed through the log, else nothing was cut off here.
    assert bool(logged) != is_past_log
