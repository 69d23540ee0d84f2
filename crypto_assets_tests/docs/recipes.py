"""Applying the recipes of `extending.md` to a copy of the repository, as a developer would."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from crypto_assets_tests.docs.pages import DOCS, REPOSITORY, Block, section

EXTENDING = DOCS / "extending.md"
RECIPES = ("Add a check", "Add a table", "Add a source")
_COPIED = ("crypto_assets", "crypto_assets_tests", "pyproject.toml", "dagster.yaml")


@dataclass(frozen=True)
class Clone:
    """A copy of the repository whose code is used by what is run in it."""

    folder: Path

    def run(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command line as typed in an activated environment."""
        keep = ("PATH", "HOME", "TMPDIR", "LANG")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        environment["PATH"] = f"{self.folder / 'bin'}:{environment['PATH']}"
        environment["PYTHONPATH"] = str(self.folder)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def clone_into(folder: Path) -> Clone:
    """Copy the code, and give it commands of its own."""
    for name in _COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    (folder / "bin").mkdir()
    words = {"python": "", "pytest": "-m pytest", "crypto-assets": "-m crypto_assets"}
    for name, options in words.items():
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {options} "$@"\n')
        script.chmod(0o755)
    return Clone(folder)


def apply(clone: Clone, recipe: str) -> None:
    """Write the files and make the edits of a recipe."""
    for block in section(EXTENDING, recipe):
        if block.language == "diff":
            _edit(clone.folder, block)
        elif block.language == "python":
            _write(clone.folder, block)
        else:
            assert block.language == "sh", block


def touched() -> list[str]:
    """The files that the recipes write or edit."""
    text = EXTENDING.read_text(encoding="utf-8")
    return sorted(set(re.findall(r"^(?:\+\+\+ b/|# (?=\w+/))(\S+\.py)$", text, re.MULTILINE)))


def commands(recipe: str) -> list[str]:
    """The commands of a recipe, in order."""
    blocks = [block for block in section(EXTENDING, recipe) if block.language == "sh"]
    return [line for block in blocks for line in block.text.splitlines()]


def _write(folder: Path, block: Block) -> None:
    name, text = block.text.split("\n", 1)
    file = folder / name.removeprefix("# ")
    assert not file.exists(), f"{file} is there already"
    file.write_text(text, encoding="utf-8")


def _edit(folder: Path, block: Block) -> None:
    _, *files = re.split(r"^--- a/.*\n\+\+\+ b/(.*)\n@@\n", block.text, flags=re.MULTILINE)
    for name, hunks in zip(files[::2], files[1::2], strict=True):
        file = folder / name
        text = file.read_text(encoding="utf-8")
        for hunk in hunks.split("@@\n"):
            lines = hunk.splitlines()
            before = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "+")
            after = "".join(f"{line[1:]}\n" for line in lines if line[:1] != "-")
            assert text.count(before) == 1, f"not once in {name}:\n{before}"
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
