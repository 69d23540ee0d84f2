"""The contracts: sound in themselves, and the nine tables of the design."""

import re

import pytest

from crypto_assets.tables import TABLES, Column, Table, partitioned

# Table -> key, and content columns beside it, as the design lists them.
DESIGN = {
    "coin_list": (
        "coin_id",
        "symbol name platforms is_active first_seen_at last_seen_at renamed_to",
    ),
    "market_caps": (
        "date coin_id",
        "price_usd market_cap_usd volume_24h_usd circulating_supply provider_rank is_point_in_time",
    ),
    "ranks": (
        "date coin_id",
        "market_cap_rank market_cap_usd market_share rank_change_1d rank_change_7d "
        "is_point_in_time",
    ),
    "ema_signals": (
        "date coin_id fast_span slow_span",
        "price_usd ema_fast ema_slow strength trend_z state event is_warm",
    ),
    "ohlc_hourly": ("open_time coin_id", "open high low close volume_usd session exactness"),
    "ohlc_daily": ("date coin_id", "open high low close volume_usd exactness"),
    "fear_greed": ("date", "value label band"),
    "etf_flows": ("date asset ticker", "net_flow_usd"),
    "daily_snapshot": (
        "date coin_id",
        "close_usd high_usd low_usd change_24h volatility_7d market_cap_usd market_cap_rank "
        "dominance trend fear_greed etf_net_flow_usd return_asia return_europe return_us "
        "is_point_in_time",
    ),
}
PROVENANCE = ["is_final", "observed_at", "source", "run_id", "materialized_at", "raw_id"]

every_table = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
every_column = pytest.mark.parametrize(
    "column",
    [column for table in TABLES.values() for column in table.all_columns],
    ids=[f"{name}.{c.name}" for name, table in TABLES.items() for c in table.all_columns],
)


def names(table: Table) -> list[str]:
    return [column.name for column in table.all_columns]


def test_there_are_the_nine_tables_of_the_design() -> None:
    assert list(TABLES) == list(DESIGN)
    assert all(name == table.name for name, table in TABLES.items())


@every_table
def test_a_table_has_the_key_and_columns_of_the_design(table: Table) -> None:
    key, others = DESIGN[table.name]
    assert list(table.key) == key.split()
    assert list(table.content_columns) == [*key.split(), *others.split()]


@every_table
def test_a_partitioned_table_says_of_each_row_where_it_came_from(table: Table) -> None:
    merged = table.name == "coin_list"
    expected = PROVENANCE[2:] if merged else PROVENANCE
    if not merged and not table.derived:
        expected = [*expected, "first_final_at"]
    assert names(table)[len(table.columns) :] == expected


@every_table
def test_column_names_are_unique(table: Table) -> None:
    assert len(set(names(table))) == len(names(table))


@every_table
def test_key_columns_are_never_null(table: Table) -> None:
    assert not any(table.column(name).nullable for name in table.key)


@every_table
def test_a_table_refers_to_its_own_columns_only(table: Table) -> None:
    referred = {*table.key, table.time_column, table.series_column}
    assert referred - {None} <= set(names(table))


def test_every_table_but_the_coin_list_has_day_partitions() -> None:
    assert {table.name for table in partitioned()} == set(DESIGN) - {"coin_list"}
    for table in partitioned():
        assert table.column(table.time_column or "").type in ("DATE", "TIMESTAMP")


@every_table
def test_a_table_says_what_a_row_is(table: Table) -> None:
    assert re.fullmatch(r"[A-Z].+\.", table.row)


@every_column
def test_a_column_says_what_it_holds(column: Column) -> None:
    assert column.description.strip()
    assert column.documentation.startswith(column.description)


@every_column
def test_an_amount_has_a_unit(column: Column) -> None:
    if column.name.endswith("_usd") or column.name in ("open", "high", "low", "close"):
        assert (column.type, column.unit) == ("DOUBLE", "US dollars")
        assert "US dollars" in column.documentation
    if column.type == "DOUBLE" and column.name != "trend":
        assert column.unit


@every_column
def test_bounds_can_be_met(column: Column) -> None:
    lowest = [bound for bound in (column.minimum, column.above) if bound is not None]
    assert column.maximum is None or all(low < column.maximum for low in lowest)
    assert column.one_of is None or column.type == "VARCHAR"
    # What keeps a stored value is what may come as NULL.
    assert not column.keeps_stored or column.nullable


@every_column
def test_units_in_names_and_types_agree(column: Column) -> None:
    expected = {"_at": "TIMESTAMP", "is_": "BOOLEAN", "_id": "VARCHAR"}
    for mark, kind in expected.items():
        if column.name.startswith(mark) or column.name.endswith(mark):
            assert column.type == kind


def test_an_unknown_column_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        TABLES["ranks"].column("rank")
