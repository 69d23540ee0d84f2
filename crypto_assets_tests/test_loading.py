"""What loading costs, told by what is loaded: time differs by machine, this does not.

The benchmark `loading` has the time.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"dagster", "pandas", "duckdb", "numpy", "requests", "matplotlib", "apprise", "rich"}
HEAVY |= {"lxml", "fsspec", "pyrate_limiter", "urllib3", "grpc", "sqlalchemy"}
# The definitions stand on Dagster, pandas and DuckDB and bring these few, small ones.
SMALL = {"crypto_assets", "dagster_duckdb", "dagster_duckdb_pandas", "dotenv"}


def loaded_by(code: str, folder: Path, before: str = "") -> set[str]:
    """The libraries and parts that a piece of code loads, after others, in a process of its own."""
    whole = (
        f"import sys\n{before}\nold = set(sys.modules)\n{code}\n"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - old if '.' not in name"
        " or name.startswith('crypto_assets.')}"
        ", *(name for name in sys.modules if name.startswith('crypto_assets.')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", whole],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return set(done.stdout.splitlines()[-1].split())


def typed(*words: str) -> str:
    """Code that runs the command line."""
    return (
        f"from crypto_assets.cli import main\nsys.argv = {['crypto-assets', *words]!r}\n"
        "try: main()\nexcept SystemExit: pass"
    )


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("init", "--help"), ("up", "-h")])
def test_help_answers_without_loading_the_heavy_libraries(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    loaded = loaded_by(typed(*words), tmp_path)
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_the_definitions_load_little_beside_dagster_pandas_and_duckdb(tmp_path: Path) -> None:
    before = "import dagster, pandas, duckdb"
    loaded = loaded_by("import crypto_assets.definitions", tmp_path, before)
    libraries = {name for name in loaded if "." not in name and not name.startswith("_")}
    assert libraries - sys.stdlib_module_names == SMALL


def test_the_definitions_load_neither_plots_nor_the_sandbox(tmp_path: Path) -> None:
    loaded = loaded_by("import crypto_assets.definitions", tmp_path)
    unneeded = {"matplotlib", "apprise", "rich", "lxml", "requests", "fsspec", "pyrate_limiter"}
    assert loaded & unneeded == set()
    parts = ("crypto_assets.sandbox", "crypto_assets.cli", "crypto_assets.operations")
    assert {name for name in loaded if name.startswith(parts)} == set()


def test_building_the_platform_loads_no_more(tmp_path: Path) -> None:
    built = (
        "from crypto_assets.settings import Settings\n"
        "crypto_assets.definitions.build_definitions(Settings())"
    )
    loaded = loaded_by(built, tmp_path, "import crypto_assets.definitions")
    assert loaded & HEAVY == set()
