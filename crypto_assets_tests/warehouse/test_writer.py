"""No row is lost, doubled, half-written or silently altered by a write."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, cast

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets import tables
from crypto_assets.tables import Table
from crypto_assets.warehouse import writer
from crypto_assets.warehouse.errors import ContractViolationError
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write, WriteReport, write
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, D2, D3, LATER, SEEN, candles, caps, hours, to

Values = dict[str, Any]
Rows = dict[tuple[date, str], Values]


@pytest.fixture
def store(memory: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    for table in (*tables.TABLES, "gaps", "restatements"):
        memory.execute(f"DELETE FROM {table}")
    return memory


def one(store: duckdb.DuckDBPyConnection, sql: str) -> Any:
    rows = store.execute(sql).fetchall()
    assert len(rows) == 1, rows
    return rows[0]


# What the stock I/O manager loses.


def test_a_reordered_frame_keeps_its_columns(store: duckdb.DuckDBPyConnection) -> None:
    frame = caps((D1, "bitcoin", 42.0), market_cap_usd=7.0, volume_24h_usd=3.0)
    write(store, Batch(frame[sorted(frame.columns, reverse=True)]), to())
    assert one(
        store, "SELECT coin_id, price_usd, market_cap_usd, volume_24h_usd, raw_id FROM market_caps"
    ) == ("bitcoin", 42.0, 7.0, 3.0, "r1")


def test_a_column_that_was_only_null_keeps_its_type(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), market_cap_usd=None, raw_id=None)), to())
    write(store, Batch(caps((D2, "a", 1.0), market_cap_usd=0.25, raw_id="r9")), to())
    assert store.execute(
        "SELECT market_cap_usd, typeof(market_cap_usd), raw_id FROM market_caps ORDER BY date"
    ).fetchall() == [(None, "DOUBLE", None), (0.25, "DOUBLE", "r9")]


def test_an_empty_frame_empties_nothing(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0))), to())
    for empty in (pd.DataFrame(), caps()):
        report = write(store, Batch(empty), to(first=D1))
        assert report == WriteReport()
    assert frames.prices(store) == {(D1, "a"): 1.0}


def test_a_coin_that_got_no_answer_keeps_its_row(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), (D1, "b", 2.0), (D2, "a", 3.0))), to())
    write(store, Batch(caps((D1, "a", 10.0))), to(first=D1))
    assert frames.prices(store) == {(D1, "a"): 10.0, (D1, "b"): 2.0, (D2, "a"): 3.0}


def test_an_hour_is_replaced_and_the_other_hours_stay(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(hours(D1, [0, 1, 23])), to(tables.OHLC_HOURLY))
    write(store, Batch(hours(D1, [1], close=8.5)), to(tables.OHLC_HOURLY, D1))
    stored = store.execute("SELECT hour(open_time), close FROM ohlc_hourly ORDER BY 1").fetchall()
    assert stored == [(0, 3.0), (1, 8.5), (23, 5.3)]


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
            "source": "calculated",
        }
    )


def test_a_calculated_day_is_replaced_as_a_whole(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(pd.concat([ranks(D1, "a", "b"), ranks(D2, "a", "b")])), to(tables.RANKS))
    write(store, Batch(ranks(D1, "c")), to(tables.RANKS))
    assert store.execute("SELECT date, coin_id FROM ranks ORDER BY ALL").fetchall() == [
        (D1, "c"),
        (D2, "a"),
        (D2, "b"),
    ]
    assert store.execute("SELECT * FROM restatements").fetchall() == []


def coin_list(*coins: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "coin_id": list(coins),
            "symbol": "",
            "name": "n",
            "is_active": True,
            "first_seen_at": pd.Timestamp(SEEN),
            "last_seen_at": pd.Timestamp(SEEN),
            "source": "sandbox/test",
        }
    )


def test_the_list_of_coins_never_shrinks(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(coin_list("bitcoin", "ether")), to(tables.COIN_LIST))
    write(store, Batch(coin_list("bitcoin", "solana")), to(tables.COIN_LIST))
    stored = store.execute("SELECT coin_id FROM coin_list ORDER BY 1").fetchall()
    assert stored == [("bitcoin",), ("ether",), ("solana",)]


# Which of two rows of one key is better.


def test_a_final_row_is_never_replaced_by_one_that_is_not(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(caps((D1, "a", 1.0))), to())
    report = write(store, Batch(caps((D1, "a", 2.0), is_final=False, observed_at=LATER)), to())
    assert one(store, "SELECT price_usd, is_final, observed_at FROM market_caps") == (
        1.0,
        True,
        SEEN,
    )
    assert (report.received, report.changed, report.restated) == (1, 0, 0)


def test_a_final_exact_candle_is_never_replaced_by_an_approximate_one(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, Batch(candles((D1, "a", 1.0))), to(tables.OHLC_DAILY))
    write(store, Batch(candles((D1, "a", 2.0), exactness="approximate")), to(tables.OHLC_DAILY))
    assert one(store, "SELECT close, exactness FROM ohlc_daily") == (1.0, "exact")


def test_a_null_never_overwrites_what_another_route_knew(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0))), to())
    healed = caps((D1, "a", 2.0), circulating_supply=None, provider_rank=None, market_cap_usd=None)
    write(store, Batch(healed), to())
    assert one(
        store,
        "SELECT price_usd, circulating_supply, provider_rank, market_cap_usd FROM market_caps",
    ) == (2.0, 21.0, 1, None)


def test_rows_that_say_the_same_keep_when_they_were_written(
    store: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = datetime.fromisoformat("2026-03-01"), datetime.fromisoformat("2026-03-02")
    monkeypatch.setattr(writer, "wall_now", lambda: first)
    write(store, Batch(caps((D1, "a", 1.0), (D1, "b", 1.0))), to())
    monkeypatch.setattr(writer, "wall_now", lambda: second)
    again = caps((D1, "a", 1.0), (D1, "b", 9.0), observed_at=LATER, raw_id="r2")
    report = write(store, Batch(again), Write(tables.MARKET_CAPS, "run-2"))
    assert (report.received, report.changed) == (2, 1)
    assert store.execute(
        "SELECT coin_id, materialized_at, observed_at, run_id, raw_id FROM market_caps ORDER BY 1"
    ).fetchall() == [("a", first, SEEN, "run-1", "r1"), ("b", second, LATER, "run-2", "r2")]


def test_a_forming_row_tells_when_it_was_last_seen(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), is_final=False)), to())
    write(store, Batch(caps((D1, "a", 1.0), is_final=False, observed_at=LATER)), to())
    assert one(store, "SELECT observed_at FROM market_caps") == (LATER,)


@pytest.mark.parametrize("order", [(SEEN, LATER), (LATER, SEEN)], ids=["in order", "overtaken"])
@pytest.mark.parametrize("is_final", [True, False], ids=["final", "provisional"])
def test_of_two_runs_the_one_that_observed_later_wins(
    store: duckdb.DuckDBPyConnection, order: tuple[datetime, datetime], is_final: bool
) -> None:
    value = {SEEN: 1.0, LATER: 2.0}
    for moment in order:
        seen = {"is_final": is_final, "observed_at": moment}
        write(store, Batch(caps((D1, "a", value[moment]), **seen)), to())
        write(store, Batch(candles((D1, "a", value[moment]), **seen)), to(tables.OHLC_DAILY))
    assert one(store, "SELECT price_usd, observed_at FROM market_caps") == (2.0, LATER)
    assert one(store, "SELECT close, observed_at FROM ohlc_daily") == (2.0, LATER)
    restated = len(store.execute("FROM restatements").fetchall())
    assert restated == (2 if is_final and order == (SEEN, LATER) else 0)


@pytest.mark.parametrize("is_final", [True, False], ids=["final", "provisional"])
def test_a_row_from_a_time_to_come_is_replaced_by_one_observed_now(
    store: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch, is_final: bool
) -> None:
    ahead, now = datetime(2026, 6, 1), datetime(2026, 3, 1)
    monkeypatch.setattr(writer, "wall_now", lambda: ahead)
    write(store, Batch(caps((D1, "a", 1.0), is_final=is_final, observed_at=ahead)), to())
    monkeypatch.setattr(writer, "wall_now", lambda: now)
    report = write(store, Batch(caps((D1, "a", 2.0), is_final=is_final, observed_at=now)), to())
    assert one(store, "SELECT price_usd, observed_at FROM market_caps") == (2.0, now)
    assert report.changed == 1


# Rows that are gone.


def test_calculated_days_without_rows_lose_what_they_had(store: duckdb.DuckDBPyConnection) -> None:
    store.execute("DELETE FROM partitions")
    four = date(2026, 1, 8)
    write(store, Batch(caps((D2, "a", 1.0))), to())
    write(
        store,
        Batch(pd.concat([ranks(day, "a", "b") for day in (D1, D2, D3, four)])),
        to(tables.RANKS),
    )
    report = write(store, Batch(ranks(D1).head(0)), to(tables.RANKS, D2, D3))
    assert report == WriteReport()
    assert store.execute("SELECT date, coin_id FROM ranks ORDER BY ALL").fetchall() == [
        (D1, "a"),
        (D1, "b"),
        (four, "a"),
        (four, "b"),
    ]
    assert store.execute(
        "SELECT table_name, day, rows_stored FROM partitions ORDER BY ALL"
    ).fetchall() == [("market_caps", D2, 1), ("ranks", D1, 2), ("ranks", four, 2)]


def flows(observed_at: datetime, *tickers: str) -> Batch:
    """All flows of a day, as they were observed at a time."""
    rows = pd.DataFrame(
        {
            "date": pd.Timestamp(D1),
            "asset": "btc",
            "ticker": list(tickers),
            "net_flow_usd": 5.0,
            "is_final": True,
            "observed_at": pd.Timestamp(observed_at),
            "source": "sandbox/test",
        }
    )
    return Batch(rows, whole=rows[["date", "asset"]].drop_duplicates())


def tickers(store: duckdb.DuckDBPyConnection) -> list[str]:
    return [row[0] for row in store.execute("SELECT ticker FROM etf_flows ORDER BY 1").fetchall()]


def test_what_is_gone_is_told_slice_by_slice(store: duckdb.DuckDBPyConnection) -> None:
    latest = datetime(2026, 2, 3)

    def both(btc_at: datetime, eth_at: datetime) -> Batch:
        """IBIT without FBTC, and a fund of ether that was seen at another time."""
        rows = pd.concat(
            [flows(btc_at, "IBIT").rows, flows(eth_at, "ETHA").rows.assign(asset="eth")]
        )
        return Batch(rows, whole=rows[["date", "asset"]])

    write(store, flows(LATER, "FBTC", "IBIT"), to(tables.ETF_FLOWS))
    assert write(store, both(SEEN, latest), to(tables.ETF_FLOWS)).restated == 0
    assert tickers(store) == ["ETHA", "FBTC", "IBIT"]
    assert write(store, both(latest, LATER), to(tables.ETF_FLOWS)).restated == 1
    assert tickers(store) == ["ETHA", "IBIT"]
    assert store.execute(
        "SELECT json_extract_string(key, 'ticker'), old_observed_at, new_observed_at "
        "FROM restatements"
    ).fetchall() == [("FBTC", LATER, latest)]


def test_a_row_of_a_whole_slice_that_another_run_saw_later_is_not_gone(
    store: duckdb.DuckDBPyConnection,
) -> None:
    write(store, flows(LATER, "FBTC", "IBIT"), to(tables.ETF_FLOWS))
    report = write(store, flows(SEEN, "IBIT"), to(tables.ETF_FLOWS))
    assert tickers(store) == ["FBTC", "IBIT"]
    assert report.restated == 0
    assert store.execute("FROM restatements").fetchall() == []
    write(store, flows(datetime(2026, 2, 3), "IBIT"), to(tables.ETF_FLOWS))
    assert tickers(store) == ["IBIT"]


def test_a_row_of_a_whole_slice_from_a_time_to_come_is_gone_when_it_does_not_come_again(
    store: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead, now = datetime(2026, 6, 1), datetime(2026, 3, 1)
    monkeypatch.setattr(writer, "wall_now", lambda: ahead)
    write(store, flows(ahead, "FBTC", "IBIT"), to(tables.ETF_FLOWS))
    monkeypatch.setattr(writer, "wall_now", lambda: now)
    write(store, flows(now, "IBIT"), to(tables.ETF_FLOWS))
    assert tickers(store) == ["IBIT"]


# Restatements.


def test_a_changed_final_value_is_logged_with_both_values(
    store: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.fromisoformat("2026-03-02 12:00")
    write(store, Batch(caps((D1, "a", 1.5), (D2, "a", 4.0))), to())
    monkeypatch.setattr(writer, "wall_now", lambda: now)
    changed = caps((D1, "a", 2.5), (D2, "a", 4.0), provider_rank=[3, 1], observed_at=LATER)
    report = write(store, Batch(changed), Write(tables.MARKET_CAPS, "run-2"))
    assert report.restated == 2
    key = '{"date":"2026-01-05","coin_id":"a"}'
    assert store.execute("SELECT * FROM restatements ORDER BY column_name").fetchall() == [
        ("market_caps", D1, key, name, *values, SEEN, LATER, "run-2", now)
        for name, values in (("price_usd", ("1.5", "2.5")), ("provider_rank", ("1", "3")))
    ]


@pytest.mark.parametrize(
    ("stored", "then"),
    [
        (candles((D1, "a", 2.0)), candles((D1, "a", 2.0), observed_at=LATER)),
        (candles((D1, "a", 2.0)), candles((D1, "a", 2.0 * (1 + 1e-12)), observed_at=LATER)),
        (candles((D1, "a", 2.0), exactness="approximate"), candles((D1, "a", 3.0))),
        (candles((D1, "a", 2.0), is_final=False), candles((D1, "a", 3.0))),
        (candles((D1, "a", 2.0)), candles((D1, "a", 3.0), is_final=False)),
        (candles((D1, "a", 2.0)), candles((D1, "b", 3.0))),
        (candles((D1, "a", 2.0)), candles((D2, "a", 3.0))),
    ],
    ids=["unchanged", "noise", "better", "forming", "worse", "other-coin", "other-day"],
)
def test_what_is_no_restatement(
    store: duckdb.DuckDBPyConnection, stored: pd.DataFrame, then: pd.DataFrame
) -> None:
    write(store, Batch(stored), to(tables.OHLC_DAILY))
    assert write(store, Batch(then), to(tables.OHLC_DAILY)).restated == 0
    assert store.execute("SELECT * FROM restatements").fetchall() == []


def test_noise_does_not_make_later_days_stale(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 2.0))), to())
    before = frames.everything(store, "market_caps")
    report = write(store, Batch(caps((D1, "a", 2.0 * (1 + 1e-12)))), to())
    assert report.changed == 0
    assert frames.everything(store, "market_caps") == before


def test_a_value_that_was_null_or_becomes_it_is_a_restatement(
    store: duckdb.DuckDBPyConnection,
) -> None:
    for cap in (None, 5.0, None):
        write(store, Batch(caps((D1, "a", 1.0), market_cap_usd=cap)), to())
    logged = store.execute("SELECT old_value, new_value FROM restatements").fetchall()
    assert sorted(logged, key=str) == [("5.0", None), (None, "5.0")]


# Any sequence of batches, against a dict of key -> row.

KEYS = st.tuples(st.sampled_from([D1, D2]), st.sampled_from(["a", "x'); DROP TABLE t;--"]))
SHARED = {
    "is_final": st.booleans(),
    "observed_at": st.sampled_from([SEEN, LATER]),
    "raw_id": st.sampled_from(["r1", "r2"]),
}
MARKET = st.fixed_dictionaries(
    {
        **SHARED,
        "price_usd": st.sampled_from([1.0, 2.0]),
        "market_cap_usd": st.sampled_from([None, 5.0]),
        "circulating_supply": st.sampled_from([None, 21.0, 22.0]),
        "provider_rank": st.sampled_from([None, 1, 2]),
    }
)
CANDLE = st.fixed_dictionaries(
    {
        **SHARED,
        "close": st.sampled_from([1.0, 2.0]),
        "exactness": st.sampled_from(["exact", "approximate"]),
    }
)
KEPT = ("circulating_supply", "provider_rank")
PROVENANCE = tuple(SHARED)


def better(old: Values | None, new: Values) -> Values:
    """Which row is stored when `new` comes to `old`."""
    if old is None:
        return new
    new = {**new, **{c: old[c] for c in KEPT if c in new and new[c] is None}}
    if old["is_final"] and not new["is_final"]:
        return old
    if old["is_final"] and (old.get("exactness"), new.get("exactness")) == ("exact", "approximate"):
        return old
    alike = all(old.get(c) == new.get(c) for c in ("is_final", "exactness"))
    if alike and new["observed_at"] < old["observed_at"]:
        return old
    same = all(old[c] == new[c] for c in new if c not in PROVENANCE)
    seen_alike = old["is_final"] or old["observed_at"] == new["observed_at"]
    if same and old["is_final"] == new["is_final"] and seen_alike:
        return old
    return new


def restated(old: Values | None, new: Values) -> set[tuple[str, str, str]]:
    if old is None or not old["is_final"] or old.get("exactness") != new.get("exactness"):
        return set()
    return {
        (c, str(old[c]), str(new[c]))
        for c in new
        if c not in PROVENANCE and c != "exactness" and old[c] != new[c]
    }


def frame_of(rows: Rows, make: Callable[..., pd.DataFrame]) -> pd.DataFrame:
    names = list(next(iter(rows.values()))) if rows else []
    columns = {name: [values[name] for values in rows.values()] for name in names}
    whole = {"provider_rank": "Int64"}
    series = {n: pd.Series(v, dtype=cast(Any, whole.get(n))) for n, v in columns.items()}
    return make(*[(day, coin, 1.0) for day, coin in rows], **series)


def check_against_model(
    store: duckdb.DuckDBPyConnection,
    table: Table,
    make: Callable[..., pd.DataFrame],
    batches: list[Rows],
) -> None:
    store.execute(f"DELETE FROM {table.name}")
    store.execute("DELETE FROM restatements")
    model: Rows = {}
    logged: list[tuple[str, ...]] = []
    for rows in batches:
        report = write(store, Batch(frame_of(rows, make)), Write(table, "run-1"))
        now = []
        for key, new in rows.items():
            old = model.get(key)
            model[key] = better(old, new)
            if model[key] is not old:
                now += [(key[1], *change) for change in restated(old, model[key])]
        logged += now
        assert report.restated == len(now)
    if not any(batches):
        return
    names = list(next(iter(row for rows in batches for row in rows.values())))
    stored = store.execute(f"SELECT date, coin_id, {', '.join(names)} FROM {table.name}").fetchall()
    assert sorted(stored, key=str) == sorted(
        ((*key, *(row[name] for name in names)) for key, row in model.items()), key=str
    )
    found = store.execute(
        "SELECT key, column_name, old_value, new_value FROM restatements"
    ).fetchall()
    assert sorted((json.loads(k)["coin_id"], c, str(o), str(n)) for k, c, o, n in found) == sorted(
        logged
    )


def some(values: st.SearchStrategy[Values]) -> st.SearchStrategy[list[Rows]]:
    return st.lists(st.dictionaries(KEYS, values, max_size=4), max_size=5)


@settings(max_examples=20, deadline=None)
@given(some(MARKET))
def test_any_market_caps_end_as_the_rules_say(
    memory: duckdb.DuckDBPyConnection, batches: list[Rows]
) -> None:
    check_against_model(memory, tables.MARKET_CAPS, caps, batches)


@settings(max_examples=20, deadline=None)
@given(some(CANDLE))
def test_any_candles_end_as_the_rules_say(
    memory: duckdb.DuckDBPyConnection, batches: list[Rows]
) -> None:
    check_against_model(memory, tables.OHLC_DAILY, candles, batches)


# Reports and gaps.


def test_a_report_counts_what_came_changed_and_is_stored(store: duckdb.DuckDBPyConnection) -> None:
    write(store, Batch(caps((D1, "a", 1.0), (D2, "a", 1.0), (D3, "a", 1.0))), to())
    report = write(
        store, Batch(caps((D1, "a", 2.0), (D1, "b", 1.0), (D2, "a", 1.0))), to(first=D1, last=D2)
    )
    assert report == WriteReport(received=3, changed=2, restated=1)


def ranked(rows: dict[tuple[date, str], tuple[float, float]]) -> pd.DataFrame:
    keys = list(rows)
    return pd.DataFrame(
        {
            "date": pd.to_datetime([day for day, _ in keys]),
            "coin_id": pd.Categorical([coin for _, coin in keys]),
            "market_cap_rank": range(1, len(keys) + 1),
            "market_cap_usd": [cap for cap, _ in rows.values()],
            "market_share": [share for _, share in rows.values()],
            "is_point_in_time": True,
            "is_final": True,
            "observed_at": pd.Timestamp(SEEN),
            "source": "sandbox/calculated",
        }
    ).assign(market_cap_rank=1)


RANKED = st.dictionaries(
    st.tuples(st.sampled_from([D1, D2, D3]), st.sampled_from("abc")),
    st.tuples(st.sampled_from([1.0, 1.0 + 1e-12, 2.0]), st.sampled_from([0.25, 0.5])),
    min_size=1,
)


@settings(max_examples=30, deadline=None)
@given(RANKED, RANKED)
def test_calculated_rows_count_as_changed_where_more_than_noise_differs(
    memory: duckdb.DuckDBPyConnection,
    before: dict[tuple[date, str], tuple[float, float]],
    after: dict[tuple[date, str], tuple[float, float]],
) -> None:
    for name in ("ranks", "partitions"):
        memory.execute(f"DELETE FROM {name}")
    write(memory, Batch(ranked(before)), to(tables.RANKS))
    stored = {key: value for key, value in before.items() if key[0] not in {k[0] for k in after}}
    report = write(memory, Batch(ranked(after)), to(tables.RANKS))
    alike = [
        key
        for key, (cap, share) in after.items()
        if key in before and round(before[key][0], 9) == round(cap, 9) and before[key][1] == share
    ]
    assert report.changed == len(after) - len(alike)
    rows = memory.execute("SELECT date, coin_id, market_cap_usd, market_share FROM ranks")
    assert {(day, coin): (cap, share) for day, coin, cap, share in rows.fetchall()} == (
        stored | after
    )


KEYS = st.lists(
    st.tuples(st.sampled_from([D1, D2]), st.sampled_from(["b", "a", "c"])), min_size=1, max_size=6
)


@settings(max_examples=40, deadline=None)
@given(KEYS, st.booleans(), st.booleans())
def test_a_doubled_key_is_refused_however_the_rows_are_ordered_and_held(
    memory: duckdb.DuckDBPyConnection,
    keys: list[tuple[date, str]],
    are_sorted: bool,
    are_categories: bool,
) -> None:
    for name in ("ranks", "partitions"):
        memory.execute(f"DELETE FROM {name}")
    rows = pd.concat([ranked({key: (1.0, 0.5)}) for key in keys]).astype({"coin_id": object})
    if are_sorted:
        rows = rows.sort_values(["date", "coin_id"])
    if are_categories:
        # In an order that is not the alphabet's.
        rows["coin_id"] = pd.Categorical(rows["coin_id"], categories=["c", "unused", "a", "b"])
    if len(set(keys)) < len(keys):
        with pytest.raises(ContractViolationError, match="is unique"):
            write(memory, Batch(rows), to(tables.RANKS))
        return
    write(memory, Batch(rows), to(tables.RANKS))
    found = memory.execute("SELECT date, coin_id FROM ranks").fetchall()
    assert sorted(found) == sorted(keys)


def test_reports_of_several_writes_add_up() -> None:
    report = WriteReport(received=2, changed=3, restated=4)
    report.add(WriteReport(received=20, changed=30, restated=40))
    assert report == WriteReport(received=22, changed=33, restated=44)


def test_gaps_are_recorded_with_the_rows_or_not_at_all(store: duckdb.DuckDBPyConnection) -> None:
    found = Inspection({"a": [D1], "b": [D1]}, [Gap("b", D1, "missing", "HTTP 500")])
    with pytest.raises(ContractViolationError):
        write(store, Batch(caps((D1, "a", -1.0)), found), to())
    assert store.execute("SELECT * FROM gaps").fetchall() == []
    write(store, Batch(caps((D1, "a", 1.0)), found), to())
    write(
        store, Batch(pd.DataFrame(), Inspection({"a": [D2]}, [Gap("a", D2, "missing", "x")])), to()
    )
    assert store.execute(
        "SELECT table_name, series, first_day FROM gaps ORDER BY 2"
    ).fetchall() == [
        ("market_caps", "a", D2),
        ("market_caps", "b", D1),
    ]


HOSTILE = [
    "x'); DROP TABLE market_caps;--",
    '"; SELECT 1; --',
    "../../etc/passwd",
    "?x=1&y=%2F",
    "\u202eniocltib\u202c",
    "💰 ñ ﷽ 	tab\nline",
    "=cmd()|' /C calc'!A0",
    "$1 ? {name}",
    "y" * 10_000,
]


def test_hostile_ids_come_back_as_they_went(store: duckdb.DuckDBPyConnection) -> None:
    rows = caps(*[(D1, text, 1.0) for text in HOSTILE], raw_id=HOSTILE, source=HOSTILE)
    found = Inspection({t: [D2] for t in HOSTILE}, [Gap(t, D2, "missing", t) for t in HOSTILE])
    hostile = Write(tables.MARKET_CAPS, HOSTILE[0])
    write(store, Batch(rows, found), hostile)
    write(store, Batch(rows.assign(price_usd=2.0)), hostile)
    stored = store.execute("SELECT coin_id, raw_id, source, price_usd FROM market_caps").fetchall()
    assert sorted(stored) == sorted((text, text, text, 2.0) for text in HOSTILE)
    gaps = store.execute("SELECT series, reason FROM gaps").fetchall()
    assert sorted(gaps) == sorted((text, text) for text in HOSTILE)
    logged = store.execute("SELECT key, run_id FROM restatements").fetchall()
    assert sorted(json.loads(key)["coin_id"] for key, _ in logged) == sorted(HOSTILE)
    assert {run for _, run in logged} == {HOSTILE[0]}


# A crash anywhere.


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


def test_an_interruption_before_any_statement_leaves_everything_as_before(
    store: duckdb.DuckDBPyConnection,
) -> None:
    names = ("market_caps", "gaps", "restatements")
    write(store, Batch(caps((D1, "a", 1.0), (D1, "b", 1.0))), to())
    before = [frames.everything(store, name) for name in names]
    changed = Batch(
        caps((D1, "a", 2.0)), Inspection({"c": [D1]}, [Gap("c", D1, "missing", "HTTP 500")])
    )
    failed_on = []
    for number in range(1, 100):
        failing = FailsAt(store, number)
        try:
            write(cast(duckdb.DuckDBPyConnection, failing), changed, to())
            break
        except KeyboardInterrupt:
            failed_on.append(failing.failed_on)
        if failing.failed_on == "BEGIN":
            continue
        assert [frames.everything(store, name) for name in names] == before, failing.failed_on
    for statement in ('DELETE FROM "market_caps"', 'INSERT INTO "market_caps"', "COMMIT"):
        assert any(sql.startswith(statement) for sql in failed_on), statement
    assert frames.prices(store) == {(D1, "a"): 2.0, (D1, "b"): 1.0}


GENERATIONS = """
coins = [f'coin-{{n}}' for n in range(2000)]
for generation in range({first}, 10**6):
    say(generation)
    rows = frames.caps(*[(frames.D1, coin, float(generation)) for coin in coins])
    warehouse.write(Batch(rows), frames.to())
"""


@pytest.mark.slow
def test_a_killed_write_leaves_the_table_as_before_or_after(
    warehouse: Warehouse, start: Start
) -> None:
    moments = random.Random(14)
    first = 1
    for _ in range(3):
        child = start(GENERATIONS.format(first=first))
        assert child.stdout is not None
        for _ in range(2):
            child.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=moments.uniform(0.0, 0.15))
        child.kill()
        begun = max(map(int, child.stdout.read().split()), default=first + 1)
        with warehouse.session("test") as connection:
            found = connection.execute(
                "SELECT price_usd, count(*), count(DISTINCT coin_id) FROM market_caps GROUP BY 1"
            ).fetchall()
        assert found in ([(begun - 1.0, 2000, 2000)], [(float(begun), 2000, 2000)])
        first = begun + 1


@pytest.mark.slow
def test_a_full_disk_leaves_the_table_as_before(warehouse: Warehouse, start: Start) -> None:
    warehouse.write(Batch(caps((D1, "a", 1.0))), to())
    child = start("""
import resource
limit = warehouse.path.stat().st_size + 100_000
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
coins = [(frames.D1, f'coin {n * 7919 % 99991}', 1 / (n + 1)) for n in range(50_000)]
rows = frames.caps(*coins)
try:
    warehouse.write(Batch(rows), frames.to())
except Exception as error:
    say(error)
""")
    out, err = child.communicate()
    assert err == ""
    assert "File too large" in out
    with warehouse.session("test") as connection:
        assert frames.prices(connection) == {(D1, "a"): 1.0}
