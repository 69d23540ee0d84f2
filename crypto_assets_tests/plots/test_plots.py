"""The PNG of each table: small, opaque, the same each time, whatever the rows are."""

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import crypto_assets
from crypto_assets.plots import PLOTS
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON

MOST_BYTES = 24 * 1024
LAST = date(2026, 6, 30)
HEADLINE = ["solana", "bitcoin", "ethereum", "tron"]
# What mathtext, a font or a layout could stumble over.
ODD_IDS = [
    "$",
    "$a_b$",
    "a_b^{c",
    "比特币-coin",
    "\\frac",
    "🚀" * 40,
    "w" * 90,
    "%s %(x)s",
    "\n",
    "العربية",
]


def noise(seed: int, rows: int, scale: float) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Prices that jump about as no market does: the hardest to make small."""
    return np.random.default_rng(seed).uniform(0.5, 1.5, rows) * scale


def rows_of(table: str, coins: Sequence[str], scale: float = 1.0) -> pd.DataFrame:
    """As many rows as the query of a table may bring, as ragged as can be."""
    days = pd.date_range(end=LAST, periods={"ohlc_daily": 90, "etf_flows": 40}.get(table, 180))
    if table == "fear_greed":
        return pd.DataFrame({"date": days, "value": np.arange(180) * 37 % 101})
    if table == "etf_flows":
        flows = noise(1, 120, scale) - scale
        assets = ["btc", "eth", "sol"] * 40
        return pd.DataFrame({"date": np.repeat(days, 3), "asset": assets, "net_flow_usd": flows})
    if table == "ranks":
        places = np.arange(1, len(coins) + 1)
        moved = np.where(places % 2, places, -places)
        return pd.DataFrame(
            {"date": days[-1], "coin_id": coins, "market_cap_rank": places, "rank_change_7d": moved}
        )
    frames = []
    for n, coin in enumerate(coins):
        if table == "ema_signals":
            columns = {c: noise(n + i, 180, scale) for i, c in enumerate(SIGNAL_COLUMNS)}
            spans = {"fast_span": 12, "slow_span": 26, "event": np.arange(180) % 3 - 1}
            frames.append(pd.DataFrame({"date": days, "coin_id": coin, **columns, **spans}))
        else:
            time, times = "date", days
            if table == "ohlc_hourly":
                time, times = "open_time", pd.date_range(LAST, periods=72, freq="h")
            prices = np.sort(np.stack([noise(n + i, len(times), scale) for i in range(4)]), axis=0)
            low, one, two, high = prices
            candle = {"open": one, "high": high, "low": low, "close": two}
            frames.append(pd.DataFrame({time: times, "coin_id": coin, **candle}))
    return pd.concat(frames, ignore_index=True)


SIGNAL_COLUMNS = ["price_usd", "ema_fast", "ema_slow"]


def looked_at(drawn: bytes | None) -> Image.Image:
    """Assert what holds for every plot, and return it."""
    assert drawn is not None
    assert len(drawn) < MOST_BYTES
    image = Image.open(io.BytesIO(drawn))
    assert (image.format, image.mode, image.size) == ("PNG", "P", (720, 300))
    assert "transparency" not in image.info
    pixels = image.convert("RGB")
    assert pixels.getpixel((719, 299)) == pixels.getpixel((719, 0)) == (255, 255, 255)
    assert len(pixels.getcolors() or []) > 3  # background, text and data
    return pixels


@pytest.mark.parametrize("table", PLOTS)
def test_the_most_ragged_data_of_odd_coins_makes_a_small_plot(table: str) -> None:
    looked_at(PLOTS[table].draw(rows_of(table, ODD_IDS)))


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("table", ["ema_signals", "ohlc_hourly", "ohlc_daily", "etf_flows"])
def test_prices_may_be_tiny_or_huge(table: str, scale: float) -> None:
    looked_at(PLOTS[table].draw(rows_of(table, HEADLINE, scale)))


@pytest.mark.parametrize("price", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("table", ["ema_signals", "ohlc_daily", "etf_flows"])
def test_nothing_need_ever_change(table: str, price: float) -> None:
    rows = rows_of(table, HEADLINE)
    names = {*SIGNAL_COLUMNS, "open", "high", "low", "close", "net_flow_usd"} & set(rows)
    looked_at(PLOTS[table].draw(rows.assign(**dict.fromkeys(names, price))))


@pytest.mark.parametrize("table", PLOTS)
def test_one_row_is_enough(table: str) -> None:
    looked_at(PLOTS[table].draw(rows_of(table, HEADLINE).head(1)))


@pytest.mark.parametrize("table", PLOTS)
def test_no_rows_are_no_plot(table: str) -> None:
    assert PLOTS[table].draw(rows_of(table, HEADLINE).head(0)) is None


@pytest.mark.parametrize("table", PLOTS)
def test_rows_without_a_value_are_no_plot(table: str) -> None:
    rows = rows_of(table, HEADLINE)
    keys = {"date", "open_time", "coin_id", "asset", "fast_span", "slow_span"}
    assert PLOTS[table].draw(rows.assign(**dict.fromkeys(set(rows) - keys))) is None


@pytest.mark.slow
@pytest.mark.parametrize("table", PLOTS)
def test_the_same_rows_are_the_same_bytes_in_any_thread(table: str) -> None:
    rows = rows_of(table, HEADLINE)
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(PLOTS[table].draw, [rows] * 4))
    assert len(set(drawn)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("table", PLOTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_rows_make_a_small_plot_or_none(table: str, data: st.DataObject) -> None:
    coins = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=12, unique=True))
    rows = rows_of(table, coins, 10 ** data.draw(st.floats(-9, 9)))
    kept = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, unique=True))
    rows = rows.iloc[sorted(kept)]
    keys = {"date", "open_time", "coin_id", "asset", "fast_span", "slow_span"}
    bad = data.draw(st.sampled_from([None, np.nan, np.inf, 0, 1]))
    for column in data.draw(st.sets(st.sampled_from(sorted(set(rows) - keys)))):
        rows = rows.astype({column: object})
        rows.loc[rows.index[: data.draw(st.integers(0, len(rows)))], column] = bad
    drawn = PLOTS[table].draw(rows)
    if drawn is not None:
        looked_at(drawn)


def test_it_draws_in_silence_where_no_cache_can_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    code = (
        "import pandas as pd; from crypto_assets.plots import PLOTS\n"
        "rows = pd.DataFrame({'date': pd.to_datetime(['2026-01-01']), 'value': [5]})\n"
        "print(len(PLOTS['fear_greed'].draw(rows)))"
    )
    environment = {
        "HOME": str(blocked),
        "MPLCONFIGDIR": str(blocked / "matplotlib"),
        "PYTHONPATH": str(Path(crypto_assets.__file__).parents[1]),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert int(done.stdout) > 1000


# --- which rows are drawn


@pytest.fixture(scope="module")
def filled() -> "duckdb.DuckDBPyConnection":
    """Tables of 300 days around the day that is asked for, with what must not be drawn."""
    connection = duckdb.connect()
    days = [LAST + timedelta(days=n) for n in range(-250, 50)]
    coins = [*HEADLINE, "aave"]
    daily = pd.DataFrame([(d, c) for d in days for c in coins], columns=["date", "coin_id"])
    prices = daily.assign(open=1.0, high=2.0, low=0.5, close=1.5)
    hourly = pd.DataFrame(
        [
            (pd.Timestamp(LAST) + timedelta(hours=h), c, 1.0, 2.0, 0.5, 1.5)
            for h in range(-100, 50)
            for c in coins
        ],
        columns=["open_time", "coin_id", "open", "high", "low", "close"],
    )
    signals = pd.concat(
        daily.assign(fast_span=f, slow_span=s, price_usd=1.0, ema_fast=1.0, ema_slow=1.0, event=0)
        for f, s in [(20, 50), (12, 26), (12, 200)]
    )
    ranks = daily.assign(market_cap_rank=1, rank_change_7d=[0, 1, -1, None, 2] * len(days))
    trading = [d for d in days if d.isoweekday() <= 5]
    flows = pd.DataFrame(
        [(d, a, t, 1e6) for d in trading for a, t in (("btc", "X"), ("btc", "Y"), ("sol", "Z"))],
        columns=["date", "asset", "ticker", "net_flow_usd"],
    )
    index = pd.DataFrame({"date": days, "value": 50})
    made = {"ema_signals": signals, "ranks": ranks, "ohlc_hourly": hourly, "ohlc_daily": prices}
    for name, frame in (made | {"etf_flows": flows, "fear_greed": index}).items():
        connection.register("given", frame)
        time = TABLES[name].time_column
        kind = "TIMESTAMP" if time == "open_time" else "DATE"
        connection.execute(
            f"CREATE TABLE {name} AS SELECT * REPLACE (CAST({time} AS {kind}) AS {time}) FROM given"
        )
    return connection


def asked(connection: "duckdb.DuckDBPyConnection", table: str) -> pd.DataFrame:
    chosen = PLOTS[table]
    return connection.execute(chosen.sql, chosen.parameters(LAST, HEADLINE)).fetchdf()


@pytest.mark.parametrize(
    ("table", "days"), [("ema_signals", 180), ("ohlc_daily", 90), ("fear_greed", 180)]
)
def test_daily_rows_are_those_of_the_last_days(
    filled: "duckdb.DuckDBPyConnection", table: str, days: int
) -> None:
    rows = asked(filled, table)
    expected = list(pd.date_range(end=LAST, periods=days))
    for _, own in rows.groupby("coin_id") if "coin_id" in rows else [("", rows)]:
        assert list(own["date"]) == expected


@pytest.mark.parametrize("table", ["ema_signals", "ohlc_daily", "ohlc_hourly"])
def test_coins_are_the_headline_ones_in_their_order(
    filled: "duckdb.DuckDBPyConnection", table: str
) -> None:
    assert list(asked(filled, table)["coin_id"].unique()) == HEADLINE


def test_signals_are_of_the_quickest_pair(filled: "duckdb.DuckDBPyConnection") -> None:
    pairs = asked(filled, "ema_signals")[["fast_span", "slow_span"]].drop_duplicates()
    assert pairs.to_numpy().tolist() == [[12, 26]]


def test_hours_are_those_of_three_days(filled: "duckdb.DuckDBPyConnection") -> None:
    hours = asked(filled, "ohlc_hourly").groupby("coin_id")["open_time"].agg(["min", "max", "size"])
    first = pd.Timestamp(LAST) - timedelta(days=2)
    expected = [first, first + timedelta(hours=71), 72]
    assert hours.to_numpy().tolist() == [expected] * 4


def test_ranks_are_those_of_the_day_that_moved(filled: "duckdb.DuckDBPyConnection") -> None:
    rows = asked(filled, "ranks").sort_values("rank_change_7d")
    assert rows["coin_id"].tolist() == ["ethereum", "bitcoin", "aave"]
    assert set(rows["date"]) == {pd.Timestamp(LAST)}


def test_flows_are_summed_by_asset_on_forty_trading_days(
    filled: "duckdb.DuckDBPyConnection",
) -> None:
    rows = asked(filled, "etf_flows")
    expected = list(pd.bdate_range(end=LAST, periods=40))
    for asset, flow in (("btc", 2e6), ("sol", 1e6)):
        own = rows[rows["asset"] == asset]
        assert list(own["date"]) == expected
        assert set(own["net_flow_usd"]) == {flow}


@pytest.mark.slow
def test_every_plot_of_a_real_warehouse_is_drawn_from_its_query(week_home: Path) -> None:
    with crypto_assets.connect(week_home) as connection:

        def drawn(table: str, last: date, *headline: str) -> bytes | None:
            plot = PLOTS[table]
            rows = connection.execute(plot.sql, plot.parameters(last, headline)).fetchdf()
            return plot.draw(rows)

        moved = connection.execute(
            "FROM ranks WHERE date = ? AND rank_change_7d <> 0", [NOON.date()]
        ).fetchone()
        for table in PLOTS:
            picture = drawn(table, NOON.date(), "bitcoin", "ethereum", "solana")
            if table == "ranks" and moved is None:
                assert picture is None
            else:
                looked_at(picture)
        for table in set(PLOTS) - {"etf_flows"}:
            assert drawn(table, date(2020, 1, 1), "bitcoin") is None


@pytest.mark.parametrize("table", PLOTS)
def test_each_plot_says_in_words_what_it_shows(table: str) -> None:
    assert 20 < len(PLOTS[table].alt) < 100
    assert not set(PLOTS[table].alt) & set("[]()\n")  # it stands in Markdown
