"""How fast rows are written, a day is replaced, and a large warehouse is published."""

import os
import shutil
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from crypto_assets.assets.histories import SLICE_ROWS
from crypto_assets.tables import OHLC_HOURLY
from crypto_assets.warehouse import contents
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.schema import Identity, create_table_sql
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch, Write
from crypto_assets_tests.benchmarks.measuring import Figures, in_turns, timed
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.suite import Setup

START = date(2016, 1, 1)
COINS = 1_000
IDENTITY = Identity(is_sandbox=True, history_start=START)
SEEN = datetime(2026, 2, 1)
GIGABYTE = 1_000_000_000
SESSIONS = np.array(["Asia", "Europe", "US"], dtype=object)


def candles(first: date, days: int, coins: int, level: float = 100.0) -> pd.DataFrame:
    """Return final hourly candles coin by coin, with the types and the sharing the assets make."""
    hours = pd.date_range(first, periods=days * 24, freq="h", unit="us")
    names = np.array([f"coin-{n:04}" for n in range(coins)], dtype=object)
    raw_ids = np.array([f"2026-02-01/{n:04}-0123456789abcdef" for n in range(coins)], dtype=object)
    random = np.random.default_rng(days * coins + int(level))
    close = level * np.exp(random.normal(0, 0.01, (coins, len(hours)))).ravel()
    opened = np.roll(close, 1)
    return pd.DataFrame(
        {
            "open_time": np.tile(hours.to_numpy(), coins),
            "open": opened,
            "high": np.maximum(opened, close) * 1.001,
            "low": np.minimum(opened, close) * 0.999,
            "close": close,
            "session": np.tile(SESSIONS[hours.hour.to_numpy() // 8], coins),
            "exactness": "exact",
            "coin_id": np.repeat(names, len(hours)),
            "is_final": True,
            "source": "sandbox/coingecko/coins/ohlc/range",
            "observed_at": pd.Timestamp(SEEN),
            "raw_id": np.repeat(raw_ids, len(hours)),
        }
    )


def stamped(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with every column of the table, as the bare INSERT takes it."""
    made = frame.assign(
        volume_usd=np.nan,
        run_id="run-1",
        materialized_at=pd.Timestamp(SEEN),
        first_final_at=pd.Timestamp(SEEN),
    )
    return made[[column.name for column in OHLC_HOURLY.all_columns]]


def bare_insert(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as whoever needs no warehouse would: as columns of one file."""
    with duckdb.connect(str(path)) as connection:
        connection.execute(create_table_sql(OHLC_HOURLY))
        connection.register("df", frame)
        connection.execute(f"INSERT INTO {OHLC_HOURLY.name} SELECT * FROM df")
        connection.unregister("df")


def new_warehouse(folder: Path) -> Warehouse:
    """Return a warehouse that has its tables and no rows."""
    folder.mkdir()
    warehouse = Warehouse(folder / FILE_NAME, IDENTITY)
    warehouse.query("SELECT 1")
    return warehouse


def insert(setup: Setup) -> Result:
    """Write a million hourly candles through the warehouse, and bare."""
    rows, days = (5_000, 10) if setup.is_quick else (1_000_000, 365)
    coins = -(-rows // (days * 24))
    frame = candles(START, days, coins)
    whole = stamped(frame)
    a_slice = -(-SLICE_ROWS // (days * 24)) * days * 24
    slices = [frame.iloc[at : at + a_slice] for at in range(0, len(frame), a_slice)]
    to = Write(OHLC_HOURLY, "run-1", (START, START + timedelta(days=days - 1)))

    def bare() -> Figures:
        file = setup.folder / "bare.duckdb"
        file.unlink(missing_ok=True)
        return timed(lambda: bare_insert(file, whole))

    def through_warehouse(parts: Sequence[pd.DataFrame]) -> Figures:
        shutil.rmtree(setup.folder / "home", ignore_errors=True)
        warehouse = new_warehouse(setup.folder / "home")
        return timed(lambda: _write(warehouse, parts, to))

    result = Result(
        in_turns(
            {
                "bare": bare,
                "one batch": lambda: through_warehouse([frame]),
                "in slices": lambda: through_warehouse(slices),
            },
            setup.repeats,
        )
    )
    result.notes.append(f"{len(frame):,} rows, {coins} coins x {days} days, {len(slices)} slices.")
    for name in ("one batch", "in slices"):
        result.goals.append(Goal(f"{name} to a bare insert", result.ratio(name, "bare"), 2))
    return result


def _write(warehouse: Warehouse, parts: Sequence[pd.DataFrame], to: Write) -> None:
    for part in parts:
        warehouse.write(Batch(part), to)


def replace(setup: Setup) -> Result:
    """Replace a day of 1,000 coins x 24 hours in ten years that came day by day, and in one."""
    return _replaced(setup, "days")


def replace_in_slices(setup: Setup) -> Result:
    """The same in a table that a backfill filled by slices of coins."""
    return _replaced(setup, "slices")


def _replaced(setup: Setup, layout: str) -> Result:
    coins, year = (5, 40) if setup.is_quick else (COINS, 365)
    result = Result()
    lengths = {"a year": year, "ten years": 10 * year}
    tables = {}
    for name, days in lengths.items():
        tables[name] = new_warehouse(setup.folder / name.replace(" ", "-"))
        fill(tables[name], days, layout, coins)
        size = tables[name].path.stat().st_size / GIGABYTE
        result.notes.append(f"{name}, {layout}: {size:.2f} GB.")
    for kind in ("provisional", "restated"):
        for number in range(setup.repeats):
            for name, warehouse in tables.items():
                # Another day each time: what was replaced lies at the end of the table.
                offset = number + (setup.repeats if kind == "restated" else 0)
                day = START + timedelta(days=lengths[name] // 2 + offset)
                if kind == "provisional":
                    _make_provisional(warehouse, day)
                frame = candles(day, 1, coins, 200.0)
                to = Write(OHLC_HOURLY, "run-2", (day, day))
                spent = timed(lambda w=warehouse, f=frame, t=to: w.write(Batch(f), t))  # type: ignore[misc]
                result.samples.setdefault(f"a {kind} day, {name}", []).append(spent)
        ratio = result.ratio(f"a {kind} day, ten years", f"a {kind} day, a year")
        result.goals.append(Goal(f"a {kind} day, ten years to a year", ratio, 1.5))
    return result


def fill(warehouse: Warehouse, days: int, layout: str, coins: int = COINS) -> None:
    """Fill the hourly table, and what goes with it, without the writer's cost."""
    coins_a_slice = max(1, SLICE_ROWS // (days * 24))
    columns = ", ".join(quoted(column.name) for column in OHLC_HOURLY.all_columns)
    order = "open_time, coin_id"
    if layout == "slices":
        order = f"n // {coins_a_slice}, {order}"
    with warehouse.session("filling") as connection:
        # In pieces, so that no sort needs more than memory; a piece is whole days or whole slices.
        pieces = (
            [(START + timedelta(days=d), min(365, days - d), 0, coins) for d in range(0, days, 365)]
            if layout == "days"
            else [
                (START, days, n, min(coins, n + 10 * coins_a_slice))
                for n in range(0, coins, 10 * coins_a_slice)
            ]
        )
        for first, count, from_coin, to_coin in pieces:
            connection.execute(
                f"""INSERT INTO {OHLC_HOURLY.name} BY NAME SELECT {columns} FROM (
                SELECT open_time, n, 'coin-' || lpad(n::VARCHAR, 4, '0') AS coin_id,
                    100 + (hash(n, open_time) % 1000000) / 1e5 AS open, open * 1.02 AS high,
                    open * 0.98 AS low, open * 1.01 AS close, NULL AS volume_usd,
                    ['Asia', 'Europe', 'US'][1 + hour(open_time) // 8] AS session,
                    'exact' AS exactness, true AS is_final, $seen AS observed_at,
                    'sandbox/coingecko/coins/ohlc/range' AS source, 'run-1' AS run_id,
                    CAST(open_time AS DATE) + INTERVAL 1 DAY AS materialized_at,
                    'raw-' || n::VARCHAR AS raw_id, $seen AS first_final_at
                FROM range($from_coin, $to_coin) AS coins(n), range($first, $until,
                    INTERVAL 1 HOUR) AS hours(open_time)
                ) ORDER BY {order}""",
                {
                    "seen": SEEN,
                    "from_coin": from_coin,
                    "to_coin": to_coin,
                    "first": datetime.combine(first, datetime.min.time()),
                    "until": datetime.combine(first + timedelta(days=count), datetime.min.time()),
                },
            )
        contents.record_all(connection, OHLC_HOURLY)


def _make_provisional(warehouse: Warehouse, day: date) -> None:
    """Let a day be as the fetches of the running day leave it; it keeps its place in the file."""
    with warehouse.session("preparing") as connection:
        connection.execute(
            f"UPDATE {OHLC_HOURLY.name} SET is_final = false, first_final_at = NULL "
            "WHERE open_time >= $day AND open_time < $day + INTERVAL 1 DAY",
            {"day": datetime.combine(day, datetime.min.time())},
        )


def publish(setup: Setup) -> Result:
    """Publish a warehouse of a gigabyte after a run that wrote one day."""
    coins, gigabytes = (5, 0.01) if setup.is_quick else (COINS, 1.0)
    home = setup.folder / "home"
    days = 365
    warehouse = new_warehouse(home)
    fill(warehouse, days, "days", coins)
    if not setup.is_quick:
        days = int(days * gigabytes * GIGABYTE / warehouse.path.stat().st_size)
        shutil.rmtree(home)
        fill(new_warehouse(home), days, "days", coins)
    size = warehouse.path.stat().st_size
    publish_run(home, "run-0")
    result = Result({"publishing": [], "a bare copy, with fsync": []})
    for number in range(setup.repeats):
        day = START + timedelta(days=days - 1 - number)
        batch = Batch(candles(day, 1, coins, 200.0))
        warehouse.write(batch, Write(OHLC_HOURLY, f"run-{number}", (day, day)))
        spent = timed(lambda n=number: publish_run(home, f"run-{n}"))  # type: ignore[misc]
        result.samples["publishing"].append(spent)
        copied = timed(lambda: _copy(warehouse.path, setup.folder / "copy"))
        result.samples["a bare copy, with fsync"].append(copied)
    result.notes.append(f"{days} days of {coins} coins, {size / GIGABYTE:.2f} GB.")
    a_gigabyte = [t * GIGABYTE / size for t in result.figures("publishing", "wall_seconds")]
    result.goals.append(Goal("publishing a gigabyte", a_gigabyte, 2, "s"))
    return result


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()
