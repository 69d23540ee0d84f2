"""A strict reader of Prometheus's text exposition format, version 0.0.4, gauges only."""

import re

Labels = tuple[tuple[str, str], ...]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_SAMPLE = re.compile(rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (\S+)")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|Inf)|NaN")


def parsed(text: str) -> dict[tuple[str, Labels], float]:
    """Return each sample by name and labels; raise `AssertionError` for what is not the format."""
    assert text.endswith("\n")
    found: dict[tuple[str, Labels], float] = {}
    helped: set[str] = set()
    typed: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split(" ", 3)[2]
            assert name not in helped, line
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind == "gauge", line
            assert name in helped, line
            assert name not in typed, line
            typed.append(name)
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample, line
            name, value = sample.group(1), sample.groups()[-1]
            # The lines of a metric stand together, below its type.
            assert typed, line
            assert typed[-1] == name, line
            assert _NUMBER.fullmatch(value), line
            labels = tuple(re.findall(_LABEL, sample.group(2) or ""))
            assert (name, labels) not in found, line
            found[name, labels] = float(value)
    return found
