"""How fast rows are written, a day is replaced, and a large warehouse is published.

Run `python -m crypto_assets_tests.benchmarks.writing insert|replace|publish`. Each figure is a
ratio of two things measured in one run, or seconds of a file; all are printed, none is asserted:
what has to hold on every machine is in the tests.
"""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path

import click
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


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def told(name: str, took: Sequence[float]) -> float:
    """Print and return the median."""
    median = statistics.median(took)
    click.echo(
        f"  {name}: median {median:.3f} s, {min(took):.3f} to {max(took):.3f} of {len(took)}"
    )
    return median


def compared(name: str, ratios: Sequence[float], goal: str) -> None:
    """Print the ratios of pairs that were measured side by side."""
    click.echo(
        f"{name}: {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f} of {len(ratios)}), goal {goal}"
    )


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


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """Yield a folder for large files, which go afterwards."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield Path(made)


_FOLDER = click.option(
    "--folder", type=click.Path(path_type=Path), help="Where the files are made; a temporary one."
)
_REPEATS = click.option("--repeats", default=5, show_default=True)


@click.group()
def bench() -> None:
    """Measure writing."""


@bench.command()
@_FOLDER
@_REPEATS
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--days", default=365, show_default=True, help="Days of each coin.")
def insert(folder: Path | None, repeats: int, rows: int, days: int) -> None:
    """Write hourly candles through the warehouse, and bare."""
    coins = -(-rows // (days * 24))
    frame = candles(START, days, coins)
    whole = stamped(frame)
    a_slice = -(-SLICE_ROWS // (days * 24)) * days * 24
    slices = [frame.iloc[at : at + a_slice] for at in range(0, len(frame), a_slice)]
    to = Write(OHLC_HOURLY, "run-1", (START, START + timedelta(days=days - 1)))
    click.echo(f"{len(frame):,} rows of {coins} coins and {days} days, {len(slices)} slices")
    took: dict[str, list[float]] = {"bare": [], "one batch": [], "in slices": []}
    with scratch(folder) as place:
        for number in range(repeats):
            bare = place / f"bare-{number}.duckdb"
            took["bare"].append(seconds(lambda to_file=bare: bare_insert(to_file, whole)))
            bare.unlink()
            for name, parts in (("one batch", [frame]), ("in slices", slices)):
                warehouse = new_warehouse(place / f"{name}-{number}")
                took[name].append(seconds(lambda w=warehouse, p=parts: _write(w, p, to)))
                shutil.rmtree(warehouse.home)
    for name, of_name in took.items():
        told(name, of_name)
    for name in ("one batch", "in slices"):
        ratios = [bare / ours for bare, ours in zip(took["bare"], took[name], strict=True)]
        compared(f"speed of {name} to a bare insert", ratios, "at least 0.5")


def _write(warehouse: Warehouse, parts: Sequence[pd.DataFrame], to: Write) -> None:
    for part in parts:
        warehouse.write(Batch(part), to)


@bench.command()
@_FOLDER
@_REPEATS
@click.option("--long", "long_years", default=10, show_default=True, help="Years.")
@click.option(
    "--layout",
    type=click.Choice(["days", "slices"]),
    default="days",
    show_default=True,
    help="How the table came to be: day by day, or by a backfill's slices of coins.",
)
def replace(folder: Path | None, repeats: int, long_years: int, layout: str) -> None:
    """Replace a day of 1,000 coins x 24 hours in a long table, and in one of a year."""
    took: dict[tuple[str, int], list[float]] = {}
    with scratch(folder) as place:
        tables = {}
        for years in (1, long_years):
            tables[years] = new_warehouse(place / f"years-{years}")
            fill(tables[years], years * 365, layout)
            size = tables[years].path.stat().st_size
            click.echo(f"{years} years, {layout}: {size / GIGABYTE:.2f} GB")
        for kind in ("provisional", "restated"):
            for number in range(repeats):
                for years, warehouse in tables.items():
                    # Another day each time: what was replaced lies at the end of the table.
                    offset = number + (repeats if kind == "restated" else 0)
                    day = START + timedelta(days=years * 365 // 2 + offset)
                    if kind == "provisional":
                        _make_provisional(warehouse, day)
                    frame = candles(day, 1, COINS, 200.0)
                    to = Write(OHLC_HOURLY, "run-2", (day, day))
                    spent = seconds(lambda w=warehouse, f=frame, t=to: w.write(Batch(f), t))
                    took.setdefault((kind, years), []).append(spent)
    for (kind, years), of_kind in took.items():
        told(f"a day that was {kind}, {years} years", of_kind)
    for kind in ("provisional", "restated"):
        pairs = zip(took[kind, 1], took[kind, long_years], strict=True)
        compared(f"cost of a {kind} day, {long_years} years to 1", [b / a for a, b in pairs], "1.5")


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


@bench.command()
@_FOLDER
@_REPEATS
@click.option("--gigabytes", default=1.0, show_default=True)
def publish(folder: Path | None, repeats: int, gigabytes: float) -> None:
    """Publish a large warehouse after a run that wrote one day."""
    with scratch(folder) as place:
        warehouse = new_warehouse(place / "home")
        days = 365
        fill(warehouse, days, "days")
        days = int(days * gigabytes * GIGABYTE / warehouse.path.stat().st_size)
        shutil.rmtree(warehouse.home)
        warehouse = new_warehouse(place / "home")
        fill(warehouse, days, "days")
        size = warehouse.path.stat().st_size
        click.echo(f"{days} days of {COINS} coins, {size / GIGABYTE:.2f} GB")
        click.echo(f"  the first: {seconds(lambda: publish_run(warehouse.home, 'run-0')):.3f} s")
        took, copied = [], []
        for number in range(repeats):
            day = START + timedelta(days=days - 1 - number)
            batch = Batch(candles(day, 1, COINS, 200.0))
            warehouse.write(batch, Write(OHLC_HOURLY, f"run-{number}", (day, day)))
            took.append(seconds(lambda n=number: publish_run(warehouse.home, f"run-{n}")))
            copied.append(seconds(lambda: _copy(warehouse.path, place / "copy")))
        median = told(f"publishing {size / GIGABYTE:.2f} GB", took)
        told("a bare copy of it, with fsync", copied)
        click.echo(f"publishing a gigabyte: {median * GIGABYTE / size:.2f} s, goal under 2 s")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    target.unlink()


if __name__ == "__main__":
    bench()
