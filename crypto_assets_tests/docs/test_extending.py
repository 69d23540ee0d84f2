"""The recipes of `extending.md` do what they promise: all three on one copy of the repository."""

import re
from datetime import datetime
from pathlib import Path

import duckdb
import pandas as pd
import pytest
import yaml

from crypto_assets.sandbox import Market
from crypto_assets_tests.docs.pages import blocks
from crypto_assets_tests.docs.recipes import (
    EXTENDING,
    RECIPES,
    Clone,
    apply,
    clone_into,
    commands,
    touched,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PROVENANCE = ("source", "observed_at", "run_id", "materialized_at", "is_final")


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    made = clone_into(tmp_path_factory.mktemp("developer") / "clone")
    for recipe in RECIPES:
        apply(made, recipe)
    return made


@pytest.fixture(scope="module")
def said(clone: Clone) -> dict[str, str]:
    """What each command of the recipes printed; all have to succeed."""
    found: dict[str, str] = {}
    for recipe in RECIPES:
        for command in commands(recipe):
            # All recipes are applied already: what two of them say is done once.
            if command not in found:
                done = clone.run(command)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                found[command] = done.stdout
    return found


@pytest.fixture(scope="module")
def home(clone: Clone, said: dict[str, str]) -> Path:
    return clone.folder / "data" / "try"


def test_every_block_belongs_to_a_recipe(clone: Clone) -> None:
    assert {block.language for block in blocks(EXTENDING)} == {"sh", "python", "diff"}
    done = clone.run("python -c 'import crypto_assets; print(crypto_assets.__file__)'")
    assert done.stdout.startswith(str(clone.folder))


def test_the_new_check_fails_on_a_bad_row_and_on_no_other(said: dict[str, str]) -> None:
    (tested,) = [out for command, out in said.items() if "-k volume_is_plausible" in command]
    for name in ("what_the_platform_stored_passes", "damage_fails_and_shows_how_much_and_which"):
        assert re.search(rf"::test_{name}\[.*volume_is_plausible.*\] PASSED", tested)


def test_the_new_table_is_materialized_with_its_provenance(home: Path) -> None:
    with duckdb.connect(str(home / "crypto.duckdb"), read_only=True) as connection:
        stored = connection.sql("FROM market_breadth ORDER BY ALL").df()
        signals = connection.sql("FROM ema_signals").df()
    expected: dict[tuple[object, ...], list[bool]] = {}
    for row in signals.itertuples(index=False):
        expected.setdefault((row.date, row.fast_span, row.slow_span), []).append(row.state == 1)
    assert len(stored) == 21 * 3
    for row in stored.itertuples(index=False):
        rising = expected.pop((row.date, row.fast_span, row.slow_span))
        assert row.coins == len(rising) >= 3
        assert row.share_rising == pytest.approx(sum(rising) / len(rising))
    assert expected == {}
    assert stored[list(PROVENANCE)].notna().all(axis=None)
    assert set(stored["source"]) == {"sandbox/calculated"}


def test_the_new_sources_client_reads_a_served_answer(said: dict[str, str]) -> None:
    (tested,) = [out for command, out in said.items() if "test_defillama" in command]
    assert re.search(r"\b4 passed", tested)


def test_the_new_source_is_in_the_warehouse_as_it_was_told(home: Path, market: Market) -> None:
    clock = datetime.fromisoformat(
        yaml.safe_load((home / "crypto_assets.yaml").read_text())["sandbox"]["clock"]
    )
    with duckdb.connect(str(home / "crypto.duckdb"), read_only=True) as connection:
        stored = connection.sql("FROM defi_value ORDER BY date").df()
    days = pd.date_range(end=clock.date(), periods=21)
    assert list(stored["date"]) == list(days)
    prices = market.closes_between("bitcoin", days[0].date(), clock.date())
    assert stored["value_locked_usd"].tolist() == pytest.approx([1e6 * p for p in prices])
    assert stored["is_final"].tolist() == [True] * 20 + [False]
    assert stored[[*PROVENANCE, "raw_id"]].notna().all(axis=None)
    assert set(stored["source"]) == {"sandbox/defillama/v2/historicalChainTvl"}


def test_the_new_tables_are_checked_and_documented(clone: Clone, home: Path) -> None:
    done = clone.run("crypto-assets verify --home data/try")
    assert done.returncode == 0, done.stdout + done.stderr
    dictionary = (clone.folder / "crypto_assets" / "docs" / "data_dictionary.md").read_text("utf-8")
    assert {"## market_breadth", "## defi_value"} <= set(dictionary.splitlines())
    settings = (clone.folder / "crypto_assets" / "docs" / "settings.md").read_text("utf-8")
    assert "`CRYPTO_ASSETS_DEFILLAMA__BASE_URL`" in settings


def test_a_day_that_changed_makes_the_new_table_stale(clone: Clone, home: Path) -> None:
    look = (
        "from crypto_assets.settings import load_settings;"
        "from crypto_assets.warehouse.staleness import stale_days;"
        "from crypto_assets.warehouse.warehouse import Warehouse;"
        "s = load_settings('data/try');"
        "print(*stale_days(Warehouse.of(s), s.clock.now()).get('market_breadth', []))"
    )
    assert clone.run(f'python -c "{look}"').stdout.split() == []
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        (day,) = connection.sql("SELECT min(date) FROM ema_signals").fetchone() or ()
        connection.execute(
            "UPDATE ema_signals SET materialized_at = (SELECT max(materialized_at) "
            "+ INTERVAL 1 MILLISECOND FROM market_breadth) WHERE date = ?",
            [day],
        )
    done = clone.run(f'python -c "{look}"')
    assert done.stdout.split() == [str(day)], done.stderr


@pytest.mark.parametrize("tool", ["ruff check", "ruff format --check"])
def test_the_code_of_the_recipes_is_written_as_the_rest(clone: Clone, tool: str) -> None:
    assert len(touched()) > 20
    done = clone.run(f"python -m {tool} {' '.join(touched())}")
    assert done.returncode == 0, done.stdout
