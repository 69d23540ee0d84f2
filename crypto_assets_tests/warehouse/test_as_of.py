"""What was known at a time: the same as if it had been written down then."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crypto_assets
from crypto_assets import tables
from crypto_assets.tables import ETF_FLOWS, MARKET_CAPS, OHLC_DAILY, TABLES, Table
from crypto_assets.warehouse import writer
from crypto_assets.warehouse.as_of import as_of, known_at
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write, write
from crypto_assets_tests.warehouse.frames import D1, D2, candles, caps, hours, to

T = [datetime(2026, 2, day) for day in range(1, 29)]
MOMENT = timedelta(microseconds=1)
HOSTILE = 'x\'); DROP TABLE "t";-- $1 \\ \u202e'


def emptied(memory: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    for table in (*TABLES, "gaps", "restatements", "partitions"):
        memory.execute(f"DELETE FROM {table}")
    return memory


@pytest.fixture
def store(memory: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    return emptied(memory)


def at_time(
    store: duckdb.DuckDBPyConnection, at: datetime, rows: pd.DataFrame, table: Table = MARKET_CAPS
) -> None:
    """Let rows be observed and written at a moment."""
    with mock.patch.object(writer, "wall_now", return_value=at):
        write(store, Batch(rows.assign(observed_at=at)), Write(table, f"run-{at:%d}"))


def known(
    store: duckdb.DuckDBPyConnection, at: datetime, *columns: str, table: Table = MARKET_CAPS
) -> list[tuple[Any, ...]]:
    """Chosen columns of what was known, NULLs as None."""
    frame = known_at(store, table, at)[list(columns)]
    return [
        tuple(None if pd.isna(value) else value for value in row)
        for row in frame.itertuples(index=False, name=None)
    ]


# first_final_at.


def test_when_a_row_was_first_final_survives_its_restatements(
    store: duckdb.DuckDBPyConnection,
) -> None:
    at_time(store, T[0], caps((D1, "a", 1.0), is_final=False))
    sql = "SELECT price_usd, observed_at, first_final_at FROM market_caps"
    assert store.execute(sql).fetchall() == [(1.0, T[0], None)]
    for moment, price in ((T[1], 2.0), (T[2], 3.0), (T[3], 4.0)):
        at_time(store, moment, caps((D1, "a", price)))
        assert store.execute(sql).fetchall() == [(price, moment, T[1])]


def test_an_exact_day_is_known_since_it_was_exact(
    store: duckdb.DuckDBPyConnection,
) -> None:
    at_time(store, T[0], candles((D1, "a", 1.0), exactness="approximate"), OHLC_DAILY)
    at_time(store, T[1], candles((D1, "a", 2.0)), OHLC_DAILY)
    assert store.execute("SELECT close, first_final_at FROM ohlc_daily").fetchall() == [(2.0, T[1])]
    assert store.execute("SELECT count(*) FROM restatements").fetchall() == [(0,)]


def test_an_exact_day_is_not_told_before_it_was_exact(store: duckdb.DuckDBPyConnection) -> None:
    at_time(store, T[0], candles((D1, "a", 1.0), exactness="approximate"), OHLC_DAILY)
    at_time(store, T[1], candles((D1, "a", 2.0), exactness="approximate"), OHLC_DAILY)
    approximate = known(store, T[1], "close", "exactness", table=OHLC_DAILY)
    assert approximate == [(2.0, "approximate")]
    at_time(store, T[3], candles((D1, "a", 3.0)), OHLC_DAILY)
    at_time(store, T[5], candles((D1, "a", 4.0)), OHLC_DAILY)
    told = [known(store, moment, "close", "exactness", table=OHLC_DAILY) for moment in T[:6]]
    exact = [(3.0, "exact")]
    assert told == [[], [], [], exact, exact, [(4.0, "exact")]]


# One row as time goes by.


def test_a_restated_value_is_the_old_one_until_it_was_restated(
    store: duckdb.DuckDBPyConnection,
) -> None:
    at_time(store, T[0], caps((D1, "a", 1.5), (D1, "b", 7.0)))
    at_time(store, T[5], caps((D1, "a", 2.5)))
    rows = ("coin_id", "price_usd", "observed_at")
    assert known(store, T[0], *rows) == [("a", 1.5, T[0]), ("b", 7.0, T[0])]
    assert known(store, T[5] - MOMENT, *rows) == [("a", 1.5, T[0]), ("b", 7.0, T[0])]
    assert known(store, T[5], *rows) == [("a", 2.5, T[5]), ("b", 7.0, T[0])]


def test_of_several_restatements_the_value_in_force_is_told(
    store: duckdb.DuckDBPyConnection,
) -> None:
    for moment, price in zip(T, (1.0, 2.0, 3.0, 1.0), strict=False):
        at_time(store, moment, caps((D1, "a", price)))
    told = [known(store, moment, "price_usd", "observed_at") for moment in T[:5]]
    assert told == [
        [(1.0, T[0])],
        [(2.0, T[1])],
        [(3.0, T[2])],
        [(1.0, T[3])],
        [(1.0, T[3])],
    ]


def test_columns_that_were_restated_at_different_times_are_each_what_they_were(
    store: duckdb.DuckDBPyConnection,
) -> None:
    at_time(store, T[0], caps((D1, "a", 1.0), market_cap_usd=10.0, provider_rank=1))
    at_time(store, T[1], caps((D1, "a", 2.0), market_cap_usd=10.0, provider_rank=1))
    at_time(store, T[2], caps((D1, "a", 2.0), market_cap_usd=20.0, provider_rank=2))
    at_time(store, T[3], caps((D1, "a", 3.0), market_cap_usd=20.0, provider_rank=3))
    told = [known(store, T[n], "price_usd", "market_cap_usd", "provider_rank") for n in range(4)]
    assert told == [[(1.0, 10.0, 1)], [(2.0, 10.0, 1)], [(2.0, 20.0, 2)], [(3.0, 20.0, 3)]]


def test_a_value_that_was_not_known_is_not_known_again(store: duckdb.DuckDBPyConnection) -> None:
    for moment, cap in ((T[0], None), (T[1], 5.0), (T[2], None), (T[3], 6.0)):
        at_time(store, moment, caps((D1, "a", 1.0), market_cap_usd=cap))
    told = [known(store, T[n], "market_cap_usd") for n in range(4)]
    assert told == [[(None,)], [(5.0,)], [(None,)], [(6.0,)]]


def test_values_come_back_to_the_last_digit(store: duckdb.DuckDBPyConnection) -> None:
    odd = [0.1 + 0.2, 1e-300, 1.7976931348623157e308, 123456789.12345679, 1 / 3]
    coins = [f"coin-{n}" for n in range(len(odd))]
    at_time(store, T[0], caps(*[(D1, c, v) for c, v in zip(coins, odd, strict=True)]))
    at_time(store, T[1], caps(*[(D1, c, 42.0) for c in coins]))
    assert known(store, T[0], "price_usd") == [(value,) for value in odd]


def test_rows_of_hostile_coins_are_found_again(store: duckdb.DuckDBPyConnection) -> None:
    at_time(store, T[0], caps((D1, HOSTILE, 1.0)))
    at_time(store, T[1], caps((D1, HOSTILE, 2.0)))
    assert known(store, T[0], "coin_id", "price_usd") == [(HOSTILE, 1.0)]


def test_a_row_is_absent_until_it_was_final(store: duckdb.DuckDBPyConnection) -> None:
    at_time(store, T[0], caps((D1, "a", 1.0), is_final=False))
    at_time(store, T[2], caps((D1, "a", 2.0), (D1, "b", 2.0)))
    at_time(store, T[4], caps((D2, "a", 3.0)))
    for moment, count in ((T[1], 0), (T[2] - MOMENT, 0), (T[2], 2), (T[3], 2), (T[4], 3)):
        assert len(known_at(store, MARKET_CAPS, moment)) == count


def test_hours_are_told_one_by_one(store: duckdb.DuckDBPyConnection) -> None:
    at_time(store, T[0], hours(D1, [0, 1]), tables.OHLC_HOURLY)
    at_time(store, T[1], hours(D1, [1], close=8.5), tables.OHLC_HOURLY)
    asked = ("open_time", "close", "session")
    first = [(pd.Timestamp(D1), 3.0, "Asia")]
    one = pd.Timestamp(D1) + pd.Timedelta(hours=1)
    assert known(store, T[0], *asked, table=tables.OHLC_HOURLY) == [*first, (one, 3.1, "Asia")]
    assert known(store, T[1], *asked, table=tables.OHLC_HOURLY) == [*first, (one, 8.5, "Asia")]


# Rows that a provider took back.


def flows(*rows: tuple[date, str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": pd.to_datetime([day for day, _, _ in rows]),
            "asset": "btc",
            "ticker": [ticker for _, ticker, _ in rows],
            "net_flow_usd": [dollars for _, _, dollars in rows],
            "is_final": True,
            "source": "sandbox/test",
        }
    )


def whole_day(
    store: duckdb.DuckDBPyConnection, at: datetime, *rows: tuple[date, str, float]
) -> None:
    """Let these be all the flows of their days."""
    frame = flows(*rows).assign(observed_at=at)
    with mock.patch.object(writer, "wall_now", return_value=at):
        slices = frame[["date", "asset"]].drop_duplicates()
        write(store, Batch(frame, whole=slices), Write(ETF_FLOWS, f"run-{at:%d}"))


def flows_at(store: duckdb.DuckDBPyConnection, at: datetime) -> dict[str, float]:
    frame = known_at(store, ETF_FLOWS, at)
    return dict(zip(frame["ticker"], frame["net_flow_usd"], strict=True))


def test_a_row_that_was_taken_back_is_there_before_that(store: duckdb.DuckDBPyConnection) -> None:
    whole_day(store, T[0], (D1, "IBIT", 1.25), (D1, 'F"B', -3.0))
    whole_day(store, T[1], (D1, "IBIT", 1.25))
    assert flows_at(store, T[0]) == {"IBIT": 1.25, 'F"B': -3.0}
    assert flows_at(store, T[1] - MOMENT) == {"IBIT": 1.25, 'F"B': -3.0}
    assert flows_at(store, T[1]) == {"IBIT": 1.25}
    back = known(store, T[0], "date", "asset", "observed_at", "first_final_at", table=ETF_FLOWS)
    assert back == [(pd.Timestamp(D1), "btc", T[0], T[0])] * 2


def test_a_row_that_comes_and_goes_is_there_when_it_was(store: duckdb.DuckDBPyConnection) -> None:
    both, one = [(D1, "IBIT", 1.0), (D1, "FBTC", 2.0)], [(D1, "IBIT", 1.0)]
    for moment, rows in zip(T, (one, both, one, both, one), strict=False):
        whole_day(store, moment, *rows)
    assert [len(flows_at(store, moment)) for moment in T[:6]] == [1, 2, 1, 2, 1, 1]


def test_a_row_that_was_restated_before_it_was_taken_back_has_its_older_value_again(
    store: duckdb.DuckDBPyConnection,
) -> None:
    whole_day(store, T[0], (D1, "IBIT", 1.0), (D1, "FBTC", 2.0))
    whole_day(store, T[1], (D1, "IBIT", 1.0), (D1, "FBTC", 3.0))
    whole_day(store, T[2], (D1, "IBIT", 1.0))
    assert flows_at(store, T[2]) == {"IBIT": 1.0}
    assert flows_at(store, T[1]) == {"IBIT": 1.0, "FBTC": 3.0}
    assert flows_at(store, T[0]) == {"IBIT": 1.0, "FBTC": 2.0}


def test_a_row_that_was_restated_taken_back_and_told_again_is_what_it_was_each_time(
    store: duckdb.DuckDBPyConnection,
) -> None:
    whole_day(store, T[0], (D1, "IBIT", 1.0), (D1, "FBTC", 2.0))
    whole_day(store, T[1], (D1, "IBIT", 1.0))
    whole_day(store, T[2], (D1, "IBIT", 1.0), (D1, "FBTC", 4.0))
    whole_day(store, T[3], (D1, "IBIT", 1.0), (D1, "FBTC", 5.0))
    told = [flows_at(store, moment).get("FBTC") for moment in T[:4]]
    assert told == [2.0, None, 4.0, 5.0]


# Any sequence of writes, against what was noted after each.

CAP = st.fixed_dictionaries(
    {
        "is_final": st.sampled_from([True, True, False]),
        "price_usd": st.sampled_from([1.0, 2.0, 0.1 + 0.2]),
        "market_cap_usd": st.sampled_from([None, 5.0, 6.0]),
        "provider_rank": st.sampled_from([None, 1, 2]),
    }
)
CAP_KEYS = st.tuples(st.sampled_from([D1, D2]), st.sampled_from(["a", HOSTILE]))
CAP_STEPS = st.lists(st.dictionaries(CAP_KEYS, CAP, min_size=1, max_size=4), max_size=6)
VALUES = ("price_usd", "market_cap_usd", "provider_rank")
Model = dict[tuple[Any, ...], dict[str, Any]]


def after(model: Model, step: Model, at: datetime) -> Model:
    """What is stored when a step is written: final stays final, an unchanged row stays."""
    stored = dict(model)
    for key, new in step.items():
        old = stored.get(key)
        values = dict(new)
        if old and values["provider_rank"] is None:
            values["provider_rank"] = old["provider_rank"]
        is_news = values["is_final"] and any(old[n] != values[n] for n in VALUES) if old else True
        if old and old["is_final"] and not is_news:
            continue
        first = old["first"] if old and old["is_final"] else (at if values["is_final"] else None)
        stored[key] = {**values, "first": first, "observed_at": at}
    return stored


def final_rows(model: Model) -> list[tuple[Any, ...]]:
    return sorted(
        (*key, *(row[name] for name in VALUES), row["observed_at"], row["first"])
        for key, row in model.items()
        if row["is_final"]
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(CAP_STEPS)
def test_after_any_writes_each_moment_is_told_as_it_was(
    memory: duckdb.DuckDBPyConnection, steps: list[Model]
) -> None:
    emptied(memory)
    model: Model = {}
    moments: list[tuple[datetime, list[tuple[Any, ...]]]] = [(T[0] - MOMENT, [])]
    for at, step in zip(T, steps, strict=False):
        given_names = list(next(iter(step.values())))
        columns: dict[str, Any] = {n: [row[n] for row in step.values()] for n in given_names}
        columns["provider_rank"] = pd.Series(columns["provider_rank"], dtype="Int64")
        at_time(memory, at, caps(*[(*key, 1.0) for key in step], **columns))
        model = after(model, step, at)
        moments.append((at, final_rows(model)))
        moments.append((at + timedelta(hours=1), final_rows(model)))
    names = ("date", "coin_id", *VALUES, "observed_at", "first_final_at")
    for at, expected in moments:
        found = known(memory, at, *names)
        assert sorted((stamp.date(), *rest) for stamp, *rest in found) == expected


FLOW_STEPS = st.lists(
    st.dictionaries(
        st.sampled_from(["IBIT", "FBTC", 'F"B']), st.sampled_from([1.0, -2.5]), min_size=1
    ),
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(FLOW_STEPS)
def test_after_any_whole_days_each_moment_is_told_as_it_was(
    memory: duckdb.DuckDBPyConnection, steps: list[dict[str, float]]
) -> None:
    emptied(memory)
    for at, step in zip(T, steps, strict=False):
        whole_day(memory, at, *[(D1, ticker, dollars) for ticker, dollars in step.items()])
    for at, step in zip(T, steps, strict=False):
        assert flows_at(memory, at) == step


# As a notebook asks.


@pytest.fixture
def home(warehouse: Warehouse) -> Path:
    """A published home: 1.0 was final on 1 February, 2.0 from the 10th on, 12:00 UTC."""
    warehouse.write(Batch(caps((D1, "a", 1.0), observed_at=T[0])), to())
    noon = datetime(2026, 2, 10, 12)
    warehouse.write(Batch(caps((D1, "a", 2.0), observed_at=noon)), to())
    publish_run(warehouse.home, "run-1")
    return warehouse.home


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    from crypto_assets_tests.warehouse.frames import IDENTITY

    return Warehouse(tmp_path / "warehouse.duckdb", IDENTITY)


CENTRAL = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("at", "price"),
    [
        (datetime(2026, 2, 10, 11, 59), 1.0),
        (datetime(2026, 2, 10, 12), 2.0),
        (datetime(2026, 2, 10, 12, 59, tzinfo=CENTRAL), 1.0),
        (datetime(2026, 2, 10, 13, tzinfo=CENTRAL), 2.0),
        (pd.Timestamp("2026-02-10 12:00", tz="UTC"), 2.0),
        (date(2026, 2, 10), 1.0),
        (date(2026, 2, 11), 2.0),
        ("2026-02-10", 1.0),
        ("2026-02-10T13:00+01:00", 2.0),
    ],
    ids=str,
)
def test_a_time_may_be_given_in_any_common_form(home: Path, at: Any, price: float) -> None:
    assert as_of("market_caps", at, home)["price_usd"].tolist() == [price]


@pytest.mark.parametrize("at", ["rubbish", "2026-13-01", "", None, pd.NaT], ids=repr)
def test_what_is_no_time_is_refused_in_a_sentence(home: Path, at: Any) -> None:
    with pytest.raises(WarehouseError) as refused:
        as_of("market_caps", at, home)
    assert str(refused.value) == f"{at!r} is no time: give one like '2026-03-01 12:00' (UTC)"


def test_it_is_part_of_the_package(home: Path) -> None:
    frame = crypto_assets.as_of("market_caps", date(2026, 2, 2), str(home))
    assert list(frame.columns) == [
        *MARKET_CAPS.content_columns,
        "observed_at",
        "first_final_at",
    ]
    assert frame["first_final_at"].tolist() == [T[0]]
    assert crypto_assets.as_of("market_caps", date(2026, 1, 31), home).empty


def test_only_what_was_published_is_told(home: Path, warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "a", 3.0), observed_at=T[20])), to())
    assert as_of("market_caps", T[27], home)["price_usd"].tolist() == [2.0]


@pytest.mark.parametrize("name", ["ranks", "coin_list", "daily_snapshot", "nothing", HOSTILE, ""])
def test_a_table_without_a_history_is_refused_in_a_sentence(home: Path, name: str) -> None:
    with pytest.raises(WarehouseError) as refused:
        as_of(name, T[0], home)
    told = str(refused.value)
    assert f"'{name}'" in told
    assert "market_caps, ohlc_hourly, ohlc_daily, fear_greed, etf_flows" in told
    assert "\n" not in told


def test_a_home_without_a_publication_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WarehouseError, match="nothing has been published"):
        as_of("market_caps", T[0], tmp_path / "nowhere")
