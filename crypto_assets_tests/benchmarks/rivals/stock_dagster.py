"""What Dagster's own documentation leads to: three assets, the stock I/O manager, all defaults.

`dagster asset materialize` loads this file; BASE_URL, DATABASE, COINS and DAYS are in the
environment. The fetching is the script's. One run for all days, which is not the default but what
keeps it from starting one for each.
"""

import os

import dagster as dg
import pandas as pd
import requests
from dagster_duckdb_pandas import DuckDBPandasIOManager

from crypto_assets_tests.benchmarks.rivals import script

BASE_URL = os.environ["BENCH_BASE_URL"]
COINS = int(os.environ["BENCH_COINS"])
DAYS = int(os.environ["BENCH_DAYS"])
# Of all assets, or the command line refuses to bring several days in one run.
IN_ONE_RUN = dg.BackfillPolicy.single_run()
PARTITIONS = dg.DailyPartitionsDefinition(os.environ["BENCH_START"])


@dg.asset(backfill_policy=IN_ONE_RUN)
def markets() -> pd.DataFrame:
    """The running day of the largest coins."""
    with requests.Session() as session:
        rows = [row for page in script.market_pages(BASE_URL, COINS, session) for row in page]
    today = pd.Timestamp(rows[0]["last_updated"]).tz_localize(None).normalize()
    return script.running_day(rows, today)


@dg.asset(
    partitions_def=PARTITIONS,
    backfill_policy=IN_ONE_RUN,
    metadata={"partition_expr": "date"},
)
def closes(context: dg.AssetExecutionContext, markets: pd.DataFrame) -> pd.DataFrame:
    """The closes of the same coins."""
    with requests.Session() as session:
        frames = [
            script.closes(coin, script.chart(BASE_URL, coin, DAYS, session))
            for coin in markets["coin_id"]
        ]
    window = context.partition_time_window
    rows = pd.concat(frames, ignore_index=True)
    first, end = (pd.Timestamp(at).tz_localize(None) for at in (window.start, window.end))
    return rows[(rows["date"] >= first) & (rows["date"] < end)]


@dg.asset(backfill_policy=IN_ONE_RUN)
def latest(markets: pd.DataFrame, closes: pd.DataFrame) -> pd.DataFrame:
    """The newest close of each coin beside its price now."""
    newest = closes.sort_values("date").groupby("coin_id", as_index=False).last()
    return markets.merge(newest, on="coin_id", how="left", suffixes=("", "_closed"))


defs = dg.Definitions(
    assets=[markets, closes, latest],
    resources={"io_manager": DuckDBPandasIOManager(database=os.environ["BENCH_DATABASE"])},
)
