"""The days a run asks an asset for."""

from datetime import date, datetime

import dagster as dg

from crypto_assets.periods import DAY, Clock, close_of, days, is_final
from crypto_assets.tables import Table


def asked_days(context: dg.AssetExecutionContext) -> tuple[date, date]:
    """Return the first and last day of the partitions of this run, both included."""
    window = context.partition_time_window
    return window.start.date(), window.end.date() - DAY


def begun_days(context: dg.AssetExecutionContext, clock: Clock) -> tuple[date, date]:
    """Return the asked days that have begun. Raises `dagster.Failure` when none has."""
    first, last = asked_days(context)
    if first > clock.today():
        raise dg.Failure(
            f"{first} has not begun: it is {clock.now():%Y-%m-%d %H:%M} UTC by the clock of this "
            "home (a sandbox's may stand still); ask for an earlier day",
            allow_retries=False,
        )
    return first, min(last, clock.today())


def due_days(table: Table, first: date, last: date, now: datetime) -> list[date]:
    """Return the days of [first, last] whose final values a provider should have by now."""
    return [day for day in days(first, last) if is_final(close_of(day), now, table.ready_after)]
