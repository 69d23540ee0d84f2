"""Moving averages: in the calculation beside other libraries, and from table to table."""

import math
from collections.abc import Callable
from datetime import date, timedelta
from functools import partial

import numpy as np
import pandas as pd

from crypto_assets.calculations.signals import Grid
from crypto_assets.calculations.signals import ema as our_ema
from crypto_assets.settings import Settings, load_settings
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets_tests.benchmarks import histories, homes
from crypto_assets_tests.benchmarks.measuring import Figures, in_turns, is_installed, timed
from crypto_assets_tests.benchmarks.results import Goal, Result
from crypto_assets_tests.benchmarks.suite import Setup

SPANS = (12, 26)
OURS, TALIB, PANDAS = "ours", "TA-Lib, coin by coin", "pandas ewm"
FIRST = date(2016, 1, 1)

Averages = list[Grid]


def ema(setup: Setup) -> Result:
    """Average the prices of 10,000 coins over 365 days, with two spans, in memory."""
    days, coins = 365, 20 if setup.is_quick else 10_000
    random = np.random.default_rng(7)
    prices = 100 * np.exp(np.cumsum(random.normal(0, 0.03, (days, coins)), axis=0))
    frame = pd.DataFrame(prices)
    contenders: dict[str, Callable[[], Averages]] = {
        OURS: lambda: [our_ema(prices, span) for span in SPANS],
        PANDAS: lambda: [frame.ewm(span=span, adjust=False).mean().to_numpy() for span in SPANS],
    }
    result = Result()
    if is_installed("talib"):
        contenders[TALIB] = _talib(prices)
    else:
        result.notes.append("TA-Lib is not installed (extra bench): left out.")
    averages = {name: average() for name, average in contenders.items()}
    for name, found in averages.items():
        for span, ours, theirs in zip(SPANS, averages[OURS], found, strict=True):
            first = _forgotten_after(span) if name == TALIB else 0
            np.testing.assert_allclose(theirs[first:], ours[first:], rtol=1e-9, err_msg=name)
    result.notes.append("All agree; TA-Lib from where its other seed shows no more.")
    calls = {name: partial(timed, average) for name, average in contenders.items()}
    result.samples = in_turns(calls, setup.repeats)
    result.goals.append(Goal("ours", result.figures(OURS, "wall_seconds"), 0.15, "s"))
    if TALIB in contenders:
        result.goals.append(Goal("ours to TA-Lib", result.ratio(OURS, TALIB), 1))
    return result


def _count_signals(settings: Settings) -> int:
    found = Warehouse.of(settings).query("SELECT count(*) AS rows FROM ema_signals")
    return int(found["rows"][0])


def _forgotten_after(span: int) -> int:
    """Return the day from which an average shows no more what it was seeded with.

    TA-Lib seeds with the mean of the first `span` prices, and can't be told otherwise since 0.8.
    """
    return span + math.ceil(math.log(1e-10) / math.log(1 - 2 / (span + 1)))


def _talib(prices: Grid) -> Callable[[], Averages]:
    import talib

    # As a library of indicators is called: one coin's prices, one after the other in memory.
    by_coin = np.ascontiguousarray(prices.T)

    def average() -> Averages:
        return [np.array([talib.EMA(coin, span) for coin in by_coin]).T for span in SPANS]

    return average


def recalculation(setup: Setup) -> Result:
    """Calculate all signals of 1,000 coins x 3,650 days again, from table to table."""
    days, coins = (120, 5) if setup.is_quick else (3_650, 1_000)
    asked = FIRST, FIRST + timedelta(days=days - 1)
    result = Result()
    with homes.sandbox() as providers:
        homes.new_home(setup.folder / "home", providers, coins, FIRST)
    settings = load_settings(setup.folder / "home")
    invented = pd.DataFrame({"coin_id": [f"coin-{n:04}" for n in range(coins)]})
    invented = invented.assign(price_usd=np.arange(1.0, coins + 1), supply=1e6)
    histories.invent_closes(settings.home, invented, asked)
    histories.calculate_ranks(settings, asked)

    one_pair = settings.model_copy(
        update={"signals": settings.signals.model_copy(update={"span_pairs": [SPANS]})}
    )

    def from_nothing(chosen: Settings) -> Figures:
        with Warehouse.of(settings).session("emptying") as connection:
            connection.execute("DELETE FROM ema_signals")
        return timed(lambda: histories.calculate_signals(chosen, asked))

    def again() -> Figures:
        return timed(lambda: histories.calculate_signals(settings, asked))

    calculations: dict[str, Callable[[], Figures]] = {
        "one pair of spans": lambda: from_nothing(one_pair),
        "the three pairs of the settings": lambda: from_nothing(settings),
        "the three pairs, once more": again,
    }
    for _ in range(setup.repeats):
        for name, calculate in calculations.items():
            result.samples.setdefault(name, []).append(calculate())
            if len(result.samples[name]) == 1:
                result.notes.append(f"{name}: {_count_signals(settings):,} rows are stored.")
    for name in result.samples:
        result.goals.append(Goal(name, result.figures(name, "wall_seconds"), 5, "s"))
    return result
