"""Small plots for people who would rather look than read: a frame in, a PNG out.

No Dagster, no DuckDB: who asks for a plot brings the query. matplotlib is loaded when the first
plot is drawn, not before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import pandas as pd

from crypto_assets.plots import candles, flows, paper, ranks, sentiment, trends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PLOTS", "Plot"]


@dataclass(frozen=True)
class Plot:
    """What is drawn of a table: which rows, how, and what one sees."""

    sql: str
    """Selects the rows up to the day `$last`, of the coins `$headline` where it names them."""
    build: "Callable[[pd.DataFrame], Figure | None]"
    alt: str

    def parameters(self, last_day: date, headline: Sequence[str]) -> dict[str, object]:
        """Return the values that the SQL takes."""
        given: dict[str, object] = {"last": last_day, "headline": list(headline)}
        return {name: value for name, value in given.items() if f"${name}" in self.sql}

    def draw(self, frame: pd.DataFrame) -> bytes | None:
        """Return the PNG of these rows, or None where there is nothing to draw."""
        if frame.empty:
            return None
        with paper.style():
            figure = self.build(frame)
            return paper.png(figure) if figure else None


# The quickest pair of the newest day: the one that crosses often enough to be looked at.
_SIGNALS = """
SELECT date, coin_id, fast_span, slow_span, price_usd, ema_fast, ema_slow, event
FROM ema_signals
WHERE date BETWEEN $last - INTERVAL 179 DAY AND $last
    AND list_contains($headline, coin_id)
    AND (fast_span, slow_span) = (
        SELECT (fast_span, slow_span) FROM ema_signals
        WHERE date = $last ORDER BY fast_span, slow_span LIMIT 1)
ORDER BY list_position($headline, coin_id), date
"""
_RANKS = """
SELECT date, coin_id, market_cap_rank, rank_change_7d
FROM ranks
WHERE date = $last AND rank_change_7d <> 0
ORDER BY market_cap_rank
"""
_HOURLY = """
SELECT open_time, coin_id, open, high, low, close
FROM ohlc_hourly
WHERE open_time >= $last - INTERVAL 2 DAY AND open_time < $last + INTERVAL 1 DAY
    AND list_contains($headline, coin_id)
ORDER BY list_position($headline, coin_id), open_time
"""
_DAILY = """
SELECT date, coin_id, open, high, low, close
FROM ohlc_daily
WHERE date BETWEEN $last - INTERVAL 89 DAY AND $last AND list_contains($headline, coin_id)
ORDER BY list_position($headline, coin_id), date
"""
_FLOWS = """
SELECT date, asset, sum(net_flow_usd) AS net_flow_usd
FROM etf_flows
WHERE date IN (SELECT DISTINCT date FROM etf_flows WHERE date <= $last ORDER BY date DESC LIMIT 40)
GROUP BY date, asset
ORDER BY date, asset
"""
_FEAR_GREED = """
SELECT date, value FROM fear_greed
WHERE date BETWEEN $last - INTERVAL 179 DAY AND $last
ORDER BY date
"""

PLOTS: Mapping[str, Plot] = {
    "ema_signals": Plot(
        _SIGNALS,
        trends.ema_crosses,
        "Prices of the headline coins, their EMAs and where they cross",
    ),
    "ranks": Plot(_RANKS, ranks.rank_moves, "Coins that climbed and fell most in seven days"),
    "ohlc_hourly": Plot(
        _HOURLY, candles.hourly_candles, "Candles of the headline coins in the last three days"
    ),
    "ohlc_daily": Plot(
        _DAILY, candles.daily_candles, "Candles of the headline coins in the last ninety days"
    ),
    "etf_flows": Plot(
        _FLOWS, flows.etf_flows, "Net flows into US funds on the last forty trading days, by asset"
    ),
    "fear_greed": Plot(
        _FEAR_GREED, sentiment.fear_greed, "Fear & Greed index of the last 180 days with its bands"
    ),
}
