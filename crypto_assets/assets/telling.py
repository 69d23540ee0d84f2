"""What a materialization tells people beside its rows: what it cost, what it lacks, how it looks.

Belongs here: the figures of one step, its plot, and where its columns come from. Does not belong
here: drawing (`plots`), and what the I/O manager counts itself.
"""

import base64
import functools
import inspect
import time
from collections.abc import Callable
from datetime import date
from typing import Any, NoReturn

import dagster as dg
import duckdb

from crypto_assets.assets.days import asked_days
from crypto_assets.assets.lineage import column_lineage
from crypto_assets.assets.platform import Platform
from crypto_assets.plots import PLOTS
from crypto_assets.tables import MARKET_CAPS, Table
from crypto_assets.warehouse.io_manager import Made, Telling, Told
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of, within

_COIN_COLUMNS = ("coin_id", "asset")


def telling(table: Table, make: Callable[..., Made]) -> Callable[..., Any]:
    """Return the asset function that does as `make`, and tells of it once the rows are stored."""

    @functools.wraps(make)
    def asset(*args: Any, **kwargs: Any) -> dg.MaterializeResult[Telling]:
        days = asked_days(args[0]) if table.time_column else None
        account = _Account(table, kwargs["platform"], days)
        return dg.MaterializeResult(value=Telling(make(*args, **kwargs), account.look))

    # Dagster reads what a function returns from its annotation.
    asset.__annotations__["return"] = dg.MaterializeResult[Telling]
    signature = inspect.signature(make)
    asset.__signature__ = signature.replace(  # type: ignore[attr-defined]
        return_annotation=dg.MaterializeResult[Telling]
    )
    return asset


class _Account:
    """What one step has used since this was made, and what is stored when it is asked."""

    def __init__(self, table: Table, platform: Platform, days: tuple[date, date] | None) -> None:
        self._table = table
        self._platform = platform
        self._days = days
        self._began = time.monotonic()
        self._calls_before = platform.calls
        self._credits_before = platform.credits

    def look(self, connection: duckdb.DuckDBPyConnection) -> Callable[[], Told]:
        """Read what is stored, and return what makes figures and a picture of it."""
        figures = {
            "duration_seconds": round(time.monotonic() - self._began, 3),
            "calls": self._platform.calls - self._calls_before,
            "credits": self._platform.credits - self._credits_before,
            **_stored(connection, self._table, self._days),
        }
        drawing = self._drawing(connection, self._days[1]) if self._days else None
        return functools.partial(self._told, figures, drawing)

    def _told(self, figures: dict[str, Any], drawing: "Callable[[], bytes | None] | None") -> Told:
        """Return the figures, and for the last partition the plot and where columns come from."""
        once = _picture(PLOTS[self._table.name].alt, drawing) if drawing else {}
        lineage = column_lineage(self._table.name)
        if lineage:
            once["dagster/column_lineage"] = lineage
        return Told(figures, once)

    def _drawing(
        self, connection: duckdb.DuckDBPyConnection, last: date
    ) -> "Callable[[], bytes | None] | None":
        """Read what is drawn; drawing takes longer, and others wait for the file meanwhile."""
        plot = PLOTS.get(self._table.name)
        if plot is None:
            return None
        last = min(last, self._platform.clock.today())
        values = plot.parameters(last, self._platform.settings.universe.headline)
        try:
            rows = connection.execute(plot.sql, values).fetchdf()
        except duckdb.Error as error:
            return functools.partial(_raise, error)
        return functools.partial(plot.draw, rows)


def _raise(error: Exception) -> NoReturn:
    raise error


def _picture(alt: str, drawing: Callable[[], bytes | None]) -> dict[str, Any]:
    try:
        drawn = drawing()
    except Exception as error:
        # The rows are stored: a picture of them is not worth a failed run.
        return {"plot": f"could not be drawn: {error}"}
    if drawn is None:
        return {}
    picture = base64.b64encode(drawn).decode()
    return {"plot": dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{picture})")}


def _stored(
    connection: duckdb.DuckDBPyConnection, table: Table, days: tuple[date, date] | None
) -> dict[str, Any]:
    """Return how many days and coins there are now, and which share of the coin-days is missing."""
    where, values = (f"WHERE {within(table, '?', '?')}", list(days)) if days else ("", [])
    coin = next((name for name in _COIN_COLUMNS if name in table.content_columns), None)
    count = f"count(DISTINCT {quoted(coin)})" if coin else "NULL"
    days_of = f"count(DISTINCT {day_of(table)})" if days else "NULL"
    row = connection.execute(
        f"SELECT {days_of}, {count} FROM {quoted(table.name)} {where}", values
    ).fetchone()
    told = {"days_stored": row[0] if row else None, "coins": row[1] if row else None}
    if days:
        told["missing_share"] = _missing_share(connection, table, days)
    return {name: value for name, value in told.items() if value is not None}


def _missing_share(
    connection: duckdb.DuckDBPyConnection, table: Table, days: tuple[date, date]
) -> float | None:
    """Return the share of coin-days without a row; a calculated table's are those with a close."""
    covered = connection.execute(
        """SELECT coalesce(sum(series_stored) FILTER (table_name = $table), 0),
            sum(series_stored + series_missing) FILTER (table_name = $expected)
        FROM coverage WHERE table_name IN ($table, $expected) AND date BETWEEN $first AND $last""",
        {
            "table": table.name,
            "expected": MARKET_CAPS.name if table.derived else table.name,
            "first": days[0],
            "last": days[1],
        },
    ).fetchone()
    stored, expected = covered if covered else (0, None)
    return round(1 - stored / expected, 6) if expected else None
