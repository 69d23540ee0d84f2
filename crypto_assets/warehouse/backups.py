"""Backups: every table as Parquet or CSV with a manifest, and a warehouse made from one again.

A backup is of the newest publication, so it never waits for a run and never holds rows that
failed a gate. The manifest is written last: a folder without one is no backup. Here belongs what a
backup is; where it lies is any fsspec URL, when one is made is `automation`'s.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import duckdb
import fsspec
from fsspec import AbstractFileSystem

from crypto_assets.periods import wall_now
from crypto_assets.warehouse import migrations
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import read_state
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.session import connect as open_file
from crypto_assets.warehouse.session import quoted, transaction

Format = Literal["parquet", "csv"]
MANIFEST = "manifest.json"
_NAME = "crypto_assets-%Y%m%dT%H%M%SZ"
_LONGEST = timedelta(days=1)
_TYPE = re.compile(r"[A-Z0-9_ ,()\[\]]+")
# Text that no value can be mistaken for: an empty name is not a missing one.
_CSV = "FORMAT csv, HEADER true, NULLSTR '\\N', FORCE_QUOTE *"


@dataclass(frozen=True)
class BackedUp:
    """One table of a backup: its file, how many rows, the SHA-256 of the file, and its columns.

    `columns` are DuckDB's types by name, and `required` names those that are never NULL.
    """

    file: str
    rows: int
    sha256: str
    columns: Mapping[str, str]
    required: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What a backup holds."""

    made_at: datetime
    version: int
    schema_version: int
    is_sandbox: bool
    history_start: date
    format: Format
    tables: Mapping[str, BackedUp]


@dataclass(frozen=True)
class Place:
    """A folder on any file system that fsspec knows."""

    fs: AbstractFileSystem
    path: str

    @classmethod
    def of(cls, url: str | Path) -> "Place":
        """Return the place of a URL or path. Raises `WarehouseError`."""
        try:
            fs, path = fsspec.core.url_to_fs(str(url))
        except (ImportError, ValueError) as error:
            raise WarehouseError(
                f"can't use {url} for backups ({error}): name a folder, or install what its file "
                "system needs"
            ) from None
        return cls(fs, path)

    def __truediv__(self, name: str) -> "Place":
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path)).removeprefix("file://")


def backup(home: Path, target: str | Path, form: Format = "parquet") -> tuple[Place, Manifest]:
    """Write the newest publication of a home to a new folder in `target`, and say what it holds.

    Raises `WarehouseError`; what was written by then has no manifest and is no backup.
    """
    made_at = wall_now().replace(microsecond=0)
    place = Place.of(target) / made_at.strftime(_NAME)
    with TemporaryDirectory() as folder, _explained(f"write a backup to {place}"):
        with connect(home) as connection:
            manifest = _export(connection, Path(folder), made_at, read_state(home).version, form)
        place.fs.makedirs(place.path, exist_ok=False)
        for table in manifest.tables.values():
            place.fs.put_file(str(Path(folder) / table.file), (place / table.file).path)
        text = json.dumps(asdict(manifest), default=str, indent=1)
        unfinished = place / f"{MANIFEST}.unfinished"
        place.fs.pipe_file(unfinished.path, text.encode())
        place.fs.mv(unfinished.path, (place / MANIFEST).path)
    return place, manifest


def restore(source: str | Path, path: Path) -> Manifest:
    """Make the warehouse file `path`, which must not exist, from a backup.

    Every file is checked against the manifest before anything is made. Raises `WarehouseError`.
    """
    if path.exists():
        raise WarehouseError(
            f"there is a warehouse in {path.parent}: restore into an empty home; nothing changed"
        )
    place = Place.of(source)
    manifest = read_manifest(place)
    unfinished = path.with_name(path.name + ".restoring")
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent) as folder, _explained(f"restore {place}"):
        _fetch(place, manifest, Path(folder))
        unfinished.unlink(missing_ok=True)
        try:
            _import(unfinished, manifest, Path(folder))
            unfinished.rename(path)
        finally:
            unfinished.unlink(missing_ok=True)
    return manifest


def read_manifest(place: Place) -> Manifest:
    """Return what a backup says it holds. Raises `WarehouseError`."""
    try:
        told = json.loads(place.fs.cat_file((place / MANIFEST).path))
        return Manifest(
            datetime.fromisoformat(told["made_at"]),
            int(told["version"]),
            int(told["schema_version"]),
            bool(told["is_sandbox"]),
            date.fromisoformat(told["history_start"]),
            told["format"],
            {name: _backed_up(table) for name, table in told["tables"].items()},
        )
    except FileNotFoundError:
        raise WarehouseError(f"{place} holds no backup: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WarehouseError(f"can't read {place / MANIFEST} ({error}): it is damaged") from None


def _backed_up(told: Mapping[str, Any]) -> BackedUp:
    table = BackedUp(**{**told, "required": tuple(told["required"])})
    if Path(table.file).name != table.file:
        raise ValueError(f"'{table.file}' is no file of the backup")
    for kind in table.columns.values():
        # It goes into SQL as it is.
        if not _TYPE.fullmatch(kind):
            raise ValueError(f"'{kind}' is no type")
    return table


def list_backups(target: str | Path) -> list[Place]:
    """Return the finished backups in a folder, oldest first."""
    return [one for one in _places(target) if one.fs.exists((one / MANIFEST).path)]


def _places(target: str | Path) -> list[Place]:
    place = Place.of(target)
    if not place.fs.exists(place.path):
        return []
    names = sorted(Path(name).name for name in place.fs.ls(place.path, detail=False))
    return [place / name for name in names if name.startswith("crypto_assets-")]


def prune(target: str | Path, keep: int) -> list[Place]:
    """Delete all but the newest `keep` backups of a folder; return which went.

    What a killed backup left goes too, once nobody can be writing it any more.
    """
    gone = list_backups(target)[:-keep]
    for place in gone:
        # Without its manifest it is no backup any more, wherever a kill may end this.
        place.fs.rm_file((place / MANIFEST).path)
        place.fs.rm(place.path, recursive=True)
    for place in _places(target):
        if _is_abandoned(place):
            place.fs.rm(place.path, recursive=True)
    return gone


def _is_abandoned(place: Place) -> bool:
    try:
        begun_at = datetime.strptime(Path(place.path).name, _NAME)  # noqa: DTZ007 - naive UTC
    except ValueError:  # not ours
        return False
    is_old = wall_now() - begun_at > _LONGEST
    return is_old and not place.fs.exists((place / MANIFEST).path)


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
    return Manifest(made_at, version, schema_version, row[0], row[1], form, tables)


def _export_table(
    connection: duckdb.DuckDBPyConnection, folder: Path, name: str, form: Format
) -> BackedUp:
    file = folder / f"{name}.{form}"
    options = "FORMAT parquet, COMPRESSION zstd" if form == "parquet" else _CSV
    row = connection.execute(f"COPY {quoted(name)} TO {_literal(file)} ({options})").fetchone()
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
    file = _literal(folder / table.file)
    columns = ", ".join(
        f"{quoted(column)} {kind}{' NOT NULL' if column in table.required else ''}"
        for column, kind in table.columns.items()
    )
    connection.execute(f"CREATE TABLE {quoted(name)} ({columns})")
    source = file
    if form == "csv":
        types = ", ".join(
            f"{_text(column)}: {_text(kind)}" for column, kind in table.columns.items()
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
    except (OSError, duckdb.Error) as error:
        raise WarehouseError(
            f"can't {doing} ({str(error).splitlines()[0]}): make room or the place writable, and "
            "try again"
        ) from None


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as reader:
        while block := reader.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _literal(path: Path) -> str:
    # COPY takes no bound parameters.
    return _text(str(path))


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
