"""Checks as Dagster sees them: one step a table, one connection, one result a rule."""

from collections.abc import Iterator
from datetime import date
from itertools import groupby

import dagster as dg
import duckdb
import pandas as pd

from crypto_assets.assets.platform import Platform
from crypto_assets.checks.freshness import (
    FRESH,
    FRESH_DESCRIPTION,
    freshness,
    freshness_result,
)
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.rules import Rule, all_rules

EXAMPLES = 5


def build_checks() -> list[dg.AssetChecksDefinition]:
    """Return the checks of all tables."""
    rules = sorted(all_rules(), key=lambda rule: rule.table)
    return [_table_checks(table, list(own)) for table, own in groupby(rules, lambda r: r.table)]


def _table_checks(table: str, rules: list[Rule]) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(FRESH, asset=table, description=FRESH_DESCRIPTION),
        *(
            dg.AssetCheckSpec(rule.name, asset=table, description=rule.description)
            for rule in rules
        ),
    ]

    @dg.multi_asset_check(specs=specs, name=f"{table}_checks", can_subset=True)
    def checks(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        chosen = {key.name for key in context.selected_asset_check_keys}
        days = _days(context, table, platform)
        results = []
        with platform.warehouse.session(f"checking {table}") as connection:
            if FRESH in chosen:
                now = platform.clock.now()
                told = freshness(connection, platform.settings, now, [table])
                results.append(freshness_result(told[table]))
            results += [evaluate(connection, rule, days) for rule in rules if rule.name in chosen]
        # Others may use the file while Dagster stores them.
        yield from results

    return checks


def evaluate(
    connection: duckdb.DuckDBPyConnection, rule: Rule, days: tuple[date, date]
) -> dg.AssetCheckResult:
    """Run one check on the days [first, last]; a failure shows its count and up to five rows."""
    offending = count_offenders(connection, rule, days)
    metadata: dict[str, dg.MetadataValue] = {"offending_rows": dg.MetadataValue.int(offending)}
    if offending:
        examples = connection.execute(
            f"SELECT * FROM ({rule.offenders}) LIMIT {EXAMPLES}", rule.parameters(days)
        )
        metadata["examples"] = dg.MetadataValue.md(_as_markdown(examples.fetchdf()))
        metadata["sql"] = dg.MetadataValue.md(f"```sql\n{_with_days(rule.offenders, days)}\n```")
    return dg.AssetCheckResult(
        passed=offending == 0,
        check_name=rule.name,
        asset_key=rule.table,
        severity=dg.AssetCheckSeverity.ERROR if rule.is_error else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def _days(
    context: dg.AssetCheckExecutionContext, table: str, platform: Platform
) -> tuple[date, date]:
    everything = (platform.settings.history.start, platform.clock.today())
    by_day = context.has_partition_key or context.has_partition_key_range
    if TABLES[table].time_column is None or not by_day:
        return everything
    keys = sorted(context.partition_keys)
    return date.fromisoformat(keys[0]), date.fromisoformat(keys[-1])


def _with_days(sql: str, days: tuple[date, date]) -> str:
    return sql.replace("$first", f"DATE '{days[0]}'").replace("$last", f"DATE '{days[1]}'")


def _as_markdown(rows: pd.DataFrame) -> str:
    cells = [
        [str(value).replace("|", "\\|") for value in row] for row in rows.itertuples(index=False)
    ]
    lines = [list(map(str, rows.columns)), ["---"] * len(rows.columns), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
