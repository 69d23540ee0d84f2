"""The manifest of a backup: what it holds, by which the files beside it are checked."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.places import Place

Format = Literal["parquet", "csv"]
MANIFEST = "manifest.json"
_TYPE = re.compile(r"[A-Z0-9_ ,()\[\]]+")


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
    warehouse_id: str
    is_sandbox: bool
    history_start: date
    format: Format
    tables: Mapping[str, BackedUp]


def read_manifest(place: Place) -> Manifest:
    """Return what a backup says it holds. Raises `WarehouseError`."""
    try:
        told = json.loads(place.fs.cat_file((place / MANIFEST).path))
        if told.pop("sha256") != _digest(told):
            raise ValueError("its own checksum does not fit")
        if told["format"] not in get_args(Format):
            raise ValueError(f"format '{told['format']}'")
        return Manifest(
            datetime.fromisoformat(told["made_at"]),
            int(told["version"]),
            int(told["schema_version"]),
            str(told["warehouse_id"]),
            bool(told["is_sandbox"]),
            date.fromisoformat(told["history_start"]),
            told["format"],
            {name: _backed_up(table) for name, table in told["tables"].items()},
        )
    except FileNotFoundError:
        raise WarehouseError(f"{place} holds no backup: it has no {MANIFEST}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WarehouseError(f"can't read {place / MANIFEST} ({error}): it is damaged") from None


def sealed(told: Mapping[str, Any]) -> str:
    """Return the text of a manifest, with a checksum of itself."""
    plain = json.loads(json.dumps(told, default=str))
    return json.dumps({**plain, "sha256": _digest(plain)}, indent=1)


def _backed_up(told: Mapping[str, Any]) -> BackedUp:
    table = BackedUp(**{**told, "required": tuple(told["required"])})
    if Path(table.file).name != table.file:
        raise ValueError(f"'{table.file}' is no file of the backup")
    for kind in table.columns.values():
        # It goes into SQL as it is.
        if not _TYPE.fullmatch(kind):
            raise ValueError(f"'{kind}' is no type")
    return table


def _digest(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
