"""The prompt of `crypto-assets sql`: statements in, answers out, until the person has enough."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from crypto_assets.operations.errors import OperationError
from crypto_assets.operations.querying import Answer, QueryError, Reader
from crypto_assets.operations.sql_text import is_whole
from crypto_assets.warehouse.errors import WarehouseError

HELP = """\
Type a query and end it with a semicolon: FROM latest_market LIMIT 10;
  .tables        what there is to ask
  .schema NAME   the columns of a table or view, or what a macro does
  .help          this
  .quit          leaves, as Ctrl-D does
Ctrl-C stops a running query. Each query sees the newest publication; nothing can be changed."""
_HISTORY_LINES = 1000

_TABLES = """
SELECT name, kind, comment AS "a row is" FROM (
    SELECT table_name AS name, 'table' AS kind, comment FROM duckdb_tables()
    UNION ALL
    SELECT view_name, 'view', comment FROM duckdb_views() WHERE NOT internal
    UNION ALL
    SELECT concat(function_name, '(', array_to_string(parameters, ', '), ')'), 'macro', comment
    FROM duckdb_functions()
    WHERE database_name = current_database() AND function_name <> 'crypto_assets_views'
) ORDER BY kind, name"""
_SCHEMA = """
SELECT column_name AS name, data_type AS type, comment AS meaning FROM duckdb_columns()
WHERE table_name = $name AND NOT internal
UNION ALL
SELECT concat(function_name, '(', array_to_string(parameters, ', '), ')'), 'macro', comment
FROM duckdb_functions() WHERE function_name = $name AND database_name = current_database()"""


class Shell:
    """Reads lines until a statement is whole, answers it, and goes on after errors."""

    def __init__(
        self,
        reader: Reader,
        show: Callable[[Answer], None],
        tell: Callable[[str], None],
        history: Path,
    ) -> None:
        self._reader = reader
        self._show = show
        self._tell = tell
        self._history = history

    def run(self) -> None:
        """Prompt until `.quit` or the end of the input. Raises what the first look raises."""
        self._reader.newest()
        self._tell("Read-only. End a query with a semicolon; .help tells more, Ctrl-D leaves.")
        readline = _with_history(self._history)
        try:
            self._converse()
        finally:
            if readline:
                # No history is no reason to fail.
                with suppress(OSError):
                    readline.write_history_file(self._history)

    def _converse(self) -> None:
        said = ""
        while True:
            try:
                line = input("...> " if said else "sql> ")
            except KeyboardInterrupt:
                self._tell("")
                said = ""
                continue
            except EOFError:
                self._tell("")
                return
            if not said and line.strip().startswith("."):
                if line.split()[0].rstrip(";") in (".quit", ".exit"):
                    return
                self._attempt(self._command, line)
                continue
            said = f"{said}{line}\n" if said or line.strip() else ""
            if is_whole(said):
                self._attempt(self._ask, said)
                said = ""

    def _attempt(self, action: Callable[[str], None], words: str) -> None:
        try:
            action(words)
        except (OperationError, WarehouseError) as error:
            self._tell(str(error))
        except KeyboardInterrupt:
            self._tell("stopped")

    def _ask(self, text: str) -> None:
        for answer in self._reader.answers(text):
            self._show(answer)

    def _command(self, line: str) -> None:
        name, *words = line.strip().rstrip(";").split()
        if name == ".help":
            self._tell(HELP)
        elif name == ".tables":
            self._show_all(_TABLES, {})
        elif name == ".schema" and len(words) == 1:
            self._show_all(_SCHEMA, {"name": words[0].strip('"').lower()})
        elif name == ".schema":
            raise QueryError("name one table: .schema latest_market")
        else:
            raise QueryError(f"{name} is unknown: .help tells what there is")

    def _show_all(self, sql: str, values: dict[str, str]) -> None:
        cursor = self._reader.newest().execute(sql, values)
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
        if not rows:
            raise QueryError(f"there is no {values['name']}: .tables tells what there is")
        self._show(Answer(names, rows, is_cut=False))


def _with_history(file: Path) -> ModuleType | None:
    """Return `readline` with what was typed before, where there is such a module."""
    try:
        import readline
    except ImportError:
        return None
    readline.set_history_length(_HISTORY_LINES)
    with suppress(OSError):
        readline.read_history_file(file)
    return readline
