"""What is told of SQL without running it, against DuckDB itself and by construction."""

import re

import duckdb
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from crypto_assets.operations.sql_text import CHANGING, alone, changing_calls, is_whole

# Letters of one to four bytes, and what could be taken for an end.
TEXTS = st.text(
    st.sampled_from("aé漢😀;'\"-/* \n$") | st.characters(codec="utf-8", exclude_characters="\0"),
    max_size=12,
)


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("SELECT 1;", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1", False),
        ("SELECT ';", False),
        ("SELECT ';'", False),
        ('SELECT ";', False),
        ("SELECT 1 -- ;", False),
        ("SELECT 1 /* ;", False),
        ("SELECT $$;", False),
        ("-- ;", False),
        ("", False),
    ],
)
def test_a_statement_is_whole_at_its_semicolon(text: str, is_so: bool) -> None:
    assert is_whole(text) is is_so


@given(text=TEXTS, name=TEXTS.filter(len), comment=TEXTS, ends=st.integers(0, 3))
@hypothesis_settings(deadline=None)
def test_a_statement_is_cut_at_its_own_end_whatever_the_letters(
    text: str, name: str, comment: str, ends: int
) -> None:
    quoted, column = text.replace("'", "''"), name.replace('"', '""')
    remark = "-- " + re.sub(r"[\r\n]", " ", comment)
    statement = f"SELECT '{quoted}' AS \"{column}\""
    whole = f"{statement}{';' * ends}{remark if ends else ''}"
    assert is_whole(whole) is (ends > 0)
    assert alone(whole) == statement
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM (\n{alone(whole)}\n)")
        assert found.fetchall() == [(text,)]


def test_semicolons_before_a_statement_are_cut_too() -> None:
    assert alone(";; SELECT 'é';;") == "SELECT 'é'"
    assert alone(";") == ""


def test_half_a_character_does_no_harm() -> None:
    assert is_whole("SELECT 'ü\udcc3';")
    assert not is_whole("SELECT 'ü\udcc3;")


def test_every_table_function_that_changes_something_is_known() -> None:
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'table'"
        ).fetchall()
    changes = re.compile(r"^(enable|disable|truncate|force|checkpoint|set|reset)|execute|^query$")
    assert {name for (name,) in rows if changes.search(name)} == CHANGING


@pytest.mark.parametrize(
    "text",
    [
        "FROM enable_logging()",
        "EXPLAIN SELECT * FROM a, ENABLE_Logging /* ; */ -- \n (level = 'é')",
        'FROM "enable_logging"()',
        "FROM system.main.enable_logging()",
        'FROM system."main".enable_logging()',
        "SELECT 'é'; FROM\u00a0enable_logging\u2003(\u00a0)",
        "FROM enable_logging \u00a0 ()",
        "FROM \u200benable_logging()",
        "SELECT 1 WHERE 1=(SELECT 1 FROM(FROM enable_logging()))",
    ],
)
def test_a_call_is_found_however_it_is_written(text: str) -> None:
    # DuckDB has to understand it so, or it proves nothing.
    assert duckdb.extract_statements(text)
    assert changing_calls(text) == ["enable_logging"]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'enable_logging()'",
        "SELECT 1 -- the query (the second)\n",
        "SELECT query, count(query) FROM t",
        'SELECT "query (x)" FROM query',
        "FROM wide_closes(['bitcoin'])",
        "SELECT 'query' || (1)",
        "",
    ],
)
def test_what_is_no_call_is_let_through(text: str) -> None:
    assert changing_calls(text) == []
