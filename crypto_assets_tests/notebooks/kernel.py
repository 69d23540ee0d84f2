"""Running a notebook as a reader would, and looking at what it found out."""

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import crypto_assets.notebooks

FOLDER = Path(crypto_assets.notebooks.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))

_FIRST = "import warnings\nwarnings.simplefilter('error')"
_LAST = """
import pathlib, pickle, warnings
warnings.simplefilter("ignore")
try:
    connection.execute("SELECT 1")
    is_open = True
except Exception:
    is_open = False
found = {{name: globals()[name] for name in {names!r}}} | {{"is_open": is_open}}
pathlib.Path({target!r}).write_bytes(pickle.dumps(found))
"""


@dataclass(frozen=True)
class Executed:
    """What a notebook left: its variables by name, the sentences it said, and how many plots."""

    variables: dict[str, Any]
    said: list[str]
    plots: int
    errors: list[str]
    """What was written to standard error."""

    def __getitem__(self, name: str) -> Any:
        return self.variables[name]

    def says(self, text: str) -> bool:
        return any(text in sentence for sentence in self.said)


def load(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def _choose(notebook: nbformat.NotebookNode, choice: str, value: int) -> None:
    found = 0
    for cell in notebook.cells:
        line = rf"(?m)^{choice} = \d+"
        cell.source, times = re.subn(line, f"{choice} = {value}", cell.source)
        found += times
    assert found == 1, f"{choice} is chosen in {found} places"


def execute(
    name: str, scratch: Path, names: Sequence[str] = (), choices: Mapping[str, int] | None = None
) -> Executed:
    """Run all cells in the folder of the notebook; a warning in a cell is an error.

    Choices are put in place of the notebook's own, as a reader would change them.
    """
    notebook = load(name)
    for choice, value in (choices or {}).items():
        _choose(notebook, choice, value)
    target = scratch / f"{name}.pickle"
    last = _LAST.format(names=list(names), target=str(target))
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_FIRST))
    notebook.cells.append(nbformat.v4.new_code_cell(last))
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    shown = [out["data"] for out in outputs if "data" in out]
    return Executed(
        pickle.loads(target.read_bytes()),
        [data["text/markdown"] for data in shown if "text/markdown" in data],
        sum("image/png" in data for data in shown),
        [out["text"] for out in outputs if out.get("name") == "stderr"],
    )
