"""Backups: every table as Parquet or CSV with a manifest, and a warehouse made from one again.

A backup is of the newest publication, so it never waits for a run and never holds rows that
failed a gate. The manifest is written last: a folder without one is no backup. Here belongs what a
backup is; where it lies is any fsspec URL, when one is made is `automation`'s.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

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
from crypto_assets.warehouse.session import quoted

Format = Literal["parquet", "csv"]
MANIFEST = "manifest.json"
_NAME = "crypto_assets-%Y%m%dT%H%M%SZ"
# Text that no value can be mistaken for: an empty name is not a missing one.
_CSV = "FORMAT csv, HEADER true, NULLSTR '\\N', FORCE_QUOTE *"


@dataclass(frozen=True)
class BackedUp:
    """One table of a backup: its file, how many rows, and the SHA-256 of the file."""

    file: str
    rows: int
    sha256: str


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
        place.fs.pipe_file((place / MANIFEST).path, text.encode())
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
            {name: BackedUp(**table) for name, table in told["tables"].items()},
        )
    except FileNotFoundError:
        raise WarehouseError(f"{place} holds no backup: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WarehouseError(f"can't read {place / MANIFEST} ({error}): it is damaged") from None


def list_backups(target: str | Path) -> list[Place]:
    """Return the finished backups in a folder, oldest first."""
    place = Place.of(target)
    if not place.fs.exists(place.path):
        return []
    names = sorted(Path(name).name for name in place.fs.ls(place.path, detail=False))
    found = [place / name for name in names if name.startswith("crypto_assets-")]
    return [one for one in found if one.fs.exists((one / MANIFEST).path)]


def prune(target: str | Path, keep: int) -> list[Place]:
    """Delete all but the newest `keep` backups of a folder; return which went."""
    gone = list_backups(target)[:-keep]
    for place in gone:
        # Without its manifest it is no backup any more, wherever a kill may end this.
        place.fs.rm_file((place / MANIFEST).path)
        place.fs.rm(place.path, recursive=True)
    return gone


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
    return BackedUp(file.name, int(row[0]) if row else 0, _sha256(file))


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
    identity = Identity(manifest.is_sandbox, manifest.history_start)
    connection = open_file(path)
    try:
        ensure_schema(connection, identity)
        connection.execute("BEGIN")
        for name, table in manifest.tables.items():
            _import_table(connection, name, folder / table.file, manifest.format, table.rows)
        connection.execute("COMMIT")
        # A backup of an older program is brought up to date like a warehouse of it.
        ensure_schema(connection, identity)
    finally:
        connection.close()


def _import_table(
    connection: duckdb.DuckDBPyConnection, name: str, file: Path, form: Format, rows: int
) -> None:
    known = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", [name]
    ).fetchall()
    if not known:
        raise WarehouseError(f"the backup holds a table '{name}' that this program does not know")
    source = _literal(file)
    if form == "csv":
        types = ", ".join(f"{_text(column)}: {_text(kind)}" for column, kind in known)
        source = (
            f"read_csv({_literal(file)}, header = true, nullstr = '\\N', types = {{{types}}}, "
            "quote = '\"', escape = '\"', delim = ',', auto_detect = true, "
            "allow_quoted_nulls = false)"
        )
    connection.execute(f"DELETE FROM {quoted(name)}")
    connection.execute(f"INSERT INTO {quoted(name)} BY NAME SELECT * FROM {source}")
    row = connection.execute(f"SELECT count(*) FROM {quoted(name)}").fetchone()
    if row is None or row[0] != rows:
        raise WarehouseError(
            f"the backup is damaged: {name} has {row[0] if row else 0} rows, its manifest says "
            f"{rows}; nothing was changed"
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
