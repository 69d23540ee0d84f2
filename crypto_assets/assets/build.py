"""The asset graph at a glance: which table is made by which function from which others."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from crypto_assets import tables
from crypto_assets.assets import candles, flows, market, sentiment, signals, snapshot
from crypto_assets.assets.telling import telling
from crypto_assets.tables import Table

OWNER = "team:crypto_assets"
RANK_LOOK_BACK_DAYS = 7


def daily_partitions(start: date) -> dg.DailyPartitionsDefinition:
    """Return the one partition definition of all partitioned tables; the running day included."""
    return dg.DailyPartitionsDefinition(start_date=start.isoformat(), end_offset=1)


def build_assets(
    partitions: dg.DailyPartitionsDefinition,
    freshness: Mapping[str, dg.FreshnessPolicy] | None = None,
) -> list[dg.AssetsDefinition]:
    """Return all nine assets; `freshness` says by table how old its newest run may get."""
    policies = freshness or {}
    return [
        asset.map_asset_specs(
            lambda spec: spec.replace_attributes(freshness_policy=policies.get(spec.key.path[-1]))
        )
        for asset in _assets(partitions)
    ]


def _assets(partitions: dg.DailyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    return [
        _asset(tables.COIN_LIST, market.coin_list),
        _asset(tables.MARKET_CAPS, market.market_caps, partitions, after=[tables.COIN_LIST]),
        _asset(
            tables.RANKS,
            market.ranks,
            partitions,
            ins=_look_back(tables.MARKET_CAPS, market.RANKED_COLUMNS),
        ),
        _asset(
            tables.EMA_SIGNALS,
            signals.ema_signals,
            partitions,
            after=[tables.MARKET_CAPS, tables.RANKS],
        ),
        _asset(tables.OHLC_HOURLY, candles.ohlc_hourly, partitions),
        _asset(tables.OHLC_DAILY, candles.ohlc_daily, partitions),
        _asset(tables.FEAR_GREED, sentiment.fear_greed, partitions),
        _asset(tables.ETF_FLOWS, flows.etf_flows, partitions),
        _asset(
            tables.DAILY_SNAPSHOT,
            snapshot.daily_snapshot,
            partitions,
            after=[
                tables.MARKET_CAPS,
                tables.RANKS,
                tables.EMA_SIGNALS,
                tables.OHLC_HOURLY,
                tables.OHLC_DAILY,
                tables.FEAR_GREED,
                tables.ETF_FLOWS,
            ],
        ),
    ]


def _look_back(table: Table, columns: Sequence[str]) -> dict[str, dg.AssetIn]:
    with warnings.catch_warnings():
        # The look-back is clipped at the first partition; the argument that says so is beta.
        warnings.simplefilter("ignore", dg.BetaWarning)
        mapping = dg.TimeWindowPartitionMapping(
            start_offset=-RANK_LOOK_BACK_DAYS, allow_nonexistent_upstream_partitions=True
        )
    return {table.name: dg.AssetIn(partition_mapping=mapping, metadata={"columns": [*columns]})}


def _asset(
    table: Table,
    make: Callable[..., Any],
    partitions: dg.DailyPartitionsDefinition | None = None,
    after: Sequence[Table] = (),
    ins: dict[str, dg.AssetIn] | None = None,
) -> dg.AssetsDefinition:
    key = ", ".join(table.key)
    with warnings.catch_warnings():
        # BackfillPolicy is beta: one run for a range instead of one a day, which is what we need.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.asset(
            name=table.name,
            description=f"{table.row}\n\n{make.__doc__}\n\nKey: {key}.",
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run() if partitions else None,
            deps=[upstream.name for upstream in after],
            ins=ins or {},
            group_name=table.group,
            kinds=set(table.kinds),
            owners=[OWNER],
            tags={"made": "calculated" if table.derived else "fetched"},
            metadata={
                "dagster/column_schema": column_schema(table),
                "dagster/table_name": f"main.{table.name}",
            },
        )(telling(table, make))


def column_schema(table: Table) -> dg.TableSchema:
    """Return a contract's columns as Dagster shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=column.documentation,
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
            )
            for column in table.all_columns
        ]
    )
