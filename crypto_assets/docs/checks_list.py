"""The list of checks, from the rules and the freshness check."""

from crypto_assets.checks.freshness import FRESH, FRESH_DESCRIPTION
from crypto_assets.docs.markdown import code, link, table
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.rules import Rule, all_rules

_INTRODUCTION = """
# Checks

Every run checks the days that it wrote; `crypto-assets verify` checks all days. An ERROR withholds
publication until it passes on the days concerned: readers keep the publication before. A WARN is
told by `status`, in the report and, with `alerts.warnings`, at once. In the Dagster UI a failed
check shows how many rows offend it, five of them, and the SQL that finds all. What a single row
must be is enforced before the commit too, so that `contract_holds` fails only where something else
changed the file.
"""
_SETTLES = " Stale rows break it until they are calculated again, so that it may fail for minutes."


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION.strip()]
    rules = all_rules()
    for name in TABLES:
        rows = [_row(rule) for rule in rules if rule.table == name]
        rows.append((code(FRESH), "WARN", FRESH_DESCRIPTION))
        heading = f"## {name}\n\nOf {link(name, 'data_dictionary.md')}."
        parts += [heading, table(("check", "severity", "what holds"), rows)]
    return "\n\n".join(parts)


def _row(rule: Rule) -> tuple[str, str, str]:
    severity = "ERROR" if rule.is_error else "WARN"
    return code(rule.name), severity, rule.description + (_SETTLES if rule.settles else "")
