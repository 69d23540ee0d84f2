"""For notebooks and tools: a read-only connection to the newest publication."""

import os
from pathlib import Path

import duckdb

from crypto_assets.warehouse.errors import WarehouseError, reason_of
from crypto_assets.warehouse.publishing import LINK_NAME


def connect(home: Path | str | None = None) -> duckdb.DuckDBPyConnection:
    """Return a read-only DuckDB connection to the newest publication of a home.

    A new call sees newer data, also while an older connection is open; neither ever waits for the
    pipeline. Without `home` the settings in force decide. Raises `WarehouseError`.
    """
    if home is None:
        from crypto_assets.settings import load_settings

        home = load_settings().home
    link = Path(home) / LINK_NAME
    while True:
        # The versioned name: DuckDB hands an already open path to a second connect of a process.
        version = Path(os.path.realpath(link))
        try:
            connection = duckdb.connect(str(version), read_only=True)
        except duckdb.IOException as error:
            if Path(os.path.realpath(link)) != version:
                continue
            if not version.exists():
                raise WarehouseError(
                    f"nothing has been published in {Path(home).absolute()} yet: run "
                    "'crypto-assets demo' or 'crypto-assets refresh', or name another home"
                ) from None
            reason = reason_of(error)
            raise WarehouseError(
                f"can't read {version} ({reason}): move it away, and 'crypto-assets rebuild' or "
                "the next run that changes anything publishes another"
            ) from None
        connection.execute("SET TimeZone = 'UTC'")
        return connection
