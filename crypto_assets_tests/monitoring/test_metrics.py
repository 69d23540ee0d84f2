import math
import threading
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from crypto_assets.checks.freshness import Freshness
from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.health import Credits, Health
from crypto_assets.monitoring.looking import TableState
from crypto_assets.monitoring.metrics import metrics, write_metrics
from crypto_assets.warehouse.publishing import Publication
from crypto_assets_tests.lab import NOON
from crypto_assets_tests.monitoring.prometheus import parsed

EMPTY = Health(NOON, Publication(), False, Credits("keyless", 0, 0, None), 1)
FULL = replace(
    EMPTY,
    tables=[TableState("ranks", 12), TableState("coin_list", 3)],
    freshness={
        # 2026-03-10 00:00 UTC is 20,522 days after 1970-01-01.
        "ranks": Freshness("ranks", datetime(2026, 3, 10), datetime(2026, 3, 10, 1)),
        "coin_list": Freshness("coin_list", None),
    },
    credits=Credits("demo", 7, 6, 10_000),
)
WARNING = Condition("a", "b", "c", "d", "e", is_error=False)


@pytest.mark.parametrize("health", [EMPTY, FULL])
def test_the_text_is_what_prometheus_reads(health: Health) -> None:
    found = parsed(metrics(health, [WARNING]))
    assert found["crypto_assets_errors", ()] == 0
    assert found["crypto_assets_warnings", ()] == 1


def test_figures_are_those_of_the_home_and_times_are_unix_seconds() -> None:
    found = parsed(metrics(FULL, []))
    ranks, coins = (("table", "ranks"),), (("table", "coin_list"),)
    assert found["crypto_assets_table_rows", ranks] == 12
    assert found["crypto_assets_table_rows", coins] == 3
    assert found["crypto_assets_table_reaches_seconds", ranks] == 20_522 * 86_400
    assert found["crypto_assets_table_is_late", ranks] == 1
    assert found["crypto_assets_table_is_late", coins] == 0
    assert found["crypto_assets_credits_used", ()] == 6
    assert found["crypto_assets_credits_limit", ()] == 10_000
    assert all(math.isfinite(value) for value in found.values())


def test_a_plan_without_a_limit_has_none_in_the_figures() -> None:
    assert ("crypto_assets_credits_limit", ()) not in parsed(metrics(EMPTY, []))


def test_whoever_reads_the_file_meanwhile_finds_it_whole(tmp_path: Path) -> None:
    file = tmp_path / "metrics.prom"
    whole = {metrics(EMPTY, []), metrics(FULL, [])}
    write_metrics(tmp_path, EMPTY, [])
    ended = threading.Event()

    def write() -> None:
        for turn in range(300):
            write_metrics(tmp_path, (EMPTY, FULL)[turn % 2], [])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        assert file.read_text() in whole
        reads += 1
    writer.join()
    assert reads > 10
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.prom"]


def test_the_parser_of_these_tests_is_strict() -> None:
    for text in (
        "a 1\n",  # no TYPE
        "# HELP a b\n# TYPE a gauge\na 1",  # no end of line
        "# HELP a b\n# TYPE a gauge\na one\n",
        "# HELP a b\n# TYPE a gauge\na 1\na 2\n",  # twice
        '# HELP a b\n# TYPE a gauge\na{b="c} 1\n',
        "# HELP a b\n# TYPE a gauge\n# HELP a b\n# TYPE a gauge\na 1\n",
    ):
        with pytest.raises(AssertionError):
            parsed(text)
