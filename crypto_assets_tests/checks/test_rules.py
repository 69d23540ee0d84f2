import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pytest

from crypto_assets.checks.build import evaluate
from crypto_assets.warehouse.rules import Rule, all_rules

FRIDAY, MONDAY = date(2026, 3, 6), date(2026, 3, 9)
RULES = {f"{rule.table}.{rule.name}": rule for rule in all_rules()}


@dataclass(frozen=True)
class Damage:
    """What breaks a rule on Monday, and how many rows then offend it."""

    sql: str
    offenders: int


def doubled(table: str, rows: int, day: str = "date") -> Damage:
    on = f"WHERE CAST({day} AS DATE) = '2026-03-09'" if day else ""
    return Damage(f"INSERT INTO {table} SELECT * FROM {table} {on} LIMIT {rows}", rows)


def mislabelled(table: str, where: str, rows: int, day: str = "date") -> Damage:
    return Damage(
        f"UPDATE {table} SET source = 'live' WHERE CAST({day} AS DATE) = '2026-03-09' AND {where}",
        rows,
    )


def lost(table: str, series: str) -> Damage:
    return Damage(
        f"INSERT INTO gaps VALUES ('{table}', '{series}', '2026-03-09', '2026-03-09', 'missing', "
        "'a test', '2026-03-10')",
        1,
    )


ONE = "coin_id = 'bitcoin'"
DAMAGES = {
    "coin_list.keys_unique": [doubled("coin_list", 7, day="")],
    "market_caps.keys_unique": [doubled("market_caps", 7)],
    "ranks.keys_unique": [doubled("ranks", 7)],
    "ema_signals.keys_unique": [doubled("ema_signals", 7)],
    "ohlc_hourly.keys_unique": [doubled("ohlc_hourly", 30, day="open_time")],
    "ohlc_daily.keys_unique": [doubled("ohlc_daily", 7)],
    "fear_greed.keys_unique": [doubled("fear_greed", 1)],
    "etf_flows.keys_unique": [doubled("etf_flows", 7)],
    "daily_snapshot.keys_unique": [doubled("daily_snapshot", 7)],
    "market_caps.source_fits_home": [mislabelled("market_caps", ONE, 1)],
    "ranks.source_fits_home": [mislabelled("ranks", ONE, 1)],
    "ema_signals.source_fits_home": [mislabelled("ema_signals", ONE, 3)],
    "ohlc_hourly.source_fits_home": [mislabelled("ohlc_hourly", ONE, 24, "open_time")],
    "ohlc_daily.source_fits_home": [mislabelled("ohlc_daily", ONE, 1)],
    "fear_greed.source_fits_home": [mislabelled("fear_greed", "true", 1)],
    "etf_flows.source_fits_home": [mislabelled("etf_flows", "ticker = 'IBIT'", 1)],
    "daily_snapshot.source_fits_home": [mislabelled("daily_snapshot", ONE, 1)],
    "market_caps.complete": [lost("market_caps", "solana")],
    "ohlc_hourly.complete": [lost("ohlc_hourly", "solana")],
    "ohlc_daily.complete": [lost("ohlc_daily", "solana")],
    "etf_flows.complete": [lost("etf_flows", "sol")],
    "ranks.ranks_are_1_to_n": [
        Damage("DELETE FROM ranks WHERE date = '2026-03-09' AND market_cap_rank = 1", 1),
        Damage("DELETE FROM ranks WHERE date = '2026-03-09' AND market_cap_rank = 4", 1),
        Damage(
            "UPDATE ranks SET market_cap_rank = 3 WHERE date = '2026-03-09' "
            "AND market_cap_rank = 4",
            1,
        ),
    ],
    "ranks.ranks_follow_market_caps": [
        Damage(
            f"UPDATE ranks SET market_cap_usd = 1 WHERE date = '2026-03-09' AND {ONE}",
            1,
        ),
        Damage(f"DELETE FROM ranks WHERE date = '2026-03-09' AND {ONE}", 1),
        Damage(f"DELETE FROM market_caps WHERE date = '2026-03-09' AND {ONE}", 1),
    ],
    "ema_signals.signals_follow_prices": [
        Damage(
            "UPDATE ema_signals SET price_usd = 1 "
            f"WHERE date = '2026-03-09' AND fast_span = 12 AND {ONE}",
            1,
        ),
        Damage(f"DELETE FROM ema_signals WHERE date = '2026-03-09' AND {ONE}", 1),
    ],
    "ohlc_hourly.hours_agree_with_day": [
        Damage(
            f"UPDATE ohlc_daily SET high = high * 1.05 WHERE date = '2026-03-09' AND {ONE}",
            1,
        ),
        Damage(
            "UPDATE ohlc_hourly SET close = close * 1.05, high = high * 1.05 "
            f"WHERE open_time = '2026-03-09 23:00' AND {ONE}",
            1,
        ),
    ],
}


@pytest.fixture
def stored(tmp_path: Path, filled_home: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """What a lab stored, on a copy that may be damaged."""
    copy = shutil.copy(filled_home / "warehouse.duckdb", tmp_path)
    with duckdb.connect(copy) as connection:
        yield connection


def test_each_rule_is_broken_by_some_test() -> None:
    assert set(DAMAGES) == set(RULES)


@pytest.mark.parametrize("name", RULES)
def test_what_the_platform_stored_passes(stored: duckdb.DuckDBPyConnection, name: str) -> None:
    found = evaluate(stored, RULES[name], (FRIDAY, MONDAY))
    assert found.passed
    assert {key: value.value for key, value in found.metadata.items()} == {"offending_rows": 0}


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name, all_ in DAMAGES.items() for damage in all_]
)
def test_damage_fails_and_shows_how_much_and_which(
    stored: duckdb.DuckDBPyConnection, name: str, damage: Damage
) -> None:
    rule: Rule = RULES[name]
    stored.execute(damage.sql)
    found = evaluate(stored, rule, (MONDAY, MONDAY))
    assert not found.passed
    assert found.severity.value == ("ERROR" if rule.is_error else "WARN")
    told = {key: value.value for key, value in found.metadata.items()}
    assert told["offending_rows"] == damage.offenders
    header, _, *examples = told["examples"].splitlines()
    assert len(examples) == min(damage.offenders, 5)
    sql = told["sql"].removeprefix("```sql\n").removesuffix("\n```")
    shown = stored.execute(sql)
    names = [column[0] for column in shown.description]
    assert header == "| " + " | ".join(names) + " |"
    assert len(shown.fetchall()) == damage.offenders


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name, all_ in DAMAGES.items()
        for damage in all_
        if name != "coin_list.keys_unique"
    ],
)
def test_damage_of_another_day_is_not_todays(
    stored: duckdb.DuckDBPyConnection, name: str, damage: Damage
) -> None:
    stored.execute(damage.sql)
    assert evaluate(stored, RULES[name], (FRIDAY, date(2026, 3, 8))).passed


def test_an_example_with_a_bar_stays_one_cell(stored: duckdb.DuckDBPyConnection) -> None:
    row = "'a|b', 'x', 'y', NULL, true, now(), now(), NULL, 'sandbox', 'r', now(), NULL"
    stored.execute(f"INSERT INTO coin_list VALUES ({row}), ({row})")
    found = evaluate(stored, RULES["coin_list.keys_unique"], (FRIDAY, MONDAY))
    assert "| a\\|b | 2 |" in found.metadata["examples"].value


def test_checks_that_only_warn_are_those_of_what_providers_lack() -> None:
    warning = {name for name, rule in RULES.items() if not rule.is_error}
    assert warning == {
        "market_caps.complete",
        "ohlc_hourly.complete",
        "ohlc_daily.complete",
        "etf_flows.complete",
        "ohlc_hourly.hours_agree_with_day",
    }
