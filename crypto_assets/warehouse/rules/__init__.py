"""The checks as data: queries that return the rows that should not be there, a module a concern.

Rules of single rows are enforced before the commit too (`warehouse.validation`); here belongs what
is asked of the stored whole. `$first` and `$last` are the days under check: a rule reads further
back where it needs to, and reports rows of these days only.
"""

from crypto_assets.warehouse.rules import (
    candles,
    contracts,
    market,
    prices,
    sentiment_and_flows,
    signals,
)
from crypto_assets.warehouse.rules.doubts import DOUBTED
from crypto_assets.warehouse.rules.rule import Rule

__all__ = ["DOUBTED", "Rule", "all_rules"]


def all_rules() -> list[Rule]:
    """Return every check, those generated from the contracts first."""
    return [
        *contracts.rules(),
        *market.RULES,
        *prices.RULES,
        *signals.RULES,
        *candles.RULES,
        *sentiment_and_flows.RULES,
    ]
