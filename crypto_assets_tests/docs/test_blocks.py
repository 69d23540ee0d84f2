"""Every fenced block of the Markdown is somebody's to try: who that is, is said here."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from crypto_assets.definitions import build_definitions
from crypto_assets.docs import generate
from crypto_assets.settings import Settings, validated
from crypto_assets_tests.docs.pages import PAGES, Block, all_blocks, cells
from crypto_assets_tests.test_layers import BESIDE, LAYERS

GENERATED = frozenset(generate.pages())
HANDWRITTEN = frozenset(page.name for page in PAGES) - GENERATED
# Language by language: on which pages a test carries out its blocks, or reads them.
TRIED_BY = {
    "sh": ("end_to_end/test_readme.py, docs/test_extending.py", HANDWRITTEN),
    "python": ("end_to_end/test_readme.py, docs/test_extending.py", HANDWRITTEN),
    "diff": ("docs/test_extending.py", frozenset({"extending.md"})),
    "yaml": ("docs/test_blocks.py, docs/test_operations.py", HANDWRITTEN | {"settings.md"}),
    "mermaid": ("docs/test_blocks.py", frozenset({"README.md", "architecture.md"})),
    "ini": ("docs/test_operations.py", frozenset({"operations.md"})),
    "dockerfile": ("docs/test_operations.py", frozenset({"operations.md"})),
    "console": ("docs/test_operations.py", frozenset({"operations.md"})),
    "crontab": ("docs/test_operations.py", frozenset({"operations.md"})),
    # Signatures and help texts.
    "text": ("docs/test_generated.py", GENERATED),
}
BLOCKS = all_blocks()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_no_block_is_left_that_nobody_tries(block: Block) -> None:
    assert block.language in TRIED_BY, f"{block}: no test tries blocks tagged '{block.language}'"
    tests, allowed = TRIED_BY[block.language]
    assert block.page.name in allowed, f"{block}: {tests} does not look at this page"
    for test in tests.split(", "):
        assert (Path(__file__).parents[1] / test).exists()


def test_no_block_is_left_open() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text("utf-8"), re.MULTILINE)
        assert len(fences) == 2 * len([block for block in BLOCKS if block.page == page]), page.name


def yaml_blocks() -> list[tuple[Block, dict[str, Any]]]:
    return [(block, yaml.safe_load(block.text)) for block in BLOCKS if block.language == "yaml"]


@pytest.mark.parametrize("block", yaml_blocks(), ids=lambda found: str(found[0]))
def test_yaml_is_settings_or_tried_with_the_operations(
    block: tuple[Block, dict[str, Any]],
) -> None:
    shown, tree = block
    if shown.page.name == "operations.md":
        assert set(tree) in ({"storage"}, {"groups"})
        return
    plan = tree.get("coingecko", {}).get("plan")
    if plan not in (None, "keyless"):
        tree["coingecko"]["api_key"] = "a key"
    settings = validated(tree)
    assert settings != Settings()


def edges(text: str) -> set[tuple[str, str]]:
    """The arrows of a Mermaid graph, `a & b --> c --> d` taken apart."""
    found = set()
    for line in text.splitlines():
        nodes = [part.split(" & ") for part in line.strip().split(" --> ")]
        for before, after in pairwise(nodes):
            found |= {(a.strip(), b.strip()) for a in before for b in after}
    return found


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "mermaid" and "graph LR" in b.text], ids=str
)
def test_the_picture_of_the_tables_is_the_graph_that_dagster_has(block: Block) -> None:
    graph = build_definitions(validated({"home": "unused"})).resolve_asset_graph()
    known = {
        (parent.path[-1], node.key.path[-1])
        for node in graph.asset_nodes
        for parent in node.parent_keys
    }
    assert edges(block.text) == known


def test_the_picture_and_the_table_of_the_layers_name_the_layers_that_imports_keep() -> None:
    architecture = next(page for page in PAGES if page.name == "architecture.md")
    layers = {part for layer in LAYERS for part in layer.module_tails} - {"docs", "notebooks"}
    rows = [row for row in cells(architecture) if len(row) == 3]
    after_header = rows[[row[0] for row in rows].index("layer") + 1 :]
    named: set[str] = set()
    for row in after_header:
        if row[0] == "in the home":
            break
        named |= set(re.findall(r"`(\w+)`", row[0]))
    assert named == layers | (BESIDE & {"sandbox"})
    (picture,) = [b for b in BLOCKS if b.language == "mermaid" and "graph TB" in b.text]
    names = re.findall(r"\[(\w[^\]:]*):", picture.text)
    drawn = {part for name in names for part in name.split(" and ")}
    assert drawn <= named
