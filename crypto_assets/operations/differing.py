"""Two homes or backups side by side."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from crypto_assets.warehouse.backups import restore
from crypto_assets.warehouse.comparing import Difference, compare
from crypto_assets.warehouse.errors import WarehouseError
from crypto_assets.warehouse.publishing import LINK_NAME


def differences(a: str, b: str) -> list[Difference]:
    """Return what differs between two homes (their publications), files or backups."""
    with ExitStack() as stack:
        paths = [stack.enter_context(_file(where)) for where in (a, b)]
        connection = stack.enter_context(duckdb.connect())
        for name, path in zip(("a", "b"), paths, strict=True):
            quoted = str(path).replace("'", "''")
            try:
                connection.execute(f"ATTACH '{quoted}' AS {name} (READ_ONLY)")
            except duckdb.Error as error:
                reason = str(error).splitlines()[0]
                raise WarehouseError(f"can't read {path} ({reason})") from None
        return compare(connection)


@contextmanager
def _file(where: str) -> Iterator[Path]:
    path = Path(where)
    if path.is_file():
        yield path
    elif (path / LINK_NAME).exists():
        yield (path / LINK_NAME).resolve()
    else:
        with TemporaryDirectory() as folder:
            restored = Path(folder) / "restored.duckdb"
            restore(where, restored)
            yield restored
