"""The market the sandbox serves, and the truth its clients are tested against.

Pure numbers: prices, caps, supplies and candles at absolute moments, by seed. No HTTP, no clock and
no provider quirk belongs here (charts.py, coingecko.py); moods and funds have their own modules.

Every price is a hash of (seed, coin, year or day) away, never a state: it depends neither on what
was asked before nor on how far the model was extended. Year boundaries are anchored around a slowly
moving mean, daily prices bridge the anchors, 5-minute prices bridge the days; so all of them agree.
Moments are naive UTC; a moment between two 5-minute instants has the price of the earlier one.
"""

from collections.abc import Sequence
from datetime import date, datetime
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_assets.sandbox import noise
from crypto_assets.sandbox.cache import ByteLru
from crypto_assets.sandbox.coins import Coin, catalogue
from crypto_assets.sandbox.etf import EtfMarket
from crypto_assets.sandbox.noise import Floats, Keys
from crypto_assets.sandbox.sentiment import fear_greed

Ints = npt.NDArray[np.int64]

STEPS_PER_DAY = 288
STEP_SECONDS = 300
CANDLE_STEPS = {"30min": 6, "1h": 12, "4h": 48, "1D": 288, "4D": 1_152}
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_FAR_DAY = 10**6


class Market:
    """A deterministic market of `coins` coins from 2014-01-01 on, the same for the same seed."""

    def __init__(self, seed: int = 7, coins: int = 2_400) -> None:
        self.seed = seed
        self.entries: list[Coin] = catalogue(seed, coins)
        self.index = {coin.coin_id: row for row, coin in enumerate(self.entries)}
        self._constants()
        self._years: ByteLru[Floats] = ByteLru(160 << 20, lambda block: block.nbytes)
        self._months: ByteLru[Floats] = ByteLru(48 << 20, lambda block: block.nbytes)
        self._instants: ByteLru[Floats] = ByteLru(24 << 20, lambda block: block.nbytes)
        self._etf = EtfMarket(seed)

    def _constants(self) -> None:
        paths = [self._path_coin(coin) for coin in self.entries]
        keys = [noise.key(self.seed, "coin", coin.coin_id) for coin in paths]
        self._keys: Keys = np.concatenate(keys)
        self._volatility = _column([coin.volatility for coin in paths])
        self._beta = _column([coin.beta for coin in paths])
        self._is_stable = np.array([coin.is_stable for coin in paths])
        self._is_whole = np.array([coin.is_whole_dollar for coin in paths])
        base = np.array([coin.base_price for coin in paths])
        self._log_base = np.log(base)[:, None]
        digits = np.where(self._is_whole, 2, np.clip(8 - np.floor(np.log10(base)), 2, 16))
        self._scale = _column([float(f"1e{int(n)}") for n in digits])
        caps = np.array([coin.base_market_cap for coin in paths])
        self._final_supply = caps / base
        self._path_listed = np.array([day_number(coin.listed_on) for coin in paths])
        self.listed = np.array([day_number(coin.listed_on) for coin in self.entries])
        self.died = np.array(
            [
                _FAR_DAY if coin.died_on is None else day_number(coin.died_on)
                for coin in self.entries
            ]
        )

    def _path_coin(self, coin: Coin) -> Coin:
        if coin.path_of is None or coin.path_of not in self.index:
            return coin
        return self.entries[self.index[coin.path_of]]

    @cached_property
    def coins(self) -> pd.DataFrame:
        """All coins that ever lived or will.

        Columns: coin_id, symbol, name, platforms (dict), listed_on (date), died_on (date or None),
        renamed_to (id or None), is_stable, is_whole_dollar, is_priced, has_market_cap, has_rank,
        has_supply, is_ragged, base_price (US$), base_market_cap (US$). A coin lives on the days
        listed_on <= D < died_on, so at the instants listed_on 00:00 < t <= died_on 00:00: its last
        close is stamped died_on 00:00.
        """
        names = ["coin_id", "symbol", "name", "platforms", "listed_on", "died_on", "renamed_to"]
        names += ["is_stable", "is_whole_dollar", "is_priced", "has_market_cap", "has_rank"]
        names += ["has_supply", "is_ragged", "base_price", "base_market_cap"]
        return pd.DataFrame(
            {
                name: pd.Series(
                    [getattr(coin, name) for coin in self.entries],
                    dtype=object if name in {"died_on", "listed_on", "renamed_to"} else None,
                )
                for name in names
            }
        )

    def coin(self, coin_id: str) -> Coin:
        """The coin of that id; KeyError if there is none."""
        return self.entries[self.index[coin_id]]

    def missing_days(self, coin_id: str) -> list[date]:
        """Days D whose close (the daily point stamped D+1 00:00) `market_chart` lacks.

        The truth has them: only the provider's daily chart does not.
        """
        return list(self.coin(coin_id).missing_days)

    def price(self, coin_id: str, at: datetime | pd.Timestamp | np.datetime64) -> float:
        """US$ price at the last 5-minute instant <= `at`, naive UTC, listed_on <= at <= died_on."""
        row = self._traded_row(coin_id)
        step = _step(at)
        if not self.listed[row] * STEPS_PER_DAY <= step <= self.died[row] * STEPS_PER_DAY:
            raise ValueError(f"{coin_id} has no price at {at}: it did not live then.")
        return float(self.path(row, step, step)[0])

    def daily(self, coin_id: str, first: date, last: date) -> pd.DataFrame:
        """Closes of the days first..last (inclusive) on which the coin lived.

        Columns: date (datetime64[ns], the day D), price_usd, market_cap_usd, volume_24h_usd (US$,
        all as of D+1 00:00; the volume is that of the 24 h before, which is day D's).
        """
        row = self.index[coin_id]
        begin = max(day_number(first), int(self.listed[row]))
        end = min(day_number(last) + 1, int(self.died[row]))
        days = np.arange(begin, end if self.entries[row].is_priced else begin)
        prices = self.closes(row, begin + 1, begin + len(days)) if len(days) else np.empty(0)
        return pd.DataFrame(
            {
                "date": days.astype("datetime64[D]").astype("datetime64[ns]"),
                "price_usd": prices,
                "market_cap_usd": self.market_caps(row, prices, days + 1),
                "volume_24h_usd": self.volumes(row, days + 1),
            }
        )

    def candles(
        self,
        coin_id: str,
        interval: str,
        start: date | datetime | pd.Timestamp,
        end: date | datetime | pd.Timestamp,
    ) -> pd.DataFrame:
        """True candles with start <= open_time < end while the coin lived.

        `interval` is 30min, 1h, 4h, 1D or 4D. Columns: open_time (datetime64[ns]), open, high, low,
        close in US$. A candle spans [open_time, open_time + interval]: both ends count, its open is
        the close of the one before.
        """
        row = self._traded_row(coin_id)
        size = CANDLE_STEPS[interval]
        first = -(-max(_ceil_step(start), int(self.listed[row]) * STEPS_PER_DAY) // size)
        last = -(-min(_ceil_step(end), int(self.died[row]) * STEPS_PER_DAY) // size)
        opens = np.arange(first, max(first, last)) * size
        if not len(opens):
            return _candle_frame(opens, np.empty((4, 0)))
        return _candle_frame(opens, to_candles(self.path(row, first * size, last * size), size))

    def snapshot(self, at: datetime | pd.Timestamp | np.datetime64) -> pd.DataFrame:
        """The living coins at the last 5-minute instant <= `at`, by market cap, largest first.

        Columns: coin_id, price_usd, market_cap_usd, volume_24h_usd (US$), circulating_supply,
        total_supply (coins), market_cap_rank (nullable Int64). NaN or NA where the provider has
        no number; ties of the cap keep the order of `coins`.
        """
        step = _step(at)
        day = step // STEPS_PER_DAY
        rows = np.flatnonzero(
            (step > self.listed * STEPS_PER_DAY) & (step <= self.died * STEPS_PER_DAY)
        )
        prices = self._prices_at(step)[rows]
        prices[~self._flags("is_priced")[rows]] = np.nan
        supplies = self._supplies(rows, day)
        caps = np.rint(prices * supplies)
        caps[~self._flags("has_market_cap")[rows]] = np.nan
        factors = np.array([self.entries[row].total_supply_factor for row in rows], dtype=float)
        frame = pd.DataFrame(
            {
                "coin_id": [self.entries[row].coin_id for row in rows],
                "price_usd": prices,
                "market_cap_usd": caps,
                "volume_24h_usd": np.where(np.isnan(prices), np.nan, self._volumes_at(rows, step)),
                "circulating_supply": np.where(self._flags("has_supply")[rows], supplies, np.nan),
                "total_supply": np.rint(supplies * factors),
            }
        )
        order = np.argsort(-np.nan_to_num(caps, nan=-1.0), kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        ranked = frame["market_cap_usd"].notna().to_numpy() & self._flags("has_rank")[rows][order]
        ranks = pd.Series(pd.NA, index=frame.index, dtype="Int64")
        ranks[ranked] = np.arange(1, ranked.sum() + 1)
        frame["market_cap_rank"] = ranks
        return frame

    def fear_greed(self, first: date, last: date) -> pd.DataFrame:
        """The index of the days first..last: date (datetime64[ns]), value (0-100), label (str).

        It begins on 2018-02-01 and lacks the four days the provider lacks.
        """
        return fear_greed(self.seed, self.closes_between, first, last)

    def etf_flows(
        self, asset: str, as_of: datetime | pd.Timestamp, since: date | None = None
    ) -> pd.DataFrame:
        """What the page of an asset ("btc", "eth", "sol") shows at `as_of` (naive UTC).

        Columns: date (datetime64[ns]), ticker, net_flow_usd_millions (one decimal; NaN where the
        page shows `-`): a row for every weekday and fund from the first day, or `since`, on.
        """
        return self._etf.flows(asset, pd.Timestamp(as_of).to_pydatetime(), since)

    # What the provider modules of the sandbox read, by row and day number (days since 1970).

    def last_24h(self, at: datetime) -> Floats:
        """Rows open, high, low (US$) over the 24 h that end at `at`, a column for every coin.

        NaN for coins that did not live all that time.
        """
        step = _step(at)
        day, inside = divmod(step, STEPS_PER_DAY)
        parts = [self._day_paths(day - 1)[:, inside:]]
        if inside:
            parts.append(self._day_paths(day)[:, : inside + 1])
        highs = np.max([part.max(axis=1) for part in parts], axis=0)
        lows = np.min([part.min(axis=1) for part in parts], axis=0)
        day_range = np.stack([parts[0][:, 0], highs, lows])
        day_range[:, (self.listed >= day - 1) | ~self._flags("is_priced")] = np.nan
        return day_range

    def closes(self, row: int, first_day: int, last_day: int) -> Floats:
        """Prices of one coin at 00:00 of the days first_day..last_day (inclusive)."""
        prices: Floats = self._midnights(slice(row, row + 1), first_day, last_day)[0]
        return prices

    def closes_between(self, coin_id: str, first: date, last: date) -> Floats:
        """Prices of one coin at 00:00 of the days first..last (inclusive)."""
        return self.closes(self.index[coin_id], day_number(first), day_number(last))

    def path(self, row: int, first_step: int, last_step: int) -> Floats:
        """5-minute prices of one coin, steps since 1970 of 300 s, both ends included."""
        first_day = first_step // STEPS_PER_DAY
        last_day = max(first_day, -(-last_step // STEPS_PER_DAY) - 1)
        months = range(first_day // 32, last_day // 32 + 1)
        blocks = [self._month(row, month) for month in months]
        flat = np.concatenate([*(block[:-1] for block in blocks), blocks[-1][-1:]])
        offset = months[0] * 32 * STEPS_PER_DAY
        prices: Floats = flat[first_step - offset : last_step - offset + 1].copy()
        return prices

    def supplies(self, row: int, days: Ints) -> Floats:
        """Coins in circulation on the given days (numbers since 1970)."""
        age = np.maximum(days - self._path_listed[row], 0)
        return _issued(self._final_supply[row], age)

    def market_caps(self, row: int, prices: Floats, days: Ints) -> Floats:
        """Market caps (whole US$) for prices at instants of the given days; NaN if it has none."""
        if not self.entries[row].has_market_cap:
            return np.full(len(prices), np.nan)
        return np.rint(prices * self.supplies(row, days))

    def volumes(self, row: int, days: Ints) -> Floats:
        """Trailing 24 h volumes (US$) at 00:00 of the given days."""
        if not len(days):
            return np.empty(0)
        prices = self.closes(row, int(days.min()), int(days.max()))[days - days.min()]
        noise_ = noise.uniform(self._keys[row : row + 1] ^ self._volume_salt, days)[0]
        return _turnover(prices * self.supplies(row, days), noise_)

    def volumes_at(self, row: int, steps: Ints) -> Floats:
        """Trailing 24 h volumes (US$) at 5-minute steps, between those of the midnights around."""
        if not len(steps):
            return np.empty(0)
        first = int(steps.min()) // STEPS_PER_DAY
        days = np.arange(first, int(steps.max()) // STEPS_PER_DAY + 2)
        return _between(self.volumes(row, days), steps - first * STEPS_PER_DAY)

    def _traded_row(self, coin_id: str) -> int:
        row = self.index[coin_id]
        if not self.entries[row].is_priced:
            raise ValueError(f"{coin_id} was never traded: it has no prices.")
        return row

    @cached_property
    def _volume_salt(self) -> Keys:
        return noise.key(self.seed, "volume")

    def _flags(self, name: str) -> npt.NDArray[np.bool_]:
        return self.coins[name].to_numpy(dtype=bool)

    def _supplies(self, rows: Ints, day: int) -> Floats:
        return _issued(self._final_supply[rows], np.maximum(day - self._path_listed[rows], 0))

    def _volumes_at(self, rows: Ints, step: int) -> Floats:
        day = step // STEPS_PER_DAY
        days = np.array([day, day + 1])
        noise_ = noise.uniform(self._keys[rows] ^ self._volume_salt, days)
        prices = self._midnights(slice(None), day, day + 1)[rows]
        supplies = np.stack([self._supplies(rows, int(d)) for d in days], axis=1)
        both = _turnover(prices * supplies, noise_)
        return _between(both, np.array([step - day * STEPS_PER_DAY]))[:, 0]

    def _prices_at(self, step: int) -> Floats:
        day, inside = divmod(step, STEPS_PER_DAY)
        # All coins at all instants of one day: the next snapshots of that day are a column of it.
        prices = self._day_paths(day) if inside else self._midnights(slice(None), day, day)
        column: Floats = prices[:, inside].copy()
        return column

    def _day_paths(self, day: int) -> Floats:
        """5-minute prices of all coins over one day, both midnights included."""
        return self._instants.get(day, lambda: self._paths(slice(None), day, 1))

    def _month(self, row: int, month: int) -> Floats:
        """32 days of 5-minute prices, closing instant included, of one coin."""
        return self._months.get(
            (row, month), lambda: self._paths(slice(row, row + 1), month * 32, 32)[0]
        )

    def _paths(self, rows: slice, first_day: int, days: int) -> Floats:
        """5-minute prices, shape (rows, days * 288 + 1)."""
        closes = self._midnights(rows, first_day, first_day + days)
        keys = self._keys[rows]
        shape = (len(keys), days, STEPS_PER_DAY)
        draws = noise.fat_tailed(keys, first_day * STEPS_PER_DAY, days * STEPS_PER_DAY)
        walk = np.cumsum(draws.reshape(shape), axis=2)
        walk *= (self._volatility[rows] * (0.9 / np.sqrt(STEPS_PER_DAY)))[:, :, None]
        logs = np.log(closes)
        drift = np.diff(logs, axis=1)[:, :, None] - walk[:, :, -1:]
        share = np.arange(1, STEPS_PER_DAY + 1) / STEPS_PER_DAY
        walk += drift * share + logs[:, :-1, None]
        paths = np.empty((len(keys), days * STEPS_PER_DAY + 1))
        inner = self._quantised(rows, np.exp(walk, out=walk).reshape(len(keys), -1))
        paths[:, 1:] = inner
        paths[:, ::STEPS_PER_DAY] = closes
        return paths

    def _midnights(self, rows: slice, first_day: int, last_day: int) -> Floats:
        """Prices at 00:00 of the days, shape (rows, days)."""
        years = range(_date(first_day).year, _date(last_day).year + 1)
        parts = []
        for year in years:
            start = day_number(date(year, 1, 1))
            block = self._years.get(year, lambda year=year: self._year(year))  # type: ignore[misc]
            parts.append(block[rows, max(first_day - start, 0) : last_day - start + 1])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _year(self, year: int) -> Floats:
        """Prices at 00:00 of every day of a year, shape (coins, days)."""
        start, end = day_number(date(year, 1, 1)), day_number(date(year + 1, 1, 1))
        days = end - start
        first = year * 400
        factor = noise.fat_tailed(noise.key(self.seed, "market"), first, 400)[:, :days]
        regime = noise.uniform(noise.key(self.seed, "regime"), np.arange(12) + year * 12)[0]
        factor = factor * np.repeat(0.5 + regime, 31)[:days]
        own = noise.fat_tailed(self._keys ^ noise.key(self.seed, "daily"), first, 400)
        share = np.arange(days + 1) / days
        before, after = self._anchors(year), self._anchors(year + 1)
        steps = np.zeros((len(self.entries), days + 1))
        np.cumsum(0.6 * self._beta * factor + 0.8 * own[:, :days], axis=1, out=steps[:, 1:])
        steps -= steps[:, -1:] * share
        logs = (before + (after - before) * share + self._volatility * steps)[:, :days]
        calm = self._log_base + self._volatility * own[:, :days]
        return self._quantised(slice(None), np.exp(np.where(self._is_stable[:, None], calm, logs)))

    def _anchors(self, year: int) -> Floats:
        """Log price at the first instant of a year, shape (coins, 1).

        A moving average of shocks: prices wander for years and yet stay in their range.
        """
        weights = 0.6 ** np.arange(6)
        years = np.arange(year, year - 6, -1)
        cycle = noise.uniform(noise.key(self.seed, "cycle"), years)[0]
        shared = float((weights * (2 * cycle - 1)).sum())
        own_keys = self._keys ^ noise.key(self.seed, "anchor")
        own = (weights * (2 * noise.uniform(own_keys, years) - 1)).sum(axis=1)
        growth = -0.22 * max(0, 2025 - year)
        swing = 0.55 * self._beta * shared + 0.5 * own[:, None] + growth
        anchors: Floats = self._log_base + swing * np.minimum(self._volatility / 0.04, 1.2)
        return anchors

    def _quantised(self, rows: slice, prices: Floats) -> Floats:
        """Prices in the coin's decimals: short in JSON, and the same on every machine."""
        rounded: Floats = np.rint(prices * self._scale[rows]) / self._scale[rows]
        whole = self._is_whole[rows]
        if whole.any():
            dear = rounded[whole]
            rounded[whole] = np.where(dear >= 1_000, np.rint(dear), dear)
        return rounded


def to_candles(path: Floats, size: int) -> Floats:
    """Candles of `size` steps from a path of n * size + 1 prices: rows open, high, low, close."""
    inside = path[:-1].reshape(-1, size)
    closes = path[size::size]
    highs = np.maximum(inside.max(axis=1), closes)
    lows = np.minimum(inside.min(axis=1), closes)
    return np.stack([inside[:, 0], highs, lows, closes])


def _candle_frame(opens: Ints, candles: Floats) -> pd.DataFrame:
    stamps = (opens * STEP_SECONDS).astype("datetime64[s]").astype("datetime64[ns]")
    frame = pd.DataFrame(candles.T, columns=["open", "high", "low", "close"])
    frame.insert(0, "open_time", stamps)
    return frame


def _issued(final: Floats | float, age: Ints) -> Floats:
    """Coins in circulation after `age` days: fast at first, then ever slower."""
    supply: Floats = np.rint(final * (1 - 0.45 * np.exp(-age / 1_400)))
    return np.maximum(supply, 1.0)


def _turnover(caps: Floats, uniforms: Floats) -> Floats:
    volumes: Floats = np.round(caps * np.exp(-4.2 + 2.2 * uniforms), 2)
    return volumes


def _between(midnights: Floats, steps: Ints) -> Floats:
    """Linear between midnights (last axis), exact on them."""
    day, inside = np.divmod(steps, STEPS_PER_DAY)
    share = inside / STEPS_PER_DAY
    left, right = midnights[..., day], midnights[..., day + 1]
    return np.where(inside == 0, left, np.round(left + (right - left) * share, 2))


def _column(values: Sequence[float]) -> Floats:
    return np.array(values, dtype=float)[:, None]


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return day.toordinal() - _EPOCH_DAY


def _date(day: int) -> date:
    return date.fromordinal(day + _EPOCH_DAY)


def _step(at: date | datetime | pd.Timestamp | np.datetime64) -> int:
    return int(pd.Timestamp(at).value // (STEP_SECONDS * 10**9))


def _ceil_step(at: date | datetime | pd.Timestamp) -> int:
    return int(-(-pd.Timestamp(at).value // (STEP_SECONDS * 10**9)))
