import re
from datetime import date
from pathlib import Path

import duckdb
import pytest

from crypto_assets.checks.build import evaluate
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.rules import Rule, all_rules
from crypto_assets_tests.checks.conftest import FIRST, HISTORY_START, LAST, TODAY
from crypto_assets_tests.checks.damages import DAMAGES, DAYS, MONDAY, SUNDAY, Damage

RULES = {f"{rule.table}.{rule.name}": rule for rule in all_rules()}
CASES = [(name, damage) for name, all_ in DAMAGES.items() for damage in all_]


def alarms(home: Path, first: date, last: date) -> dict[str, int]:
    """The rules that are broken on these days, and by how many rows."""
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as connection:
        counts = {
            name: count_offenders(connection, rule, (first, last)) for name, rule in RULES.items()
        }
    return {name: count for name, count in counts.items() if count}


def test_each_rule_is_broken_by_some_test() -> None:
    assert set(DAMAGES) == set(RULES)


def test_each_rule_has_a_name_of_its_own_and_says_what_holds() -> None:
    assert len(RULES) == len(all_rules())
    assert all(rule.description.endswith(".") for rule in RULES.values())


def test_rules_know_nothing_but_the_days_under_check() -> None:
    for rule in RULES.values():
        used = set(re.findall(r"\$\w+", rule.offenders))
        assert used == set() if rule.table == "coin_list" else used == {"$first", "$last"}


@pytest.mark.parametrize("name", RULES)
def test_what_the_platform_stored_passes(stored: duckdb.DuckDBPyConnection, name: str) -> None:
    found = evaluate(stored, RULES[name], (HISTORY_START, TODAY))
    assert found.passed
    assert {key: value.value for key, value in found.metadata.items()} == {"offending_rows": 0}


def test_the_first_days_of_a_warehouse_raise_no_alarm(filled_home: Path) -> None:
    assert alarms(filled_home, FIRST, LAST) == {}


@pytest.mark.slow
def test_days_as_they_went_by_raise_no_alarm(lived_home: Path) -> None:
    assert alarms(lived_home, FIRST, TODAY) == {}


def test_each_day_of_a_long_history_by_itself_raises_no_alarm(long_home: Path) -> None:
    found = {day: alarms(long_home, day, day) for day in (HISTORY_START, SUNDAY, MONDAY, TODAY)}
    assert set(map(len, found.values())) == {0}


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_damage_fails_and_shows_how_much_and_which(
    stored: duckdb.DuckDBPyConnection, name: str, damage: Damage
) -> None:
    rule: Rule = RULES[name]
    stored.execute(damage.sql)
    day = DAYS.get(name, MONDAY)
    found = evaluate(stored, rule, (day, day))
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
    [case for case in CASES if RULES[case[0]].table != "coin_list" and case[0] not in DAYS],
)
def test_damage_of_another_day_is_not_todays(
    stored: duckdb.DuckDBPyConnection, name: str, damage: Damage
) -> None:
    stored.execute(damage.sql)
    days = (date(2026, 3, 6), date(2026, 3, 7))
    assert evaluate(stored, RULES[name], days).passed


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_damage_is_the_same_in_the_whole_history(
    stored: duckdb.DuckDBPyConnection, name: str, damage: Damage
) -> None:
    stored.execute(damage.sql)
    found = count_offenders(stored, RULES[name], (HISTORY_START, MONDAY))
    assert found == damage.offenders


def test_a_row_that_breaks_its_contract_is_shown_with_all_that_is_wrong(
    stored: duckdb.DuckDBPyConnection,
) -> None:
    stored.execute(
        "UPDATE market_caps SET price_usd = 0, volume_24h_usd = -1 "
        "WHERE date = '2026-03-09' AND coin_id = 'bitcoin'"
    )
    found = evaluate(stored, RULES["market_caps.contract_holds"], (MONDAY, MONDAY))
    row = found.metadata["examples"].value.splitlines()[-1]
    assert row.endswith("| bitcoin | price_usd > 0, volume_24h_usd >= 0 |")


def test_an_example_with_a_bar_stays_one_cell(stored: duckdb.DuckDBPyConnection) -> None:
    row = "'a|b', 'x', 'y', NULL, true, now(), now(), NULL, 'sandbox', 'r', now(), NULL"
    stored.execute(f"INSERT INTO coin_list VALUES ({row}), ({row})")
    found = evaluate(stored, RULES["coin_list.keys_unique"], (MONDAY, MONDAY))
    assert "| a\\|b | 2 |" in found.metadata["examples"].value


def test_checks_that_only_warn_are_those_of_what_providers_lack_or_markets_may_do() -> None:
    warning = {name for name, rule in RULES.items() if not rule.is_error}
    tables = {"market_caps", "ranks", "ema_signals", "ohlc_hourly", "ohlc_daily", "etf_flows"}
    assert warning == {
        *(f"{table}.row_count_is_usual" for table in (*tables, "daily_snapshot")),
        "market_caps.complete",
        "market_caps.cap_is_price_times_supply",
        "market_caps.universe_is_stable",
        "market_caps.prices_do_not_jump",
        "market_caps.prices_are_fresh",
        "ohlc_hourly.complete",
        "ohlc_hourly.hours_agree_with_day",
        "ohlc_hourly.no_silent_holes",
        "ohlc_hourly.prices_are_fresh",
        "ohlc_daily.complete",
        "ohlc_daily.no_silent_holes",
        "ohlc_daily.prices_do_not_jump",
        "fear_greed.complete",
        "fear_greed.no_unknown_holes",
        "etf_flows.complete",
        "etf_flows.active_funds_report",
        "etf_flows.funds_are_known",
    }
