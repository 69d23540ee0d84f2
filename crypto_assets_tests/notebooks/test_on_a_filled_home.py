"""The notebooks on a home that was filled at once, as a demo is: figures against pandas' own."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import crypto_assets
from crypto_assets.sandbox import Market
from crypto_assets.tables import TABLES
from crypto_assets.warehouse.schema import BESIDE
from crypto_assets_tests.lab import NOON
from crypto_assets_tests.notebooks.conftest import Run

pytestmark = pytest.mark.slow

YESTERDAY = pd.Timestamp(NOON.date()) - pd.Timedelta(days=1)


@pytest.fixture(scope="module")
def tables(filled_home: Path) -> dict[str, pd.DataFrame]:
    with crypto_assets.connect(filled_home) as connection:
        return {name: connection.sql(f"FROM {name}").df() for name in TABLES}


@pytest.fixture(scope="module")
def caps(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return tables["market_caps"][tables["market_caps"]["is_final"]]


@pytest.fixture(scope="module")
def closes(caps: pd.DataFrame) -> pd.DataFrame:
    return caps.pivot(index="date", columns="coin_id", values="price_usd")


@pytest.fixture(scope="module")
def ranks(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    placed = tables["ranks"][tables["ranks"]["is_final"]]
    return placed.pivot(index="date", columns="coin_id", values="market_cap_rank")


def test_the_tour_tells_what_is_stored_and_where_a_row_comes_from(
    run: Run, filled_home: Path, tables: dict[str, pd.DataFrame], market: Market
) -> None:
    names = ("overview", "keys", "coverage", "traced", "excerpt", "closes", "row", "exactness")
    tour = run("tour", filled_home, *names)
    overview = tour["overview"].set_index("table_name")
    assert set(overview.index) == {*TABLES, *BESIDE}
    for name, table in TABLES.items():
        assert overview.loc[name, "row_count"] == len(tables[name])
        assert overview.loc[name, "a_row_is"] == table.row
        if table.time_column:
            days = tables[name][table.time_column].dt.normalize()
            assert overview.loc[name, "days"] == days.nunique(), name
            assert overview.loc[name, "first_day"] == days.min()
            assert overview.loc[name, "last_day"] == days.max()
    assert dict(tour["keys"][["table_name", "doubled"]].to_numpy()) == dict.fromkeys(TABLES, 0)
    states = tour["coverage"].set_index(["table_name", "date"])["state"]
    assert states["market_caps", YESTERDAY] == "complete"
    assert states["market_caps", pd.Timestamp(NOON.date())] == "not final"
    saturday = YESTERDAY - pd.Timedelta(days=2)
    assert states["etf_flows", saturday] == "nothing to have"
    # From the row to the bytes it was made of: the midnight of the close and the price.
    assert tour["traced"]["coin_id"][0] == "bitcoin"
    midnight = datetime.combine(NOON.date(), datetime.min.time())
    price = market.price("bitcoin", midnight)
    assert tour["traced"]["price_usd"][0] == price
    stamp = int(pd.Timestamp(midnight).timestamp() * 1000)
    assert f"[{stamp},{price!r}]" in tour["excerpt"]
    levels = tour["closes"].pivot(index="date", columns="coin_id", values="level")
    assert len(levels.columns) == 5
    for coin in levels.columns:
        whole = market.price(coin, midnight) / market.price(coin, datetime(2026, 1, 2))
        assert levels[coin].iloc[-1] == pytest.approx(100 * whole, rel=1e-9)
    assert tour.plots == 2


def test_the_screener_ranks_as_pandas_does(
    run: Run, filled_home: Path, caps: pd.DataFrame, closes: pd.DataFrame, ranks: pd.DataFrame
) -> None:
    screener = run("screener", filled_home, "ranking", "periods", "lookback")
    assert screener["lookback"] == 30
    volumes = caps.pivot(index="date", columns="coin_id", values="volume_24h_usd")
    scores = {day: scored(day, closes, volumes, ranks) for day in closes.index[30:]}
    expected = scores[YESTERDAY].sort_values("score", ascending=False)
    ranking = screener["ranking"].set_index("coin_id")
    assert 10 <= len(ranking) < len(closes.columns)  # stablecoins are left out
    assert "tether" not in ranking.index
    assert set(ranking.index) == set(expected.index)
    for column in ("score", "change", "volatility", "median_volume_usd", "places_climbed"):
        np.testing.assert_allclose(ranking[column], expected.loc[ranking.index, column], rtol=1e-9)
    assert ranking["score"].is_monotonic_decreasing
    assert list(ranking["place"]) == list(range(1, len(ranking) + 1))
    periods = screener["periods"].set_index("date")["rank_correlation"]
    expected_periods = looked_back(scores, closes, forward=7)
    assert list(periods.index) == list(expected_periods.index)
    np.testing.assert_allclose(periods, expected_periods, atol=1e-9)
    mean, error = expected_periods.mean(), expected_periods.sem()
    assert 3 <= len(periods) < 20
    assert screener.says(
        f"The mean of {len(periods)} periods is {mean:+.3f} ± {2 * error:.3f} (two standard "
        "errors), which are too few for a verdict"
    )
    assert screener.says(f"{len(periods)} of these periods use coins that were chosen later")
    assert screener.plots == 3


def test_the_screener_judges_its_scores_from_twenty_periods_on(
    run: Run, filled_home: Path, caps: pd.DataFrame, closes: pd.DataFrame, ranks: pd.DataFrame
) -> None:
    screener = run("screener", filled_home, "periods", FORWARD=1)
    volumes = caps.pivot(index="date", columns="coin_id", values="volume_24h_usd")
    scores = {day: scored(day, closes, volumes, ranks) for day in closes.index[30:]}
    periods = looked_back(scores, closes, forward=1)
    assert len(screener["periods"]) == len(periods) >= 20
    mean, error = periods.mean(), periods.sem()
    verdict = (
        "which is more than chance brings once in twenty times"
        if abs(mean) >= 2 * error
        else "which can't be told from no relation at all"
    )
    assert screener.says(f"is {mean:+.3f} ± {2 * error:.3f} (two standard errors), {verdict}")


def looked_back(
    scores: dict[pd.Timestamp, pd.DataFrame], closes: pd.DataFrame, forward: int
) -> pd.Series:
    """Spearman's correlations of scores and what was earned from the next close on."""
    found = {}
    for n in range(len(closes)):
        day = YESTERDAY - pd.Timedelta(days=1 + forward + n * forward)
        if day in scores:
            bought = closes.loc[day + pd.Timedelta(days=1)]
            sold = closes.loc[day + pd.Timedelta(days=1 + forward)]
            both = scores[day].join((sold / bought - 1).rename("later")).dropna(subset=["later"])
            found[day] = both["score"].rank().corr(both["later"].rank())
    return pd.Series(found).sort_index()


def scored(
    day: pd.Timestamp, closes: pd.DataFrame, volumes: pd.DataFrame, ranks: pd.DataFrame
) -> pd.DataFrame:
    """The screener's figures of one day, independently."""
    before = day - pd.Timedelta(days=30)
    window = slice(before + pd.Timedelta(days=1), day)
    logs = np.log(closes / closes.shift(1)).loc[window]
    change = closes.loc[day] / closes.loc[before] - 1
    found = pd.DataFrame(
        {
            "change": change,
            "volatility": logs.std(ddof=1) * np.sqrt(365),
            "median_volume_usd": volumes.loc[window].median(),
            "places_climbed": ranks.loc[before] - ranks.loc[day],
            "rank_move": np.log(ranks.loc[before] / ranks.loc[day]),
            "momentum": np.log1p(change) / (logs.std(ddof=1) * np.sqrt(30)),
        }
    ).dropna()
    found = found[(found["volatility"] >= 0.1) & (found["median_volume_usd"] >= 5e6)]
    places = found.rank(method="min").sub(1).div(len(found) - 1)
    found["score"] = 100 * (
        0.5 * places["momentum"] + 0.25 * places["median_volume_usd"] + 0.25 * places["rank_move"]
    )
    return found


def test_flows_and_their_correlations_are_those_of_pandas(
    run: Run,
    filled_home: Path,
    tables: dict[str, pd.DataFrame],
    closes: pd.DataFrame,
    market: Market,
) -> None:
    notebook = run("etf_flows", filled_home, "flows", "prices", "funds", "lagged")
    flows = notebook["flows"].set_index("date")
    stored = tables["etf_flows"][tables["etf_flows"]["asset"] == "btc"]
    whole = stored.groupby("date").filter(lambda day: day["is_final"].all())
    totals = whole.groupby("date")["net_flow_usd"].sum()
    np.testing.assert_allclose(flows["net_flow_usd"], totals, rtol=1e-9)
    assert list(flows.index) == list(totals.index)
    np.testing.assert_allclose(flows["net_flow_20d_usd"], totals.rolling(20).sum(), rtol=1e-9)
    funds = whole[whole["date"].isin(totals.index[-20:])].groupby("ticker")["net_flow_usd"].sum()
    told = notebook["funds"].set_index("ticker")["net_flow_usd"]
    np.testing.assert_allclose(told, funds[told.index], rtol=1e-9)
    # The close of a trading day over that of the trading day before.
    prices = closes["bitcoin"].reindex(totals.index).pct_change().iloc[1:]
    # The index at the close of a day is the next day's; that of the running day is not final.
    model = market.fear_greed(totals.index[0].date(), NOON.date()).set_index("date")["value"]
    at_close = model[model.index < pd.Timestamp(NOON.date())].shift(-1, freq="D")
    mood = at_close.reindex(totals.index)
    assert list(totals.index[mood.isna()]) == [YESTERDAY]
    np.testing.assert_array_equal(flows["fear_greed"].astype(float), mood)
    drawn = notebook["prices"].set_index("date")
    assert list(drawn.index) == list(pd.date_range(totals.index[0], YESTERDAY))
    np.testing.assert_array_equal(drawn["fear_greed"].astype(float), at_close.reindex(drawn.index))
    np.testing.assert_allclose(drawn["price_usd"], closes["bitcoin"][drawn.index], rtol=1e-12)
    moods, prices = mood.diff().iloc[1:-1], prices.iloc[:-1]
    n = len(prices)
    assert n >= 35
    lagged = notebook["lagged"].set_index(["series", "lag"])
    assert len(lagged) == 22
    for series, changes in (("price_change", prices), ("fear_greed_change", moods)):
        flow, change = totals.iloc[1:-1].to_numpy(), changes.to_numpy(dtype=float)
        for lag in range(-5, 6):
            own, other = flow[max(-lag, 0) : n - max(lag, 0)], change[max(lag, 0) : n + min(lag, 0)]
            row = lagged.loc[(series, lag)]
            r = np.corrcoef(own, other)[0, 1]
            assert row["correlation"] == pytest.approx(r, abs=1e-9)
            assert row["days"] == n - abs(lag)
            half = 1.959964 / np.sqrt(n - abs(lag) - 3)
            assert row["low"] == pytest.approx(np.tanh(np.arctanh(r) - half), abs=1e-4)
            assert row["high"] == pytest.approx(np.tanh(np.arctanh(r) + half), abs=1e-4)
        shifted = np.abs([np.corrcoef(flow, np.roll(change, -s))[0, 1] for s in range(6, n - 5)])
        furthest = [shifted[max(i - 5, 0) : i + 6].max() for i in range(len(shifted))]
        assert lagged.loc[(series, 0)]["band"] == pytest.approx(np.quantile(furthest, 0.95))
    assert notebook.plots == 3


def test_days_that_were_filled_in_are_said_to_be_none_of_their_time(
    run: Run, filled_home: Path, closes: pd.DataFrame, ranks: pd.DataFrame
) -> None:
    notebook = run("point_in_time", filled_home, "days", "left", "statistics")
    assert notebook.says(f"None of the {len(closes)} final days is point in time")
    assert notebook.says("it is the same coins every day, so this says nothing about the bias")
    assert notebook["left"].empty
    days = notebook["days"]
    assert list(days["is_point_in_time"]) == [False] * len(closes) + [True]
    assert (days["coins"] == 24).all()
    assert (days["still_tracked"] == 24).all()
    expected = backtests(closes, ranks, largest=12)
    for (size, chosen), rows in notebook["statistics"].groupby(["size", "chosen"]):
        truth = expected[size, chosen]
        told = rows.set_index("date")
        assert list(told.index) == list(truth.index)
        for column in ("equal_weight", "momentum_spread"):
            np.testing.assert_allclose(
                told[column].astype(float), truth[column], rtol=1e-9, atol=1e-12
            )
    assert notebook.plots == 2


def test_what_looking_back_adds_is_told_with_its_error(
    run: Run, filled_home: Path, closes: pd.DataFrame, ranks: pd.DataFrame
) -> None:
    # Of these, unlike of the largest twelve, not all were there on each day.
    notebook = run("point_in_time", filled_home, "differences", TOP=4)
    expected = backtests(closes, ranks, largest=4)
    differences = notebook["differences"].set_index(["size", "statistic"])
    now, then = expected["largest", "today's coins"], expected["largest", "the day's coins"]
    for column in ("equal_weight", "momentum_spread"):
        paired = (now[column] - then[column]).dropna()
        row = differences.loc[("largest", column)]
        assert row["days"] == len(paired)
        assert row["days_in_time"] == 0
        assert row["mean_difference"] == pytest.approx(paired.mean(), rel=1e-6)
        assert row["standard_error"] == pytest.approx(paired.sem(), rel=1e-6)
        assert len(paired) >= 20
        assert paired.any()
        strength = (
            "more than chance brings once in twenty times"
            if abs(paired.mean()) > 2 * paired.sem()
            else "not told from nothing"
        )
        assert notebook.says(
            f"**{column.replace('_', ' ')}, largest**: with today's coins it is "
            f"{100 * paired.mean():+.3f} percentage points a day, ± {200 * paired.sem():.3f} "
            f"(two standard errors; {strength})"
        )


def backtests(
    closes: pd.DataFrame, ranks: pd.DataFrame, largest: int
) -> dict[tuple[str, str], pd.DataFrame]:
    """Both statistics of each universe by day, independently, day after day."""
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for size, places in (("largest", largest), ("all tracked", 1_000)):
        for chosen in ("today's coins", "the day's coins"):
            rows = []
            for day in closes.index[:-2]:
                bought, sold = day + timedelta(days=1), day + timedelta(days=2)
                week_before = day - timedelta(days=7)
                placed = ranks.loc[closes.index[-1] if chosen == "today's coins" else day]
                coins = sorted(placed.index[placed <= places])
                returns = (closes.loc[sold] / closes.loc[bought] - 1)[coins]
                spread = np.nan
                if week_before in closes.index:
                    momentum = (closes.loc[day] / closes.loc[week_before] - 1)[coins]
                    known = momentum[momentum.notna() & returns.notna()]
                    order = known.sort_values(kind="stable").index
                    lower = order[: (len(order) + 1) // 2]
                    upper = order[(len(order) + 1) // 2 :]
                    spread = returns[upper].mean() - returns[lower].mean()
                rows.append((sold, returns.mean(), spread))
            frame = pd.DataFrame(rows, columns=["date", "equal_weight", "momentum_spread"])
            found[size, chosen] = frame.set_index("date")
    return found


def test_where_nothing_was_restated_it_is_said_and_what_was_known_is_shown(
    run: Run, filled_home: Path, caps: pd.DataFrame
) -> None:
    notebook = run("restatements", filled_home, "changes", "before", "after", "known")
    assert notebook.says("No provider has changed a final value here so far")
    assert notebook["changes"].empty
    assert notebook["before"].empty
    assert len(notebook["after"]) == len(caps)
    assert notebook.says(f"`market_caps` went from 0 known rows to {len(caps):,}")
    known = notebook["known"]
    of_caps = known[known["table_name"] == "market_caps"].set_index("date")["delay_days"]
    days_since = [(NOON - day).total_seconds() / 86400 - 1 for day in of_caps.index]
    np.testing.assert_allclose(of_caps, days_since, atol=2e-2)
    assert notebook.plots == 1
