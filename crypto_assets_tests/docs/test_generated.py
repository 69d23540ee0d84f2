"""The generated pages say what the code says, and all of it."""

import os
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import click
import duckdb
import pytest

import crypto_assets
from crypto_assets.cli import cli
from crypto_assets.definitions import build_definitions
from crypto_assets.docs import generate
from crypto_assets.settings import Settings, load_settings, validated
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.beside import BESIDE_DESCRIPTIONS
from crypto_assets.warehouse.schema import Identity, ensure_schema
from crypto_assets.warehouse.views import VIEWS
from crypto_assets_tests.docs.pages import DOCS, cells

SETTINGS = [row for row in cells(DOCS / "settings.md") if row[0].startswith("`")]


@pytest.mark.parametrize("name", list(generate.pages()))
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    assert name not in generate.stale(), f"{name} is stale: run '{generate.COMMAND}'"


def test_a_stale_page_is_named_with_the_command_that_renews_it(tmp_path: Path) -> None:
    generate.write(tmp_path)
    assert generate.stale(tmp_path) == []
    page = tmp_path / "settings.md"
    page.write_text(page.read_text("utf-8").replace("`100`", "`99`"), "utf-8")
    (tmp_path / "api.md").unlink()
    assert generate.stale(tmp_path) == ["settings.md", "api.md"]


@pytest.mark.slow
def test_the_command_finds_them_right_on_any_machine() -> None:
    program, *words = generate.COMMAND.split()
    assert program == "python"
    elsewhere = {"TZ": "Asia/Tokyo", "COLUMNS": "40", "HOME": "/nowhere", "PYTHONHASHSEED": "5"}
    done = subprocess.run(
        [sys.executable, *words, "--check"],
        env=os.environ | elsewhere,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", list(generate.pages()))
def test_a_page_names_no_place_of_the_machine(name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    assert not re.search(r"/(tmp|root|home|Users)/|0x[0-9a-f]{6}", text)


def leaves(tree: dict[str, object], path: str = "") -> set[str]:
    found: set[str] = set()
    for name, value in tree.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}"}
    return found


def test_every_setting_is_in_the_table() -> None:
    tree = validated({"sandbox": {}}).model_dump(mode="json")
    assert {row[0].strip("`") for row in SETTINGS} == leaves(tree)


@pytest.mark.parametrize("row", [row for row in SETTINGS if row[2] != "–"], ids=lambda row: row[0])
def test_a_setting_can_be_given_by_its_name_in_the_environment_and_is_its_default(
    row: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    path, name, default = (cell.strip("`") for cell in row[:3])
    monkeypatch.setenv(name, default)
    found: object = load_settings()
    expected: object = Settings(sandbox={} if path.startswith("sandbox.") else None)
    for part in path.split("."):
        found, expected = getattr(found, part), getattr(expected, part)
    assert found == (tmp_path / default if path == "home" else expected)


@pytest.mark.parametrize(
    ("path", "beyond", "allowed"),
    [
        ("universe.tracked", "0", "a whole number from 1 up to 5,000"),
        ("universe.tracked", "5001", "a whole number from 1 up to 5,000"),
        ("fetch.timeout_seconds", "0", "a number above 0 up to 3,600"),
        ("history.start", "2013-04-27", "2013-04-28 to today"),
        ("schedules.backup", "* * * *", "cron expression of five fields, UTC"),
        ("backup.format", "xml", "`parquet`, `csv`"),
    ],
)
def test_what_is_said_to_be_allowed_is(path: str, beyond: str, allowed: str) -> None:
    (row,) = [row for row in SETTINGS if row[0] == f"`{path}`"]
    assert row[3] == allowed
    section, name = path.split(".")
    with pytest.raises(Exception, match=re.escape(path)):
        validated({section: {name: beyond}})


@pytest.fixture(scope="module")
def warehouse() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    ensure_schema(connection, Identity(True, date(2026, 1, 1)))
    return connection


def test_the_dictionary_has_every_column_of_the_database_with_its_type_and_comment(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    stored = warehouse.execute(
        "SELECT column_name, data_type, comment FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND NOT internal"
    ).fetchall()
    rows = [row for row in cells(DOCS / "data_dictionary.md") if row[0].startswith("`")]
    told = sorted((row[0].strip("`"), row[1]) for row in rows)
    assert told == sorted((name, kind) for name, kind, _ in stored)
    meanings = {(row[0].strip("`"), row[-1]) for row in rows}
    for name, _, comment in stored:
        meaning = str(comment).replace("|", "\\|").split(" Unit: ")[0]
        assert (name, meaning) in meanings


def test_what_is_beside_the_tables_is_described_column_by_column(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    stored = warehouse.execute(
        "SELECT table_name, list(column_name) FROM duckdb_columns() "
        "WHERE schema_name = 'main' AND NOT internal GROUP BY table_name"
    ).fetchall()
    known = {*TABLES, *VIEWS}
    beside = {table: set(columns) for table, columns in stored if table not in known}
    assert beside == {name: set(told.columns) for name, told in BESIDE_DESCRIPTIONS.items()}


def test_every_macro_of_the_database_is_told_with_its_parameters(
    warehouse: duckdb.DuckDBPyConnection,
) -> None:
    stored = warehouse.execute(
        "SELECT function_name, parameters FROM duckdb_functions() "
        "WHERE NOT internal AND function_name <> 'crypto_assets_views'"
    ).fetchall()
    text = (DOCS / "data_dictionary.md").read_text("utf-8")
    told = re.findall(r"^- `(\w+)\(([\w, ]*)\)`, ", text, re.MULTILINE)
    assert sorted(told) == sorted((name, ", ".join(parameters)) for name, parameters in stored)
    for example in re.findall(r" Example: `([^`]+)`$", text, re.MULTILINE):
        warehouse.execute(example)


def test_every_check_that_dagster_knows_is_in_the_list() -> None:
    definitions = build_definitions(validated({"home": "unused"}))
    known = {
        (key.asset_key.path[-1], key.name)
        for key in definitions.resolve_asset_graph().asset_check_keys
    }
    found, table = set(), ""
    for line in (DOCS / "checks.md").read_text("utf-8").splitlines():
        if line.startswith("## "):
            table = line.removeprefix("## ")
        elif line.startswith("| `"):
            found.add((table, line.split("`")[1]))
    assert found == known


def test_every_command_is_told_with_all_its_options() -> None:
    text = (DOCS / "commands.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(sections) == set(cli.commands)
    for name, command in cli.commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in sections[name]


def test_every_public_function_is_in_the_reference() -> None:
    headings = re.findall(r"^#### (\w+)$", (DOCS / "api.md").read_text("utf-8"), re.MULTILINE)
    assert set(crypto_assets.__all__) <= set(headings)
    for module in (Path(crypto_assets.__file__).parent / "calculations").glob("[a-z]*.py"):
        public = re.findall(r"^def ([a-z]\w*)", module.read_text("utf-8"), re.MULTILINE)
        assert set(public) <= set(headings), module.name
