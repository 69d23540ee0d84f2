"""crypto_assets: public crypto APIs, turned into a trustworthy DuckDB warehouse."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crypto_assets.warehouse.as_of import as_of as as_of
    from crypto_assets.warehouse.reading import connect as connect

# In the words of an old Python, too: this file is the first that it reads.
if sys.version_info < (3, 11):  # noqa: UP036
    _TOO_OLD = (
        f"crypto_assets needs Python 3.11 or newer and this is {sys.version.split()[0]}: make the "
        "environment with a newer one, for instance python3.11 -m venv .venv"
    )
    # A command ends with the sentence; who imports wants an error to catch.
    if sys.argv[:1] == ["-m"] or sys.argv[0].endswith("crypto-assets"):
        sys.exit("crypto-assets: " + _TOO_OLD)
    raise ImportError(_TOO_OLD)

__all__ = ["as_of", "connect"]

_HOMES = {
    "as_of": "crypto_assets.warehouse.as_of",
    "connect": "crypto_assets.warehouse.reading",
}


def __getattr__(name: str) -> object:
    # Lazy, so that `crypto-assets --help` need not import DuckDB and pandas.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
