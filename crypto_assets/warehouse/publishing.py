"""Write, audit, publish: readers see a copy, and only when the gates let it through.

A publication is a numbered copy of the warehouse; `crypto.duckdb` is a symlink that moves to it by
atomic rename. A failed ERROR check withholds publications until the check passes on its days.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path

from crypto_assets.periods import wall_now
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.session import connect, warehouse_lock
from crypto_assets.warehouse.warehouse import FILE_NAME

LINK_NAME = "crypto.duckdb"
_FOLDER = "published"
_STATE = "publication.json"
# Readers that resolved the link a moment ago still find what it pointed to.
_VERSIONS_KEPT = 3


@dataclass(frozen=True)
class Evaluation:
    """One ERROR check of one run on the days of that run (none: not by day)."""

    asset: str
    check: str
    passed: bool
    first: date | None = None
    last: date | None = None
    run_id: str = ""

    def covers(self, other: "Evaluation") -> bool:
        """Tell whether this evaluation says something newer about all days of the other."""
        same = (self.asset, self.check) == (other.asset, other.check)
        if not same or self.first is None or self.last is None:
            return same
        if other.first is None or other.last is None:
            return False
        return self.first <= other.first and other.last <= self.last


@dataclass(frozen=True)
class Publication:
    """The newest publication, and what withholds the next one, if anything does."""

    version: int = 0
    published_at: datetime | None = None
    run_id: str | None = None
    withheld_since: datetime | None = None
    withheld_by: tuple[Evaluation, ...] = ()


def publish_run(home: Path, run_id: str, evaluations: Sequence[Evaluation]) -> Publication:
    """Publish the warehouse of a home at the end of a run, unless a gate withholds it.

    Raises `WarehouseError` when the copy can't be made; the last publication stays.
    """
    with warehouse_lock(home / FILE_NAME, f"run {run_id} publishing"):
        known = read_state(home)
        blocking = still_blocking(known.withheld_by, evaluations)
        if blocking:
            since = known.withheld_since or wall_now()
            state = replace(known, withheld_since=since, withheld_by=blocking)
        else:
            state = Publication(known.version, known.published_at, known.run_id)
            if is_behind(home):
                state = Publication(_copy(home, known.version + 1), wall_now(), run_id)
        _write_state(home, state)
        return state


def still_blocking(
    before: Iterable[Evaluation], now: Sequence[Evaluation]
) -> tuple[Evaluation, ...]:
    """Return the failures that stand: those not evaluated anew on all their days, and new ones."""
    standing = [old for old in before if not any(new.covers(old) for new in now)]
    return (*standing, *(new for new in now if not new.passed))


def read_state(home: Path) -> Publication:
    """Return what is known of a home's publications."""
    try:
        told = json.loads((home / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Publication()
    moments = {name: _moment(told[name]) for name in ("published_at", "withheld_since")}
    by = tuple(
        Evaluation(**{**e, "first": _day(e["first"]), "last": _day(e["last"])})
        for e in told["withheld_by"]
    )
    return Publication(**{**told, **moments, "withheld_by": by})


def is_behind(home: Path) -> bool:
    """Tell whether the warehouse has changed since it was last published."""
    link, warehouse = home / LINK_NAME, home / FILE_NAME
    if not warehouse.exists():
        return False
    return not link.exists() or link.stat().st_mtime_ns < warehouse.stat().st_mtime_ns


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _day(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def _write_state(home: Path, state: Publication) -> None:
    temporary = home / f"{_STATE}.new"
    temporary.write_text(json.dumps(asdict(state), default=str, indent=1), encoding="utf-8")
    temporary.replace(home / _STATE)


def _copy(home: Path, version: int) -> int:
    folder = home / _FOLDER
    folder.mkdir(exist_ok=True)
    target = folder / f"crypto-{version:06}.duckdb"
    unfinished = target.with_suffix(".unfinished")
    link = home / f"{LINK_NAME}.new"
    try:
        _clone(_checkpointed(home / FILE_NAME), unfinished)
        unfinished.replace(target)
        link.unlink(missing_ok=True)
        link.symlink_to(target.relative_to(home))
        link.replace(home / LINK_NAME)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise WarehouseError(
            f"can't publish to {target} ({error.strerror}): readers keep the last publication; "
            "make room or the folder writable, the next run makes up for it"
        ) from None
    for old in sorted(folder.glob("crypto-*.duckdb"))[:-_VERSIONS_KEPT]:
        old.unlink(missing_ok=True)
    return version


def _checkpointed(warehouse: Path) -> Path:
    """Return the file once nothing of it is left in a write-ahead log, as after a kill."""
    if warehouse.with_name(warehouse.name + ".wal").exists():
        connect(warehouse).close()
    return warehouse


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
