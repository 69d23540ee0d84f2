"""A small demo, made once by the command itself; tests that change it work on a copy."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from crypto_assets_tests.operations.commands import Done, spawn


@dataclass(frozen=True)
class Demo:
    """The home and what the command said when it made it."""

    home: Path
    told: Done


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    told = spawn("demo", "--coins", 8, "--days", 10, "--home", "made", cwd=folder)
    return Demo(folder / "made", told)


@pytest.fixture
def demo_copy(demo: Demo, tmp_path: Path) -> Path:
    return shutil.copytree(demo.home, tmp_path / "copy", symlinks=True)
