"""Two homes or backups side by side."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from crypto_assets.warehouse.backups import restore
from crypto_assets.warehouse.comparing import Difference, compare
from crypto_assets.warehouse.errors import WarehouseError, reason_of
from crypto_assets.warehouse.publishing import LINK_NAME
from crypto_assets.warehouse.sqls import literal
from crypto_assets.warehouse.warehouse import FILE_NAME


def differences(a: str, b: str) -> list[Difference]:
    """Return what differs between two homes (their publications), files or backups."""
    with ExitStack() as stack:
        paths = [stack.enter_context(_file(where)) for where in (a, b)]
        connection = stack.enter_context(duckdb.connect())
        for name, path in zip(("a", "b"), paths, strict=True):
            try:
                connection.execute(f"ATTACH {literal(str(path))} AS {name} (READ_ONLY)")
            except duckdb.Error as error:
                reason = reason_of(error)
                raise WarehouseError(f"can't read {path} ({reason})") from None
        try:
            return compare(connection)
        except duckdb.Error as error:
            reason = reason_of(error)
            raise WarehouseError(
                f"can't compare {a} with {b} ({reason}): one of them is no warehouse, or of "
                "another version; let this program open both, or restore a backup of it"
            ) from None


@contextmanager
def _file(where: str) -> Iterator[Path]:
    path = Path(where)
    if path.is_file():
        yield path
    elif (path / LINK_NAME).exists():
        yield (path / LINK_NAME).resolve()
    elif (path / FILE_NAME).exists():
        raise WarehouseError(
            f"nothing has been published in {path} yet: run 'crypto-assets refresh' first"
        )
    else:
        with TemporaryDirectory() as folder:
            restored = Path(folder) / "restored.duckdb"
            restore(where, restored)
            yield restored
