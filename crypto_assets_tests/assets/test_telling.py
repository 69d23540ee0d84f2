"""What the Dagster UI shows of a materialization: figures, a picture, where columns come from."""

import base64
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from PIL import Image

from crypto_assets.assets.lineage import COLUMN_INPUTS
from crypto_assets.definitions import build_definitions
from crypto_assets.plots import PLOTS, Plot
from crypto_assets.sandbox import Market
from crypto_assets.settings import validated
from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
FIRST, LAST = TODAY - timedelta(days=6), TODAY - timedelta(days=1)
PLOTTED = {"ranks", "ema_signals", "ohlc_hourly", "ohlc_daily", "fear_greed", "etf_flows"}
LARGEST_PLOT = 24 * 1024


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Lab]:
    """A home after one run of everything."""
    with open_lab(tmp_path_factory.mktemp("filled"), market) as made:
        assert made.run(list(TABLES), FIRST, LAST).succeeded
        yield made


@pytest.fixture
def lab(tmp_path: Path, filled: Lab, market: Market) -> Iterator[Lab]:
    home = shutil.copytree(filled.home, tmp_path / "home", symlinks=True)
    with open_lab(home, market) as opened:
        yield opened


def told(lab: Lab, table: str, day: date | None = None) -> Mapping[str, Any]:
    """The metadata of the newest materialization of a table, or of one of its days."""
    partitions = [str(day)] if day else None
    found = lab.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(table), asset_partitions=partitions), limit=1
    )
    event = found.records[0].asset_materialization
    assert event is not None
    return {name: entry.value for name, entry in event.metadata.items()}


def test_each_tells_how_long_it_took_and_what_it_cost(filled: Lab) -> None:
    found = {table: told(filled, table) for table in TABLES}
    assert all(of_one["duration_seconds"] > 0 for of_one in found.values())
    calls = {table: of_one["calls"] for table, of_one in found.items()}
    assert sum(calls.values()) == filled.server.stats()["total"]
    # A history of ten coins each; whoever comes first asks for the coins there are.
    histories = ("market_caps", "ohlc_daily", "ohlc_hourly")
    assert sorted(calls.pop(table) for table in histories) == [10, 10, 11]
    calculated = {"ranks": 0, "ema_signals": 0, "daily_snapshot": 0}
    assert calls == {"coin_list": 1, "fear_greed": 1, "etf_flows": 3, **calculated}
    # The other providers count no credits.
    for table in TABLES:
        free = table in ("fear_greed", "etf_flows")
        assert found[table]["credits"] == (0 if free else found[table]["calls"])


def test_each_tells_its_days_and_coins(filled: Lab) -> None:
    listed = filled.sql("SELECT count(*) FROM coin_list").squeeze()
    trading_days = [FIRST + timedelta(days=n) for n in range(6)]
    trading_days = [day for day in trading_days if day.isoweekday() <= 5]
    expected = {
        "coin_list": (None, listed),
        "fear_greed": (6, None),
        "etf_flows": (len(trading_days), 3),
    }
    for table in TABLES:
        found = told(filled, table)
        assert (found.get("days_stored"), found.get("coins")) == expected.get(table, (6, 10)), table


def test_each_day_of_a_range_tells_the_figures_of_the_run(filled: Lab) -> None:
    for table in set(TABLES) - {"coin_list"}:
        assert told(filled, table, FIRST)["calls"] == told(filled, table, LAST)["calls"]


def test_nothing_is_missing_of_a_whole_range(filled: Lab) -> None:
    shares = {table: told(filled, table).get("missing_share") for table in TABLES}
    assert shares.pop("coin_list") is None
    assert set(shares.values()) == {0}


def test_the_share_that_is_missing_is_told_of_fetched_and_calculated_tables(
    tmp_path: Path, market: Market
) -> None:
    allowed = {"max_missing_share": 0.5, "retry_budget_seconds": 0}
    with open_lab(tmp_path, market, fetch=allowed) as lab:
        gone = {"kind": "status", "code": 500, "match": {"coin_id": "bitcoin"}}
        lab.server.faults.add(gone)
        assert lab.run(["market_caps", "ranks"], FIRST, LAST).succeeded
        # One of ten coins on each of the days.
        assert told(lab, "market_caps")["missing_share"] == pytest.approx(0.1)
        assert told(lab, "ranks")["missing_share"] == pytest.approx(0.1)
        assert told(lab, "market_caps")["coins"] == 9


def picture(metadata: Mapping[str, Any]) -> bytes:
    pattern = r"!\[[\w ,.&]{20,}\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)"
    found = re.fullmatch(pattern, metadata["plot"])
    assert found
    return base64.b64decode(found[1])


def test_what_is_better_looked_at_has_a_small_picture(filled: Lab) -> None:
    for table in TABLES:
        found = told(filled, table, LAST if TABLES[table].time_column else None)
        # Ranks of the first week have moved from nowhere.
        assert ("plot" in found) == (table in PLOTTED - {"ranks"}), table
        if "plot" not in found:
            continue
        drawn = picture(found)
        assert len(drawn) < LARGEST_PLOT
        with Image.open(BytesIO(drawn)) as image:
            assert image.format == "PNG"
            assert 400 <= image.width <= 900


def test_a_range_has_one_picture(filled: Lab) -> None:
    for table in PLOTTED:
        assert "plot" not in told(filled, table, FIRST)


def test_a_picture_that_cannot_be_drawn_fails_no_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise ValueError("no such font")

    monkeypatch.setattr(Plot, "draw", broken)
    assert lab.run(["fear_greed"], FIRST, LAST).succeeded
    assert told(lab, "fear_greed", LAST)["plot"] == "could not be drawn: no such font"
    assert told(lab, "fear_greed")["dagster/row_count"] == 6


def test_a_picture_whose_rows_cannot_be_read_fails_no_run(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = replace(PLOTS["fear_greed"], sql="FROM no_such_table WHERE date <= $last")
    monkeypatch.setitem(PLOTS, "fear_greed", unreadable)  # type: ignore[arg-type]
    assert lab.run(["fear_greed"], FIRST, LAST).succeeded
    assert "no_such_table" in told(lab, "fear_greed", LAST)["plot"]


# Where columns come from.


def test_every_column_of_a_calculated_table_has_its_lineage() -> None:
    derived = {name: table for name, table in TABLES.items() if table.derived}
    assert COLUMN_INPUTS.keys() == derived.keys()
    graph = build_definitions(validated({"history": {"start": "2026-01-01"}}))
    assets = graph.resolve_asset_graph()
    for name, columns in COLUMN_INPUTS.items():
        assert set(columns) == set(derived[name].content_columns)
        upstream = {key.to_user_string() for key in assets.get(dg.AssetKey(name)).parent_keys}
        for source in {source for sources in columns.values() for source in sources}:
            table, column = source.split(".")
            assert table in upstream
            assert TABLES[table].column(column)


def test_lineage_is_told_with_the_materialization(filled: Lab) -> None:
    for table in TABLES:
        found = told(filled, table, LAST if TABLES[table].time_column else None)
        lineage = found.get("dagster/column_lineage")
        assert (lineage is not None) == TABLES[table].derived
    of_snapshot = told(filled, "daily_snapshot", LAST)["dagster/column_lineage"]
    (source,) = of_snapshot.deps_by_column["close_usd"]
    assert (source.asset_key.path, source.column_name) == (["market_caps"], "price_usd")
