from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest

from crypto_assets.checks.freshness import Freshness
from crypto_assets.monitoring.condition import Condition
from crypto_assets.monitoring.conditions import LOW_DISK_BYTES, UNDELIVERED, conditions
from crypto_assets.monitoring.findings import Finding, withholding
from crypto_assets.monitoring.health import Credits, Health
from crypto_assets.monitoring.looking import EVERY_SERIES, Missing
from crypto_assets.monitoring.runs import RunState
from crypto_assets.periods import wall_now
from crypto_assets.settings import validated
from crypto_assets.warehouse.audit import AuditFailure
from crypto_assets.warehouse.publishing import Publication
from crypto_assets_tests.lab import NOON

UI = "http://ui.invalid:3000"
SETTINGS = validated({"alerts": {"ui_url": UI}, "home": "/srv/crypto"})
GIGABYTE = 1024**3
FINE = Health(
    NOON, Publication(1, NOON), False, Credits("demo", 5, 5, 10_000), free_bytes=50 * GIGABYTE
)
DAY = date(2026, 3, 9)
LATE = Freshness("ranks", datetime(2026, 3, 10, 9), datetime(2026, 3, 10, 11))
BROKEN = AuditFailure("etf_flows", "source_fits_home", DAY, DAY, 3)
FINDING = Finding("ranks", "ranks_are_1_to_n", True, "The ranks are 1 to n.", 7, DAY, DAY)
FAILED = RunState("daily_close", "run-1", "FAILURE", NOON, "market_caps: nobody answered")


def found(**changes: Any) -> list[Condition]:
    health = replace(FINE, **changes)
    known = withholding(health.publication)
    keys = {finding.key for finding in known}
    others = [finding for finding in health.findings if finding.key not in keys]
    judged = conditions(replace(health, findings=[*known, *others]), SETTINGS)
    return [condition for condition in judged if not condition.is_suspended]


def withheld() -> Publication:
    return Publication(1, NOON, withheld_since=NOON, withheld_by=(BROKEN,))


def test_nothing_is_wrong_with_a_home_in_order() -> None:
    assert found() == []


@pytest.mark.parametrize(
    ("changes", "key", "link"),
    [
        ({"failed_jobs": [FAILED]}, "run:daily_close", f"{UI}/runs/run-1"),
        (
            {"findings": [FINDING]},
            "check:ranks.ranks_are_1_to_n",
            f"{UI}/assets/ranks?view=checks",
        ),
        (
            {"publication": withheld()},
            "check:etf_flows.source_fits_home",
            f"{UI}/assets/etf_flows?view=checks",
        ),
        ({"freshness": {"ranks": LATE}}, "late:ranks", f"{UI}/assets/ranks"),
        ({"free_bytes": LOW_DISK_BYTES - 1}, "disk", UI),
        ({"undelivered": 2}, UNDELIVERED, UI),
    ],
)
def test_each_kind_is_one_error_that_says_what_where_and_what_to_do(
    changes: dict[str, Any], key: str, link: str
) -> None:
    (condition,) = found(**changes)
    assert (condition.key, condition.link, condition.is_error) == (key, link, True)
    for text in (condition.title, condition.detail, condition.advice):
        assert text
        assert "None" not in text


def test_a_failed_run_is_told_with_its_reason_and_its_end() -> None:
    (condition,) = found(failed_jobs=[FAILED])
    assert "2026-03-10 12:20 UTC" in condition.detail
    assert "market_caps: nobody answered" in condition.detail


def test_what_was_run_by_hand_and_failed_is_told_in_words() -> None:
    (condition,) = found(failed_jobs=[replace(FAILED, job="__ASSET_JOB")])
    assert "__ASSET_JOB" not in condition.title
    assert "the next run of the job tries again" not in condition.advice


def test_a_finding_is_told_with_its_rows_and_what_should_hold() -> None:
    (condition,) = found(findings=[FINDING])
    assert condition.of_check
    assert "7 row(s)" in condition.detail
    assert "The ranks are 1 to n." in condition.detail


def test_a_check_that_warns_is_no_error() -> None:
    (condition,) = found(findings=[replace(FINDING, is_error=False)])
    assert not condition.is_error


def test_a_check_that_withholds_the_publication_is_told_once() -> None:
    same = Finding("etf_flows", "source_fits_home", True, "As it should be.", 1, DAY, DAY)
    (condition,) = found(publication=withheld(), findings=[same])
    assert "publication is withheld since 2026-03-10 12:20 utc" in condition.detail.lower()


def test_what_withholds_the_publication_is_told_in_the_case_it_was_written_in() -> None:
    (condition,) = found(publication=withheld())
    assert "2026-03-10 12:20 UTC" in condition.detail


def test_what_is_withheld_is_not_late_beside() -> None:
    keys = {one.key for one in found(publication=withheld(), freshness={"ranks": LATE})}
    assert keys == {"check:etf_flows.source_fits_home"}


def test_a_table_that_is_fresh_is_none() -> None:
    fresh = Freshness("ranks", datetime(2026, 3, 10, 12), datetime(2026, 3, 10, 12))
    assert found(freshness={"ranks": fresh}) == []


@pytest.mark.parametrize(
    ("used", "key", "is_error"),
    [
        (0, None, False),
        (7_900, None, False),
        (7_999, None, False),
        (8_000, "budget:80%", False),
        (9_900, "budget:80%", False),
        (9_999, "budget:80%", False),
        (10_000, "budget:100%", True),
        (12_000, "budget:100%", True),
    ],
)
def test_the_budget_is_told_of_from_80_percent_on_and_an_error_at_all_of_it(
    used: int, key: str | None, is_error: bool
) -> None:
    told = found(credits=Credits("demo", used, used, 10_000))
    assert [(one.key, one.is_error) for one in told][:1] == ([(key, is_error)] if key else [])
    assert all(f"{used:,} of 10,000" in one.detail for one in told)


def test_a_plan_without_a_limit_has_no_budget_to_tell_of() -> None:
    assert found(credits=Credits("keyless", 10**9, 10**9, None)) == []


def test_what_was_wrong_at_80_percent_is_not_over_at_100() -> None:
    nearly = {one.key for one in found(credits=Credits("demo", 0, 8_500, 10_000))}
    everything = {one.key for one in found(credits=Credits("demo", 0, 10_000, 10_000))}
    assert nearly <= everything


def test_nobody_is_told_that_all_credits_are_used_before_they_are() -> None:
    (condition,) = found(credits=Credits("demo", 0, 9_960, 10_000))
    assert "100%" not in condition.title


@pytest.mark.parametrize(("free", "count"), [(LOW_DISK_BYTES, 0), (LOW_DISK_BYTES - 1, 1)])
def test_the_disk_is_told_of_below_two_gigabytes(free: int, count: int) -> None:
    assert LOW_DISK_BYTES == 2 * GIGABYTE
    assert len(found(free_bytes=free)) == count


def test_errors_come_first_and_keys_are_unique() -> None:
    told = found(
        failed_jobs=[FAILED, replace(FAILED, job="backup")],
        findings=[replace(FINDING, is_error=False), replace(FINDING, table="market_caps")],
        freshness={"ranks": LATE, "fear_greed": replace(LATE, table="fear_greed")},
        credits=Credits("demo", 0, 9_000, 10_000),
        free_bytes=0,
        undelivered=1,
    )
    assert [one.is_error for one in told] == [True] * 7 + [False] * 2
    assert len({one.key for one in told}) == 9


RUNNING = RunState("market_refresh", "run-2", "STARTED", wall_now())


def test_what_is_late_is_not_judged_while_a_run_may_be_bringing_it() -> None:
    (late,) = conditions(
        replace(FINE, freshness={"ranks": LATE}, unfinished_runs=[RUNNING]), SETTINGS
    )
    assert late.is_suspended
    hanging = replace(RUNNING, since=wall_now() - timedelta(hours=4))
    (late,) = found(freshness={"ranks": LATE}, unfinished_runs=[hanging])
    assert late.key == "late:ranks"


def test_days_that_nobody_ever_fetched_are_an_error_once_they_are_old() -> None:
    untold = Missing("ranks", EVERY_SERIES, date(2026, 3, 5), date(2026, 3, 6), "never fetched")
    (condition,) = found(missing=[untold])
    assert (condition.key, condition.is_error) == ("missing:ranks", True)
    assert "2026-03-05 to 2026-03-06" in condition.detail
    young = replace(untold, first=date(2026, 3, 8), last=date(2026, 3, 9))
    of_a_coin = replace(untold, series="solana")
    assert found(missing=[young, of_a_coin]) == []


def test_days_given_up_are_a_warning() -> None:
    (condition,) = found(given_up=[("ranks", DAY)])
    assert not condition.is_error
    assert "1 day(s)" in condition.title


@pytest.mark.parametrize(("minutes", "count"), [(29, 0), (31, 1)])
def test_stale_ranks_that_withhold_a_publication_are_told_when_they_stay_so(
    minutes: int, count: int
) -> None:
    stale = AuditFailure("ranks", "ranks_follow_market_caps", DAY, DAY, 3)
    since = wall_now() - timedelta(minutes=minutes)
    published = Publication(1, NOON, withheld_since=since, withheld_by=(stale,))
    assert len(found(publication=published)) == count
