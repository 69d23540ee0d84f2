"""What who knows dlt well writes: charts fetched in threads, frames as Arrow, merged by key.

`python dlt_expert.py BASE_URL FOLDER COINS DAYS`. The parsing is the script's.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

THREADS = 16
# Read by dlt when it is loaded.
os.environ |= {
    "RUNTIME__DLTHUB_TELEMETRY": "false",
    "RUNTIME__LOG_LEVEL": "CRITICAL",
    "EXTRACT__WORKERS": str(THREADS),
    "EXTRACT__MAX_PARALLEL_ITEMS": str(2 * THREADS),
    "DATA_WRITER__BUFFER_MAX_ITEMS": "100000",
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": "false",
}

import dlt  # noqa: E402
import pandas as pd  # noqa: E402
import pyarrow as pa  # noqa: E402
from dlt.sources.helpers import requests  # noqa: E402

from crypto_assets_tests.benchmarks.rivals import script  # noqa: E402

COLUMNS = pa.schema(
    [
        ("date", pa.timestamp("us")),
        ("coin_id", pa.string()),
        ("price_usd", pa.float64()),
        ("market_cap_usd", pa.float64()),
    ]
)


@dlt.source
def coingecko(base_url: str, coins: int, days: int):
    # It tries again what is refused for the rate.
    session = requests.Client().session
    session.headers["x-cg-pro-api-key"] = os.environ.get("COINGECKO_API_KEY", "")

    @dlt.resource(selected=False)
    def markets() -> Iterator[list[dict]]:
        yield from script.market_pages(base_url, coins, session)

    @dlt.transformer(data_from=markets, parallelized=False)
    def ids(page: list[dict]) -> Iterator[str]:
        yield from (coin["id"] for coin in page)

    merged = {
        "table_name": "market_caps",
        "primary_key": ("date", "coin_id"),
        "write_disposition": "merge",
    }

    @dlt.transformer(data_from=markets, **merged)
    def running_day(page: list[dict]) -> pa.Table:
        today = pd.Timestamp(page[0]["last_updated"]).tz_localize(None).normalize()
        return arrow(script.running_day(page, today))

    @dlt.transformer(data_from=ids, parallelized=True, **merged)
    def closes(coin_id: str) -> pa.Table:
        return arrow(script.closes(coin_id, script.chart(base_url, coin_id, days, session)))

    return running_day, markets | ids | closes


def arrow(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, schema=COLUMNS, preserve_index=False)


def main() -> None:
    base_url, folder, coins, days = sys.argv[1:]
    pipeline = dlt.pipeline(
        "market_caps",
        destination=dlt.destinations.duckdb(str(Path(folder) / "dlt.duckdb")),
        dataset_name="coingecko",
        pipelines_dir=str(Path(folder) / "pipelines"),
    )
    pipeline.run(coingecko(base_url, int(coins), int(days)), loader_file_format="parquet")


if __name__ == "__main__":
    main()
