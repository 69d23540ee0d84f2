"""etf_flows: what US exchange-traded funds took in or gave back, as far as it was reported."""

from collections.abc import Iterator
from datetime import date

import dagster as dg
import pandas as pd

from crypto_assets.assets.days import begun_days, due_days
from crypto_assets.assets.deliveries import Page, Refusal
from crypto_assets.assets.fetching import fail_if_too_much_missing, fetch_each
from crypto_assets.assets.platform import Platform
from crypto_assets.periods import DAY, is_weekend
from crypto_assets.providers.farside import EtfFlows
from crypto_assets.providers.fetched import Fetched
from crypto_assets.tables import ETF_FLOWS
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.warehouse import Query
from crypto_assets.warehouse.writer import Batch, Batches

ASSETS = ("btc", "eth", "sol")
# The short pages hold about 20 trading days.
RECENT_DAYS = 20


def etf_flows(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Batches:
    """Bring the reported flows of the days asked for, one page an asset."""
    return Batches(_etf_flows(platform, *begun_days(context, platform.clock)))


def _etf_flows(platform: Platform, first: date, last: date) -> Iterator[Batch]:
    full = first < platform.clock.today() - RECENT_DAYS * DAY
    outcome = fetch_each(
        ASSETS, lambda asset: platform.farside.flows(asset, full), platform.settings.fetch.threads
    )
    now, query = platform.clock.now(), platform.warehouse.query
    for asset in ASSETS:
        fetched, error = outcome.answered.get(asset), outcome.failed.get(asset)
        raw_ids = fetched.raw_ids if fetched else ()
        refusal = Refusal(error.problem) if error else None
        page = Page(asset, full, first, last, raw_ids, now, refusal)
        platform.note(ETF_FLOWS, page)
        yield page_batch(fetched, page) if fetched else refused_batch(query, page)
    fail_if_too_much_missing(
        "etf_flows",
        outcome.failed,
        len(ASSETS),
        platform.settings.fetch.max_missing_share,
    )


def refused_batch(query: Query, page: Page) -> Batch:
    """Return which weekdays are due and lack stored flows; what is stored stays as it is."""
    stored = query(
        "SELECT DISTINCT date FROM etf_flows WHERE asset = ? AND date BETWEEN ? AND ?",
        [page.asset, page.first, page.last],
    )
    present = set(stored["date"].dt.date)
    due = due_days(ETF_FLOWS, page.first, page.last, page.checked_at)
    lacking = [day for day in due if not is_weekend(day) and day not in present]
    gaps = [Gap(page.asset, day, "missing", str(page.refusal)) for day in lacking]
    return Batch(pd.DataFrame(), Inspection({page.asset: lacking}, gaps, page.checked_at))


def page_batch(fetched: Fetched[EtfFlows], part: Page) -> Batch:
    """Return the reported flows of the days asked for, and why the others have none."""
    asset, first, last = part.asset, part.first, part.last
    page = fetched.data
    within = page.flows["date"].between(pd.Timestamp(first), pd.Timestamp(last))
    known = page.days.set_index("date")
    rows = page.flows[within]
    ready_at = rows["date"] + pd.Timedelta(DAY) + pd.Timedelta(ETF_FLOWS.ready_after)
    complete = rows["date"].map(known["is_complete"]).astype(bool)
    rows = rows.assign(
        is_final=complete & (ready_at <= pd.Timestamp(fetched.observed_at)),
        source=fetched.source,
        observed_at=fetched.observed_at,
        raw_id=fetched.raw_id,
    )
    present = set(rows["date"].dt.date)
    due = due_days(ETF_FLOWS, first, last, fetched.observed_at)
    gaps = [_gap(asset, day, fetched, known) for day in due if day not in present]
    inspection = Inspection({asset: sorted(present | set(due))}, gaps, fetched.observed_at)
    # Of a day that every fund has reported, the page tells all there is: a fund that is not on it
    # any more was renamed, and would count twice.
    whole = rows.loc[complete, ["date", "asset"]].drop_duplicates()
    return Batch(rows, inspection, whole)


def _gap(asset: str, day: date, fetched: Fetched[EtfFlows], known: pd.DataFrame) -> Gap:
    """Say why a day has no flows: markets closed, before the first fund, or not told yet."""
    if is_weekend(day):
        return Gap(asset, day, "no_data_at_provider", "weekend")
    if day in fetched.data.refused:
        return Gap(asset, day, "missing", fetched.data.refused[day])
    stamp = pd.Timestamp(day)
    if stamp in known.index and known.loc[stamp, "is_holiday"]:
        return Gap(asset, day, "no_data_at_provider", "nobody reported: a US holiday")
    if len(known) and stamp < known.index.min():
        return Gap(asset, day, "no_data_at_provider", "before the page's first day")
    return Gap(asset, day, "missing", "not reported yet")
