"""Which assets are refreshed together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg

from crypto_assets.tables import TABLES, partitioned

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

    AssetJob = UnresolvedAssetJobDefinition

JOB_TAG = "crypto_assets/job"
"""Every run of a job carries it, so that `dagster.yaml` can keep two from running at once."""


@dataclass(frozen=True)
class Refresh:
    """A job: its name, what it is for and the tables it refreshes."""

    name: str
    description: str
    tables: tuple[str, ...]
    longest_hours: int | None = None
    """After that it hangs and is ended; without, after what `dagster.yaml` says."""

    @property
    def tags(self) -> dict[str, str]:
        """The tags of its runs."""
        longest = self.longest_hours
        hangs_after = {"dagster/max_runtime": str(longest * 3600)} if longest else {}
        return {JOB_TAG: self.name, **hangs_after}


EVERYTHING = Refresh("everything", "All tables of the days asked for.", tuple(TABLES))
MARKET_REFRESH = Refresh(
    "market_refresh",
    "Caps, ranks and signals of the running day; just after midnight the close of the day before.",
    ("coin_list", "market_caps", "ranks", "ema_signals"),
    longest_hours=3,
)
HOURLY_CANDLES = Refresh(
    "hourly_candles_refresh",
    "Hourly candles of the running day.",
    ("ohlc_hourly",),
    # A thousand coins take half an hour on the slowest plan, or twice that beside a backfill.
    longest_hours=3,
)
FEAR_GREED = Refresh("fear_greed_refresh", "Fear & greed of yesterday and today.", ("fear_greed",))
DAILY_CLOSE = Refresh(
    "daily_close",
    "All that became final of yesterday.",
    (
        "market_caps",
        "ranks",
        "ema_signals",
        "ohlc_hourly",
        "ohlc_daily",
        "daily_snapshot",
    ),
)
ETF_FLOWS = Refresh(
    "etf_flows_refresh",
    "ETF flows of the last 20 trading days, which are revised, and the snapshots they touch.",
    ("etf_flows", "daily_snapshot"),
)
DERIVED = Refresh(
    "derived_refresh",
    "Calculated tables of days whose inputs changed after they were computed.",
    tuple(table.name for table in partitioned() if table.derived),
)
RESTATEMENTS = Refresh(
    "restatements_check",
    "Final values of a few coins fetched again, to see what the provider changed since.",
    ("market_caps", "ohlc_daily"),
)
HEALING = Refresh(
    "healing_refresh",
    "Days that are missing or not final, asked for again.",
    ("coin_list", *(table.name for table in partitioned() if not table.derived)),
)
REFRESHES = (
    EVERYTHING,
    MARKET_REFRESH,
    HOURLY_CANDLES,
    FEAR_GREED,
    DAILY_CLOSE,
    ETF_FLOWS,
    DERIVED,
    RESTATEMENTS,
    HEALING,
)


def build_jobs() -> "dict[str, AssetJob]":
    """Return all jobs by name; they take their partitions from their assets."""
    return {
        refresh.name: dg.define_asset_job(
            refresh.name,
            selection=dg.AssetSelection.assets(*refresh.tables),
            description=refresh.description,
            tags=refresh.tags,
        )
        for refresh in REFRESHES
    }
