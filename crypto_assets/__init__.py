"""crypto_assets: public crypto APIs, turned into a trustworthy DuckDB warehouse."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crypto_assets.warehouse.reading import connect as connect

__all__ = ["connect"]


def __getattr__(name: str) -> object:
    # Lazy, so that `crypto-assets --help` need not import DuckDB and pandas.
    if name == "connect":
        from crypto_assets.warehouse.reading import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
