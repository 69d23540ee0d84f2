"""The notebooks on a home that was followed day by day, and in which providers changed values."""

from datetime import date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

import crypto_assets
from crypto_assets.sandbox import Market
from crypto_assets_tests.notebooks.conftest import (
    FACTOR,
    FIRST_LIVE,
    GONE,
    LAST_LIVE,
    RECHECKED_AT,
    RESTATED,
    VANISHED,
    Run,
)

pytestmark = pytest.mark.slow

CLOSE = datetime.combine(RESTATED + timedelta(days=1), datetime.min.time())


def test_restatements_show_the_value_before_and_after_and_when_it_was_seen(
    run: Run, live_home: Path, market: Market
) -> None:
    names = ("changes", "taken_back", "before", "after", "differing", "log")
    notebook = run("restatements", live_home, *names)
    old = market.price("bitcoin", CLOSE)
    changes = notebook["changes"]
    (price,) = changes[changes["column_name"] == "price_usd"].itertuples()
    assert (price.table_name, price.series, price.day) == (
        *("market_caps", "bitcoin"),
        pd.Timestamp(RESTATED),
    )
    assert price.old_value == pytest.approx(old, rel=1e-9)
    assert price.new_value == pytest.approx(FACTOR * old, rel=1e-9)
    assert price.change == pytest.approx(FACTOR - 1, rel=1e-9)
    days = (RECHECKED_AT - CLOSE).total_seconds() / 86400
    assert price.age_days == pytest.approx(days, abs=0.02)
    # What was known just before and from then on.
    differing = notebook["differing"].set_index("column_name")
    assert set(differing.index) == {"price_usd", "market_cap_usd"}
    assert differing.loc["price_usd", "known_before"] == pytest.approx(old, rel=1e-9)
    assert differing.loc["price_usd", "known_after"] == pytest.approx(FACTOR * old, rel=1e-9)
    assert len(notebook["before"]) == len(notebook["after"])
    # The fund that is reported under another ticker.
    gone = notebook["taken_back"]
    assert set(gone["table_name"]) == {"etf_flows"}
    assert gone["key"].str.contains("GBTC").all()
    assert gone["day"].nunique() == len(gone) >= 3
    with crypto_assets.connect(live_home) as connection:
        (count,) = connection.sql("SELECT count(*) FROM restatements").fetchone() or ()
    assert notebook["log"]["changes"].sum() == count
    assert notebook.says(f"**{count} final values were changed.**")
    assert notebook.plots == 2


def test_days_that_were_followed_are_point_in_time_and_who_left_is_told(
    run: Run, live_home: Path
) -> None:
    notebook = run("point_in_time", live_home, "days", "left", "statistics")
    with crypto_assets.connect(live_home) as connection:
        caps = connection.sql("FROM market_caps").df()
        ranks = connection.sql("FROM ranks").df()
    days = notebook["days"].set_index("date")
    live = pd.date_range(FIRST_LIVE, LAST_LIVE)
    assert list(days.index[days["is_point_in_time"]]) == list(live)
    is_final = caps.groupby("date")["is_final"].all()
    in_time = int(is_final[live].sum())
    assert 0 < in_time < len(live)
    assert notebook.says(f"**{in_time} of {int(is_final.sum())} final days are point in time.**")
    # Its last row is older: from then on it was tracked, and missing.
    left = notebook["left"].set_index("coin_id")
    assert list(left.index) == [GONE]
    last_row = caps.loc[caps["coin_id"] == GONE, "date"].max()
    assert last_row <= pd.Timestamp(VANISHED) <= left.loc[GONE, "last_tracked_on"]
    until = days.index <= left.loc[GONE, "last_tracked_on"]
    assert (days.loc[until, "still_tracked"] == 11).all()
    assert (days.loc[~until, "still_tracked"] == 12).all()
    # It counts among the coins of its days, and not among today's.
    statistics = notebook["statistics"].set_index(["size", "chosen", "date"])
    day = pd.Timestamp(date(2026, 3, 5))
    closes = caps[caps["is_final"]].pivot(index="date", columns="coin_id", values="price_usd")
    returns = (closes.loc[day] / closes.loc[day - pd.Timedelta(days=1)] - 1).dropna()
    assert GONE in returns.index
    told = statistics["equal_weight"]
    assert told["all tracked", "the day's coins", day] == pytest.approx(returns.mean(), rel=1e-9)
    without = returns.drop(GONE).mean()
    assert told["all tracked", "today's coins", day] == pytest.approx(without, rel=1e-9)
    # At its last close it could still be bought, and not be sold a day later.
    last_close = caps.loc[(caps["coin_id"] == GONE) & caps["is_final"], "date"].max()
    every_day = statistics.loc["all tracked", "the day's coins"]
    holdings = every_day[["coins", "without_next_close"]].apply(tuple, axis=1)
    assert holdings[last_close] == (12, 0)
    assert holdings[last_close + pd.Timedelta(days=1)] == (12, 1)
    assert holdings[last_close + pd.Timedelta(days=2)] == (11, 0)
    # Chosen two days before they are sold.
    sold = every_day.index[every_day["is_point_in_time"]]
    assert sold[0] == pd.Timestamp(FIRST_LIVE) + pd.Timedelta(days=2)
    placed = ranks.loc[ranks["is_final"], "date"].drop_duplicates().sort_values()
    all_sold = placed + pd.Timedelta(days=2)
    assert list(every_day.index) == list(all_sold[all_sold <= placed.max()])
    assert notebook.says(f"too few days to say anything ({len(every_day)})")
    assert 10 <= len(every_day) < 20
    assert notebook.plots == 2


@pytest.mark.parametrize("name", ["tour", "screener", "etf_flows"])
def test_the_others_run_there_too(run: Run, live_home: Path, name: str) -> None:
    assert run(name, live_home).plots >= 2
