"""Long histories of a home, put into its tables without fetching them.

Closes are invented by SQL; what is calculated from them is calculated by the assets' own
functions, outside of Dagster: it takes two events a day, which nobody wants to wait for here.
"""

from collections.abc import Iterable
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from crypto_assets.assets import market, signals
from crypto_assets.assets.platform import Platform
from crypto_assets.periods import wall_now
from crypto_assets.settings import Settings, load_settings
from crypto_assets.tables import EMA_SIGNALS, MARKET_CAPS, RANKS, Table
from crypto_assets.warehouse import contents
from crypto_assets.warehouse.io_manager import READ_AT
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Write

Days = tuple[date, date]

# A wave of some months, another phase for each coin, and noise: averages cross now and then.
_CLOSES = """
SELECT CAST(day AS DATE) AS date, coins.coin_id,
    coins.price_usd * exp(0.3 * sin(epoch(day) / 86400 / 30 + hash(coin_id) % 628 / 100.0)
        + (hash(coin_id, day) % 1000) / 2e4) AS price_usd,
    price_usd * supply AS market_cap_usd, market_cap_usd / 20 AS volume_24h_usd,
    supply AS circulating_supply, NULL AS provider_rank, true AS is_point_in_time,
    true AS is_final, day + INTERVAL 1 DAY AS observed_at, 'sandbox/invented' AS source,
    'invented' AS run_id, $now AS materialized_at, NULL AS raw_id, observed_at AS first_final_at
FROM coins, range($first, $end, INTERVAL 1 DAY) AS days(day)
"""


def market_of(pages: Iterable[list[dict[str, Any]]]) -> pd.DataFrame:
    """Return coin_id, price_usd and supply (coins) of the coins on pages of coins/markets."""
    told = pd.DataFrame([row for page in pages for row in page])
    prices, caps = told["current_price"], told["market_cap"]
    return pd.DataFrame({"coin_id": told["id"], "price_usd": prices, "supply": caps / prices})


def invent_closes(home: Path, coins: pd.DataFrame, days: Days) -> None:
    """Store a final close of each coin on each day."""
    columns = ", ".join(quoted(column.name) for column in MARKET_CAPS.all_columns)
    with Warehouse.of(load_settings(home)).session("inventing closes") as connection:
        connection.register("coins", coins)
        connection.execute(
            f"INSERT INTO {MARKET_CAPS.name} BY NAME SELECT {columns} FROM ({_CLOSES}) "
            "ORDER BY date, coin_id",
            {
                "first": datetime.combine(days[0], datetime.min.time()),
                "end": datetime.combine(days[1] + timedelta(days=1), datetime.min.time()),
                "now": wall_now(),
            },
        )
        contents.record_all(connection, MARKET_CAPS)


def calculate_ranks(settings: Settings, days: Days) -> None:
    """Rank the stored coins of all days."""
    read_at = wall_now()
    caps = Warehouse.of(settings).query("FROM market_caps ORDER BY date, coin_id")
    caps.attrs[READ_AT] = read_at
    with closing(Platform(settings)) as platform:
        _write(platform, RANKS, market.ranks(_asked(days), platform, caps), days)


def calculate_signals(settings: Settings, days: Days) -> None:
    """Calculate the signals of all days: from table to table, as the asset does."""
    with closing(Platform(settings)) as platform:
        _write(platform, EMA_SIGNALS, signals.ema_signals(_asked(days), platform), days)


def _asked(days: Days) -> Any:
    """Return what the assets read of their context: the days they are asked for."""
    window = SimpleNamespace(start=_midnight(days[0]), end=_midnight(days[1] + timedelta(days=1)))
    return SimpleNamespace(partition_time_window=window)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time())


def _write(platform: Platform, table: Table, rows: Any, days: Days) -> None:
    platform.warehouse.write(Batch(rows), Write(table, "invented", days))
