"""Which stored answers are as good as new ones: not those of the day before, nor of the future."""

from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from crypto_assets.assets.universe import Fresh, snapshot_kept
from crypto_assets.sandbox import Market
from crypto_assets_tests.lab import NOON, Lab, open_lab

TODAY = NOON.date()
DAY = timedelta(days=1)
YESTERDAY = TODAY - DAY
MIDNIGHT = datetime(2026, 3, 10)
SECOND = timedelta(seconds=1)
FIVE_MINUTES = timedelta(minutes=5)


def asked(lab: Lab) -> dict[str, int]:
    """How often each endpoint was asked since the last look."""
    found = {
        endpoint.removeprefix("coingecko/"): sum(by_status.values())
        for endpoint, by_status in lab.server.stats()["calls"].items()
    }
    lab.server.reset()
    return found


def lose_warehouse(lab: Lab) -> None:
    (lab.home / "warehouse.duckdb").unlink()


@pytest.mark.parametrize(
    ("known_at", "is_covered"),
    [
        (MIDNIGHT - SECOND, False),
        (MIDNIGHT, True),
        (MIDNIGHT + 8 * SECOND, True),
        (MIDNIGHT + 9 * SECOND, False),
        (None, False),
    ],
)
def test_what_was_told_before_a_day_began_is_no_news_of_it(
    known_at: datetime | None, is_covered: bool
) -> None:
    fresh = snapshot_kept(MIDNIGHT + 8 * SECOND)
    assert fresh.covers(TODAY, known_at) is is_covered


@pytest.mark.parametrize(
    ("observed_at", "is_accepted"),
    [
        (MIDNIGHT - 12 * SECOND, False),
        (MIDNIGHT + SECOND, True),
        (MIDNIGHT + 8 * SECOND, True),
        (MIDNIGHT + 9 * SECOND, False),
        (MIDNIGHT + DAY, False),
    ],
)
def test_an_answer_is_taken_for_its_own_day_and_never_from_the_future(
    observed_at: datetime, is_accepted: bool
) -> None:
    fresh = snapshot_kept(MIDNIGHT + 8 * SECOND)
    assert fresh.accepts({TODAY: None}, observed_at) is is_accepted


def test_an_answer_from_the_future_is_not_taken_for_a_closed_day_either() -> None:
    fresh = Fresh(NOON, FIVE_MINUTES, FIVE_MINUTES)
    assert fresh.accepts({YESTERDAY: None}, NOON)
    assert not fresh.accepts({YESTERDAY: None}, NOON + SECOND)


def test_after_a_clock_was_set_back_its_answers_from_the_future_are_asked_for_again(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 3, "always": []}) as lab:
        lab.at(NOON + timedelta(hours=2)).run(["market_caps"], YESTERDAY)
        assert asked(lab) == {"coins/markets": 1, "coins/{id}/market_chart": 3}
        lose_warehouse(lab)
        lab.at(NOON)
        assert lab.run(["market_caps"], YESTERDAY).succeeded
        assert asked(lab) == {"coins/markets": 1, "coins/{id}/market_chart": 3}
        stored = lab.sql("SELECT DISTINCT observed_at FROM market_caps")["observed_at"]
        assert list(stored) == [pd.Timestamp(NOON)]
