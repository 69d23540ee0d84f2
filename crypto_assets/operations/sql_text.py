"""What can be told of SQL without running it: where a statement ends, and what it calls.

DuckDB's own tokenizer does the reading, so a semicolon in a text or a comment is none here either.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb

CHANGING = frozenset(
    {
        "enable_logging",
        "disable_logging",
        "truncate_duckdb_logs",
        "enable_profiling",
        "disable_profiling",
        "checkpoint",
        "force_checkpoint",
        # These run a text as SQL, where none of the others would be seen.
        "query",
        "json_execute_serialized_sql",
    }
)
"""Table functions that do what only statements should: locked settings do not stop them."""

# The parser takes these for blanks, the tokenizer for letters.
_BLANKS = "\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_BLANK = re.compile(f"[{_BLANKS}]+")
_NAME = re.compile(rf'"(?P<quoted>(?:[^"]|"")*)"|[\w${_BLANKS}]+')


@dataclass(frozen=True)
class Token:
    """A token: where it begins, in characters, and the text from there on."""

    at: int
    kind: object
    text: str


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a text, comments left out."""
    # DuckDB counts bytes. Half a character, as a terminal may give it, counts as one.
    encoded = text.encode(errors="replace")
    at = seen = 0
    for place, kind in duckdb.tokenize(encoded.decode()):
        at += len(encoded[seen:place].decode())
        seen = place
        if kind != duckdb.token_type.comment:
            yield Token(at, kind, text[at:])


def is_whole(text: str) -> bool:
    """Tell whether a text ends with the semicolon of a statement.

    One in a comment, a name or a text does not count; nor does one before an open comment.
    """
    found = list(tokens(text))
    return bool(found) and found[-1].text[0] == ";"


def alone(text: str) -> str:
    """Return one statement without the semicolons around it and the comments after them."""
    found = list(tokens(text))
    end = len(text)
    while found and found[-1].text[0] == ";":
        end = found.pop().at
    begin = next((token.at for token in found if token.text[0] != ";"), 0)
    return text[begin:end]


def changing_calls(text: str) -> list[str]:
    """Return which of `CHANGING` a text calls."""
    return [name for name in _called(text) if name in CHANGING]


def _called(text: str) -> Iterator[str]:
    """Yield each name, in lower case, that an opening parenthesis follows."""
    before = ""
    for token in tokens(text):
        if token.text[0] == "(" and before:
            yield before
        named = _NAME.match(token.text)
        if token.kind == duckdb.token_type.string_const or named is None:
            before = ""
        elif named["quoted"] is not None:
            before = named["quoted"].replace('""', '"').lower()
        else:
            # A token of blanks alone stands between a name and its parenthesis.
            words = _BLANK.sub(" ", named[0]).split()
            before = words[-1].lower() if words else before
