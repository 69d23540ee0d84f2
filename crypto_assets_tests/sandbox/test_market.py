import gc
import tracemalloc
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.sandbox import Market

LIVELY = ["bitcoin", "ethereum", "tether", "solana", "twin-beta", "some token", "tiny-treasure"]
DAYS = st.dates(date(2021, 2, 1), date(2031, 1, 1))


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def test_two_markets_of_one_seed_agree_whatever_was_asked_before(market: Market):
    other = Market(seed=7)
    other.snapshot(datetime(2030, 5, 5, 5, 5))
    days = (date(2024, 12, 20), date(2025, 1, 10))
    pd.testing.assert_frame_equal(other.daily("solana", *days), market.daily("solana", *days))
    at = datetime(2025, 1, 3, 17, 35)
    pd.testing.assert_frame_equal(other.snapshot(at), market.snapshot(at))


def test_another_seed_is_another_market(market: Market):
    days = (date(2025, 1, 1), date(2025, 1, 10))
    other = Market(seed=8).daily("ethereum", *days)
    assert (other["price_usd"] != market.daily("ethereum", *days)["price_usd"]).all()


def test_a_smaller_market_holds_the_same_first_coins_at_the_same_prices(market: Market):
    small = Market(seed=7, coins=120)
    assert small.coins["coin_id"].tolist() == market.coins["coin_id"].tolist()[:120]
    at = datetime(2026, 1, 1, 10, 20)
    assert small.price("solana", at) == market.price("solana", at)


@settings(max_examples=25, deadline=None)
@given(coin_id=st.sampled_from(LIVELY), day=DAYS)
def test_close_of_a_day_is_one_number_everywhere(market: Market, coin_id: str, day: date):
    end = midnight(day + timedelta(days=1))
    close = market.daily(coin_id, day, day)["price_usd"].item()
    assert close == market.price(coin_id, end)
    for interval in ("30min", "1h", "4h", "1D"):
        candles = market.candles(coin_id, interval, day, end)
        assert candles["close"].iloc[-1] == close
    snapshot = market.snapshot(end).set_index("coin_id")
    assert snapshot["price_usd"][coin_id] == close
    daily = market.daily(coin_id, day, day)
    assert snapshot["market_cap_usd"][coin_id] == daily["market_cap_usd"].item()
    assert snapshot["volume_24h_usd"][coin_id] == daily["volume_24h_usd"].item()


@settings(max_examples=25, deadline=None)
@given(coin_id=st.sampled_from(LIVELY), day=DAYS)
def test_candles_nest_exactly(market: Market, coin_id: str, day: date):
    last = day + timedelta(days=2)
    finer = market.candles(coin_id, "30min", day, last)
    for interval, count in (("1h", 2), ("4h", 8), ("1D", 48)):
        coarse = market.candles(coin_id, interval, day, last)
        groups = finer.groupby(np.arange(len(finer)) // count)
        assert coarse["open_time"].tolist() == groups["open_time"].first().tolist()
        assert coarse["open"].tolist() == groups["open"].first().tolist()
        assert coarse["high"].tolist() == groups["high"].max().tolist()
        assert coarse["low"].tolist() == groups["low"].min().tolist()
        assert coarse["close"].tolist() == groups["close"].last().tolist()


@settings(max_examples=15, deadline=None)
@given(coin_id=st.sampled_from(LIVELY), day=DAYS)
def test_a_candle_opens_at_the_close_before_and_holds_every_price_within(
    market: Market, coin_id: str, day: date
):
    candles = market.candles(coin_id, "1h", day, day + timedelta(days=1))
    assert candles["open"].tolist()[1:] == candles["close"].tolist()[:-1]
    for candle in candles.iloc[[0, 11, 23]].itertuples():
        prices = [
            market.price(coin_id, candle.open_time + timedelta(minutes=5 * n)) for n in range(13)
        ]
        assert (candle.open, candle.close) == (prices[0], prices[-1])
        assert (candle.high, candle.low) == (max(prices), min(prices))


@settings(max_examples=20, deadline=None)
@given(
    coin_id=st.sampled_from(LIVELY),
    at=st.datetimes(datetime(2021, 2, 1), datetime(2030, 1, 1)),
)
def test_a_snapshot_and_the_price_of_a_moment_agree(market: Market, coin_id: str, at: datetime):
    snapshot = market.snapshot(at).set_index("coin_id")
    assert snapshot["price_usd"][coin_id] == market.price(coin_id, at)


def test_a_moment_between_two_instants_has_the_earlier_price(market: Market):
    price = market.price("solana", datetime(2026, 1, 1, 10, 5))
    assert market.price("solana", datetime(2026, 1, 1, 10, 9, 59)) == price
    assert market.price("solana", datetime(2026, 1, 1, 10, 10)) != price


def test_history_runs_from_2014_and_stays_positive_and_in_range(market: Market):
    bitcoin = market.daily("bitcoin", date(2014, 1, 1), date(2036, 12, 31))
    assert bitcoin["date"].iloc[0] == pd.Timestamp("2014-01-01")
    assert len(bitcoin) == (date(2037, 1, 1) - date(2014, 1, 1)).days
    assert bitcoin["price_usd"].between(500, 2_000_000).all()
    tether = market.daily("tether", date(2016, 1, 1), date(2030, 1, 1))
    assert tether["price_usd"].between(0.97, 1.03).all()
    caps = market.snapshot(datetime(2030, 1, 1))["market_cap_usd"].dropna()
    assert caps.between(1_000, 9e15).all()


def test_returns_are_fat_tailed_and_move_together(market: Market):
    days = (date(2021, 1, 1), date(2026, 1, 1))
    returns = pd.DataFrame(
        {
            coin: np.log(market.daily(coin, *days)["price_usd"]).diff()
            for coin in ("bitcoin", "ethereum", "solana", "cardano")
        }
    )
    assert (returns.kurt() > 1).all()
    correlation = returns.corr().to_numpy()
    assert 0.15 < correlation[np.triu_indices(4, 1)].mean() < 0.9
    assert returns["bitcoin"].std() == pytest.approx(0.026, rel=0.35)


def test_a_day_belongs_to_a_coin_from_its_listing_until_the_day_before_its_death(market: Market):
    lived = market.daily("sunset-protocol", date(2019, 1, 1), date(2027, 1, 1))["date"]
    assert (lived.iloc[0], lived.iloc[-1]) == (
        pd.Timestamp("2020-06-01"),
        pd.Timestamp("2026-06-14"),
    )
    hours = market.candles("sunset-protocol", "1h", date(2026, 6, 14), date(2026, 6, 20))
    assert hours["open_time"].iloc[-1] == pd.Timestamp("2026-06-14 23:00")

    def is_listed(at: datetime) -> bool:
        return "sunset-protocol" in set(market.snapshot(at)["coin_id"])

    assert not is_listed(datetime(2020, 6, 1))
    assert is_listed(datetime(2020, 6, 1, 0, 5))
    assert is_listed(datetime(2026, 6, 15))
    assert not is_listed(datetime(2026, 6, 15, 0, 5))
    with pytest.raises(ValueError, match="did not live"):
        market.price("sunset-protocol", datetime(2026, 6, 16))


def test_ranks_follow_caps_and_skip_coins_without_one(market: Market):
    snapshot = market.snapshot(datetime(2026, 3, 1))
    ranked = snapshot[snapshot["market_cap_rank"].notna()]
    assert ranked["market_cap_rank"].tolist() == list(range(1, len(ranked) + 1))
    assert ranked["market_cap_usd"].is_monotonic_decreasing
    by_id = snapshot.set_index("coin_id")
    assert pd.isna(by_id["market_cap_usd"]["capless"])
    assert pd.isna(by_id["market_cap_rank"]["capless"])
    assert by_id["market_cap_usd"]["unranked"] > 0
    assert pd.isna(by_id["market_cap_rank"]["unranked"])
    assert pd.isna(by_id["circulating_supply"]["supply-unknown"])
    assert pd.isna(by_id["price_usd"]["never-traded"])
    assert by_id["circulating_supply"]["staked-ether"] > by_id["total_supply"]["staked-ether"]
    assert by_id["market_cap_usd"]["twin-alpha"] == by_id["market_cap_usd"]["twin-beta"]


def test_the_market_holds_what_breaks_careless_code(market: Market):
    coins = market.coins
    living = market.snapshot(datetime(2026, 11, 1))
    assert len(living) >= 2_000
    assert coins["coin_id"].is_unique
    assert coins["symbol"].duplicated().sum() > 100
    assert coins["name"].duplicated().sum() > 10
    assert {"some token", "[old]-thing", "a/b", "what?x=1", "50%-off"} <= set(coins["coin_id"])
    assert "" in set(coins["symbol"])
    assert coins["died_on"].notna().sum() > 50
    renamed = coins.dropna(subset=["renamed_to"]).set_index("coin_id")["renamed_to"]
    assert renamed["matic-network"] == "polygon-ecosystem-token"
    assert market.missing_days("bitcoin") == [date(2015, 1, 27)]


def test_whole_dollar_coins_have_integer_prices_from_a_thousand_up(market: Market):
    for coin_id in ("bitcoin", "pax-gold", "tiny-treasure"):
        prices = market.candles(coin_id, "30min", date(2026, 1, 1), date(2026, 1, 5))["high"]
        dear = prices[prices >= 1_000]
        assert len(dear)
        assert (dear % 1 == 0).all()


def test_fear_and_greed_lacks_exactly_the_four_days_the_provider_lacks(market: Market):
    frame = market.fear_greed(date(2017, 1, 1), date(2026, 3, 1))
    days = pd.date_range("2018-02-01", "2026-03-01")
    missing = ["2018-04-14", "2018-04-15", "2018-04-16", "2024-10-26"]
    assert days.difference(pd.DatetimeIndex(frame["date"])).tolist() == [
        pd.Timestamp(day) for day in missing
    ]
    assert frame["value"].between(0, 100).all()
    assert set(frame["label"]) == {"Extreme Fear", "Fear", "Neutral", "Greed", "Extreme Greed"}


def test_constructing_a_market_computes_no_prices():
    gc.collect()
    tracemalloc.start()
    Market(seed=99)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60 << 20
