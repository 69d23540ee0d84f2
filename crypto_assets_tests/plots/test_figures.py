"""What is drawn follows the data: artists against the rows they were made from."""

from collections.abc import Callable
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from crypto_assets.calculations.sentiment import fear_greed_band
from crypto_assets.plots import paper
from crypto_assets.plots.candles import daily_candles, hourly_candles
from crypto_assets.plots.flows import etf_flows
from crypto_assets.plots.ranks import rank_moves
from crypto_assets.plots.sentiment import BANDS, fear_greed
from crypto_assets.plots.trends import ema_crosses

DAYS = pd.date_range("2026-02-20", periods=12)


def built(build: Callable[[pd.DataFrame], Figure | None], frame: pd.DataFrame) -> Figure:
    """Build the figure and lay it out, as drawing it does."""
    with paper.style():
        figure = build(frame)
        assert figure is not None
        paper.png(figure)
    return figure


def lines(axes: Axes) -> dict[Any, Line2D]:
    return {line.get_label(): line for line in axes.lines}


def signals(coin: str, events: list[int | None]) -> pd.DataFrame:
    days = DAYS[: len(events)]
    prices = np.arange(len(events)) + 100.0
    return pd.DataFrame(
        {
            "date": days,
            "coin_id": coin,
            "fast_span": 12,
            "slow_span": 26,
            "price_usd": prices,
            "ema_fast": prices - 1,
            "ema_slow": prices - 2,
            "event": pd.array(events, dtype="Int32"),
        }
    )


def test_prices_and_emas_are_lines_and_each_cross_is_a_marker_on_its_day() -> None:
    frame = signals("bitcoin", [None, 0, 1, 0, -1, 0, 1, 0])
    (axes,) = built(ema_crosses, frame).axes
    drawn = lines(axes)
    for name, column in (
        ("price", "price_usd"),
        ("EMA {fast}", "ema_fast"),
        ("EMA {slow}", "ema_slow"),
    ):
        np.testing.assert_array_equal(drawn[name].get_ydata(), frame[column])
    up, down = drawn["crossed up"], drawn["crossed down"]
    assert list(pd.to_datetime(up.get_xdata())) == [DAYS[2], DAYS[6]]
    assert list(pd.to_datetime(down.get_xdata())) == [DAYS[4]]
    np.testing.assert_array_equal(up.get_ydata(), [100.0, 104.0])


def test_the_first_three_coins_have_a_panel_each_in_the_order_given() -> None:
    coins = ["solana", "bitcoin", "tron", "aave"]
    frame = pd.concat([signals(coin, [0, 0]) for coin in coins])
    figure = built(ema_crosses, frame)
    assert [axes.get_title("left") for axes in figure.axes] == coins[:3]
    assert [axes.get_ylabel() for axes in figure.axes] == ["US dollars", "", ""]
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["price", "EMA 12", "EMA 26", "crossed up", "crossed down"]


def test_a_coin_without_a_price_leaves_its_panel_to_the_next() -> None:
    frame = pd.concat([signals(coin, [0, 0]) for coin in ("a", "b", "c", "d")])
    frame.loc[frame["coin_id"] == "b", "price_usd"] = None
    titles = [axes.get_title("left") for axes in built(ema_crosses, frame).axes]
    assert titles == ["a", "c", "d"]


def test_a_line_is_broken_where_days_are_missing_and_a_lone_day_is_a_dot() -> None:
    frame = signals("bitcoin", [0] * 8).drop(index=[3, 5])
    (axes,) = built(ema_crosses, frame).axes
    drawn = np.asarray(lines(axes)["price"].get_ydata(), dtype=float)
    np.testing.assert_array_equal(drawn, [100, 101, 102, np.nan, 104, np.nan, 106, 107])
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert [list(np.asarray(dot.get_ydata())) for dot in dots] == [[104], [103], [102]]


def test_moves_are_bars_as_long_as_the_places_and_say_from_where_to_where() -> None:
    moved = [0, 4, -9, 2, -1, None]
    frame = pd.DataFrame(
        {
            "date": DAYS[0],
            "coin_id": ["still", "up4", "down9", "up2", "down1", "new"],
            "market_cap_rank": [1, 5, 20, 30, 40, 50],
            "rank_change_7d": pd.array(moved, dtype="Int32"),
        }
    )
    climbed, fell = built(rank_moves, frame).axes
    for axes, names, widths, words in (
        (climbed, ["up4", "up2"], [4, 2], [" 9 → 5", " 32 → 30"]),
        (fell, ["down9", "down1"], [9, 1], [" 11 → 20", " 39 → 40"]),
    ):
        assert [tick.get_text() for tick in axes.get_yticklabels()] == names
        assert [bar.get_width() for bar in axes.patches] == widths  # type: ignore[attr-defined]
        assert [text.get_text() for text in axes.texts] == words


def test_the_eight_that_moved_most_are_shown_and_ties_go_to_the_larger() -> None:
    ranks = np.arange(30, 0, -1)
    frame = pd.DataFrame(
        {
            "date": DAYS[0],
            "coin_id": [f"coin-{rank}" for rank in ranks],
            "market_cap_rank": ranks,
            "rank_change_7d": [3] * 29 + [4],
        }
    )
    climbed, fell = built(rank_moves, frame).axes
    names = [tick.get_text() for tick in climbed.get_yticklabels()]
    assert names == [f"coin-{rank}" for rank in range(1, 9)]
    assert [bar.get_width() for bar in climbed.patches] == [4] + [3] * 7  # type: ignore[attr-defined]
    assert len(fell.patches) == 0
    assert fell.get_title("left") == "none fell"


CANDLES = [
    # open, high, low, close
    (10.0, 15.0, 8.0, 12.0),
    (12.0, 13.0, 6.0, 7.0),
    (7.0, 7.0, 7.0, 7.0),
]


@pytest.mark.parametrize(
    ("draw", "time", "step"),
    [(daily_candles, "date", "1D"), (hourly_candles, "open_time", "1h")],
)
def test_a_candle_has_a_body_from_open_to_close_and_wicks_to_low_and_high(
    draw: Any, time: str, step: str
) -> None:
    frame = pd.DataFrame(CANDLES, columns=["open", "high", "low", "close"])
    frame = frame.assign(
        coin_id="bitcoin", **{time: pd.date_range("2026-03-01", periods=3, freq=step)}
    )
    (axes,) = built(draw, frame).axes
    rose, fell = axes.containers
    bodies = {
        name: [(bar.get_y(), bar.get_height()) for bar in bars]  # type: ignore[union-attr]
        for name, bars in (("rose", rose), ("fell", fell))
    }
    assert bodies == {"rose": [(10.0, 2.0), (7.0, 0.0)], "fell": [(7.0, 5.0)]}
    middles = [bar.get_x() + bar.get_width() / 2 for bar in (*rose, *fell)]  # type: ignore[misc]
    times = date2num(frame[time].to_numpy())
    np.testing.assert_allclose(middles, [times[0], times[2], times[1]], rtol=1e-12)
    wicks = [
        tuple(path.vertices[:, 1])  # type: ignore[index,call-overload]
        for collection in axes.collections
        for path in collection.get_paths()
    ]
    assert sorted(wicks) == [(6, 7), (7, 7), (7, 7), (8, 10), (12, 13), (12, 15)]
    assert axes.get_ylim() == pytest.approx((6 - 0.45, 15 + 0.45))


def test_flows_are_stacked_away_from_zero_in_millions() -> None:
    frame = pd.DataFrame(
        [
            (DAYS[0], "btc", 100e6),
            (DAYS[0], "eth", 50e6),
            (DAYS[0], "sol", -20e6),
            (DAYS[1], "btc", -30e6),
            (DAYS[1], "sol", -5e6),
            (DAYS[1], "eth", None),
        ],
        columns=["date", "asset", "net_flow_usd"],
    )
    (axes,) = built(etf_flows, frame).axes
    drawn = {
        bars.get_label(): [(bar.get_y(), bar.get_height()) for bar in bars]  # type: ignore[union-attr]
        for bars in axes.containers
    }
    assert drawn == {
        "btc": [(0, 100), (0, -30)],
        "eth": [(100, 50), (0, 0)],
        "sol": [(0, -20), (-30, -5)],
    }
    np.testing.assert_allclose(lines(axes)["together"].get_ydata(), [130.0, -35.0])  # type: ignore[arg-type]
    assert axes.get_ylabel() == "millions of US dollars"


def test_the_index_is_a_line_over_its_bands() -> None:
    frame = pd.DataFrame({"date": DAYS[:4], "value": [10, 30, 80, 50]})
    figure = built(fear_greed, frame)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), frame["value"])
    assert figure.get_suptitle() == "Fear & Greed index: 50 at last, up to 2026-02-23"
    shades = [(p.get_y(), p.get_y() + p.get_height()) for p in axes.patches]  # type: ignore[attr-defined]
    for value, band in enumerate(fear_greed_band(pd.Series(range(101)))):
        # On an edge between two bands there is no value, but at 0 and 100.
        (inside,) = (n for n, (low, high) in enumerate(shades) if low <= value <= high)
        assert list(BANDS)[inside] == band
        assert axes.texts[inside].get_text() == band


@pytest.mark.parametrize(
    ("prices", "texts"),
    [
        ([61000.0, 68000.0], ["60,000", "62,000", "64,000", "66,000", "68,000"]),
        ([0.0011, 0.0013], ["0.00110", "0.00115"]),
        ([1.2, 1.5], ["1.2", "1.3", "1.4", "1.5"]),
        ([5.0, 6.0], ["5.00", "5.25", "5.50", "5.75", "6.00"]),
    ],
)
def test_prices_are_written_as_people_write_them(prices: list[float], texts: list[str]) -> None:
    frame = signals("bitcoin", [0, 0]).assign(price_usd=prices, ema_fast=prices, ema_slow=prices)
    (axes,) = built(ema_crosses, frame).axes
    assert set(texts) <= {tick.get_text() for tick in axes.get_yticklabels()}


def test_the_title_names_the_last_day() -> None:
    figure = built(ema_crosses, signals("bitcoin", [0, 0, 0]))
    assert (
        figure.get_suptitle() == f"Price and its EMAs of 12 and 26 days, up to {date(2026, 2, 22)}"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b^c", "a_b^c"),
        ("$x$ \\frac", "$x$ \\frac"),
        ("比特币", "???"),
        ("биткоин", "биткоин"),
        ("line\nbreak\x00", "line?break?"),
        ("x" * 50, "x" * 19 + "…"),
    ],
)
def test_a_label_is_shown_as_it_is_as_far_as_there_are_glyphs(text: str, shown: str) -> None:
    figure = Figure()
    title = figure.text(0, 0, paper.label(text))
    rendered, is_math = title._preprocess_math(title.get_text())  # type: ignore[attr-defined]
    assert (rendered, is_math) == (shown, False)
