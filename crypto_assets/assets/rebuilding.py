"""From what was noted of a write back to its rows: the same functions, the stored answers.

Belongs here: which asset's function makes the rows of a delivery. Does not belong here: where the
rows go (`operations.rebuilding`).
"""

from collections.abc import Iterable

from crypto_assets.assets.assembling import Filling, history_batch
from crypto_assets.assets.candles import DAILY_FILLING, HOURLY_FILLING
from crypto_assets.assets.deliveries import Histories, Index, Listing, Snapshot, loaded
from crypto_assets.assets.flows import page_batch, refused_batch
from crypto_assets.assets.histories import answers_again
from crypto_assets.assets.market import MARKET_CAPS_FILLING, merged_listing, snapshot_batch
from crypto_assets.assets.platform import Platform
from crypto_assets.assets.sentiment import index_batch
from crypto_assets.providers.alternative_me import FearGreed
from crypto_assets.providers.coingecko import CoinGecko
from crypto_assets.providers.farside import Farside
from crypto_assets.providers.plans import PLANS
from crypto_assets.providers.raw import Delivery
from crypto_assets.warehouse.warehouse import Query
from crypto_assets.warehouse.writer import Batch

# What was answered was allowed.
_ANY_PLAN = PLANS["unlimited"]
_FILLINGS: dict[str, Filling] = {
    filling.table.name: filling for filling in (MARKET_CAPS_FILLING, DAILY_FILLING, HOURLY_FILLING)
}


def batch_of(delivery: Delivery, platform: Platform, query: Query) -> Batch:
    """Return the rows of a delivery, made of the stored answers it names.

    `query` reads the warehouse as the deliveries before left it. Raises `NotStoredError` for an
    answer that is not stored any more, `ProviderError` for one that can't be read any more.
    """
    details = loaded(delivery.details)
    if isinstance(details, Histories):

        def coingecko(raw_ids: Iterable[str]) -> CoinGecko:
            return CoinGecko(platform.recorded(raw_ids), _ANY_PLAN)

        answers = answers_again(details, coingecko)
        return history_batch(details, answers, _FILLINGS[delivery.table])
    recorded = platform.recorded(details.raw_ids)
    if isinstance(details, Snapshot):
        pages = CoinGecko(recorded, _ANY_PLAN).market_pages(len(details.raw_ids))
        return snapshot_batch(pages, details)
    if isinstance(details, Listing):
        return Batch(merged_listing(query, CoinGecko(recorded, _ANY_PLAN).coin_list()))
    if isinstance(details, Index):
        return index_batch(FearGreed(recorded).history(), details)
    if not details.raw_ids:
        return refused_batch(query, details)
    flows = Farside(recorded).flows(details.asset, details.full)
    return page_batch(flows, details)
