"""fear_greed: one number a day for the mood of the market."""

from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import begun_days, due_days
from crypto_assets.assets.deliveries import Index
from crypto_assets.assets.fetching import failure
from crypto_assets.assets.platform import Platform
from crypto_assets.calculations.sentiment import fear_greed_band
from crypto_assets.periods import DAY
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.fetched import Fetched
from crypto_assets.tables import FEAR_GREED
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.writer import Batch

SERIES = "fear_greed"


def fear_greed(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Batch:
    """Bring the index of the days asked for, all with one call."""
    first, last = begun_days(context, platform.clock)
    try:
        fetched = platform.fear_greed.history(limit=(platform.clock.today() - first).days + 2)
    except ProviderError as error:
        raise failure(error) from None
    part = Index(first, last, fetched.raw_ids)
    platform.note(FEAR_GREED, part)
    return index_batch(fetched, part)


def index_batch(fetched: Fetched[pd.DataFrame], part: Index) -> Batch:
    """Return the rows of the days asked for, and what the provider lacks."""
    history, first, last = fetched.data, part.first, part.last
    rows = history[history["date"].between(pd.Timestamp(first), pd.Timestamp(last))]
    ends_at = rows["date"] + pd.Timedelta(DAY) + pd.Timedelta(FEAR_GREED.ready_after)
    rows = rows.assign(
        band=fear_greed_band(rows["value"]),
        is_final=ends_at <= pd.Timestamp(fetched.observed_at),
        source=fetched.source,
        observed_at=fetched.observed_at,
        raw_id=fetched.raw_id,
    )
    present = set(rows["date"].dt.date)
    due = due_days(FEAR_GREED, first, last, fetched.observed_at)
    newest = history["date"].max().date()
    gaps = [_gap(day, newest) for day in due if day not in present]
    inspection = Inspection({SERIES: sorted(present | set(due))}, gaps, fetched.observed_at)
    return Batch(rows, inspection)


def _gap(day: date, newest: date) -> Gap:
    """Say whether a day will still come: one that the provider has gone past will not."""
    if newest > day:
        return Gap(SERIES, day, "no_data_at_provider", "the provider has no value")
    return Gap(SERIES, day, "missing", "not at the provider yet")
