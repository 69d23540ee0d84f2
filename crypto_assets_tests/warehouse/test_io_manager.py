"""Through Dagster: what the stock manager loses, what the UI shows, what a run publishes."""

import os
import warnings
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from crypto_assets.warehouse.errors import ContractViolationError, WarehouseError
from crypto_assets.warehouse.io_manager import RANGE_TAGS, READ_AT, WarehouseIOManager
from crypto_assets.warehouse.publishing import read_state
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Batches
from crypto_assets_tests.warehouse import frames
from crypto_assets_tests.warehouse.conftest import Start
from crypto_assets_tests.warehouse.frames import D1, D2, D3, caps

PARTITIONS = dg.DailyPartitionsDefinition("2026-01-01")
Run = Callable[..., dg.ExecuteInProcessResult]


def asset(returns: Any, name: str = "market_caps", **options: Any) -> dg.AssetsDefinition:
    """A partitioned asset that returns this, or what this returns for its days."""

    def make(context: dg.AssetExecutionContext) -> Any:
        window = context.partition_time_window
        days = window.start.date(), window.end.date() - timedelta(days=1)
        return returns(*days) if callable(returns) else returns

    return define(make, name, **options)


def define(make: Callable[..., Any], name: str, **options: Any) -> dg.AssetsDefinition:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.asset(
            name=name,
            partitions_def=PARTITIONS,
            backfill_policy=dg.BackfillPolicy.single_run(),
            **options,
        )(make)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def run(warehouse: Warehouse, instance: dg.DagsterInstance) -> Run:
    """Materializes with the real manager on [first, last]; one day as one partition."""

    def materialize(
        *assets: Any, first: date | None = D1, last: date | None = None, **options: Any
    ) -> dg.ExecuteInProcessResult:
        manager = WarehouseIOManager(
            database=str(warehouse.path), is_sandbox=True, history_start="2026-01-01"
        )
        if first and last:
            options["tags"] = dict(zip(RANGE_TAGS, map(str, (first, last)), strict=True))
        elif first:
            options["partition_key"] = str(first)
        options = {"instance": instance, "resources": {"io_manager": manager}, **options}
        return dg.materialize(list(assets), **options)

    return materialize


def stored(warehouse: Warehouse) -> dict[tuple[date, str], float]:
    with warehouse.session("test") as connection:
        return frames.prices(connection)


def published(home: Path) -> dict[tuple[date, str], float]:
    with connect(home) as connection:
        return frames.prices(connection)


def metadata(instance: dg.DagsterInstance, name: str, day: date | None = None) -> dict[str, Any]:
    keys = [str(day)] if day else None
    found = instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey(name), asset_partitions=keys), limit=1
    ).records
    assert found[0].asset_materialization is not None
    return {key: m.value for key, m in found[0].asset_materialization.metadata.items()}


# Writing.


def test_one_run_writes_a_range_of_days(warehouse: Warehouse, run: Run) -> None:
    run(asset(lambda *days: caps(*[(day, "a", 2.0) for day in days])), first=D1, last=D2)
    assert stored(warehouse) == {(D1, "a"): 2.0, (D2, "a"): 2.0}


def test_a_reordered_frame_keeps_its_columns(warehouse: Warehouse, run: Run) -> None:
    frame = caps((D1, "a", 42.0), market_cap_usd=7.0)
    run(asset(frame[sorted(frame.columns)]))
    rows = warehouse.query("SELECT price_usd, market_cap_usd FROM market_caps")
    assert rows.to_numpy().tolist() == [[42.0, 7.0]]


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(ath=1.0),
        lambda frame: frame.assign(provider_rank=1.5),
        lambda frame: frame.assign(observed_at=pd.Timestamp("2026-01-05", tz="UTC")),
        lambda frame: frame.assign(date=pd.Timestamp("2026-01-06")),
    ],
    ids=["unknown column", "float for integer", "aware time", "other day"],
)
def test_a_refused_frame_fails_its_step_and_the_old_slice_stays(
    warehouse: Warehouse, run: Run, change: Callable[[pd.DataFrame], pd.DataFrame]
) -> None:
    run(asset(caps((D1, "a", 1.0))))
    before = warehouse.path.read_bytes()
    with pytest.raises(ContractViolationError, match="refused to write market_caps"):
        run(asset(change(caps((D1, "a", 2.0)))))
    assert warehouse.path.read_bytes() == before


def test_an_empty_first_frame_makes_the_table_and_empties_nothing_later(
    warehouse: Warehouse, run: Run
) -> None:
    warehouse.path.unlink()
    run(asset(pd.DataFrame()))
    assert stored(warehouse) == {}
    run(asset(caps((D1, "a", 1.0))))
    run(asset(pd.DataFrame()))
    assert stored(warehouse) == {(D1, "a"): 1.0}


def test_batches_are_transactions_of_their_own(warehouse: Warehouse, run: Run) -> None:
    def parts() -> Iterator[Batch]:
        yield Batch(caps((D1, "a", 1.0)))
        yield Batch(caps((D2, "a", 1.0)))
        raise ConnectionError("the provider went away")

    with pytest.raises(ConnectionError):
        run(asset(lambda *_: Batches(parts())), first=D1, last=D3)
    assert stored(warehouse) == {(D1, "a"): 1.0, (D2, "a"): 1.0}


def test_a_write_that_fails_ends_whoever_makes_the_parts(warehouse: Warehouse, run: Run) -> None:
    told: list[str] = []

    def parts() -> Iterator[Batch]:
        try:
            yield Batch(caps((D1, "a", 1.0)))
            yield Batch(caps((D2, "a", 1.0)).assign(ath=1.0))
            told.append("asked for more")
        finally:
            told.append("closed")

    generator = parts()
    with pytest.raises(ContractViolationError, match="refused to write market_caps"):
        run(asset(lambda *_: Batches(generator)), first=D1, last=D3)
    # Told by the failed write, not by the generator being thrown away at last.
    assert told == ["closed"]
    assert list(generator) == []
    assert stored(warehouse) == {(D1, "a"): 1.0}


def test_what_is_no_frame_is_refused(run: Run) -> None:
    with pytest.raises(TypeError, match="a frame, Batch or Batches, not list"):
        run(asset([1, 2]))


def test_a_materialize_result_is_as_good_as_its_frame(warehouse: Warehouse, run: Run) -> None:
    run(asset(lambda *_: dg.MaterializeResult(value=Batch(caps((D1, "a", 1.0))))))
    assert stored(warehouse) == {(D1, "a"): 1.0}


def test_a_warehouse_of_another_kind_fails_the_run(run: Run, home: Path) -> None:
    run(asset(caps((D1, "a", 1.0))))
    live = WarehouseIOManager(
        database=str(home / "warehouse.duckdb"), is_sandbox=False, history_start="2026-01-01"
    )
    with pytest.raises(WarehouseError, match="holds sandbox data"):
        run(asset(caps((D1, "a", 2.0))), resources={"io_manager": live})
    assert published(home) == {(D1, "a"): 1.0}


@pytest.mark.slow
def test_a_run_in_a_process_outside_utc_writes_and_loads_its_day(
    warehouse: Warehouse, start: Start
) -> None:
    child = start(
        """
import dagster as dg
from crypto_assets.warehouse.io_manager import WarehouseIOManager
days = dg.DailyPartitionsDefinition('2026-01-01')
@dg.asset(partitions_def=days)
def ohlc_hourly():
    return frames.hours(frames.D1, range(24))
@dg.asset(partitions_def=days)
def fear_greed(ohlc_hourly):
    say(f"{len(ohlc_hourly)} {ohlc_hourly.open_time.min()} {ohlc_hourly.open_time.max()}")
    return frames.pd.DataFrame()
manager = WarehouseIOManager(
    database=str(warehouse.path), is_sandbox=True, history_start='2026-01-01')
with dg.DagsterInstance.ephemeral() as instance:
    dg.materialize([ohlc_hourly, fear_greed], partition_key='2026-01-05', instance=instance,
        resources={'io_manager': manager})
""",
        env={**os.environ, "TZ": "Asia/Tokyo"},
    )
    out, _ = child.communicate()
    assert out == "24 2026-01-05 00:00:00 2026-01-05 23:00:00\n"
    assert child.returncode == 0


# What the UI shows.


def test_a_range_run_tells_the_rows_of_each_day(run: Run, instance: dg.DagsterInstance) -> None:
    rows = caps((D1, "a", 1.0), (D1, "b", 1.0), (D2, "a", 1.0))
    run(asset(rows), first=D1, last=D3)
    assert [
        metadata(instance, "market_caps", day)["dagster/partition_row_count"]
        for day in (D1, D2, D3)
    ] == [2, 1, 0]
    told = metadata(instance, "market_caps")
    assert told["dagster/row_count"] == 3
    assert (told["rows_received"], told["rows_changed"], told["rows_restated"]) == (3, 3, 0)


def test_a_run_with_nothing_new_still_counts_what_is_stored(
    run: Run, instance: dg.DagsterInstance
) -> None:
    run(asset(caps((D1, "a", 1.0), (D2, "a", 1.0))), first=D1, last=D2)
    run(asset(Batches(())), first=D1, last=D2)
    told = metadata(instance, "market_caps", D1)
    assert (told["dagster/row_count"], told["dagster/partition_row_count"]) == (2, 1)
    assert (told["rows_received"], told["rows_changed"]) == (0, 0)


def test_restated_rows_are_counted_for_the_run(run: Run, instance: dg.DagsterInstance) -> None:
    run(asset(caps((D1, "a", 1.0), (D1, "b", 1.0))))
    run(asset(caps((D1, "a", 2.0), (D1, "b", 1.0))))
    told = metadata(instance, "market_caps", D1)
    assert (told["rows_received"], told["rows_changed"], told["rows_restated"]) == (2, 1, 1)


def test_no_metadata_holds_a_path_of_this_machine(
    run: Run, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    run(asset(caps((D1, "a", 1.0))))
    assert str(tmp_path) not in str(metadata(instance, "market_caps", D1))


# Loading.


def loaded_by(
    run: Run, first: date, last: date | None = None, **options: Any
) -> list[pd.DataFrame]:
    """What `ranks` gets as its input `market_caps`."""
    found: list[pd.DataFrame] = []

    def make(market_caps: pd.DataFrame) -> pd.DataFrame:
        found.append(market_caps)
        return pd.DataFrame()

    upstream = asset(lambda *_: pytest.fail("not selected"))
    downstream = define(make, "ranks", ins={"market_caps": dg.AssetIn(**options)})
    run(upstream, downstream, first=first, last=last, selection="ranks")
    return found


@pytest.fixture
def five_days(warehouse: Warehouse) -> list[date]:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(5)]
    rows = caps(*[(day, coin, float(day.day)) for day in days for coin in ("b", "a")])
    warehouse.write(Batch(rows), frames.to())
    return days


def test_an_input_is_exactly_the_days_asked_for(run: Run, five_days: list[date]) -> None:
    (frame,) = loaded_by(run, five_days[1], five_days[2])
    assert frame[["date", "coin_id", "price_usd"]].to_numpy().tolist() == [
        [pd.Timestamp("2026-01-02"), "a", 2.0],
        [pd.Timestamp("2026-01-02"), "b", 2.0],
        [pd.Timestamp("2026-01-03"), "a", 3.0],
        [pd.Timestamp("2026-01-03"), "b", 3.0],
    ]
    assert READ_AT in frame.attrs


def test_an_input_has_the_columns_asked_for_and_no_others(run: Run, five_days: list[date]) -> None:
    (frame,) = loaded_by(run, five_days[4], metadata={"columns": ["price_usd", "is_final"]})
    assert list(frame.columns) == ["price_usd", "is_final"]
    assert frame.to_numpy().tolist() == [[5.0, True], [5.0, True]]


@pytest.mark.parametrize(("first", "days"), [(5, [3, 4, 5]), (2, [1, 2])])
def test_a_look_back_is_cut_at_the_first_day(
    run: Run, five_days: list[date], first: int, days: list[int]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        mapping = dg.TimeWindowPartitionMapping(
            start_offset=-2, allow_nonexistent_upstream_partitions=True
        )
    (frame,) = loaded_by(run, date(2026, 1, first), partition_mapping=mapping)
    assert sorted(set(frame["date"].dt.day)) == days


def test_a_table_without_days_is_loaded_whole(run: Run) -> None:
    found: list[list[str]] = []

    @dg.asset
    def coin_list() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "coin_id": ["b", "a"],
                "symbol": "s",
                "name": "n",
                "is_active": True,
                "first_seen_at": pd.Timestamp(frames.SEEN),
                "last_seen_at": pd.Timestamp(frames.SEEN),
                "source": "sandbox/test",
            }
        )

    def make(coin_list: pd.DataFrame) -> pd.DataFrame:
        found.append(coin_list["coin_id"].tolist())
        return pd.DataFrame()

    run(coin_list, define(make, "fear_greed"))
    assert found == [["a", "b"]]


# Publishing.


def test_a_run_ends_by_publishing(run: Run, home: Path) -> None:
    result = run(asset(caps((D1, "a", 1.0))))
    assert published(home) == {(D1, "a"): 1.0}
    assert read_state(home).run_id == result.run_id


def test_a_run_that_breaks_a_rule_is_withheld_and_says_so(
    run: Run, home: Path, instance: dg.DagsterInstance
) -> None:
    run(asset(caps((D1, "a", 1.0))))
    result = run(asset(caps((D1, "a", 2.0), source="coingecko/live")))
    (by,) = read_state(home).withheld_by
    assert (by.table, by.check, by.first, by.last) == ("market_caps", "source_fits_home", D1, D1)
    assert published(home) == {(D1, "a"): 1.0}
    log = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "Publication withheld, broken rules: market_caps: source_fits_home" in log
    run(asset(caps((D2, "a", 3.0))), first=D2)
    assert published(home) == {(D1, "a"): 1.0}
    run(asset(caps((D1, "a", 4.0))), first=D1)
    assert published(home) == {(D1, "a"): 4.0, (D2, "a"): 3.0}
    assert read_state(home).withheld_by == ()


def test_what_a_failed_step_stored_is_audited_all_the_same(run: Run, home: Path) -> None:
    def stores_and_fails(*_: date) -> Batches:
        def parts() -> Iterator[Batch]:
            yield Batch(caps((D1, "a", 2.0), source="coingecko/live"))
            raise dg.Failure("too much is missing")

        return Batches(parts())

    run(asset(caps((D1, "a", 1.0))))
    assert not run(asset(stores_and_fails), raise_on_error=False).success
    assert published(home) == {(D1, "a"): 1.0}
    assert [failure.check for failure in read_state(home).withheld_by] == ["source_fits_home"]


def test_a_publication_that_fails_says_so_and_the_rows_stay(
    run: Run, home: Path, warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    run(asset(caps((D1, "a", 1.0))))
    in_the_way = home / "published" / "crypto-000002.unfinished"
    in_the_way.mkdir()
    result = run(asset(caps((D1, "a", 2.0))), raise_on_error=False)
    log = "\n".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert "can't publish to" in log
    assert stored(warehouse) == {(D1, "a"): 2.0}
    assert published(home) == {(D1, "a"): 1.0}
    in_the_way.rmdir()
    run(asset(Batches(())))
    assert published(home) == {(D1, "a"): 2.0}
