"""Stands in for the providers on loopback: an invented market, their habits, and faults to order.

Nothing outside this folder is imported here, and nothing here knows Dagster, DuckDB or the clients:
the sandbox stands on the other side of the wire.
"""

from crypto_assets.sandbox.clock import Clock
from crypto_assets.sandbox.market import Market
from crypto_assets.sandbox.server import SandboxServer

__all__ = ["Clock", "Market", "SandboxServer"]
