"""The warehouse made again from the raw store, beside the old one, which it then replaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd

from crypto_assets.assets.platform import Platform
from crypto_assets.assets.rebuilding import batch_of
from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.running import Progress, RunReport, run
from crypto_assets.providers.errors import ProviderError
from crypto_assets.providers.raw import Delivery, NotStoredError
from crypto_assets.settings import Settings
from crypto_assets.tables import TABLES, Table
from crypto_assets.warehouse import contents
from crypto_assets.warehouse.errors import ContractViolationError, WarehouseError, reason_of
from crypto_assets.warehouse.publishing import is_behind, publish_run
from crypto_assets.warehouse.schema import ensure_schema
from crypto_assets.warehouse.session import connect, quoted, warehouse_lock
from crypto_assets.warehouse.sqls import literal
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Write, write

_NEW = "warehouse.rebuilt.duckdb"
_OLD = "warehouse.before-rebuild.duckdb"
_TOLD_EVERY = 20


@dataclass
class RebuildReport:
    """What was made again: deliveries, the rows of each provider's table, what was left out."""

    kept_as: Path
    deliveries: int = 0
    responses: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    derived: RunReport = field(default_factory=lambda: RunReport("", True))


def rebuild(
    settings: Settings,
    instance: dg.DagsterInstance,
    progress: Progress,
    *,
    accept_loss: bool = False,
) -> RebuildReport:
    """Make all tables again without a call, put them in place, calculate the derived ones, publish.

    The old file is kept beside. Raises `OperationError`, with nothing changed, where rows of the
    old warehouse can't be made again and the loss is not accepted.
    """
    warehouse = Warehouse.of(settings)
    report = RebuildReport(settings.home / _OLD)
    platform = Platform(settings)
    try:
        with warehouse_lock(warehouse.path, "rebuilding the warehouse"):
            _make_again(platform, warehouse, report, progress)
            lost = [] if accept_loss else _lost(warehouse)
            if lost:
                raise OperationError(
                    f"the raw store can't bring back {', '.join(lost)}"
                    f"{_why_lost(platform)}: nothing was changed, what could be made is in "
                    f"{settings.home / _NEW}; use --accept-loss to take it all the same"
                )
            _take_over_derived(warehouse)
            _put_in_place(settings.home, warehouse.path)
    finally:
        platform.close()
    days = _days_with_caps(warehouse)
    if days:
        derived = [table.name for table in TABLES.values() if table.derived]
        report.derived = run(settings, instance, derived, days, progress)
    elif is_behind(settings.home):
        publish_run(settings.home, "rebuild")
    return report


def _days_with_caps(warehouse: Warehouse) -> tuple[date, date] | None:
    """Return the first and last day that anything can be calculated for."""
    found = warehouse.query("SELECT min(date) AS first, max(date) AS last FROM market_caps")
    first, last = found["first"][0], found["last"][0]
    return None if pd.isna(first) else (first.date(), last.date())


def _make_again(
    platform: Platform, warehouse: Warehouse, report: RebuildReport, progress: Progress
) -> None:
    new = warehouse.home / _NEW
    _remove(new)
    report.responses = platform.raw.count()
    deliveries = platform.raw.count_deliveries()
    if not deliveries:
        raise OperationError(
            f"the raw store of {warehouse.home} holds nothing to rebuild from: nothing was changed"
        )
    connection = connect(new)
    try:
        ensure_schema(connection, warehouse.identity)
        for delivery in platform.raw.deliveries():
            if report.deliveries % _TOLD_EVERY == 0:
                progress(f"rebuilding {delivery.table}", report.deliveries, deliveries)
            problem = _write_again(platform, connection, delivery)
            if problem:
                at = f"{delivery.delivered_at:%Y-%m-%d %H:%M}"
                report.skipped.append(f"{delivery.table} of {at} UTC: {problem}")
            else:
                report.deliveries += 1
        for table in _provided():
            report.rows[table.name] = _count(connection, f"FROM {quoted(table.name)}")
    finally:
        connection.close()


def _write_again(
    platform: Platform, connection: duckdb.DuckDBPyConnection, delivery: Delivery
) -> str | None:
    """Write a delivery's rows again; return why where that is not possible."""

    def query(sql: str, parameters: Any = (), /) -> pd.DataFrame:
        return connection.execute(sql, parameters).fetchdf()

    try:
        batch = batch_of(delivery, platform, query)
        write(connection, batch, Write(TABLES[delivery.table], delivery.run_id))
    except NotStoredError:
        return "its responses were pruned"
    except (ProviderError, ContractViolationError) as error:
        # Then as now: such rows were refused when they came, too.
        return reason_of(error)
    return None


def _take_over_derived(warehouse: Warehouse) -> None:
    """Copy the calculated rows as they are, so that a kill after the swap publishes no empty table.

    They are calculated anew right after.
    """
    if not warehouse.path.exists():
        return
    with _both(warehouse) as connection:
        for table in TABLES.values():
            if table.derived:
                name = quoted(table.name)
                connection.execute(f"INSERT INTO {name} BY NAME FROM before.main.{name}")
                contents.record_all(connection, table)


@contextmanager
def _both(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection to the new file, with the old one attached as `before`."""
    connection = connect(warehouse.home / _NEW)
    try:
        _attach(connection, warehouse.path)
        yield connection
    finally:
        connection.close()


def _attach(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    try:
        # Opening takes in what a killed process left in the write-ahead log.
        connect(path).close()
        connection.execute(f"ATTACH {literal(str(path))} AS before (READ_ONLY)")
    except (WarehouseError, duckdb.Error) as error:
        raise OperationError(
            f"can't compare with {path} ({reason_of(error)}): if it is damaged, move it "
            "away and rebuild again; nothing was changed"
        ) from None


def _lost(warehouse: Warehouse) -> list[str]:
    """Return, by table in words, how many rows the old warehouse has and the new one has not."""
    if not warehouse.path.exists():
        return []
    found = []
    with _both(warehouse) as connection:
        for table in _provided():
            keys = ", ".join(map(quoted, table.key))
            rows = _count(
                connection,
                f"FROM (SELECT {keys} FROM before.main.{quoted(table.name)} "
                f"EXCEPT SELECT {keys} FROM {quoted(table.name)})",
            )
            if rows:
                found.append(f"{rows:,} rows of {table.name}")
        restated = _count(connection, "FROM before.main.restatements")
        lost = restated - _count(connection, "FROM restatements")
        if lost > 0:
            found.append(f"{lost:,} restatements")
    return found


def _why_lost(platform: Platform) -> str:
    pruned = platform.raw.pruned_before()
    return f" (responses before {pruned:%Y-%m-%d} were pruned)" if pruned else ""


def _put_in_place(home: Path, path: Path) -> None:
    """Replace the warehouse in one step; a kill before it leaves the old one, which is kept."""
    old = home / _OLD
    _remove(old)
    if path.exists():
        old.hardlink_to(path)
    (home / _NEW).replace(path)


def _remove(path: Path) -> None:
    for suffix in ("", ".wal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _count(connection: duckdb.DuckDBPyConnection, of: str) -> int:
    row = connection.execute(f"SELECT count(*) {of}").fetchone()
    return int(row[0]) if row else 0


def _provided() -> list[Table]:
    return [table for table in TABLES.values() if not table.derived]
