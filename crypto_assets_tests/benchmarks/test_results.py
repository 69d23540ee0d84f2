"""What benchmarks tell of their figures."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crypto_assets_tests.benchmarks import __main__ as suite
from crypto_assets_tests.benchmarks.measuring import ContenderError, in_turns, measured, python
from crypto_assets_tests.benchmarks.results import Goal, Result, as_markdown, as_text, spread

FOUND = Result(
    {"ours": [{"wall_seconds": 2.0}, {"wall_seconds": 4.0}, {"wall_seconds": 3.0}]},
    [Goal("ours", [2.0, 4.0, 3.0], 3.0, "s"), Goal("calls", [6.0], 5)],
    ["All agree."],
)


def test_a_spread_is_the_median_between_the_extremes() -> None:
    assert spread([3.0, 1.0, 20.5], "s") == "3.00 s (1.00 to 20.50)"
    assert spread([0.0125]) == "0.0125"
    assert spread([251.0, 251.0]) == "251"


def test_the_median_meets_a_goal_or_misses_it() -> None:
    assert list(as_text("some", FOUND)) == [
        "== some",
        "  ours  wall 3.00 s (2.00 to 4.00)",
        "  ours: 3.00 s (2.00 to 4.00), at most 3.00 s: met",
        "  calls: 6, at most 5: missed",
        "  All agree.",
    ]


def test_the_table_of_the_readme_has_a_row_for_each_goal() -> None:
    _, _, *rows = as_markdown({"some": FOUND})
    assert rows == [
        "| `some` | ours | 3.00 s | 3.00 s (2.00 to 4.00) | met |",
        "| `some` | calls | 5 | 6 | **missed** |",
    ]


def test_contenders_take_turns_and_each_is_first_once() -> None:
    order: list[str] = []
    contenders = {name: lambda n=name: order.append(n) or {"calls": 1.0} for name in "abc"}
    samples = in_turns(contenders, 3)  # type: ignore[arg-type]
    assert "".join(order) == "abcbcacab"
    assert {name: len(rounds) for name, rounds in samples.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_process_is_measured_with_its_children_and_without_who_measures() -> None:
    ours = bytearray(300_000_000)
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(10**8)'])"
    done = measured(python("-c", f"{child}; print('done')"))
    assert done.said == "done\n"
    assert 100 < done.peak_megabytes < 200 < len(ours) / 1e6
    assert 0 < done.cpu_seconds < 60


def test_a_process_that_fails_is_told_with_what_it_said() -> None:
    with pytest.raises(ContenderError, match=r"failed with 3.*alas"):
        measured(python("-c", "import sys; print('alas'); sys.exit(3)"))


def test_who_needs_no_pyarrow_finds_none() -> None:
    assert "hidden" in measured(python("-c", LOOK)).said


LOOK = """
try:
    import pyarrow
except ImportError as error:
    print(error)
"""


def test_the_command_lists_its_benchmarks_and_refuses_another() -> None:
    listed = CliRunner().invoke(suite.main, ["--list"])
    assert listed.exit_code == 0
    named = [line.partition(": ") for line in listed.output.splitlines()]
    assert [name for name, _, _ in named] == list(suite.BENCHMARKS)
    assert all(told for _, _, told in named)
    refused = CliRunner().invoke(suite.main, ["hot"])
    assert refused.exit_code == 2
    assert "--list" in refused.output


def test_the_command_writes_all_it_found_and_where(tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    words = ["ema", "--quick", "--markdown", "--json", str(target)]
    done = CliRunner().invoke(suite.main, words)
    assert done.exit_code == 0, done.output
    assert "| `ema` |" in done.output
    found = json.loads(target.read_text())
    assert found["repeats"] == 1
    assert {"processor", "cores", "memory_gigabytes", "python", "libraries"} <= set(
        found["machine"]
    )
    assert len(found["benchmarks"]["ema"]["samples"]["ours"]) == 1
