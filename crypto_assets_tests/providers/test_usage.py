"""The count of calls is right over threads, processes and months, or says why it can't be."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_assets.providers.usage import UsageError, UsageLog, Used

DAY = date(2026, 3, 10)


@pytest.fixture
def usage(tmp_path: Path) -> Iterator[UsageLog]:
    with closing(UsageLog(tmp_path / "limits" / "usage.sqlite")) as log:
        yield log


def test_nothing_was_used_before_anything_was_asked_and_looking_makes_no_file(
    usage: UsageLog, tmp_path: Path
) -> None:
    assert usage.month("coingecko", DAY) == Used(0, 0)
    assert not (tmp_path / "limits").exists()


def test_every_call_counts_and_only_answered_ones_cost_a_credit(usage: UsageLog) -> None:
    for is_credit in (True, False, True, False, False):
        usage.add("coingecko", DAY, is_credit=is_credit)
    assert usage.month("coingecko", DAY) == Used(calls=5, credits=2)


def test_providers_are_counted_apart(usage: UsageLog) -> None:
    usage.add("coingecko", DAY, is_credit=True)
    usage.add("farside", DAY, is_credit=True)
    usage.add("farside", DAY, is_credit=True)
    assert usage.month("coingecko", DAY).calls == 1
    assert usage.month("farside", DAY).calls == 2
    assert usage.month("alternative_me", DAY) == Used()


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("2026-03-01", "2026-03-31"),
        ("2026-12-01", "2026-12-31"),
        ("2028-02-01", "2028-02-29"),
        ("2026-02-01", "2026-02-28"),
    ],
)
def test_a_month_is_its_days_from_the_first_to_the_last(
    usage: UsageLog, first: str, last: str
) -> None:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    for day in (begin - timedelta(days=1), begin, end, end + timedelta(days=1)):
        usage.add("coingecko", day, is_credit=True)
    # The same month of another year, too.
    usage.add("coingecko", begin.replace(year=begin.year + 1), is_credit=True)
    assert usage.month("coingecko", begin) == Used(2, 2)
    assert usage.month("coingecko", end) == Used(2, 2)
    assert usage.month("coingecko", begin - timedelta(days=1)) == Used(1, 1)
    assert usage.month("coingecko", end + timedelta(days=1)) == Used(1, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
@given(st.lists(st.tuples(st.dates(date(2025, 11, 1), date(2026, 3, 31)), st.booleans())))
def test_months_add_up_to_what_was_counted(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[date, bool]]
) -> None:
    calls: Counter[tuple[int, int]] = Counter()
    credits: Counter[tuple[int, int]] = Counter()
    with closing(UsageLog(tmp_path_factory.mktemp("usage") / "usage.sqlite")) as log:
        for day, is_credit in asked:
            log.add("p", day, is_credit=is_credit)
            calls[day.year, day.month] += 1
            credits[day.year, day.month] += is_credit
        for month in ((2025, 11), (2025, 12), (2026, 1), (2026, 2), (2026, 3)):
            assert log.month("p", date(*month, 15)) == Used(calls[month], credits[month])


def test_the_count_outlives_the_process_that_counted(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    with closing(UsageLog(path)) as log:
        log.add("coingecko", DAY, is_credit=True)
    with closing(UsageLog(path)) as log:
        assert log.month("coingecko", DAY) == Used(1, 1)


_CHILD = """
import sys
from contextlib import closing
from datetime import date
from pathlib import Path
from crypto_assets.providers.usage import UsageLog
with closing(UsageLog(Path(sys.argv[1]))) as log:
    for i in range(150):
        log.add("coingecko", date(2026, 3, 1 + i % 31), is_credit=i % 3 == 0)
"""


def test_threads_and_processes_lose_no_call(tmp_path: Path) -> None:
    path = tmp_path / "new" / "usage.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", _CHILD, str(path)]) for _ in range(3)]
    with closing(UsageLog(path)) as log:
        with ThreadPoolExecutor(8) as pool:
            for n in range(400):
                pool.submit(log.add, "coingecko", DAY, is_credit=n % 4 == 0)
        assert [child.wait() for child in children] == [0, 0, 0]
        assert log.month("coingecko", DAY) == Used(3 * 150 + 400, 3 * 50 + 100)


def test_a_full_disk_is_a_clear_error_and_counting_goes_on_later(usage: UsageLog) -> None:
    usage.add("coingecko", DAY, is_credit=True)
    with usage._file.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(UsageError, match=r"usage\.sqlite.*full.*check free disk space"):
        usage.add("p" * 20_000, DAY, is_credit=True)
    with usage._file.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    usage.add("coingecko", DAY, is_credit=True)
    assert usage.month("coingecko", DAY) == Used(2, 2)


def test_a_folder_that_is_a_file_is_named_with_advice(tmp_path: Path) -> None:
    (tmp_path / "limits").write_text("in the way")
    with closing(UsageLog(tmp_path / "limits" / "usage.sqlite")) as log:
        with pytest.raises(UsageError, match="folder are writable") as told:
            log.add("coingecko", DAY, is_credit=True)
        assert str(tmp_path / "limits" / "usage.sqlite") in str(told.value)
        assert len(str(told.value).splitlines()) == 1


def test_a_file_without_leave_to_write_is_a_clear_error(usage: UsageLog) -> None:
    usage.add("coingecko", DAY, is_credit=True)
    with usage._file.transaction() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(UsageError, match="the count of calls"):
        usage.add("coingecko", DAY, is_credit=True)
    assert usage.month("coingecko", DAY) == Used(1, 1)


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "usage.sqlite").write_bytes(b"only text" * 1000)
    with (
        closing(UsageLog(tmp_path / "usage.sqlite")) as log,
        pytest.raises(UsageError, match="not a database"),
    ):
        log.month("coingecko", DAY)
