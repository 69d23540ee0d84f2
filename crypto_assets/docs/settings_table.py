"""The table of every setting, from the models' JSON schema."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from crypto_assets.docs.markdown import code, fenced, table
from crypto_assets.settings import PREFIX, Settings

_HEADER = ("setting", "environment", "default", "allowed", "meaning")
_INTRODUCTION = f"""
# Settings

A setting has one name in the file and one in the environment: `universe.tracked` is `tracked`
below `universe` in `crypto_assets.yaml`, and `{PREFIX}UNIVERSE__TRACKED` in the environment or in
`.env`. The environment wins over `.env`, which wins over the file, which wins over the default.
`--home` wins over all of them. The file is looked for in the home, then in the working directory.
In a sandbox home its own file wins over the environment: what a demo is made of must not depend
on who looks at it.

A setting that is misspelt or out of range is named, with what is allowed, and nothing starts.
Lists are written `a, b` or `[[12, 26]]` in the environment. Times are UTC.
"""
_EXAMPLE = """
coingecko:
  plan: keyless
universe:
  tracked: 50
  always: [bitcoin, ethereum]
schedules:
  market_refresh: "0 */2 * * *"
"""
_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
_KINDS |= {"string": "text", "array": "a list"}
_BOUNDS = (
    ("from", ("minimum", "ge")),
    ("above", ("exclusiveMinimum", "gt")),
    ("up to", ("maximum", "le")),
)


def page() -> str:
    """Return the page."""
    schema = Settings.model_json_schema()
    sections: list[tuple[str, str, Mapping[str, Any]]] = []
    for name, field in schema["properties"].items():
        model = _model_of(field, schema)
        if model:
            sections.append((name, model["description"], model["properties"]))
    single = {name: f for name, f in schema["properties"].items() if not _model_of(f, schema)}
    parts = [_INTRODUCTION, fenced(_EXAMPLE.strip(), "yaml"), table(_HEADER, _rows("", single))]
    for name, description, fields in sections:
        parts += [f"## {name}", description, table(_HEADER, _rows(f"{name}.", fields))]
    return "\n\n".join(part.strip() for part in parts)


def _model_of(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the section that a field holds, if it is none of its own."""
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            model: Mapping[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return model
    return None


def _rows(prefix: str, fields: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        path = f"{prefix}{name}"
        environment = PREFIX + path.upper().replace(".", "__")
        meaning = field["description"]
        yield code(path), code(environment), _default(field), _allowed(field), meaning


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or value == []:
        return "–"
    return code(value if isinstance(value, str) else json.dumps(value))


def _allowed(field: Mapping[str, Any]) -> str:
    # An optional field keeps its facts in the option that is not null.
    options = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    facts = {**(options[0] if options else {}), **field}
    if "allowed" in facts:
        return str(facts["allowed"])
    if "enum" in facts:
        return ", ".join(map(code, facts["enum"]))
    if facts.get("format") == "password":
        return "a secret"
    if facts.get("format") == "path":
        return "a folder"
    bounds = [f"{word} {facts[key]:,}" for word, keys in _BOUNDS for key in keys if key in facts]
    return " ".join([_KINDS[facts["type"]], *bounds])
