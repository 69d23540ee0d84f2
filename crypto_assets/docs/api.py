"""The API reference, from signatures and docstrings as they are written."""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module

import crypto_assets
from crypto_assets.docs.markdown import fenced

_WIDTH = 88
_Modules = Mapping[str, tuple[str, ...]]
_INTRODUCTION = """
# API reference

What notebooks and other programs may call, and what the recipes in [extending](extending.md)
build on. Everything else is free to change. `crypto_assets` itself has two functions; the rest is
imported from the modules named in the headings.
"""
# By heading: module, and names where not all that is public is meant.
_FOR_READERS = {"crypto_assets": tuple(crypto_assets.__all__)}
_FOR_PROGRAMS = {
    "crypto_assets.settings": ("load_settings", "validated", "SettingsError"),
    "crypto_assets.definitions": ("build_definitions",),
    "crypto_assets.sandbox.server": ("SandboxServer",),
}
_CALCULATIONS = {
    f"crypto_assets.calculations.{name}": ()
    for name in ("candles", "coins", "ranks", "sentiment", "signals", "snapshot")
}
_FOR_RECIPES = {
    "crypto_assets.periods": (),
    "crypto_assets.tables": ("Column", "Rule", "Table"),
    "crypto_assets.providers.payloads": (),
    "crypto_assets.providers.errors": ("ProviderError", "TransientError", "PermanentError"),
    "crypto_assets.assets.days": (),
    "crypto_assets.assets.derived": (),
    "crypto_assets.warehouse.gaps": ("Gap", "Inspection"),
    "crypto_assets.warehouse.writer": ("Batch",),
    "crypto_assets.warehouse.staleness": ("Input",),
    "crypto_assets.warehouse.rules.rule": ("Rule",),
}
_PARTS: Mapping[str, _Modules] = {
    "For notebooks and tools": _FOR_READERS,
    "For programs": _FOR_PROGRAMS,
    "Calculations": _CALCULATIONS,
    "For recipes": _FOR_RECIPES,
}


def page() -> str:
    """Return the page."""
    parts = [_INTRODUCTION.strip()]
    for heading, modules in _PARTS.items():
        parts.append(f"## {heading}")
        for module, names in modules.items():
            parts += _module(module, names)
    return "\n\n".join(parts)


def _module(name: str, wanted: tuple[str, ...]) -> Iterator[str]:
    module = import_module(name)
    yield f"### {name}"
    yield inspect.cleandoc(module.__doc__ or "")
    if not wanted:
        tree = ast.parse(inspect.getsource(module))
        wanted = tuple(
            node.name
            for node in tree.body
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
        )
    for one in wanted:
        (node,) = ast.parse(inspect.getsource(getattr(module, one))).body
        yield from _class(node) if isinstance(node, ast.ClassDef) else _function(node)


def _function(node: ast.stmt) -> Iterator[str]:
    assert isinstance(node, ast.FunctionDef)
    yield f"#### {node.name}"
    yield fenced(_signature(node), "text")
    yield _docstring(node)


def _class(node: ast.ClassDef) -> Iterator[str]:
    yield f"#### {node.name}"
    made = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "__init__"]
    fields = [m for m in node.body if isinstance(m, ast.AnnAssign)]
    lines = [_signature(made[0], node.name)] if made else [node.name]
    lines += [f"    {ast.unparse(field)}" for field in fields]
    yield fenced("\n".join(lines), "text")
    yield _docstring(node)
    members = [
        f"- `{_signature(m)}`: {_docstring(m)}"
        for m in node.body
        if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")
    ]
    if members:
        yield "\n".join(" ".join(member.split()) for member in members)


def _signature(node: ast.FunctionDef, name: str | None = None) -> str:
    is_property = any("property" in ast.unparse(d) for d in node.decorator_list)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and name is None else ""
    if is_property:
        return f"{node.name}{returns}"
    arguments = [one for one in _arguments(node.args) if one not in ("self", "cls")]
    line = f"{name or node.name}({', '.join(arguments)}){returns}"
    if len(line) <= _WIDTH:
        return line
    indented = "".join(f"    {argument},\n" for argument in arguments)
    return f"{name or node.name}(\n{indented}){returns}"


def _arguments(arguments: ast.arguments) -> list[str]:
    """Return the arguments one by one, as written."""
    found, depth, text = [""], 0, ast.unparse(arguments)
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [re.sub(r"(:.*?)=", r"\1 = ", one.strip()) for one in found if one.strip()]


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""
