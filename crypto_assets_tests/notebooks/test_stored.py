"""The notebooks as they are stored: all of one make, and without what a run leaves."""

import re

import nbformat
import pytest

from crypto_assets.notebooks import __file__ as package
from crypto_assets_tests.notebooks.kernel import NAMES, load


def test_there_are_the_five_that_the_readme_tells_of() -> None:
    assert NAMES == ["etf_flows", "point_in_time", "restatements", "screener", "tour"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    notebook = load(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
        assert cell.metadata == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_names_only_its_kernel(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert set(notebook.metadata) == {"kernelspec"}
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_begins_with_a_title_and_its_question(name: str) -> None:
    title, question = load(name).cells[0].source.split("\n\n")
    assert re.fullmatch(r"# [A-Z].*", title)
    assert len(question) > 100


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_of_code_has_a_sentence_before_it(name: str) -> None:
    cells = load(name).cells
    kinds = [cell.cell_type for cell in cells]
    # The first opens the home, the last closes the connection.
    assert kinds == ["markdown", "code"] * (len(cells) // 2)
    assert cells[-1].source == "connection.close()"


@pytest.mark.parametrize("name", NAMES)
def test_the_prose_holds_no_figures_of_the_data(name: str) -> None:
    prose = " ".join(c.source for c in load(name).cells if c.cell_type == "markdown")
    assert not re.search(r"\d+(\.\d+)? ?(million|billion|percent)|\$ ?\d", prose)


def test_the_first_cell_is_the_same_everywhere_and_has_one_choice() -> None:
    first = {load(name).cells[1].source for name in NAMES}
    assert len(first) == 1
    assert re.findall(r"^([A-Z_]+) = (\S+)", first.pop(), flags=re.MULTILINE) == [("HOME", "None")]


def test_the_package_names_no_folder_of_a_machine() -> None:
    for name in NAMES:
        assert "/tmp/" not in nbformat.writes(load(name))
    assert package.endswith("notebooks/__init__.py")
