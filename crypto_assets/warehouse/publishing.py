"""Write, audit, publish: readers see a copy, and only when the gates let it through.

A publication is a numbered copy of the warehouse; `crypto.duckdb` is a symlink that moves to it by
atomic rename. A broken ERROR rule withholds publications until it holds again.
"""

import errno
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from crypto_assets.periods import wall_now
from crypto_assets.warehouse.audit import AuditFailure, audit
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.session import connect, warehouse_lock
from crypto_assets.warehouse.warehouse import FILE_NAME

LINK_NAME = "crypto.duckdb"
_FOLDER = "published"
_STATE = "publication.json"
# Readers that resolved the link a moment ago still find what it pointed to.
_VERSIONS_KEPT = 2
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Debounce:
    """A large file is published at most every so often; what was put off, a later run publishes."""

    large_megabytes: int
    minutes_between: float

    def puts_off(self, home: Path) -> bool:
        """Tell whether a publication now would come too soon after the last one."""
        last = read_state(home).published_at
        if last is None or (home / FILE_NAME).stat().st_size < self.large_megabytes * _MEGABYTE:
            return False
        # A clock that was set back must not put it off for longer.
        return timedelta(0) <= wall_now() - last < timedelta(minutes=self.minutes_between)


@dataclass(frozen=True)
class Publication:
    """The newest publication, and what withholds the next one, if anything does."""

    version: int = 0
    published_at: datetime | None = None
    run_id: str | None = None
    withheld_since: datetime | None = None
    withheld_by: tuple[AuditFailure, ...] = ()
    of_warehouse: str | None = None
    """What the warehouse file looked like when it was copied."""


def publish_run(home: Path, run_id: str, debounce: Debounce | None = None) -> Publication:
    """Publish what the warehouse of a home has beyond the last publication, if it passes the audit.

    Where `debounce` puts it off, `is_behind` tells so afterwards. Raises `WarehouseError` when it
    can't be opened or copied; the last publication stays.
    """
    with warehouse_lock(home / FILE_NAME, f"run {run_id} publishing"):
        known = read_state(home)
        # Opening also takes in what a killed process left in the write-ahead log.
        with connect(home / FILE_NAME) as connection:
            failures = tuple(audit(connection, _known_good_until(known), _published(home)))
        if failures:
            since = known.withheld_since or wall_now()
            state = replace(known, withheld_since=since, withheld_by=failures)
        elif is_behind(home) and not (debounce and debounce.puts_off(home)):
            version = _copy(home, _next_version(home, known))
            looks = _looks_of(home / FILE_NAME)
            state = Publication(version, wall_now(), run_id, of_warehouse=looks)
        else:
            state = replace(known, withheld_since=None, withheld_by=())
        _write_state(home, state)
        return state


def read_state(home: Path) -> Publication:
    """Return what is known of a home's publications."""
    try:
        told = json.loads((home / _STATE).read_text(encoding="utf-8"))
        return _understood(told)
    except FileNotFoundError:
        return Publication()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WarehouseError(
            f"can't read {home / _STATE}: delete it, the next run writes it anew"
        ) from None


def _understood(told: dict[str, Any]) -> Publication:
    moments = {name: _moment(told[name]) for name in ("published_at", "withheld_since")}
    by = tuple(
        AuditFailure(
            **{
                **failure,
                "first": date.fromisoformat(failure["first"]),
                "last": date.fromisoformat(failure["last"]),
            }
        )
        for failure in told["withheld_by"]
    )
    return Publication(**{**told, **moments, "withheld_by": by})


def is_behind(home: Path) -> bool:
    """Tell whether the warehouse is not what was last published."""
    warehouse = home / FILE_NAME
    if not warehouse.exists():
        return False
    unread_log = warehouse.with_name(f"{FILE_NAME}.wal").exists()
    published = read_state(home).of_warehouse
    return unread_log or not (home / LINK_NAME).exists() or published != _looks_of(warehouse)


def _published(home: Path) -> Path | None:
    link = home / LINK_NAME
    return link.resolve() if link.exists() else None


def _looks_of(warehouse: Path) -> str:
    """Return size and time of change; compared for equality, so that a clock may be wrong."""
    found = warehouse.stat()
    return f"{found.st_size} bytes at {found.st_mtime_ns} ns"


def _known_good_until(known: Publication) -> datetime | None:
    """Return when the last audit passed; none where a clock was set back since, or never."""
    at = known.published_at
    return at if at is not None and at <= wall_now() else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _write_state(home: Path, state: Publication) -> None:
    temporary = home / f"{_STATE}.new"
    try:
        temporary.write_text(json.dumps(asdict(state), default=str, indent=1), encoding="utf-8")
        temporary.replace(home / _STATE)
    except OSError as error:
        raise WarehouseError(
            f"can't write {home / _STATE} ({error.strerror}): make room or the folder writable; "
            "the next run makes up for it"
        ) from None


def _next_version(home: Path, known: Publication) -> int:
    """Return a number no publication has had, also when the state was lost or a run killed."""
    names = [path.stem.removeprefix("crypto-") for path in (home / _FOLDER).glob("crypto-*.duckdb")]
    return 1 + max([known.version, *(int(name) for name in names if name.isdigit())])


def _copy(home: Path, version: int) -> int:
    folder = home / _FOLDER
    target = folder / f"crypto-{version:06}.duckdb"
    unfinished = target.with_suffix(".unfinished")
    link = home / f"{LINK_NAME}.new"
    try:
        folder.mkdir(exist_ok=True)
        # A kill may have left one that can't be written.
        unfinished.unlink(missing_ok=True)
        _clone(home / FILE_NAME, unfinished)
        # Whoever opens it to write would leave changes that belong to no version.
        unfinished.chmod(0o444)
        unfinished.replace(target)
        (home / f"{LINK_NAME}.wal").unlink(missing_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(target.relative_to(home))
        link.replace(home / LINK_NAME)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise WarehouseError(
            f"can't publish to {target} ({error.strerror}): readers keep the last publication; "
            "make room or the folder writable, the next run makes up for it"
        ) from None
    for old in sorted(folder.glob("crypto-*.duckdb"))[:-_VERSIONS_KEPT]:
        old.with_name(f"{old.name}.wal").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    return version


def _clone(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    with source.open("rb") as reader, target.open("wb") as writer:
        left = os.fstat(reader.fileno()).st_size
        try:
            while left > 0:
                copied = os.copy_file_range(reader.fileno(), writer.fileno(), left)
                if copied == 0:
                    break
                left -= copied
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            reader.seek(0)
            writer.seek(0)
            shutil.copyfileobj(reader, writer)
        writer.flush()
        os.fsync(writer.fileno())
