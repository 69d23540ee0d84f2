"""Each benchmark runs in small: its calls are exact and all contenders stored the same values.

How long anything takes is asserted nowhere: it differs by machine. That values agree is for the
benchmarks themselves to find out, who end with an error where they do not.
"""

from pathlib import Path

import pytest

from crypto_assets_tests.benchmarks.__main__ import BENCHMARKS
from crypto_assets_tests.benchmarks.measuring import is_installed
from crypto_assets_tests.benchmarks.results import Result
from crypto_assets_tests.benchmarks.suite import Setup

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Calls by contender; what is not named makes none.
CALLS = {
    "cold": {"ours": 6, "script": 6, "dlt": 6, "stock Dagster": 6, "empty asset": 0},
    "limited": {"ours, the table alone": 6, "script": 6},
    "refresh": {"a year": 2, "ten years": 2},
    "candles": {"ours": 4},
    "ticks": {"market_refresh_schedule": 2},
    "fetching-calls": {"the running day of 300 coins": 2},
    "fetching-rate": {"two processes": 9},
}
STORED = {
    "cold": "All stored the same 25 rows.",
    "limited": "stored the same 25 rows.",
    "recalculation": "1,800 rows are stored.",
    "ema": "All agree",
}


def quickly(name: str, folder: Path) -> Result:
    return BENCHMARKS[name](Setup(folder, repeats=1, is_quick=True))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_makes_exactly_the_calls_it_is_to_make(name: str, tmp_path: Path) -> None:
    result = quickly(name, tmp_path)
    found = {who: rounds[0].get("calls", 0.0) for who, rounds in result.samples.items()}
    expected = dict(CALLS.get(name, {}))
    if not is_installed("dlt"):
        expected.pop("dlt", None)
    assert found == expected or (name not in CALLS and not any(found.values()))
    assert STORED.get(name, "") in "\n".join(result.notes)
    if name == "cold":
        assert "The next day, ours: 1 calls." in result.notes
    if name == "limited":
        assert all(not rounds[0]["refused_calls"] for rounds in result.samples.values())
