"""crypto_assets: public crypto APIs, turned into a trustworthy DuckDB warehouse."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crypto_assets.warehouse.as_of import as_of as as_of
    from crypto_assets.warehouse.reading import connect as connect

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
