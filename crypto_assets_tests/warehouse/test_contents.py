"""What is written down of a day follows its content, and nothing else."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets import tables
from crypto_assets.tables import ETF_FLOWS, MARKET_CAPS, OHLC_HOURLY, RANKS, TABLES, Table
from crypto_assets.warehouse import contents
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.io_manager import RANGE_TAGS, WarehouseIOManager
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write, write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, D2, D3, LATER, SEEN, caps, hours, to

Hashes = dict[date, tuple[int, str]]


@pytest.fixture
def store(memory: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    return emptied(memory)


def emptied(memory: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    for table in (*TABLES, "gaps", "restatements", "partitions"):
        memory.execute(f"DELETE FROM {table}")
    return memory


def noted(store: duckdb.DuckDBPyConnection, table: Table = MARKET_CAPS) -> Hashes:
    rows = store.execute(
        "SELECT day, rows_stored, content_hash FROM partitions WHERE table_name = ?", [table.name]
    ).fetchall()
    assert len({day for day, _, _ in rows}) == len(rows), "a day is noted twice"
    return {day: (count, content) for day, count, content in rows}


def found(store: duckdb.DuckDBPyConnection, table: Table = MARKET_CAPS) -> Hashes:
    """The same from the rows themselves."""
    rows = store.execute(contents.by_day_sql(table)).fetchall()
    return {day: (count, content) for day, count, content in rows}


def flows(*rows: tuple[date, str, str, float], **columns: Any) -> pd.DataFrame:
    days, assets, tickers, dollars = zip(*rows, strict=True)
    frame = pd.DataFrame(
        {
            "date": pd.to_datetime(list(days)),
            "asset": assets,
            "ticker": tickers,
            "net_flow_usd": dollars,
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
        }
    )
    return frame.assign(**columns)


def ranks(day: date, *coins: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": pd.Timestamp(day),
            "coin_id": list(coins),
            "market_cap_rank": range(1, len(coins) + 1),
            "market_cap_usd": 5.0,
            "market_share": 0.5,
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/calculated",
        }
    )


# What a hash depends on.


def test_a_hash_does_not_depend_on_the_order_of_rows(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps(*[(D1, f"coin-{n}", 1.0 + n) for n in range(500)])), to())
    before = noted(store)
    for seed in range(3):
        rows = store.execute("SELECT * FROM market_caps").fetchdf()
        shuffled = rows.iloc[random.Random(seed).sample(range(500), 500)]
        store.register("shuffled", shuffled)
        store.execute("DELETE FROM market_caps")
        store.execute("INSERT INTO market_caps BY NAME SELECT * FROM shuffled")
        store.unregister("shuffled")
        assert found(store) == before
    assert before[D1][0] == 500


def test_a_hash_does_not_depend_on_where_rows_came_from(store: duckdb.DuckDBPyConnection) -> None:
    rows = caps((D1, "a", 1.0), (D1, "b", 2.0))
    write(store, Batch(rows), to())
    before = noted(store)
    store.execute("DELETE FROM market_caps")
    other = rows.assign(
        observed_at=LATER, raw_id="r2", source="sandbox/other", is_final=False
    ).iloc[::-1]
    write(store, Batch(other), Write(MARKET_CAPS, "run-2"))
    assert noted(store) == before


@pytest.mark.parametrize(
    "change",
    [
        {"price_usd": [1.0, 2.0000000000000004]},
        {"price_usd": [2.0, 1.0]},
        {"coin_id": ["a", "c"]},
        {"market_cap_usd": [1000.0, None]},
        {"market_cap_usd": [10.0, 1000.0], "volume_24h_usd": [1000.0, 10.0]},
        {"provider_rank": [1, 2]},
        {"is_point_in_time": [True, False]},
        {"circulating_supply": [21.0, 0.0]},
    ],
    ids=str,
)
def test_a_hash_tells_any_changed_value(
    store: duckdb.DuckDBPyConnection, change: dict[str, Any]
) -> None:
    rows = caps((D1, "a", 1.0), (D1, "b", 2.0))
    write(store, Batch(rows), to())
    before = noted(store)[D1]
    emptied(store)
    write(store, Batch(rows.assign(**change)), to())
    after = noted(store)[D1]
    assert after[0] == before[0] == 2
    assert after[1] != before[1]


def test_an_empty_text_is_not_a_missing_one(store: duckdb.DuckDBPyConnection) -> None:
    mood = pd.DataFrame(
        {
            "date": [pd.Timestamp(D1)],
            "value": 50,
            "label": "",
            "band": "neutral",
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
        }
    )
    seen = set()
    for label in ("", "NULL", "\\N", " "):
        write(store, Batch(mood.assign(label=label)), to(tables.FEAR_GREED))
        seen.add(noted(store, tables.FEAR_GREED)[D1][1])
    assert len(seen) == 4


CAP = st.fixed_dictionaries(
    {
        "price_usd": st.sampled_from([1.0, 2.0]),
        "market_cap_usd": st.sampled_from([None, 1.0, 2.0]),
        "volume_24h_usd": st.sampled_from([None, 1.0, 2.0]),
    }
)
DAY = st.dictionaries(st.sampled_from(["a", "b", "c"]), CAP, min_size=1)


def frame_of(day: dict[str, dict[str, Any]], **columns: Any) -> pd.DataFrame:
    names = ("price_usd", "market_cap_usd", "volume_24h_usd")
    values = {name: [row[name] for row in day.values()] for name in names}
    return caps(*[(D1, coin, 1.0) for coin in day], **values, **columns)


@settings(max_examples=30, deadline=None)
@given(DAY, DAY)
def test_two_hashes_are_equal_exactly_if_two_days_are(
    memory: duckdb.DuckDBPyConnection, one: dict[str, Any], other: dict[str, Any]
) -> None:
    hashes = []
    for day, run in ((one, "run-1"), (other, "run-2")):
        emptied(memory)
        write(memory, Batch(frame_of(day, raw_id=run)), Write(MARKET_CAPS, run))
        hashes.append(noted(memory)[D1])
    assert (hashes[0] == hashes[1]) == (one == other)


# With the rows, or not at all.


def test_a_write_notes_its_days_and_leaves_the_others(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), (D2, "a", 1.0), (D2, "b", 1.0))), to())
    before = noted(store)
    assert {day: rows for day, (rows, _) in before.items()} == {D1: 1, D2: 2}
    write(store, Batch(caps((D1, "a", 2.0), (D3, "a", 1.0))), to())
    after = noted(store)
    assert after[D2] == before[D2]
    assert after[D1] != before[D1]
    assert set(after) == {D1, D2, D3}


def test_a_value_that_comes_back_brings_its_hash_back(store: duckdb.DuckDBPyConnection) -> None:
    told = []
    for price in (1.0, 2.0, 1.0):
        write(store, Batch(caps((D1, "a", price))), to())
        told.append(noted(store)[D1][1])
    assert told[0] == told[2] != told[1]


def test_hours_are_noted_under_the_day_they_open_in(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(pd.concat([hours(D1, [0, 23]), hours(D2, [0])])), to(OHLC_HOURLY))
    assert {d: rows for d, (rows, _) in noted(store, OHLC_HOURLY).items()} == {D1: 2, D2: 1}


def test_a_calculated_day_that_has_no_rows_any_more_is_no_longer_noted(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(pd.concat([ranks(D1, "a"), ranks(D2, "a")])), to(RANKS, D1, D2))
    write(store, Batch(ranks(D1, "a", "b")), to(RANKS, D1, D2))
    assert {d: rows for d, (rows, _) in noted(store, RANKS).items()} == {D1: 2}
    assert noted(store, RANKS) == found(store, RANKS)


def test_rows_that_are_removed_as_gone_are_no_longer_noted(
    store: duckdb.DuckDBPyConnection,
) -> None:
    """The days of a whole slice count, also those of which no row came again."""
    both = [(D1, "btc", "IBIT", 1.0), (D2, "btc", "IBIT", 1.0), (D2, "btc", "FBTC", 1.0)]
    write(store, Batch(flows(*both)), to(ETF_FLOWS))
    slices = pd.DataFrame({"date": pd.to_datetime([D1, D2]), "asset": "btc"})
    write(store, Batch(flows((D2, "btc", "IBIT", 1.0)), whole=slices), to(ETF_FLOWS))
    assert store.execute("SELECT date, ticker FROM etf_flows").fetchall() == [(D2, "IBIT")]
    assert noted(store, ETF_FLOWS) == found(store, ETF_FLOWS)
    write(store, Batch(flows((D1, "btc", "IBIT", 1.0)), whole=slices), to(ETF_FLOWS))
    assert store.execute("SELECT date, ticker FROM etf_flows").fetchall() == [(D1, "IBIT")]
    assert noted(store, ETF_FLOWS) == found(store, ETF_FLOWS)


def test_a_refused_write_changes_neither_rows_nor_hashes(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0))), to())
    before = noted(store), frames.everything(store, "market_caps")
    with pytest.raises(ContractViolationError):
        write(store, Batch(caps((D1, "a", 2.0), (D2, "a", -1.0))), to())
    assert (noted(store), frames.everything(store, "market_caps")) == before


class FailsAt:
    """A connection whose n-th statement is never sent: an exception comes instead."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, number: int) -> None:
        self._connection, self._left = connection, number
        self.failed_on = ""

    def execute(self, sql: str, *parameters: Any) -> Any:
        self._left -= 1
        if self._left == 0:
            self.failed_on = sql
            raise KeyboardInterrupt
        return self._connection.execute(sql, *parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_rows_and_hashes_are_written_together_wherever_a_write_is_interrupted(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(caps((D1, "a", 1.0))), to())
    before = noted(store), frames.everything(store, "market_caps")
    failed_on = []
    for number in range(2, 100):
        failing = FailsAt(store, number)
        try:
            changed = Batch(caps((D1, "a", 2.0), (D2, "a", 3.0)))
            write(cast(duckdb.DuckDBPyConnection, failing), changed, to())
            break
        except KeyboardInterrupt:
            failed_on.append(failing.failed_on)
        state = noted(store), frames.everything(store, "market_caps")
        assert state == before, failing.failed_on
    assert any("INSERT INTO partitions" in sql for sql in failed_on)
    assert noted(store) == found(store)
    assert frames.prices(store) == {(D1, "a"): 2.0, (D2, "a"): 3.0}


def test_a_killed_write_leaves_rows_and_hashes_of_one_moment(
    warehouse: Warehouse, start: Start
) -> None:
    child = start("""
for generation in range(10**6):
    say(generation)
    rows = frames.caps(*[(frames.D1, f'coin-{n}', float(generation + 1)) for n in range(500)])
    warehouse.write(Batch(rows), frames.to())
""")
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    child.kill()
    child.wait()
    with warehouse.session("test") as connection:
        assert noted(connection) == found(connection)
        assert noted(connection)[D1][0] == 500


STEP = st.dictionaries(
    st.tuples(st.sampled_from([D1, D2, D3]), st.sampled_from(["a", "b"])),
    st.tuples(st.sampled_from([1.0, 2.0]), st.booleans()),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=4))
def test_after_any_writes_what_is_noted_is_what_is_there(
    memory: duckdb.DuckDBPyConnection, steps: list[dict[tuple[date, str], tuple[float, bool]]]
) -> None:
    emptied(memory)
    for step in steps:
        rows = caps(
            *[(day, coin, price) for (day, coin), (price, _) in step.items()],
            is_final=[is_final for _, is_final in step.values()],
        )
        write(memory, Batch(rows), to())
        assert noted(memory) == found(memory)
    counted = memory.execute("SELECT date, count(*) FROM market_caps GROUP BY 1").fetchall()
    assert {day: rows for day, (rows, _) in noted(memory).items()} == dict(counted)


MORE = st.dictionaries(
    st.tuples(st.sampled_from([D1, D2]), st.sampled_from("abcdefgh")),
    st.sampled_from([1.0, 2.0]),
    min_size=1,
    max_size=4,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(MORE, min_size=1, max_size=4))
def test_few_rows_that_come_to_full_days_are_noted_with_those_that_are_there(
    memory: duckdb.DuckDBPyConnection, steps: list[dict[tuple[date, str], float]]
) -> None:
    emptied(memory)
    stored = [(day, coin, 1.0) for day in (D1, D2) for coin in "abcdefvwxyz"]
    write(memory, Batch(caps(*stored)), to())
    for step in steps:
        write(memory, Batch(caps(*[(*key, price) for key, price in step.items()])), to())
        assert noted(memory) == found(memory)


def test_rows_that_come_to_a_day_hashed_by_another_version_have_it_hashed_anew(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(caps(*[(D1, coin, 1.0) for coin in "abc"])), to())
    store.execute("UPDATE partitions SET content_hash = 'duckdb-v0.0.1:abc'")
    write(store, Batch(caps((D1, "d", 1.0))), to())
    assert noted(store) == found(store)


def test_rows_that_come_to_a_day_do_not_hide_that_something_else_changed_it(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(caps(*[(D1, coin, 1.0) for coin in "abc"])), to())
    store.execute("UPDATE market_caps SET price_usd = 7 WHERE coin_id = 'a'")
    write(store, Batch(caps((D1, "d", 1.0))), to())
    assert noted(store) != found(store)


def test_all_days_can_be_noted_anew(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), (D2, "a", 1.0))), to())
    before = noted(store)
    store.execute("UPDATE partitions SET rows_stored = 7, content_hash = 'x'")
    store.execute("INSERT INTO partitions VALUES ('market_caps', '2026-01-09', 1, 'x')")
    contents.record_all(store, MARKET_CAPS)
    assert noted(store) == before


# Told with the materialization.


def define(name: str, rows: Callable[[], pd.DataFrame]) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.asset(
            name=name,
            partitions_def=dg.DailyPartitionsDefinition("2026-01-01"),
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def made() -> pd.DataFrame:
            return rows()

    return made


class Told:
    """A home whose `market_caps` is materialized; what Dagster was told of each day."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.path, self.instance = path, instance

    def run(self, rows: pd.DataFrame, first: date, last: date) -> None:
        manager = WarehouseIOManager(
            database=str(self.path),
            is_sandbox=True,
            history_start="2026-01-01",
            large_megabytes=500,
            minutes_between=5.0,
        )
        dg.materialize(
            [define("market_caps", lambda: rows)],
            instance=self.instance,
            resources={"io_manager": manager},
            tags=dict(zip(RANGE_TAGS, map(str, (first, last)), strict=True)),
        )

    def hash_of(self, day: date) -> object:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("market_caps"), asset_partitions=[str(day)]), limit=1
        ).records
        assert records[0].asset_materialization is not None
        return records[0].asset_materialization.metadata["content_hash"].value


@pytest.fixture
def told(warehouse: Warehouse) -> Iterator[Told]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Told(warehouse.path, instance)


def test_each_day_of_a_run_carries_the_hash_of_its_rows(told: Told, warehouse: Warehouse) -> None:
    told.run(caps((D1, "a", 1.0), (D2, "a", 2.0)), D1, D3)
    with warehouse.session("test") as connection:
        stored = found(connection)
    assert told.hash_of(D1) == stored[D1][1]
    assert told.hash_of(D2) == stored[D2][1]
    assert told.hash_of(D1) != told.hash_of(D2)
    assert told.hash_of(D3) == "no rows"


def test_a_later_run_tells_new_hashes_of_changed_days_only(told: Told) -> None:
    told.run(caps((D1, "a", 1.0), (D2, "a", 2.0), (D3, "a", 3.0)), D1, D3)
    before = {day: told.hash_of(day) for day in (D1, D2, D3)}
    told.run(
        caps(
            (
                D1,
                "a",
                1.0,
            ),
            (D2, "a", 9.0),
            observed_at=LATER,
        ),
        D1,
        D2,
    )
    assert told.hash_of(D1) == before[D1]
    assert told.hash_of(D2) != before[D2]
    assert told.hash_of(D3) == before[D3]


def test_two_homes_with_the_same_content_tell_the_same_hash(told: Told, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Told(tmp_path / "other" / "warehouse.duckdb", told.instance)
    rows = caps((D1, "a", 1.0), (D1, "b", 2.0))
    told.run(rows, D1, D1)
    first = told.hash_of(D1)
    other.run(caps((D1, "b", 2.0)), D1, D1)
    assert told.hash_of(D1) != first
    other.run(rows.iloc[::-1].assign(observed_at=datetime(2026, 5, 1), raw_id="z"), D1, D1)
    assert told.hash_of(D1) == first
