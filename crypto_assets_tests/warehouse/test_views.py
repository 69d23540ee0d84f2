"""What the views and macros tell, against what is worked out from the rows one by one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import crypto_assets
from crypto_assets.sandbox import Market
from crypto_assets.tables import COIN_OF_ETF_ASSET
from crypto_assets.warehouse.backups import backup, restore
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets.warehouse.views import MACROS, VIEWS
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.lab import NOON
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.frames import D1, caps

START = date(2026, 1, 1)
SEEN = datetime(2026, 6, 1)
COINS = ("ape", "bee", 'it\'s "c"')
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Closes = dict[tuple[date, str], tuple[float, bool]]
"""Price and whether it is final, by day and coin."""


def day(number: int) -> date:
    return START + timedelta(days=number)


@st.composite
def closes(draw: st.DrawFn, days: int = 100) -> Closes:
    """Prices of some days of three coins, most of them final: histories have holes."""
    near = (0, 1, 2, 6, 7, 8, 29, 30, 31, 89, 90, 91, days - 1)
    numbers = st.sampled_from(near) | st.integers(0, days - 1)
    keys = st.tuples(numbers.map(day), st.sampled_from(COINS))
    told = st.tuples(st.floats(0.01, 1e5), st.booleans() | st.just(True))
    return draw(st.dictionaries(keys, told, min_size=1, max_size=60))


def put(
    connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Let a table hold these rows and no others."""
    connection.execute(f"DELETE FROM {table}")
    if not rows:
        return
    frame = pd.DataFrame(rows).assign(source="sandbox/test", run_id="r", materialized_at=SEEN)
    if table != "coin_list":
        frame["observed_at"] = SEEN
    connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM frame")


def put_closes(connection: duckdb.DuckDBPyConnection, told: Closes) -> None:
    put(
        connection,
        "market_caps",
        [
            {
                "date": when,
                "coin_id": coin,
                "price_usd": price,
                "market_cap_usd": price * 10,
                "volume_24h_usd": price * 3,
                "is_final": is_final,
                "is_point_in_time": coin == "ape",
            }
            for (when, coin), (price, is_final) in told.items()
        ],
    )


def rows_of(
    connection: duckdb.DuckDBPyConnection, query: str, *values: Any
) -> list[dict[str, Any]]:
    cursor = connection.execute(query, list(values))
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def change(told: Closes, when: date, coin: str, days: int) -> float | None:
    """Price over the final close exactly so many days before, less 1."""
    before = told.get((when - timedelta(days=days), coin))
    return told[when, coin][0] / before[0] - 1 if before and before[1] else None


def same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-12)


# Values


@quick
@given(closes())
def test_returns_are_against_the_close_of_exactly_that_many_days_before(
    memory: duckdb.DuckDBPyConnection, told: Closes
) -> None:
    put_closes(memory, told)
    found = rows_of(memory, "FROM returns")
    assert sorted((row["date"], row["coin_id"]) for row in found) == sorted(told)
    for row in found:
        key = (row["date"], row["coin_id"])
        assert (row["close_usd"], row["is_final"]) == told[key]
        for days in (1, 7, 30, 90):
            assert same(row[f"return_{days}d"], change(told, *key, days)), (key, days)
        daily = change(told, *key, 1)
        assert same(row["log_return_1d"], None if daily is None else math.log(1 + daily))
        assert row["is_point_in_time"] == (row["coin_id"] == "ape")


@quick
@given(closes(), st.integers(1, 99))
def test_returns_over_any_days(memory: duckdb.DuckDBPyConnection, told: Closes, days: int) -> None:
    put_closes(memory, told)
    found = rows_of(memory, f"FROM returns_over({days})")
    assert sorted((row["date"], row["coin_id"]) for row in found) == sorted(told)
    for row in found:
        assert same(row["return"], change(told, row["date"], row["coin_id"], days))


@quick
@given(closes(), st.lists(st.sampled_from((*COINS, "nobody")), min_size=1, unique=True))
def test_wide_closes_hold_the_final_closes_a_coin_a_column(
    memory: duckdb.DuckDBPyConnection, told: Closes, coins: list[str]
) -> None:
    put_closes(memory, told)
    names = ", ".join("'" + coin.replace("'", "''") + "'" for coin in coins)
    found = rows_of(memory, f"FROM wide_closes([{names}])")
    final = {key: price for key, (price, is_final) in told.items() if is_final}
    expected = [
        {"date": when, **{coin: final.get((when, coin)) for coin in coins}}
        for when in sorted({when for when, _ in final})
    ]
    assert found == expected
    assert all(list(row) == ["date", *coins] for row in found)


def expected_market(told: Closes, when: date, trends: Mapping[str, list[Any]]) -> dict[str, Any]:
    """The rows of a day by coin: what the day's rows say and what days before make of it."""
    return {
        coin: {
            "price_usd": price,
            "market_cap_usd": price * 10,
            "volume_24h_usd": price * 3,
            "is_final": is_final,
            "change_24h": change(told, when, coin, 1),
            "change_7d": change(told, when, coin, 7),
            "change_30d": change(told, when, coin, 30),
            "trend": trend_of(trends.get(coin, [])),
        }
        for (of, coin), (price, is_final) in told.items()
        if of == when
    }


def trend_of(pairs: list[tuple[float | None, bool]]) -> float | None:
    warm = [math.tanh(z) for z, is_warm in pairs if is_warm and z is not None]
    return sum(warm) / len(warm) if warm else None


zs = st.tuples(st.none() | st.floats(-5, 5), st.booleans())


@settings(quick, max_examples=15)
@given(closes(), st.dictionaries(st.sampled_from(COINS), st.lists(zs, max_size=3)), st.data())
def test_the_market_of_a_day_is_what_the_tables_say_of_it(
    memory: duckdb.DuckDBPyConnection,
    told: Closes,
    trends: dict[str, list[tuple[float | None, bool]]],
    data: st.DataObject,
) -> None:
    put_closes(memory, told)
    newest = max(when for when, _ in told)
    when = data.draw(st.sampled_from(sorted({when for when, _ in told})))
    # Of the day itself, and of one that is not asked for.
    put(
        memory,
        "ema_signals",
        [
            signal(of, coin, pair, is_warm=is_warm, trend_z=z if of == when else 9.0)
            for coin, pairs in trends.items()
            for pair, (z, is_warm) in enumerate(pairs)
            for of in (when, when - timedelta(days=1))
        ],
    )
    ranked = [coin for of, coin in told if of == when][:2]
    put(
        memory,
        "ranks",
        [
            {
                "date": when,
                "coin_id": coin,
                "market_cap_rank": place + 1,
                "market_cap_usd": 1.0,
                "market_share": 0.5,
                "rank_change_7d": 3 - place,
                "is_point_in_time": True,
                "is_final": True,
            }
            for place, coin in enumerate(ranked)
        ],
    )
    put(memory, "coin_list", [listed(coin) for coin in COINS[:2]])
    found = rows_of(memory, f"FROM market_on('{when}')")
    expected = expected_market(told, when, trends)
    assert {row["coin_id"] for row in found} == set(expected)
    assert len(found) == len(expected)
    # Largest first, those without a rank last.
    places = [row["market_cap_rank"] for row in found]
    assert places == [*range(1, len(ranked) + 1), *[None] * (len(found) - len(ranked))]
    for row in found:
        coin = row["coin_id"]
        assert row["date"] == when
        for name, value in expected[coin].items():
            assert same(row[name], value), (coin, name)
        is_listed = coin in COINS[:2]
        assert (row["symbol"], row["name"]) == (
            (coin[:3], coin.title()) if is_listed else (None, None)
        )
        place = ranked.index(coin) if coin in ranked else None
        assert row["market_share"] == (None if place is None else 0.5)
        assert row["rank_change_7d"] == (None if place is None else 3 - place)
    latest = rows_of(memory, "FROM latest_market")
    assert latest == rows_of(memory, f"FROM market_on('{newest}')")
    assert {row["date"] for row in latest} == {newest}


def listed(coin: str) -> dict[str, Any]:
    return {
        "coin_id": coin,
        "symbol": coin[:3],
        "name": coin.title(),
        "is_active": True,
        "first_seen_at": SEEN,
        "last_seen_at": SEEN,
    }


def signal(when: date, coin: str, pair: int, **told: Any) -> dict[str, Any]:
    return {
        "date": when,
        "coin_id": coin,
        "fast_span": 2 + pair,
        "slow_span": 10 + pair,
        "price_usd": 1.0,
        "ema_fast": 1.5,
        "ema_slow": 1.25,
        "strength": 0.2,
        "trend_z": 0.5,
        "state": 1,
        "event": None,
        "is_warm": True,
        "is_final": True,
        **told,
    }


events = st.lists(
    st.tuples(st.sampled_from((None, 0, 0, 0, 1, -1)), st.floats(0.5, 100), st.booleans()),
    min_size=1,
    max_size=12,
)


@quick
@given(st.dictionaries(st.sampled_from(COINS), events, min_size=1), st.booleans())
def test_current_signals_count_from_the_last_cross_before_the_newest_close(
    memory: duckdb.DuckDBPyConnection,
    told: dict[str, list[tuple[int | None, float, bool]]],
    has_running_day: bool,
) -> None:
    last = 20
    # Histories end together, on the last closed day.
    history = {
        coin: {day(last - len(rows) + 1 + n): row for n, row in enumerate(rows)}
        for coin, rows in told.items()
    }
    signals = [
        signal(when, coin, 0, event=event, price_usd=price, is_warm=is_warm)
        for coin, rows in history.items()
        for when, (event, price, is_warm) in rows.items()
    ]
    finals: Closes = {(when, coin): (1.0, True) for coin, rows in history.items() for when in rows}
    if has_running_day:
        # A cross of the running day is none yet, whatever it would be called.
        signals += [signal(day(last + 1), coin, 0, event=-1, is_final=False) for coin in told]
        finals |= {(day(last + 1), coin): (1.0, False) for coin in told}
    put(memory, "ema_signals", signals)
    put(memory, "coin_list", [listed(coin) for coin in COINS[:1]])
    put_closes(memory, finals)
    found = rows_of(memory, "FROM current_signals")
    assert {row["coin_id"] for row in found} == set(told)
    assert len(found) == len(told)
    for row in found:
        rows = history[row["coin_id"]]
        price = rows[day(last)][1]
        crossed = [when for when, (event, _, is_warm) in rows.items() if event and is_warm]
        assert (row["date"], row["price_usd"], row["state"]) == (day(last), price, 1)
        assert row["symbol"] == ("ape" if row["coin_id"] == "ape" else None)
        assert row["crossed_on"] == (max(crossed) if crossed else None)
        assert row["days_since_cross"] == ((day(last) - max(crossed)).days if crossed else None)
        since = price / rows[max(crossed)][1] - 1 if crossed else None
        assert same(row["return_since_cross"], since)
    days = [row["days_since_cross"] for row in found]
    assert days == sorted(days, key=lambda n: (n is None, n))


def test_a_coin_whose_close_is_not_final_yet_has_no_current_signal(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    put(memory, "ema_signals", [signal(day(3), "ape", 0), signal(day(3), "bee", 0)])
    put_closes(memory, {(day(3), "ape"): (1.0, True), (day(3), "bee"): (1.0, False)})
    assert [row["coin_id"] for row in rows_of(memory, "FROM current_signals")] == ["ape"]


reports = st.dictionaries(
    st.tuples(st.integers(0, 60), st.sampled_from(("btc", "eth", "sol")), st.sampled_from("XYZ")),
    st.tuples(st.integers(-(10**9), 10**9), st.booleans()),
    min_size=1,
    max_size=120,
)


@quick
@given(reports)
def test_etf_flows_are_summed_over_the_trading_days_of_their_asset(
    memory: duckdb.DuckDBPyConnection, told: dict[tuple[int, str, str], tuple[int, bool]]
) -> None:
    put(
        memory,
        "etf_flows",
        [
            {
                "date": day(n),
                "asset": asset,
                "ticker": ticker,
                "net_flow_usd": float(flow),
                "is_final": is_final,
            }
            for (n, asset, ticker), (flow, is_final) in told.items()
        ],
    )
    found = rows_of(memory, "FROM etf_flow_summary")
    assert [(row["date"], row["asset"]) for row in found] == sorted(
        {(day(n), asset) for n, asset, _ in told}
    )
    for row in found:
        asset = row["asset"]
        of = dict.fromkeys(
            sorted({n for n, a, _ in told if a == asset and day(n) <= row["date"]}), 0
        )
        for (n, a, _), (flow, _) in told.items():
            if a == asset and n in of:
                of[n] += flow
        sums = list(of.values())
        today = [
            is_final
            for (n, a, _), (_, is_final) in told.items()
            if (day(n), a) == (row["date"], asset)
        ]
        assert row["coin_id"] == COIN_OF_ETF_ASSET[asset]
        assert row["net_flow_usd"] == sums[-1]
        assert row["net_flow_5d_usd"] == (sum(sums[-5:]) if len(sums) >= 5 else None)
        assert row["net_flow_20d_usd"] == (sum(sums[-20:]) if len(sums) >= 20 else None)
        assert row["cumulative_flow_usd"] == sum(sums)
        assert (row["funds_reported"], row["is_final"]) == (len(today), all(today))


def test_the_last_closed_day_is_not_the_running_one(memory: duckdb.DuckDBPyConnection) -> None:
    put_closes(memory, {(day(1), "ape"): (1.0, True), (day(2), "ape"): (1.0, False)})
    assert memory.execute("SELECT last_closed_day()").fetchone() == (day(1),)
    assert len(rows_of(memory, "FROM market_on(last_closed_day())")) == 1


def test_a_filled_home_tells_the_markets_own_prices_and_returns(
    week_home: Path, market: Market
) -> None:
    yesterday = NOON.date() - timedelta(days=1)
    with crypto_assets.connect(week_home) as connection:
        found = rows_of(connection, "FROM returns WHERE date = last_closed_day()")
        latest = rows_of(connection, "FROM latest_market")
    assert len(found) == len(latest) == 5
    for row in found:
        truth = market.daily(row["coin_id"], yesterday - timedelta(days=7), yesterday)["price_usd"]
        assert same(row["close_usd"], truth.iloc[-1])
        assert same(row["return_7d"], truth.iloc[-1] / truth.iloc[0] - 1)
        assert row["return_30d"] is None
    assert {(row["date"], row["is_final"]) for row in latest} == {(NOON.date(), False)}
    for row in latest:
        close = {one["coin_id"]: one["close_usd"] for one in found}[row["coin_id"]]
        assert same(row["change_24h"], row["price_usd"] / close - 1)


# What the file says of them


def test_every_view_has_the_columns_types_and_comments_it_is_declared_with(
    memory: duckdb.DuckDBPyConnection,
) -> None:
    for view in VIEWS.values():
        found = memory.execute(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            "WHERE table_name = ? ORDER BY column_index",
            [view.name],
        ).fetchall()
        assert found == [(c.name, c.type, c.documentation) for c in view.columns]
        assert all(comment for _, _, comment in found)
        told = memory.execute(
            "SELECT comment FROM duckdb_views() WHERE view_name = ?", [view.name]
        ).fetchone()
        assert told == (view.row,)


def test_every_macro_is_described_and_its_example_runs(memory: duckdb.DuckDBPyConnection) -> None:
    found = {
        name: (parameters, comment)
        for name, parameters, comment in memory.execute(
            "SELECT function_name, parameters, comment FROM duckdb_functions() "
            "WHERE database_name = current_database()"
        ).fetchall()
    }
    for macro in MACROS.values():
        parameters, comment = found[macro.name]
        assert tuple(parameters) == macro.parameters
        assert macro.description in comment
        assert macro.example in comment
        memory.execute(macro.example).fetchall()


# Homes that an older program made


def defined(path: Path) -> dict[str, str]:
    with duckdb.connect(str(path), read_only=True) as connection:
        return dict(
            connection.execute(
                "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal UNION ALL "
                "SELECT function_name, macro_definition FROM duckdb_functions() "
                "WHERE database_name = current_database()"
            ).fetchall()
        )


def test_an_older_home_gets_the_views_and_its_next_publication_has_them(
    warehouse: Warehouse, empty: Path
) -> None:
    warehouse.write(Batch(caps((D1, "ape", 2.0))), frames.to())
    with duckdb.connect(str(warehouse.path)) as connection:
        for view in VIEWS:
            connection.execute(f"DROP VIEW {view}")
        for macro in MACROS.values():
            connection.execute(f"DROP MACRO {'TABLE ' * macro.is_table}{macro.name}")
        connection.execute("DROP MACRO crypto_assets_views")
    assert warehouse.query("SELECT price_usd FROM latest_market")["price_usd"].tolist() == [2.0]
    assert defined(warehouse.path) == defined(empty)
    publish_run(warehouse.home, "run-1")
    with crypto_assets.connect(warehouse.home) as reader:
        found = reader.execute("SELECT coin_id, ape FROM latest_market, wide_closes(['ape'])")
        assert found.fetchall() == [("ape", 2.0)]


def test_a_view_somebody_dropped_comes_back(warehouse: Warehouse, empty: Path) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("DROP VIEW returns")
    warehouse.query("SELECT 1")
    assert defined(warehouse.path) == defined(empty)


def test_a_changed_view_and_a_changed_macro_reach_homes_that_have_the_old_ones(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = replace(VIEWS["returns"], sql="SELECT 7 AS date", columns=VIEWS["returns"].columns[:1])
    macro = replace(MACROS["last_closed_day"], sql="42")
    monkeypatch.setitem(VIEWS, "returns", view)
    monkeypatch.setitem(MACROS, "last_closed_day", macro)
    found = warehouse.query("SELECT date, last_closed_day() AS day FROM returns")
    assert found.to_numpy().tolist() == [[7, 42]]


def test_a_session_that_finds_all_as_it_should_be_writes_nothing(warehouse: Warehouse) -> None:
    warehouse.query("SELECT 1")
    before = warehouse.path.stat()
    warehouse.query("SELECT 1")
    after = warehouse.path.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)


def test_a_table_that_has_the_name_of_a_view_is_named_and_kept(warehouse: Warehouse) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("DROP VIEW returns")
        connection.execute("CREATE TABLE returns AS SELECT 5 AS mine")
        connection.execute("DROP MACRO crypto_assets_views")
    with pytest.raises(WarehouseError, match=r"can't make the views .*returns.*rename"):
        warehouse.query("SELECT 1")
    with duckdb.connect(str(warehouse.path)) as connection:
        assert connection.execute("FROM returns").fetchall() == [(5,)]


def test_a_restored_backup_has_them_all(warehouse: Warehouse, empty: Path, tmp_path: Path) -> None:
    warehouse.write(Batch(caps((D1, "ape", 2.0))), frames.to())
    publish_run(warehouse.home, "run-1")
    place, manifest = backup(warehouse.home, tmp_path / "backups")
    assert not {*VIEWS, "coverage"} & manifest.tables.keys()
    restored = tmp_path / "new" / FILE_NAME
    restore(str(place), restored)
    assert defined(restored) == defined(empty)
