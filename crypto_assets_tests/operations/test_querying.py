"""`crypto-assets sql`: answers on a screen and in files, and a prompt that only reads."""

import codecs
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

import crypto_assets
from crypto_assets.warehouse.publishing import publish_run
from crypto_assets_tests.end_to_end.platforms import eventually
from crypto_assets_tests.operations.commands import (
    Done,
    call,
    command,
    is_waiting,
    spawn,
    ticks_used,
)
from crypto_assets_tests.operations.conftest import Demo

# A value of each kind that some format could lose.
ODD = """
SELECT 1.50::DECIMAL(10, 2) AS price, 'nan'::DOUBLE AS nan, '-inf'::DOUBLE AS low,
    TIMESTAMP '2026-01-02 03:04:05.000006' AS seen_at, DATE '2026-01-02' AS day,
    NULL::VARCHAR AS nothing, '' AS empty, E'a,"b"\\nü' AS text, true AS yes, 7::BIGINT AS n
UNION ALL SELECT -0.01, 0.1, 1e-300, TIMESTAMP '1970-01-01', DATE '1999-12-31', 'NULL', ' ', 'x',
    false, -9007199254740993
"""
ROWS = [
    (
        *(Decimal("1.50"), "nan", float("-inf"), datetime(2026, 1, 2, 3, 4, 5, 6)),
        *(date(2026, 1, 2), None, "", 'a,"b"\nü', True, 7),
    ),
    (
        *(Decimal("-0.01"), 0.1, 1e-300, datetime(1970, 1, 1)),
        *(date(1999, 12, 31), "NULL", " ", "x", False, -9007199254740993),
    ),
]


@pytest.fixture
def home(demo: Demo) -> Path:
    return demo.home


def ask(home: Path, *words: object, stdin: str | None = None) -> Done:
    """Run the command as a process of its own, with this input."""
    done = subprocess.run(
        command("sql", "--home", home, *words),
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def plain(rows: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Rows in which a NaN equals itself."""
    return [tuple("nan" if value != value else value for value in row) for row in rows]


# Files


def test_parquet_keeps_every_value_and_type(home: Path, tmp_path: Path) -> None:
    done = call("sql", "--home", home, ODD, "--output", tmp_path / "odd.parquet")
    assert (done.code, done.out, done.err) == (0, "", f"2 rows are in {tmp_path}/odd.parquet.\n")
    with duckdb.connect() as reader:
        found = reader.execute(f"FROM '{tmp_path}/odd.parquet'")
        kinds = [str(column[1]) for column in found.description or ()]
        assert kinds[:5] == ["DECIMAL(10,2)", "DOUBLE", "DOUBLE", "TIMESTAMP", "DATE"]
        assert plain(found.fetchall()) == ROWS


def test_csv_tells_an_empty_text_from_none(home: Path, tmp_path: Path) -> None:
    assert call("sql", "--home", home, ODD, "--output", tmp_path / "odd.csv").code == 0
    text = (tmp_path / "odd.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "price,nan,low,seen_at,day,nothing,empty,text,yes,n"
    assert '2026-01-02 03:04:05.000006,2026-01-02,,"","a,""b""' in text
    with duckdb.connect() as reader:
        # What no reader could tell from the text alone.
        types = (
            "{'price': 'DECIMAL(10,2)', 'nan': 'DOUBLE', 'low': 'DOUBLE', 'nothing': 'VARCHAR', "
            "'empty': 'VARCHAR'}"
        )
        found = reader.execute(
            f"FROM read_csv('{tmp_path}/odd.csv', types = {types}, allow_quoted_nulls = false)"
        )
        assert plain(found.fetchall()) == ROWS


def test_json_is_json_whatever_the_numbers_are(home: Path, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    assert call("sql", "--home", home, ODD, "--output", tmp_path / "odd.json").code == 0
    found = json.loads(
        (tmp_path / "odd.json").read_text(encoding="utf-8"),
        parse_constant=refuse,
        parse_float=Decimal,
    )
    assert [row["price"] for row in found] == [Decimal("1.5"), Decimal("-0.01")]
    assert [row["nan"] for row in found] == [None, Decimal("0.1")]
    assert [row["low"] for row in found] == [None, Decimal("1e-300")]
    assert found[0]["seen_at"] == "2026-01-02T03:04:05.000006Z"
    assert [row["day"] for row in found] == ["2026-01-02", "1999-12-31"]
    assert [row["nothing"] for row in found] == [None, "NULL"]
    assert [row["empty"] for row in found] == ["", " "]
    assert found[0]["text"] == 'a,"b"\nü'
    assert [row["n"] for row in found] == [7, -9007199254740993]


@pytest.mark.parametrize("form", ["csv", "json"])
def test_text_goes_to_the_screen_as_to_a_file(home: Path, tmp_path: Path, form: str) -> None:
    query = "FROM returns ORDER BY date, coin_id; -- all of it"
    assert call("sql", "--home", home, query, "--output", tmp_path / f"all.{form}").code == 0
    shown = ask(home, query, "--format", form)
    assert shown.out == (tmp_path / f"all.{form}").read_text(encoding="utf-8")
    assert (shown.code, shown.err) == (0, "")


def test_a_pivot_and_a_description_can_be_exported(home: Path, tmp_path: Path) -> None:
    pivot = "PIVOT returns ON coin_id IN ('bitcoin') USING first(close_usd) GROUP BY date;"
    free = "PIVOT (FROM returns WHERE coin_id = 'bitcoin') ON coin_id USING count(*) GROUP BY date"
    for query, rows in ((pivot, 11), (free, 11), ("DESCRIBE returns", 10)):
        done = call("sql", "--home", home, query, "--output", tmp_path / "p.csv", "--force")
        assert done.err == f"{rows} rows are in {tmp_path}/p.csv.\n"


def test_a_file_that_exists_is_replaced_only_when_told(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("mine")
    told = call("sql", "--home", home, "SELECT 1 AS a", "--output", file).sentence
    assert told.endswith("a.csv exists: name another file, or replace it with --force")
    assert file.read_text() == "mine"
    assert call("sql", "--home", home, "SELECT 1 AS a", "--output", file, "--force").code == 0
    assert file.read_text() == "a\n1\n"


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_an_export_that_fails_leaves_the_file_and_the_folder_as_they_were(
    home: Path, tmp_path: Path, form: str
) -> None:
    file = tmp_path / f"a.{form}"
    file.write_text("mine")
    late = "SELECT CASE WHEN range = 900000 THEN error('late') ELSE range END FROM range(1000000)"
    told = call("sql", "--home", home, late, "--output", file, "--force").sentence
    assert "late" in told
    assert file.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [file]
    screen = call("sql", "--home", home, late, "--format", "csv")
    assert (screen.code, screen.out) == (1, "")


def test_a_file_of_ones_own_is_read_as_a_table(home: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("coin_id,units\nbitcoin,2\n")
    query = "SELECT units * price_usd AS usd FROM mine JOIN latest_market USING (coin_id)"
    done = call(
        *("sql", "--home", home, "--with", f"mine={tmp_path / 'mine.csv'}", query),
        *("--format", "json"),
    )
    with crypto_assets.connect(home) as connection:
        price = connection.execute(
            "SELECT price_usd FROM market_caps WHERE coin_id = 'bitcoin' ORDER BY date DESC LIMIT 1"
        ).fetchone()
    assert price
    assert json.loads(done.out) == [{"usd": 2 * price[0]}]


@pytest.mark.parametrize("name", ["market_caps", "latest_market", "Latest_Market"])
def test_a_file_takes_no_name_of_the_warehouse(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.csv").write_text("coin_id\nbitcoin\n")
    told = call("sql", "--home", home, "--with", f"{name}={tmp_path / 'mine.csv'}", "SELECT 1")
    assert f"the warehouse has a {name} of its own" in told.sentence


@pytest.mark.parametrize("end", ["", ";", ";;", "; ; -- ü;", " /* é */ ;"])
def test_letters_of_other_languages_and_many_semicolons_are_exported(home: Path, end: str) -> None:
    done = call(
        "sql", "--home", home, f"SELECT 'Zürich' AS ort, 'é;漢' AS \"ö;\"{end}", "--format", "csv"
    )
    assert (done.code, done.out) == (0, "ort,ö;\nZürich,é;漢\n")


@pytest.mark.parametrize(
    "value",
    [
        "[1.0, 'nan'::DOUBLE]",
        "{'deep': [{'x': '-inf'::FLOAT}]}",
        "MAP {'a': 'inf'::DOUBLE}",
        "'[NaN]'::JSON",
    ],
)
def test_what_json_can_not_hold_within_a_value_is_refused(home: Path, value: str) -> None:
    told = call("sql", "--home", home, f"SELECT {value} AS v", "--format", "json").sentence
    assert "JSON can't hold the NaN or infinity within a list or structure" in told


def test_a_text_that_only_speaks_of_nan_is_exported_within_a_value(home: Path) -> None:
    query = """SELECT {'t': 'say \\"NaN\\" or Infinity', 'x': [1.5, NULL]} AS v"""
    done = call("sql", "--home", home, query, "--format", "json")
    assert json.loads(done.out) == [{"v": {"t": 'say \\"NaN\\" or Infinity', "x": [1.5, None]}}]


# Screen


def test_a_long_answer_is_cut_on_a_screen_and_says_so(home: Path) -> None:
    done = ask(home, "SELECT range + 10000 AS n FROM range(501)")
    assert len(re.findall(r"10\d{3}", done.out)) == 500
    assert done.err == "Only the first 500 rows are shown: --format csv gives all.\n"
    assert ask(home, "SELECT range AS n FROM range(500)").err == ""


def test_an_unbounded_answer_is_not_computed_to_its_end(home: Path) -> None:
    done = ask(home, "FROM range(1000000000000)")
    assert (done.code, done.err.count("500 rows")) == (0, 1)


def test_statements_come_from_the_words_a_file_and_the_input(home: Path, tmp_path: Path) -> None:
    text = "SELECT 'o' || 'ne' AS a; -- and\nSELECT 'tw' || 'o' AS b;"
    (tmp_path / "q.sql").write_text(text)
    shown = [
        ask(home, text),
        ask(home, "--file", tmp_path / "q.sql"),
        ask(home, "-", stdin=text),
        ask(home, stdin=text),
    ]
    for done in shown:
        assert done == shown[0]
        assert re.findall(r"[a-z]+", done.out) == ["a", "one", "b", "two"]


def test_what_looks_like_markup_is_shown_as_it_is(home: Path) -> None:
    assert "[bold]x[/bold]" in ask(home, "SELECT '[bold]x[/bold]' AS t").out


# Errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("FORM ranks",), 'syntax error at or near "FORM" (LINE 1: FORM ranks)'),
        (("SELECT prize_usd FROM market_caps",), 'Candidate bindings: "price_usd"'),
        (("FROM market_cap",), 'Did you mean "market_caps"?'),
        (("-- nothing",), "the query asks for nothing"),
        (("DELETE FROM ranks",), "this reads only, and DELETE is no query"),
        (("CREATE TEMP TABLE t AS SELECT 1",), "CREATE is no query"),
        (("SELECT 1; COPY ranks TO 'here.csv'",), "COPY is no query"),
        (("ATTACH 'other.duckdb'",), "ATTACH is no query"),
        (("SET enable_external_access = true",), "SET is no query"),
        (("INSTALL httpfs",), "LOAD is no query"),
        (("CALL enable_logging(storage = 'file', storage_path = 'log')",), "CALL is no query"),
        (
            ("FROM enable_logging(storage = 'file', storage_path = 'log')",),
            "enable_logging() is no",
        ),
        (("FROM enable_profiling(save_location = 'p')",), "enable_profiling() is no query"),
        (("EXPLAIN FROM query('FROM enable_' || 'logging()')",), "query() is no query"),
        (("PIVOT (FROM disable_logging()) ON a USING count(*)",), "disable_logging() is no query"),
        (("SELECT 'half \udcc3'",), "the query is no text in UTF-8"),
        (("FROM read_text('/etc/hostname')",), "reads the warehouse only, no files"),
        (("FROM 'https://example.com/a.csv'",), "reads the warehouse only, no files"),
        (("SELECT 1; SELECT 2", "--format", "csv"), "an export is of one query"),
        (("EXPLAIN SELECT 1", "--format", "csv"), "a plan is no table"),
        (("SELECT 1", "--output", "none/a.csv"), "there is no folder"),
        (("SELECT 1", "--output", ".", "--format", "csv"), ". is no file"),
        (("SELECT 1", "--output", "/dev/null", "--format", "csv", "--force"), "is no file"),
        (("--file", "none.sql"), "can't read none.sql (No such file or directory)"),
        (("SELECT 1", "--with", "a=none.csv"), "there is no file none.csv"),
        (("SELECT 1", "--with", "a=none.txt"), "it has to end with .csv, .json, .parquet"),
    ],
)
def test_what_can_not_be_asked_is_one_sentence(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    # A comment would be taken for an option.
    end = ("--",) if words[0].startswith("-- ") else ()
    assert said in call("sql", "--home", home, *end, *words).sentence
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("SELECT 1", "--format", "parquet"), "name a file with --output"),
        (("SELECT 1", "--output", "a.xls"), "needs --format csv, json or parquet"),
        (("SELECT 1", "--with", "a.csv"), "say it as NAME=FILE"),
        (("SELECT 1", "--file", "a.sql"), "Give a query or --file, not both"),
    ],
)
def test_words_that_do_not_fit_together_are_told(
    home: Path, words: tuple[str, ...], said: str
) -> None:
    done = call("sql", "--home", home, *words)
    assert done.code == 2
    assert said in done.err


@pytest.mark.slow
def test_a_publication_without_the_views_says_how_to_get_them(demo_copy: Path) -> None:
    with duckdb.connect(str(demo_copy / "warehouse.duckdb")) as connection:
        connection.execute("DROP VIEW latest_market")
    publish_run(demo_copy, "run")
    told = spawn("sql", "--home", demo_copy, "FROM latest_market", cwd=demo_copy).sentence
    assert "'crypto-assets refresh' starts one" in told
    # A demo that has everything publishes what a newer program brings.
    assert spawn("demo", "--home", demo_copy, cwd=demo_copy).code == 0
    assert spawn("sql", "--home", demo_copy, "FROM latest_market", cwd=demo_copy).code == 0


def test_nothing_published_is_told(tmp_path: Path) -> None:
    assert "nothing has been published" in call("sql", "--home", tmp_path, "SELECT 1").sentence


# The prompt


class Person:
    """Types at a terminal and reads what comes back, up to the next prompt."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            environment = {**os.environ, "HOME": str(folder), "COLUMNS": "100", "TERM": "dumb"}
            # pytest's workers ignore it, and children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            words = command("sql", "--home", home)
            os.execve(sys.executable, words, environment)

    def types(self, text: str, until: str = "sql> ") -> str:
        os.write(self._terminal, text.encode())
        return self.reads(until)

    def reads(self, until: str = "sql> ", seconds: float = 30) -> str:
        told, deadline = "", time.monotonic() + seconds
        # A letter may arrive in two pieces.
        decoder = codecs.getincrementaldecoder("utf-8")()
        while not told.endswith(until):
            assert time.monotonic() < deadline, told
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    told += decoder.decode(os.read(self._terminal, 65536))
                except OSError:  # the other end is closed
                    return told
        return told

    def interrupts(self) -> str:
        """Press Ctrl-C once the prompt waits, as a person is never too early."""
        eventually("the prompt to wait", 30, lambda: is_waiting(self.pid))
        return self.types("\x03")

    def leaves(self, text: str) -> int:
        """Type the last words and return the exit code."""
        self.types(text, until="never")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def person(demo_copy: Path, tmp_path: Path) -> Iterator[Person]:
    (tmp_path / "person").mkdir()
    at_work = Person(demo_copy, tmp_path / "person")
    yield at_work
    try:
        os.kill(at_work.pid, signal.SIGKILL)
        os.waitpid(at_work.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_person_asks_errs_goes_on_and_leaves(
    person: Person, demo_copy: Path, tmp_path: Path
) -> None:
    assert ".help tells more" in person.reads()
    assert ".schema NAME" in person.types(".help\n")
    tables = person.types(".tables\n")
    assert all(name in tables for name in ("market_caps", "latest_market", "wide_closes(coins)"))
    assert "crypto_assets_views" not in tables
    assert "rank_change_7d" in person.types(".schema latest_market\n")
    # However its lines are broken.
    assert "FROM market_on(" in " ".join(person.types(".schema market_on\n").split())
    assert "there is no zz" in person.types(".schema zz\n")
    assert ".zz is unknown" in person.types(".zz\n")
    person.types("SELECT ';' || 'a' -- not yet;\n", until="...> ")
    assert ";a" in person.types(";\n")
    assert 'syntax error at or near "FORM"' in person.types("FORM x;\n")
    assert "DROP is no query" in person.types("DROP TABLE ranks;\n")
    assert "é;" in person.types("SELECT 'é;' AS a;\n")
    assert "öö" in person.types("SELECT 'öö' AS a;\n")
    # Half a statement is let go of.
    person.types("SELECT\n", until="...> ")
    person.interrupts()
    assert "42" in person.types("SELECT 6 * 7 AS n;\n")
    assert person.leaves("\x04") == 0
    history = (tmp_path / "person" / ".crypto_assets_history").read_text()
    assert "SELECT 6 * 7 AS n;" in history


def test_a_running_query_is_stopped_and_the_prompt_stays(person: Person) -> None:
    person.reads()
    endless = "SELECT sum(hash(a.range, b.range)) FROM range(10000000) a, range(100000) b;\n"
    before = ticks_used(person.pid)
    person.types(endless, until="b;\r\n")
    eventually("the query to run", 30, lambda: ticks_used(person.pid) > before + 50)
    assert "stopped" in person.types("\x03")
    for n in range(3):
        assert str(n * 1111) in person.types(f"SELECT {n} * 1111 AS n;\n")
    assert person.leaves(".quit\n") == 0


def test_a_prompt_that_stays_open_sees_the_next_publication(
    person: Person, demo_copy: Path
) -> None:
    person.reads()
    query = "SELECT 'version ' || count(*) FROM gaps WHERE reason = 'new';\n"
    assert "version 0" in person.types(query)
    with duckdb.connect(str(demo_copy / "warehouse.duckdb")) as connection:
        connection.execute(
            "INSERT INTO gaps VALUES "
            "('ranks', 'a', '2026-01-01', '2026-01-01', 'missing', 'new', '2026-01-02')"
        )
    publish_run(demo_copy, "run")
    assert "version 1" in person.types(query)
