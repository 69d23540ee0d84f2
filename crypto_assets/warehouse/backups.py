"""Backups: every table as Parquet or CSV with a manifest, and a warehouse made from one again.

A backup is of the newest publication, so it never waits for a run and never holds rows that
failed a gate. The manifest is written last: a folder without one is no backup. Here belongs what a
backup is; where it lies is any fsspec URL, when one is made is `automation`'s.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from crypto_assets.periods import wall_now
from crypto_assets.warehouse import migrations
from crypto_assets.warehouse.errors import WarehouseError, reason_of
from crypto_assets.warehouse.manifests import (
    MANIFEST,
    BackedUp,
    Format,
    Manifest,
    read_manifest,
    sealed,
)
from crypto_assets.warehouse.places import Place, masked
from crypto_assets.warehouse.publishing import read_state
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.session import connect as open_file
from crypto_assets.warehouse.session import quoted, transaction, warehouse_lock
from crypto_assets.warehouse.sqls import literal

_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(r"crypto_assets-(?P<id>[0-9a-f]{8})-(?P<stamp>\d{8}T\d{6}Z)")
_LONGEST = timedelta(days=1)
# Text that no value can be mistaken for: an empty name is not a missing one.
_CSV = "FORMAT csv, HEADER true, NULLSTR '\\N', FORCE_QUOTE *"


def backup(home: Path, target: str | Path, form: Format = "parquet") -> tuple[Place, Manifest]:
    """Write the newest publication of a home to a new folder in `target`, and say what it holds.

    Raises `WarehouseError`; what was written by then has no manifest and is no backup.
    """
    made_at = wall_now().replace(microsecond=0)
    folder = Place.of(target)
    with TemporaryDirectory() as staged, _explained(f"write a backup to {folder}"):
        with connect(home) as connection:
            manifest = _export(connection, Path(staged), made_at, read_state(home).version, form)
        place = folder / _name(manifest.warehouse_id, made_at)
        if place.exists():
            raise WarehouseError(f"there is a backup of this very second already: {place}")
        place.fs.makedirs(place.path)
        for table in manifest.tables.values():
            place.fs.put_file(str(Path(staged) / table.file), (place / table.file).path)
        unfinished = place / f"{MANIFEST}.unfinished"
        place.fs.pipe_file(unfinished.path, sealed(asdict(manifest)).encode())
        place.fs.mv(unfinished.path, (place / MANIFEST).path)
    return place, manifest


def restore(source: str | Path, path: Path, expected: Identity | None = None) -> Manifest:
    """Make the warehouse file `path`, which must not exist, from a backup.

    Every file is checked against the manifest before anything is made; `expected` is what the
    settings of its home say it should be. Raises `WarehouseError`.
    """
    if path.exists():
        raise _is_taken(path)
    place = Place.of(source)
    manifest = _manifest(place)
    if expected is not None:
        _check_identity(place, manifest, expected)
    # Of a fixed name, so that what a killed restore left is cleared by the next.
    folder = path.with_name("restoring")
    with _explained(f"restore {place}"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            _fetch(place, manifest, folder)
            _import(folder / path.name, manifest, folder)
            _place(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return manifest


def _place(restored: Path, path: Path) -> None:
    with warehouse_lock(path, "restoring a backup"):
        if path.exists():  # made by a run meanwhile
            raise _is_taken(path)
        # A log that was left by a file of this name would be taken for its own.
        path.with_name(f"{path.name}.wal").unlink(missing_ok=True)
        restored.rename(path)


def list_backups(target: str | Path, of: str | None = None) -> list[Place]:
    """Return the finished backups in a folder, of one warehouse or of all, oldest first."""
    found = [place for place, _ in _backups(target, of) if (place / MANIFEST).exists()]
    return sorted(found, key=lambda place: place.name.rpartition("-")[2])


def prune(target: str | Path, keep: int, of: str) -> list[Place]:
    """Delete all but the newest `keep` backups of a warehouse; return which went.

    What a killed backup left goes too, once nobody can be writing it any more.
    """
    gone = list_backups(target, of)[:-keep]
    for place in gone:
        # Without its manifest it is no backup any more, wherever a kill may end this.
        place.fs.rm_file((place / MANIFEST).path)
        place.fs.rm(place.path, recursive=True)
    for place, begun_at in _backups(target, of):
        if wall_now() - begun_at > _LONGEST and not (place / MANIFEST).exists():
            place.fs.rm(place.path, recursive=True)
    return gone


def warehouse_id(connection: duckdb.DuckDBPyConnection) -> str:
    """Return what tells the backups of this warehouse from those of another in one folder."""
    row = connection.execute("FROM warehouse_info").fetchone()
    return hashlib.sha256(str(row).encode()).hexdigest()[:8]


def _name(of: str, made_at: datetime) -> str:
    return f"crypto_assets-{of}-{made_at:{_STAMP}}"


def _backups(target: str | Path, of: str | None) -> Iterator[tuple[Place, datetime]]:
    """Yield each folder that is named as a backup, finished or not, and when it was begun."""
    for place in Place.of(target).entries():
        named = _NAME.fullmatch(place.name)
        if named and of in (None, named["id"]):
            yield place, datetime.strptime(named["stamp"], _STAMP)  # noqa: DTZ007 - naive UTC


def _is_taken(path: Path) -> WarehouseError:
    return WarehouseError(
        f"there is a warehouse in {path.parent}: restore into an empty home; nothing changed"
    )


def _manifest(place: Place) -> Manifest:
    inside = [] if (place / MANIFEST).exists() else list_backups(str(place))
    if inside:
        raise WarehouseError(
            f"{place} holds {len(inside)} backups: name one of them, the newest is {inside[-1]}"
        )
    return read_manifest(place)


def _check_identity(place: Place, manifest: Manifest, expected: Identity) -> None:
    if Identity(manifest.is_sandbox, manifest.history_start) == expected:
        return
    sandbox = ", a section 'sandbox: {}'" if manifest.is_sandbox else ", no section 'sandbox'"
    raise WarehouseError(
        f"{place} does not fit the settings of this home: its crypto_assets.yaml needs "
        f"'history: {{start: {manifest.history_start}}}'{sandbox}; nothing was changed"
    )


def _export(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    made_at: datetime,
    version: int,
    form: Format,
) -> Manifest:
    names = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' ORDER BY 1"
    ).fetchall()
    tables = {name: _export_table(connection, folder, name, form) for (name,) in names}
    row = connection.execute("SELECT is_sandbox, history_start FROM warehouse_info").fetchone()
    if row is None:
        raise WarehouseError("this warehouse has lost its identity: restore it from a backup")
    schema_version = migrations.version_of(connection)
    return Manifest(
        made_at,
        version,
        schema_version,
        warehouse_id(connection),
        is_sandbox=row[0],
        history_start=row[1],
        format=form,
        tables=tables,
    )


def _export_table(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: str, form: Format
) -> BackedUp:
    file = folder / f"{name}.{form}"
    options = "FORMAT parquet, COMPRESSION zstd" if form == "parquet" else _CSV
    row = connection.execute(f"COPY {quoted(name)} TO {literal(str(file))} ({options})").fetchone()
    columns = connection.execute(
        "SELECT column_name, data_type, is_nullable FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND table_name = ? ORDER BY column_index",
        [name],
    ).fetchall()
    return BackedUp(
        file.name,
        int(row[0]) if row else 0,
        _sha256(file),
        {column: kind for column, kind, _ in columns},
        tuple(column for column, _, is_nullable in columns if not is_nullable),
    )


def _fetch(place: Place, manifest: Manifest, folder: Path) -> None:
    for name, table in manifest.tables.items():
        local = folder / table.file
        try:
            place.fs.get_file((place / table.file).path, str(local))
        except FileNotFoundError:
            raise WarehouseError(
                f"the backup {place} is damaged: {table.file} is missing; nothing was changed"
            ) from None
        if _sha256(local) != table.sha256:
            raise WarehouseError(
                f"the backup {place} is damaged: {table.file} ({name}) is not what was written; "
                "nothing was changed, use another backup"
            )


def _import(path: Path, manifest: Manifest, folder: Path) -> None:
    newest = migrations.newest()
    if manifest.schema_version > newest:
        raise WarehouseError(
            f"this backup has schema version {manifest.schema_version}, this program knows "
            f"{newest}: upgrade crypto_assets; nothing was changed"
        )
    connection = open_file(path)
    try:
        with transaction(connection):
            for name, table in manifest.tables.items():
                _import_table(connection, name, table, folder, manifest.format)
        # The tables are those of the program that wrote the backup: they are brought up to date
        # like its warehouse would be.
        ensure_schema(connection, Identity(manifest.is_sandbox, manifest.history_start))
    finally:
        connection.close()


def _import_table(
    connection: duckdb.DuckDBPyConnection, name: str, table: BackedUp, folder: Path, form: Format
) -> None:
    file = literal(str(folder / table.file))
    columns = ", ".join(
        f"{quoted(column)} {kind}{' NOT NULL' if column in table.required else ''}"
        for column, kind in table.columns.items()
    )
    connection.execute(f"CREATE TABLE {quoted(name)} ({columns})")
    source = file
    if form == "csv":
        types = ", ".join(
            f"{literal(column)}: {literal(kind)}" for column, kind in table.columns.items()
        )
        source = (
            f"read_csv({file}, header = true, nullstr = '\\N', types = {{{types}}}, "
            "quote = '\"', escape = '\"', delim = ',', auto_detect = true, "
            "allow_quoted_nulls = false)"
        )
    row = connection.execute(
        f"INSERT INTO {quoted(name)} BY NAME SELECT * FROM {source}"
    ).fetchone()
    if row is None or row[0] != table.rows:
        raise WarehouseError(
            f"the backup is damaged: {name} has {row[0] if row else 0} rows, its manifest says "
            f"{table.rows}; nothing was changed"
        )


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except WarehouseError:
        raise
    except Exception as error:
        reason = reason_of(error)
        raise WarehouseError(
            masked(f"can't {doing} ({reason}): make room or the place writable, and try again")
        ) from None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as reader:
        while block := reader.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
