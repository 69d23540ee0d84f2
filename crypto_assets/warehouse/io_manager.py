"""The I/O manager: what an asset returns becomes rows of its table, and a run ends by publishing.

Glue between Dagster's contexts and the warehouse; how rows are written is `writer`'s.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
from dagster_duckdb_pandas import DuckDBPandasIOManager
from pydantic import Field

from crypto_assets.periods import wall_now
from crypto_assets.tables import TABLES
from crypto_assets.warehouse import publishing
from crypto_assets.warehouse.contents import Contents, DayContent, contents
from crypto_assets.warehouse.schema import Identity
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import within
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch, Batches, Write, WriteReport

READ_AT = "read_at"
"""Key in `DataFrame.attrs` of a loaded input: when reading began, by the machine's clock."""

RANGE_TAGS = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


Made = pd.DataFrame | Batch | Batches
"""What an asset may return: each batch is one transaction."""


@dataclass(frozen=True)
class Told:
    """What an asset tells of itself: figures with each partition, what is large with the last."""

    figures: Mapping[str, Any] = field(default_factory=dict)
    once: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Telling:
    """What an asset returned, and how to look at what is stored of it and then tell of that.

    What `look` returns is called when others may use the file again.
    """

    made: Made
    look: Callable[[duckdb.DuckDBPyConnection], Callable[[], Told]]


class WarehouseIOManager(DuckDBPandasIOManager):
    """Stores frames in the warehouse by contract, loads them by day, publishes when a run ends.

    An asset returns what is `Made`, or `Telling`.
    """

    is_sandbox: bool = Field(description="Whether the home holds sandbox data.")
    history_start: str = Field(description="First day of the warehouse, ISO.")
    large_megabytes: int = Field(500, description="From here on publishing is put off.")
    minutes_between: float = Field(5.0, description="How long it is put off at most.")

    def create_io_manager(self, context: dg.InitResourceContext) -> dg.IOManager:  # type: ignore[override] # noqa: ARG002
        """Return the manager of one process."""
        identity = Identity(self.is_sandbox, date.fromisoformat(self.history_start))
        return _WarehouseIO(Warehouse(Path(self.database), identity))

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Publish what is new in the warehouse, if it passes the audit; the run's log says so."""
        home = Path(self.database).parent
        if context.run is None or not publishing.is_behind(home):
            return
        debounce = publishing.Debounce(self.large_megabytes, self.minutes_between)
        state = publishing.publish_run(home, context.run.run_id, debounce)
        if context.log is None:
            return
        if state.withheld_by:
            by = ", ".join(f"{failed.table}: {failed.check}" for failed in state.withheld_by)
            context.log.error(
                f"Publication withheld, broken rules: {by}. Readers keep version "
                f"{state.version}; heal the days and run again."
            )
        elif publishing.is_behind(home):
            context.log.info(
                f"Publication put off: the last one is less than {self.minutes_between:g} "
                "minutes old and the file is large; the end of a later run publishes."
            )
        else:
            context.log.info(f"Published version {state.version}.")


class _WarehouseIO(dg.IOManager):
    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        table = TABLES[context.asset_key.path[-1]]
        days = _days(context) if context.has_asset_partitions else None
        to = Write(table, context.run_id, days)
        made = obj.made if isinstance(obj, Telling) else obj
        report = WriteReport()
        session = partial(self._warehouse.session, f"run {to.run_id} writing {table.name}")
        with _batches(made) as batches, ExitStack() as stack:
            if not isinstance(made, Batches):
                # All is made: one session for what follows. Else others use the file in between.
                stack.enter_context(session())
            for batch in batches:
                report.add(self._warehouse.write(batch, to))
            connection = stack.enter_context(session())
            stored = contents(connection, table, days)
            tell = obj.look(connection) if isinstance(obj, Telling) else Told
        _tell(context, report, stored, tell())

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        table = TABLES[context.asset_key.path[-1]]
        read_at = wall_now()
        named = (context.definition_metadata or {}).get("columns")
        columns = ", ".join(map(quoted, named)) if named else "*"
        where, values = "", []
        if context.has_asset_partitions and table.time_column:
            first, last = _days(context)
            where, values = f"WHERE {within(table, '?', '?')}", [first, last]
        order = ", ".join(map(quoted, table.key))
        frame = self._warehouse.query(
            f"SELECT {columns} FROM {quoted(table.name)} {where} ORDER BY {order}",
            values,
            purpose=f"loading {table.name}",
        )
        frame.attrs[READ_AT] = read_at
        return frame


def _days(context: dg.OutputContext | dg.InputContext) -> tuple[date, date]:
    window = context.asset_partitions_time_window
    return window.start.date(), (window.end - timedelta(days=1)).date()


@contextmanager
def _batches(obj: object) -> Iterator[Iterable[Batch]]:
    """Yield the parts of what an asset returned; whoever makes them is told when a write failed."""
    if isinstance(obj, Batches):
        try:
            yield obj.parts
        finally:
            if isinstance(obj.parts, Generator):
                obj.parts.close()
        return
    if isinstance(obj, (Batch, pd.DataFrame)):
        yield [obj if isinstance(obj, Batch) else Batch(obj)]
        return
    raise TypeError(f"an asset returns a frame, Batch or Batches, not {type(obj).__name__}")


def _tell(context: dg.OutputContext, report: WriteReport, stored: Contents, told: Told) -> None:
    keys = sorted(context.asset_partition_keys) if context.has_asset_partitions else []
    context.add_output_metadata(
        {
            **told.figures,
            **({} if keys else told.once),
            "dagster/row_count": stored.rows,
            "rows_received": report.received,
            "rows_changed": report.changed,
            "rows_restated": report.restated,
        }
    )
    for key in keys:
        day = stored.days.get(date.fromisoformat(key), DayContent(0, "no rows"))
        context.step_context.add_asset_metadata(
            {
                "dagster/partition_row_count": day.rows,
                "content_hash": day.content_hash,
                **(told.once if key == keys[-1] else {}),
            },
            partition_key=key,
        )
