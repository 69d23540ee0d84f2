"""Asking the newest publication: what `crypto-assets sql` may do, and how answers leave it.

A query can be pasted from anywhere, so read-only means more than that the tables stay as they are:
only queries run, and DuckDB itself is kept from every file but the publication. What a person
wants to read beside it is read first, as a table of its own; what is exported, this module names.
How answers look on a screen is `cli`'s, the prompt is `shell`'s.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TextIO

import duckdb

from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.sql_text import alone, changing_calls
from crypto_assets.warehouse.errors import reason_of
from crypto_assets.warehouse.publishing import LINK_NAME
from crypto_assets.warehouse.reading import connect
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import literal
from crypto_assets.warehouse.views import MACROS, VIEWS, WIDE_CLOSES

Format = Literal["csv", "json", "parquet"]
ROWS_SHOWN = 500
"""A table on a screen is for reading: it ends here."""

_READERS = {".csv": "read_csv", ".json": "read_json", ".parquet": "read_parquet"}
_OPTIONS: dict[Format, str] = {
    # An empty text is quoted, NULL is nothing.
    "csv": "FORMAT csv, HEADER true",
    "json": "FORMAT json, ARRAY true, TIMESTAMPFORMAT '%Y-%m-%dT%H:%M:%S.%fZ'",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
_QUERIES = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_NESTED = ("list", "array", "struct", "map", "union", "variant")
_NO_JSON = (
    "JSON can't hold the NaN or infinity within a list or structure of this answer: take "
    "--format parquet, or leave it out"
)
_TRY = 'try "FROM latest_market LIMIT 10"'


class QueryError(OperationError):
    """A query that can't be answered, in one sentence."""


@dataclass(frozen=True)
class Answer:
    """The first rows of an answer, and whether it has more."""

    names: list[str]
    rows: list[tuple[Any, ...]]
    is_cut: bool


@dataclass
class Reader:
    """The newest publication of a home, read by queries alone."""

    home: Path
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Files to read as tables, by the name each gets."""
    _connection: duckdb.DuckDBPyConnection | None = None
    _version: str = ""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the publication."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def answers(self, text: str, rows: int = ROWS_SHOWN) -> Iterator[Answer]:
        """Run the statements of a text one after another. Raises `QueryError`."""
        with _explained():
            statements = _queries(text)
        for statement in statements:
            answer = self._answer(statement, rows)
            if answer:
                yield answer

    def _answer(self, statement: duckdb.Statement, rows: int) -> Answer | None:
        with _explained():
            connection = self.newest()
            with _stoppable(connection):
                connection.execute(statement)
                if not _is_query(statement):
                    return None
                names = [column[0] for column in connection.description or ()]
                found = connection.fetchmany(rows + 1)
        return Answer(names, found[:rows], len(found) > rows)

    def newest(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the newest publication, opened anew when there is a newer one."""
        version = os.path.realpath(self.home / LINK_NAME)
        if self._connection is None or version != self._version:
            self.close()
            self._connection = _open(self.home, self.beside)
            self._version = version
        return self._connection


def export(reader: Reader, text: str, form: Format, output: Path, *, replace: bool = False) -> int:
    """Write the answer of one query to a file, whole or not at all; return its rows.

    Raises `QueryError`, also where the file exists and is not to be replaced.
    """
    target = output.resolve()
    if not target.parent.is_dir():
        raise QueryError(f"there is no folder {target.parent}: make it, or name another one")
    if target.exists() and not target.is_file():
        raise QueryError(f"{output} is no file: name one")
    if target.exists() and not replace:
        raise QueryError(f"{output} exists: name another file, or replace it with --force")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        rows = _copy(reader, text, form, unfinished)
        unfinished.replace(target)
    except OSError as error:
        raise QueryError(f"can't write {output} ({error.strerror}): choose another place") from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return rows


def print_export(reader: Reader, text: str, form: Format, to: TextIO) -> None:
    """Write the answer of one query as text to a stream, once it is known whole."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"answer.{form}"
        _copy(reader, text, form, file)
        with file.open(encoding="utf-8", newline="") as answer:
            try:
                shutil.copyfileobj(answer, to)
                to.flush()
            except BrokenPipeError:
                # Whoever reads it, like `head`, has seen enough; nothing is left to be flushed.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _copy(reader: Reader, text: str, form: Format, file: Path) -> int:
    with _explained():
        queries = _queries(text)
        if sum(map(_is_query, queries)) != 1:
            raise QueryError("an export is of one query: leave the others out")
        if queries[-1].type == duckdb.StatementType.EXPLAIN:
            raise QueryError("a plan is no table: leave EXPLAIN out, or --format")
        reader.close()
        with _open(reader.home, reader.beside, file) as connection, _stoppable(connection):
            asked = f"FROM (\n{alone(text)}\n)"
            if form == "json":
                asked = _as_json(connection, asked)
            copied = (
                f"COPY ({asked}) TO {literal(str(file))} ({_OPTIONS[form]}, USE_TMP_FILE false)"
            )
            rows = 0
            # One by one: around a PIVOT there are others, which would hide the count of rows.
            for statement in connection.extract_statements(copied):
                row = connection.execute(statement).fetchone()
                if statement.type == duckdb.StatementType.COPY and row:
                    rows = int(row[0])
    return rows


def _as_json(connection: duckdb.DuckDBPyConnection, asked: str) -> str:
    """JSON knows no NaN and no infinity: both are null there, and refused within other values."""
    answer = connection.sql(asked)
    replaced = []
    for name, kind in zip(map(quoted, answer.columns), answer.types, strict=True):
        if str(kind) in ("DOUBLE", "FLOAT"):
            replaced.append(f"CASE WHEN isfinite({name}) THEN {name} END AS {name}")
        elif kind.id in _NESTED or str(kind) == "JSON":
            numbers = rf"""regexp_replace(to_json({name})::VARCHAR, '"(\\.|[^"\\])*"', '', 'g')"""
            replaced.append(
                f"CASE WHEN regexp_matches({numbers}, '(?i)nan|inf') THEN "
                f"error({literal(_NO_JSON)}) ELSE {name} END AS {name}"
            )
    return f"SELECT * REPLACE ({', '.join(replaced)}) {asked}" if replaced else asked


def _open(
    home: Path, beside: Mapping[str, Path], writes: Path | None = None
) -> duckdb.DuckDBPyConnection:
    """Connect, read the files beside, and keep DuckDB from all others but `writes`."""
    connection = connect(home)
    try:
        for name, file in beside.items():
            _load(connection, name, file)
        if writes is not None:
            connection.execute(f"SET allowed_paths = [{literal(str(writes))}]")
        for setting in (
            "autoinstall_known_extensions = false",
            "enable_external_access = false",
            "lock_configuration = true",
        ):
            connection.execute(f"SET {setting}")
    except BaseException:
        connection.close()
        raise
    return connection


def _load(connection: duckdb.DuckDBPyConnection, name: str, file: Path) -> None:
    reads = _READERS.get(file.suffix.lower())
    if reads is None:
        raise QueryError(f"can't read {file}: it has to end with {', '.join(_READERS)}")
    if not file.is_file():
        raise QueryError(f"there is no file {file}")
    if name.lower() in _published(connection):
        raise QueryError(f"the warehouse has a {name} of its own: give {file} another name")
    try:
        connection.execute(
            f"CREATE TEMP TABLE {quoted(name)} AS FROM {reads}({literal(str(file))})"
        )
    except duckdb.Error as error:
        raise QueryError(f"can't read {file} as {name} ({reason_of(error)})") from None


def _published(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The names of the publication's tables and views, in lower case."""
    found = connection.execute(
        "SELECT lower(table_name) FROM information_schema.tables "
        "WHERE table_catalog = current_database()"
    )
    return {name for (name,) in found.fetchall()}


def _queries(text: str) -> list[duckdb.Statement]:
    try:
        statements = duckdb.extract_statements(text)
    except TypeError:
        raise QueryError("the query is no text in UTF-8: type it anew") from None
    for statement in statements:
        # A PIVOT comes with a statement of its own that has no text.
        if statement.type not in _QUERIES and statement.query:
            kind = statement.type.name.replace("_", " ")
            raise _no_query(kind)
    for name in changing_calls(text):
        raise _no_query(f"{name}()")
    if not any(map(_is_query, statements)):
        raise QueryError(f"the query asks for nothing: {_TRY}")
    return statements


def _no_query(what: str) -> QueryError:
    return QueryError(
        f"this reads only, and {what} is no query: {_TRY}; --output writes an answer to a file, "
        "--with reads a file of yours"
    )


def _is_query(statement: duckdb.Statement) -> bool:
    return statement.type in _QUERIES


@contextmanager
def _explained() -> Iterator[None]:
    """Make what DuckDB says one sentence that tells what to do."""
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(_sentence(error)) from None


@contextmanager
def _stoppable(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let Ctrl-C end a query for good, with all its threads."""
    try:
        yield
    except RuntimeError as error:
        # How DuckDB tells of Ctrl-C. A thread of the query can miss it, and then whatever is asked
        # next, closing too, waits for that thread: so it is told once more, until it listens.
        if "interrupted" not in str(error).lower():
            raise
        for _ in range(20):
            connection.interrupt()
            time.sleep(0.01)
        raise KeyboardInterrupt from None


def _sentence(error: duckdb.Error) -> str:
    said = reason_of(error).rstrip("!")
    if _NO_JSON in said:
        return _NO_JSON
    lines = str(error).splitlines()
    if isinstance(error, duckdb.PermissionException):
        return (
            "a query reads the warehouse only, no files and no network: --with NAME=FILE reads a "
            "file of yours as a table"
        )
    missing = [name for name in (*VIEWS, *MACROS) if f"name {name} does not exist" in said]
    if missing:
        return (
            f"{said}: an older crypto_assets published this file; the next run brings "
            f"{missing[0]}, 'crypto-assets refresh' starts one"
        )
    if isinstance(error, duckdb.CatalogException) and "does not exist" in said:
        guess = next((line for line in lines if line.startswith("Did you mean")), "")
        return f"{said}: {guess or 'SHOW TABLES tells what there is'}"
    if "No function matches" in said and "list_transform(STRING" in said:
        return f"a list of coins is needed: {WIDE_CLOSES.example}"
    if isinstance(error, duckdb.BinderException):
        near = next((line for line in lines if line.startswith("Candidate bindings")), "")
        return f"{said}: {near}" if near else said
    where = next((line for line in lines if line.startswith("LINE ")), "")
    return f"{said} ({where.strip()})" if where else said
