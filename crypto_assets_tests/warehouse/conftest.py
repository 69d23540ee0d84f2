"""A real warehouse in a folder of the test's own, and children that can be killed."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from crypto_assets.warehouse.schema import ensure_schema
from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse
from crypto_assets_tests.warehouse.frames import IDENTITY

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a warehouse that was opened once."""
    path = tmp_path_factory.mktemp("empty") / FILE_NAME
    Warehouse(path, IDENTITY).query("SELECT 1")
    return path


@pytest.fixture
def warehouse(home: Path, empty: Path) -> Warehouse:
    home.mkdir()
    shutil.copy(empty, home / FILE_NAME)
    return Warehouse(home / FILE_NAME, IDENTITY, lock_timeout_seconds=20)


@pytest.fixture
def each_opening_is_a_new_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has not seen the file before."""
    looks = itertools.count()
    monkeypatch.setattr("crypto_assets.warehouse.warehouse._looks", lambda _: (next(looks),))


@pytest.fixture(scope="module")
def memory() -> Iterator[duckdb.DuckDBPyConnection]:
    """The schema in memory, for many short examples; tests delete what they write."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        ensure_schema(connection, IDENTITY)
        yield connection


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts Python code in another process; `home` is defined in it, `say` writes a line."""
    children: list[subprocess.Popen[str]] = []
    prelude = (
        "import sys\nfrom pathlib import Path\n"
        "from crypto_assets.warehouse.warehouse import FILE_NAME, Warehouse\n"
        "from crypto_assets.warehouse.writer import Batch, Write\n"
        "from crypto_assets import tables\n"
        "from crypto_assets_tests.warehouse import frames\n"
        "home = Path(sys.argv[1])\n"
        "warehouse = Warehouse(home / FILE_NAME, frames.IDENTITY, 20)\n"
        "def say(text): print(text, flush=True)\n"
    )

    def starter(code: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", prelude + code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        children.append(child)
        return child

    yield starter
    for child in children:
        child.kill()
        child.communicate()
