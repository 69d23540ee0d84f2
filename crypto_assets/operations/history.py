"""Dagster's history in SQLite files, through connections that stay open.

Dagster's own storage opens a file anew for every statement: a connection, a statement compiled
again and a wait for the disk, some four times an event, and a backfill has two events a day and
table. Files and schema are the same here, so that a home may change between the two at any time.

Belongs here: how Dagster's files are opened. Does not belong here: what is in them.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import sqlalchemy as sa
from dagster import DagsterEventType, EventLogEntry
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log import SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorageWatchdog
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster_shared.record import replace
from sqlalchemy.pool import QueuePool
from watchdog.events import FileSystemEvent
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

# The index, the run that is written, and a few that somebody looks at.
_FILES_OPEN = 8


class History(DagsterSqliteStorage):
    """Dagster's SQLite storage with an `EventLog`: `storage: custom` in `dagster.yaml`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = EventLog(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Return the storage of a configuration; the base class would return one of its own."""
        return cls.from_local(inst_data=inst_data, **config_value)


class EventLog(SqliteEventLogStorage):
    """The event log, a file a run and an index of all, whose last files used stay open."""

    def __init__(self, base_dir: str) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._mine = threading.local()
        self._tables: set[str] = set()
        self._has_index_columns = False
        super().__init__(base_dir)
        self._observer: BaseObserver | None = None

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        mine = self._mine.__dict__
        if shard in mine:
            # Part of what this thread is about to store.
            yield mine[shard]
            return
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                mine[shard] = connection
                try:
                    yield connection
                finally:
                    del mine[shard]

    def _engine(self, shard: str) -> sa.Engine:
        engine = self._engines.pop(shard, None) or self._opened(shard)
        self._engines[shard] = engine
        while len(self._engines) > _FILES_OPEN:
            _, oldest = self._engines.popitem(last=False)
            oldest.dispose()
        return engine

    def _opened(self, shard: str) -> sa.Engine:
        engine = sa.create_engine(
            self.conn_string_for_shard(shard),
            poolclass=QueuePool,
            # The lock of this class lets one thread at a time use it.
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
        )
        sa.event.listen(engine, "connect", _wait_for_no_disk)
        return engine

    def has_table(self, table_name: str) -> bool:
        """Tell whether a table is there; one that was there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_index_cols_on_connection(self, conn: sa.Connection) -> bool:
        if not self._has_index_columns:
            self._has_index_columns = super()._has_asset_key_index_cols_on_connection(conn)
        return self._has_index_columns

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store the events of a range of one run: a transaction in its file, one in the index."""
        inserts = [self.prepare_insert_event(event) for event in events]
        run_id = events[0].run_id
        with self.run_connection(run_id) as connection:
            ids = [_inserted(connection.execute(insert)) for insert in inserts]
        try:
            self._index(events, inserts)
        except BaseException:
            # Dagster stores them one by one then.
            with self.run_connection(run_id) as connection:
                table = SqlEventLogStorageTable
                connection.execute(table.delete().where(table.c.id.in_(ids)))
            raise

    def _index(self, events: Sequence[EventLogEntry], inserts: Sequence[sa.Insert]) -> None:
        with self.index_connection() as connection:
            ids = [_inserted(connection.execute(insert)) for insert in inserts]
            of_assets = [
                (event, event_id)
                for event, event_id in zip(events, ids, strict=True)
                if event.dagster_event_type in ASSET_EVENTS
            ]
            if of_assets:
                self._store_asset_event_tags(connection, *zip(*of_assets, strict=True))
            # Of each asset, the index keeps the last event of a kind only.
            last = {
                (_asset_of(stored[0]), stored[0].dagster_event_type): stored for stored in of_assets
            }
            for event, event_id in last.values():
                self._store_asset_event(connection, event, event_id)
            for event, event_id in zip(events, ids, strict=True):
                if event.dagster_event_type == DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
                    self.store_asset_check_event(event, event_id)

    def _store_asset_check_evaluation_planned(
        self, event: EventLogEntry, event_id: int | None
    ) -> None:
        # Dagster plans one evaluation a day of a range. Our checks answer once for all of them, so
        # that the rows would stay planned for ever: a megabyte a hundred days and ten checks.
        super()._store_asset_check_evaluation_planned(_without_partitions(event), event_id)

    def watch(self, run_id: str, cursor: str | None, callback: Any) -> None:
        """Call back with each new event of a run."""
        if self._observer is None:
            self._observer = Observer()
            self._observer.start()
        handler = _Watchdog(self, run_id, callback, cursor)
        watched = self._observer.schedule(handler, self._base_dir, recursive=True)
        self._watchers[run_id][callback] = (handler, watched)

    def end_watch(self, run_id: str, handler: Any) -> None:
        """Call back no more."""
        if self._observer is not None and handler in self._watchers[run_id]:
            self._observer.remove_handler_for_watch(*self._watchers[run_id].pop(handler))

    def wipe(self) -> None:
        """Forget everything; the files of runs go, so none is kept open."""
        self._close_files()
        super().wipe()

    def dispose(self) -> None:
        """Close all files."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join(timeout=15)
        self._close_files()

    def _close_files(self) -> None:
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()


class _Watchdog(SqliteEventLogStorageWatchdog):
    """Notices writes where they go: the file itself changes later, when the log is taken in."""

    @property
    def patterns(self) -> list[str]:
        """The files to watch."""
        return [f"{self._log_path}-wal"]

    def on_modified(self, event: FileSystemEvent) -> None:  # noqa: ARG002
        """Hand on what is new."""
        self._process_log()


def _inserted(result: sa.CursorResult[Any]) -> int:
    (event_id,) = result.inserted_primary_key or (None,)
    if event_id is None:
        raise ValueError("the event log gave an event no number")
    return int(event_id)


def _without_partitions(event: EventLogEntry) -> EventLogEntry:
    told = event.get_dagster_event()
    planned = replace(told.asset_check_planned_data, partitions_subset=None)
    return event._replace(dagster_event=told._replace(event_specific_data=planned))


def _asset_of(event: EventLogEntry) -> Any:
    return event.get_dagster_event().asset_key


def _wait_for_no_disk(connection: Any, _: object) -> None:
    """Let the system write when it likes: what a power cut costs is the last events, not the file.

    The rows are in the warehouse by then, and a run that seems to go on is found dead.
    """
    # Dagster asks for this journal only after it has made a file's tables, each with a wait.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
