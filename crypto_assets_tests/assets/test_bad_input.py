"""The whole platform on answers that are well-formed and wrong: values, fields, pages, ids, stamps.

Each test says what may be stored of them, and where what is not stored is told.
"""

from collections.abc import Collection, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crypto_assets.sandbox import Market
from crypto_assets_tests.assets.test_faults import (
    ALWAYS,
    CHART,
    CHARTS,
    FIRST,
    OHLC,
    TODAY,
    YESTERDAY,
    assert_same,
    assert_true_closes,
    content,
    largest,
    sentence,
)
from crypto_assets_tests.lab import NOON, Lab, open_lab

# Whole platforms over many days: the second tier.
pytestmark = pytest.mark.slow

MARKETS = {"endpoint": "coins/markets"}


def assert_true_candles(
    lab: Lab,
    table: str,
    coins: list[str],
    first: date,
    last: date,
    without: Collection[tuple[str, datetime]] = (),
) -> None:
    """The candles are those of the market model, but for these, by coin and opening."""
    length, time = {"ohlc_daily": ("1D", "date"), "ohlc_hourly": ("1h", "open_time")}[table]
    for coin in coins:
        stored = lab.sql(f"FROM {table} WHERE coin_id = ? ORDER BY {time}", coin)
        truth = lab.market.candles(coin, length, first, last + timedelta(days=1))
        left_out = [opening for of, opening in without if of == coin]
        truth = truth[~truth["open_time"].isin(left_out)]
        assert list(stored[time]) == list(truth["open_time"]), coin
        np.testing.assert_allclose(stored[OHLC], truth[OHLC], rtol=1e-9)


def gap_of(lab: Lab, table: str, coin: str) -> tuple[date, date, str, str]:
    told = lab.sql("FROM gaps WHERE table_name = ? AND series = ?", table, coin)
    assert len(told) == 1, told
    row = told.iloc[0]
    return row["first_day"].date(), row["last_day"].date(), row["state"], row["reason"]


# 6: values

SNAPSHOT_VALUES: dict[str, tuple[str, str]] = {
    "cardano": ("nan", "cardano.current_price should be a finite number, not nan"),
    "dai": ("infinity", "dai.current_price should be a finite number, not inf"),
    "monero": ("1e400", "monero.current_price should be a finite number, not inf"),
    "near": ("zero", "near.current_price should be greater than 0, not 0"),
    "pepe": ("negative", "pepe.current_price should be greater than 0, not -1.5"),
    "ripple": ("string", "ripple.current_price should be a number, not '12.5'"),
    "stellar": ("null", "not in the market snapshot"),
}


def test_impossible_prices_of_a_snapshot_leave_the_hour_before_and_say_why(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 30}) as lab:
        earlier = NOON - timedelta(hours=1)
        lab.at(earlier).run(["market_caps"], TODAY)
        for coin, (value, _) in SNAPSHOT_VALUES.items():
            lab.server.faults.add({"kind": "bad_price", "value": value, "coin_id": coin})
        assert lab.at(NOON).run(["market_caps", "ranks"], TODAY).succeeded
        stored = lab.sql("FROM market_caps ORDER BY coin_id")
        assert list(stored["coin_id"]) == largest(market, 30, earlier)
        for row in stored.itertuples():
            at = earlier if row.coin_id in SNAPSHOT_VALUES else NOON
            assert row.price_usd == market.price(row.coin_id, at), row.coin_id
        for coin, (_, reason) in SNAPSHOT_VALUES.items():
            assert gap_of(lab, "market_caps", coin) == (TODAY, TODAY, "missing", reason)
        day = lab.sql("FROM coverage WHERE table_name = 'market_caps'")
        assert list(day["missing"][0]) == sorted(SNAPSHOT_VALUES)


def test_unknown_caps_volumes_and_ranks_cost_no_price(tmp_path: Path, market: Market) -> None:
    universe = {"tracked": 20, "always": [*ALWAYS, "cardano", "tron"]}
    with open_lab(tmp_path, market, universe=universe) as lab:
        for coin, field, value in (
            ("cardano", "market_cap", "null"),
            ("tron", "market_cap", 0),
            ("ripple", "total_volume", "null"),
            ("dogecoin", "market_cap_rank", "null"),
            ("solana", "circulating_supply", 1e30),
        ):
            lab.server.faults.add(
                {"kind": "bad_price", "coin_id": coin, "field": field, "value": value}
            )
        assert lab.run(["market_caps", "ranks"], TODAY).succeeded
        stored = lab.sql("FROM market_caps ORDER BY coin_id").set_index("coin_id")
        for coin, price in stored["price_usd"].items():
            assert price == market.price(str(coin), NOON)
        assert set(stored.index[stored["market_cap_usd"].isna()]) == {"cardano", "tron"}
        assert set(stored.index[stored["volume_24h_usd"].isna()]) == {"ripple"}
        assert set(stored.index[stored["provider_rank"].isna()]) == {"dogecoin"}
        assert stored.loc["solana", "circulating_supply"] == 1e30
        # Without a cap no rank, and no hole in the ranks of the others.
        ranks = lab.sql("FROM ranks ORDER BY market_cap_rank")
        assert set(stored.index) - set(ranks["coin_id"]) == {"cardano", "tron"}
        assert list(ranks["market_cap_rank"]) == list(range(1, len(stored) - 1))
        assert lab.sql("FROM gaps").empty


# One price or candle, that of the middle of an answer, is impossible.
IMPOSSIBLE = "should be finite and greater than 0, not "
HISTORY_VALUES: dict[str, tuple[dict[str, Any], str, str]] = {
    "NaN": ({"value": "nan"}, f"{IMPOSSIBLE}'NaN or infinite'", "market_caps"),
    "infinity": ({"value": "infinity"}, f"{IMPOSSIBLE}'NaN or infinite'", "market_caps"),
    "1e400": ({"value": "1e400"}, f"{IMPOSSIBLE}'NaN or infinite'", "market_caps"),
    "zero": ({"value": "zero"}, f"{IMPOSSIBLE}0.0", "market_caps"),
    "negative": ({"value": "negative"}, f"{IMPOSSIBLE}-1.5", "market_caps"),
    "text": ({"value": "string"}, "should be a number, not '12.5'", "market_caps"),
    "a cap of text": (
        {"value": "string", "field": "market_caps"},
        "should be a number, not '12.5'",
        "market_caps",
    ),
    "a zero in a candle": ({"value": "zero"}, f"{IMPOSSIBLE}[", "ohlc_daily"),
    "NaN in a candle": ({"value": "nan"}, f"{IMPOSSIBLE}[", "ohlc_daily"),
    "a null in a candle": ({"value": "null"}, f"{IMPOSSIBLE}[", "ohlc_daily"),
}
# What is of another type breaks the contract of the whole answer.
OF_ANOTHER_TYPE = {"text", "a cap of text"}
# The day of the value in the middle of the answer, by table.
MIDDLE = {"market_caps": FIRST, "ohlc_daily": FIRST + timedelta(days=3)}


@pytest.fixture(scope="module")
def misled(tmp_path_factory: pytest.TempPathFactory, market: Market) -> Iterator[Lab]:
    """A lab in which each impossible value struck one coin of thirty."""
    home = tmp_path_factory.mktemp("misled")
    with open_lab(home, market, fetch={"max_missing_share": 1}, universe={"tracked": 30}) as lab:
        for coin, (options, _, table) in _misled(market).items():
            endpoint = {"market_caps": CHARTS, "ohlc_daily": {"endpoint": "coins/{id}/ohlc/range"}}
            match = {"coin_id": coin, **endpoint[table]}
            lab.server.faults.add({"kind": "bad_price", "match": match, **options})
        assert lab.run(["market_caps", "ohlc_daily"], FIRST, YESTERDAY).succeeded
        yield lab


def _misled(market: Market) -> dict[str, tuple[dict[str, Any], str, str]]:
    coins = largest(market, 30)[-len(HISTORY_VALUES) :]
    return dict(zip(coins, HISTORY_VALUES.values(), strict=True))


@pytest.mark.parametrize("kind", HISTORY_VALUES)
def test_an_impossible_value_of_a_history_costs_its_day_and_is_told_with_its_field(
    misled: Lab, kind: str
) -> None:
    _, reason, table = HISTORY_VALUES[kind]
    coin = list(_misled(misled.market))[list(HISTORY_VALUES).index(kind)]
    first, last, state, told = gap_of(misled, table, coin)
    day = MIDDLE[table]
    assert (first, last) == ((FIRST, YESTERDAY) if kind in OF_ANOTHER_TYPE else (day, day))
    assert state == "missing"
    assert reason in sentence(told)
    assert told.startswith(f"{coin}.")
    if kind == "NaN in a candle":
        assert told.endswith(", 'NaN or infinite']")
    if table == "ohlc_daily":
        assert f"{coin}.ohlc at {day + timedelta(days=1)} " in told


def test_coins_beside_impossible_values_are_stored_whole_and_those_struck_but_for_a_day(
    misled: Lab,
) -> None:
    coins = set(largest(misled.market, 30))
    struck: dict[str, list[str]] = {"market_caps": [], "ohlc_daily": []}
    refused = []
    for kind, coin in zip(HISTORY_VALUES, _misled(misled.market), strict=True):
        if kind in OF_ANOTHER_TYPE:
            refused.append(coin)
        else:
            struck[HISTORY_VALUES[kind][2]].append(coin)
    assert (len(struck["market_caps"]), len(struck["ohlc_daily"]), len(refused)) == (5, 3, 2)
    of_caps = [(coin, MIDDLE["market_caps"]) for coin in struck["market_caps"]]
    assert_true_closes(misled, sorted(coins - set(refused)), FIRST, YESTERDAY, of_caps)
    opening = datetime.combine(MIDDLE["ohlc_daily"], datetime.min.time())
    of_candles = [(coin, opening) for coin in struck["ohlc_daily"]]
    assert_true_candles(misled, "ohlc_daily", sorted(coins), FIRST, YESTERDAY, of_candles)
    for table, day in MIDDLE.items():
        missing = misled.sql(
            "SELECT missing FROM coverage WHERE table_name = ? AND date = ?", table, day
        )["missing"][0]
        assert set(missing) == {*struck[table], *(refused if table == "market_caps" else ())}


@pytest.mark.parametrize(
    ("table", "rule", "is_alone"),
    [
        # Of one day there is one candle: none of the answer is possible.
        ("ohlc_daily", {"kind": "bad_price", "field": "high", "value": 1e-9}, False),
        ("ohlc_hourly", {"kind": "bad_price", "field": "low", "value": 1e9}, True),
        ("ohlc_hourly", {"kind": "bad_price", "field": "open", "value": "null"}, True),
        ("ohlc_daily", {"kind": "off_grid", "seconds": 7}, False),
        ("ohlc_hourly", {"kind": "off_grid", "seconds": 7}, False),
    ],
)
def test_a_candle_that_cannot_be_costs_its_coin_a_day_at_most_and_not_the_other_24(
    tmp_path: Path, market: Market, table: str, rule: dict[str, Any], is_alone: bool
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 25}) as lab:
        lab.server.faults.add({**rule, "match": {"coin_id": "litecoin"}})
        report = lab.run([table], YESTERDAY)
        coins = largest(market, 25)
        others = [coin for coin in coins if coin != "litecoin"]
        assert report.failures == {}
        assert_true_candles(lab, table, others, YESTERDAY, YESTERDAY)
        stored = lab.sql(f"FROM {table} WHERE coin_id = 'litecoin'")
        first, last, state, reason = gap_of(lab, table, "litecoin")
        assert (first, last, state) == (YESTERDAY, YESTERDAY, "missing")
        if is_alone:
            # 24 candles came: the middle one closes at 13:00, and is left out alone.
            bad = datetime(2026, 3, 9, 12)
            told = sentence(reason).partition(" should be ")[0]
            closes = pd.Timestamp(told.removeprefix("litecoin.ohlc at "))
            assert closes - timedelta(hours=1) in (bad, bad - timedelta(hours=1))
            left_out = [("litecoin", closes - timedelta(hours=1))]
            assert len(stored) == 23
            assert_true_candles(lab, table, ["litecoin"], YESTERDAY, YESTERDAY, left_out)
        else:
            assert stored.empty
            assert "litecoin.ohlc " in sentence(reason)
        covered = lab.sql("FROM coverage WHERE table_name = ? AND date = ?", table, YESTERDAY)
        assert list(covered["missing"][0]) == ["litecoin"]
        assert not covered["is_final"][0]
        # The next run asks for it again, and for no other coin.
        lab.server.reset()
        assert lab.at(NOON + timedelta(minutes=10)).run([table], YESTERDAY).succeeded
        # The universe of a home without closes, and the one coin.
        assert lab.server.stats()["calls"] == {
            "coingecko/coins/markets": {"200": 1},
            "coingecko/coins/{id}/ohlc/range": {"200": 1},
        }
        assert_true_candles(lab, table, coins, YESTERDAY, YESTERDAY)
        assert lab.sql("FROM gaps").empty


def test_one_bad_day_in_a_year_leaves_only_that_day_out_and_visibly_so(
    tmp_path: Path, market: Market
) -> None:
    first, bad = date(2025, 3, 10), date(2025, 9, 1)
    history = {"start": str(first)}
    with open_lab(tmp_path, market, history=history, universe={"tracked": 3}) as lab:
        lab.server.faults.add({"kind": "missing_day", "date": str(bad), "match": CHARTS})
        assert lab.run(["market_caps"], first, YESTERDAY).succeeded
        coins = largest(market, 3)
        stored = lab.sql("SELECT date, coin_id, price_usd FROM market_caps ORDER BY coin_id, date")
        frames = [market.daily(coin, first, YESTERDAY).assign(coin_id=coin) for coin in coins]
        truth = pd.concat(frames)
        truth = truth[truth["date"] != pd.Timestamp(bad)]
        assert list(stored["date"]) == list(truth["date"])
        np.testing.assert_allclose(stored["price_usd"], truth["price_usd"], rtol=1e-9)
        for coin in coins:
            told = (bad, bad, "no_data_at_provider", "the provider has no value")
            assert gap_of(lab, "market_caps", coin) == told
        # No flood of calls for what the provider does not have.
        lab.server.reset()
        lab.at(NOON + timedelta(hours=1)).run(["market_caps"], first, YESTERDAY)
        assert lab.server.stats()["total"] == 0


def test_one_impossible_price_in_a_year_costs_no_other_price(
    tmp_path: Path, market: Market
) -> None:
    first, bad = date(2025, 3, 10), date(2025, 9, 1)
    history = {"start": str(first)}
    fetch = {"max_missing_share": 1}
    with open_lab(tmp_path, market, history=history, universe={"tracked": 3}, fetch=fetch) as lab:
        rule = {"kind": "bad_price", "value": "zero", "date": str(bad)}
        lab.server.faults.add({**rule, "match": {"coin_id": "ethereum"}})
        assert lab.run(["market_caps"], first, YESTERDAY).succeeded
        stored = lab.sql("SELECT date FROM market_caps WHERE coin_id = 'ethereum' ORDER BY date")
        truth = market.daily("ethereum", first, YESTERDAY)["date"]
        assert list(stored["date"]) == [day for day in truth if day.date() != bad]
        assert gap_of(lab, "market_caps", "ethereum") == (
            bad,
            bad,
            "missing",
            f"ethereum.prices at {bad + timedelta(days=1)} 00:00:00 should be finite and greater "
            "than 0, not 0.0",
        )
        lab.server.reset()
        lab.at(NOON + timedelta(hours=1)).run(["market_caps"], first, YESTERDAY)
        assert lab.server.stats()["calls"] == {CHART: {"200": 1}}
        assert_true_closes(lab, largest(market, 3), first, YESTERDAY)
        assert lab.sql("FROM gaps").empty


# 7: fields


@pytest.mark.parametrize(
    ("rule", "named"),
    [
        ({"kind": "drop_field", "field": "current_price"}, "current_price should be present"),
        ({"kind": "rename_field", "field": "market_cap", "to": "cap"}, "market_cap should be"),
        ({"kind": "retype_field", "field": "current_price", "to": "list"}, "current_price should"),
        ({"kind": "drop_field", "field": "id"}, "id should be present"),
    ],
)
def test_a_field_that_is_gone_from_every_coin_ends_the_step_by_name_and_changes_no_row(
    lab: Lab, rule: dict[str, Any], named: str
) -> None:
    lab.run(["market_caps"], TODAY)
    before = content(lab, ["market_caps"])
    lab.server.faults.add({**rule, "match": MARKETS})
    report = lab.at(NOON + timedelta(hours=1)).run(["market_caps"], TODAY)
    told = sentence(report.failures["market_caps"])
    assert told.startswith("coingecko was asked for coins/markets (")
    assert named in told
    assert "look at the provider's changes" in told
    assert_same(before, content(lab, ["market_caps"]))


def test_new_fields_are_no_reason_to_refuse(lab: Lab) -> None:
    lab.server.faults.add({"kind": "add_field", "field": "quantum_score", "match": MARKETS})
    lab.server.faults.add({"kind": "add_field", "field": "sentiments", "match": CHARTS})
    assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
    assert_true_closes(lab, largest(lab.market, 10), FIRST, YESTERDAY)


# 8: pages


def test_a_page_that_is_one_coin_short_is_not_the_end_of_the_market(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 400}) as lab:
        query = {"endpoint": "coins/markets", "query": {"page": 1}}
        lab.server.faults.add({"kind": "short_page", "rows": 249, "match": query})
        assert lab.run(["market_caps"], TODAY).succeeded
        stored = set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"])
        # The one that fell off page 1 can't be known of.
        assert stored >= set(market.snapshot(NOON)["coin_id"].head(400)) - {
            market.snapshot(NOON)["coin_id"][249]
        }


def test_a_short_page_loses_no_coin_that_is_tracked(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 300}) as lab:
        lab.run(["market_caps"], TODAY)
        lab.server.faults.add({"kind": "short_page", "rows": 200, "match": MARKETS})
        assert lab.at(NOON + timedelta(hours=1)).run(["market_caps", "ranks"], TODAY).succeeded
        stored = lab.sql("FROM market_caps ORDER BY coin_id")
        assert list(stored["coin_id"]) == largest(market, 300)
        for row in stored.head(20).itertuples():
            assert row.price_usd == market.price(row.coin_id, lab.now)
        assert (stored["observed_at"] == pd.Timestamp(lab.now)).all()


def test_tied_caps_are_ranked_by_id_and_null_ranks_have_a_place(
    tmp_path: Path, market: Market
) -> None:
    always = ["twin-alpha", "twin-beta", "unranked", "capless"]
    with open_lab(tmp_path, market, universe={"tracked": 5, "always": always}) as lab:
        assert lab.run(["market_caps", "ranks"], YESTERDAY, TODAY).succeeded
        for day in (YESTERDAY, TODAY):
            ranks = lab.sql("FROM ranks WHERE date = ? ORDER BY market_cap_rank", day)
            order = [*market.snapshot(NOON)["coin_id"].head(5), "twin-alpha", "twin-beta"]
            assert list(ranks["coin_id"]) == [*order, "unranked"]
            assert list(ranks["market_cap_rank"]) == list(range(1, 9))
        capless = lab.sql("FROM market_caps WHERE coin_id = 'capless' ORDER BY date")
        assert capless["market_cap_usd"].isna().all()
        assert capless["price_usd"][1] == market.price("capless", NOON)


def test_a_large_coin_refused_in_the_very_first_snapshot_is_told_of(lab: Lab) -> None:
    lab.server.faults.add({"kind": "bad_price", "value": "nan", "coin_id": "ripple"})
    assert lab.run(["market_caps"], TODAY).succeeded
    assert "ripple.current_price" in gap_of(lab, "market_caps", "ripple")[3]


# 9: lives of coins


def test_a_renamed_coin_keeps_its_history_and_goes_on_under_its_new_id(
    tmp_path: Path, market: Market
) -> None:
    both = {"tracked": 2, "always": ["lumen-yard", "lumen-yard-2"]}
    first, renamed_on = date(2026, 1, 25), date(2026, 2, 1)
    with open_lab(tmp_path, market, universe=both) as lab:
        tables = ["market_caps", "ohlc_daily"]
        lab.at(datetime(2026, 1, 30, 12, 20)).run(["coin_list"], first)
        lab.run(tables, first, date(2026, 1, 29))
        old = "FROM {} WHERE coin_id = 'lumen-yard' ORDER BY date"
        before = [lab.sql(old.format(table)) for table in tables]
        assert [len(rows) for rows in before] == [5, 5]
        lab.at(datetime(2026, 2, 6, 12, 20)).run(["coin_list"], first)
        assert lab.run(tables, first, date(2026, 2, 5)).succeeded
        # The old id answers with nothing now: what is stored stays, and nothing becomes $0.
        for rows, table in zip(before, tables, strict=True):
            pd.testing.assert_frame_equal(rows, lab.sql(old.format(table)))
        told = lab.sql("SELECT DISTINCT state FROM gaps WHERE series = 'lumen-yard'")
        assert "no_data_at_provider" in set(told["state"])
        new = lab.sql("FROM market_caps WHERE coin_id = 'lumen-yard-2' ORDER BY date")
        truth = market.daily("lumen-yard-2", renamed_on, date(2026, 2, 5))
        assert list(new["date"]) == list(truth["date"])
        np.testing.assert_allclose(new["price_usd"], truth["price_usd"], rtol=1e-9)
        listed = lab.sql("FROM coin_list WHERE coin_id = 'lumen-yard'")
        assert listed["renamed_to"][0] == "lumen-yard-2"
        assert not listed["is_active"][0]
        assert listed["last_seen_at"][0] == pd.Timestamp(2026, 1, 30, 12, 20)


def test_a_coin_that_vanishes_and_returns_has_no_price_in_between_and_one_life(lab: Lab) -> None:
    tables = ["market_caps", "ranks"]
    lab.at(datetime(2026, 3, 8, 12, 20)).run(["coin_list"], date(2026, 3, 8))
    lab.run(tables, date(2026, 3, 8))
    lab.server.faults.add({"kind": "vanish", "coin_id": "tron"})
    lab.at(datetime(2026, 3, 9, 12, 20)).run(["coin_list"], date(2026, 3, 9))
    assert not lab.sql("FROM coin_list WHERE coin_id = 'tron'")["is_active"][0]
    assert lab.run(tables, date(2026, 3, 8), date(2026, 3, 9)).succeeded
    away = lab.sql("FROM market_caps WHERE coin_id = 'tron' ORDER BY date")
    # Of the 8th there is the noon that was seen; of the 9th nothing.
    assert list(away["date"].dt.date) == [date(2026, 3, 8)]
    assert away["price_usd"][0] == lab.market.price("tron", datetime(2026, 3, 8, 12, 20))
    assert not away["is_final"][0]
    lab.server.faults.clear()
    lab.at(NOON).run(["coin_list"], TODAY)
    assert lab.run(tables, date(2026, 3, 8), YESTERDAY).succeeded
    listed = lab.sql("FROM coin_list WHERE coin_id = 'tron'")
    assert listed["is_active"][0]
    assert listed["first_seen_at"][0] == pd.Timestamp(2026, 3, 8, 12, 20)
    coins = sorted(set(lab.sql("SELECT coin_id FROM market_caps")["coin_id"]))
    assert "tron" in coins
    assert_true_closes(lab, coins, date(2026, 3, 8), YESTERDAY)


def test_coins_of_one_symbol_and_name_stay_apart(tmp_path: Path, market: Market) -> None:
    always = ["bitcoin", "[old]-thing"]
    assert len({(market.coin(c).symbol, market.coin(c).name) for c in always}) == 1
    with open_lab(tmp_path, market, universe={"tracked": 1, "always": always}) as lab:
        lab.run(["coin_list"], TODAY)
        assert lab.run(["market_caps"], FIRST, YESTERDAY).succeeded
        assert_true_closes(lab, sorted(always), FIRST, YESTERDAY)
        twins = lab.sql("SELECT coin_id FROM coin_list WHERE symbol = 'btc' ORDER BY coin_id")
        assert list(twins["coin_id"]) == sorted(always)


# 11, 13: stamps and holes


def test_stamps_that_are_doubled_or_out_of_order_change_no_row(
    tmp_path: Path, market: Market
) -> None:
    with open_lab(tmp_path, market) as lab:
        lab.server.faults.add({"kind": "duplicate_stamp"}, {"kind": "out_of_order"})
        assert lab.run(["market_caps", "ohlc_daily", "ohlc_hourly"], FIRST, YESTERDAY).succeeded
        coins = largest(market, 10)
        assert_true_closes(lab, coins, FIRST, YESTERDAY)
        assert_true_candles(lab, "ohlc_daily", coins, FIRST, YESTERDAY)
        assert_true_candles(lab, "ohlc_hourly", coins, FIRST, YESTERDAY)


def test_daily_prices_off_their_midnights_are_not_taken_for_days_without_a_price(lab: Lab) -> None:
    lab.server.faults.add({"kind": "off_grid", "match": {"coin_id": "ethereum"}})
    lab._overrides["fetch"] = {"max_missing_share": 1}
    lab.run(["market_caps"], FIRST, YESTERDAY)
    assert lab.sql("FROM market_caps WHERE coin_id = 'ethereum'").empty
    states = lab.sql("SELECT DISTINCT state FROM gaps WHERE series = 'ethereum'")["state"]
    assert list(states) == ["missing"]
    lab.server.faults.clear()
    lab.at(NOON + timedelta(hours=1)).run(["market_caps"], FIRST, YESTERDAY)
    assert_true_closes(lab, largest(lab.market, 10), FIRST, YESTERDAY)


def test_a_candle_that_becomes_final_late_is_not_final_before(lab: Lab) -> None:
    # Until 35 minutes after midnight the day's candle is absent, or as it was at 23:30.
    lab.at(datetime(2026, 3, 10, 0, 20)).run(["ohlc_daily"], YESTERDAY)
    assert not lab.sql("FROM ohlc_daily WHERE is_final")["is_final"].any()
    lab.at(datetime(2026, 3, 10, 1, 0)).run(["ohlc_daily"], YESTERDAY)
    assert lab.sql("FROM ohlc_daily")["is_final"].all()
    coins = list(lab.sql("SELECT coin_id FROM ohlc_daily")["coin_id"])
    assert len(coins) == 10
    assert_true_candles(lab, "ohlc_daily", coins, YESTERDAY, YESTERDAY)
    assert lab.sql("FROM restatements").empty


def test_leap_day_year_end_and_a_chart_with_holes_and_uneven_arrays(
    tmp_path: Path, market: Market
) -> None:
    first, last, hole = date(2023, 12, 20), date(2024, 3, 4), date(2023, 12, 31)
    universe = {"tracked": 1, "always": ["holey-chart", "ragged-chart", "bitcoin"]}
    with open_lab(tmp_path, market, history={"start": str(first)}, universe=universe) as lab:
        lab.at(datetime(2024, 3, 5, 12, 20))
        assert lab.run(["market_caps", "ohlc_daily"], first, last).succeeded
        told = (hole, hole, "no_data_at_provider", "the provider has no value")
        assert gap_of(lab, "market_caps", "holey-chart") == told
        holey = lab.sql("SELECT date FROM market_caps WHERE coin_id = 'holey-chart'")["date"]
        days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
        assert sorted(holey.dt.date) == [day for day in days if day != hole]
        with lab.warehouse.session("the rest") as connection:
            connection.execute("DELETE FROM market_caps WHERE coin_id = 'holey-chart'")
        # Lacking caps and volumes of the ragged chart cost no price.
        assert_true_closes(lab, ["bitcoin", "ragged-chart"], first, last)
        caps = lab.sql("SELECT market_cap_usd FROM market_caps WHERE coin_id = 'ragged-chart'")
        assert caps["market_cap_usd"].isna().any()
        assert_true_candles(lab, "ohlc_daily", ["bitcoin", "holey-chart"], first, last)
        stored = set(lab.sql("SELECT date FROM ohlc_daily")["date"].dt.date)
        assert {date(2024, 2, 29), hole} <= stored


def test_a_hole_of_our_own_is_filled_with_one_call_a_coin(lab: Lab) -> None:
    lab.run(["market_caps", "ohlc_daily"], FIRST, YESTERDAY)
    before = content(lab, ["ohlc_daily"])
    hole = FIRST + timedelta(days=2)
    with lab.warehouse.session("a hole") as connection:
        sql = "DELETE FROM ohlc_daily WHERE date = ? AND coin_id IN ('solana', 'ripple')"
        connection.execute(sql, [hole])
    lab.server.reset()
    report = lab.at(NOON + timedelta(hours=1)).run(["ohlc_daily"], FIRST, YESTERDAY)
    assert report.rows_changed == {"ohlc_daily": 2}
    # One call a coin for the one day: these were never asked for by themselves.
    assert lab.server.stats()["total"] == 2
    when = ("observed_at", "first_final_at", "raw_id")
    columns = [c for c in before["ohlc_daily"] if c not in when]
    after = content(lab, ["ohlc_daily"])["ohlc_daily"]
    pd.testing.assert_frame_equal(before["ohlc_daily"][columns], after[columns])


def test_a_hole_in_the_middle_of_a_history_is_found_and_filled(lab: Lab) -> None:
    hole = FIRST + timedelta(days=2)
    for days in ((FIRST, hole - timedelta(days=1)), (hole + timedelta(days=1), YESTERDAY)):
        lab.run(["market_caps", "ohlc_daily"], *days)
    lab.server.reset()
    lab.at(NOON + timedelta(hours=1)).run(["market_caps", "ohlc_daily"], FIRST, YESTERDAY)
    assert lab.server.stats()["calls"]["coingecko/coins/{id}/ohlc/range"] == {"200": 10}
    assert lab.server.stats()["total"] <= 20
    coins = largest(lab.market, 10)
    assert_true_closes(lab, coins, FIRST, YESTERDAY)
    assert_true_candles(lab, "ohlc_daily", coins, FIRST, YESTERDAY)


# 22: ids

ODD = ["some token", "[old]-thing", "a/b", "what?x=1", "50%-off", "bobby-tables", "formula-one"]
ODD += ["right-to-left", "script-kiddie", "emoji-coin", "very-long-name", "no-symbol"]
HOSTILE = ["x'); DROP TABLE market_caps;--", "../..", "?x=1", "%2F", "nul\x00byte", "\u202ekcatta"]
HOSTILE += ["=cmd()", "a,b", "y" * 10_000, '"quoted"', "{id}", " "]


def test_coins_with_odd_ids_and_names_are_stored_under_them(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 1, "always": ODD}) as lab:
        lab.run(["coin_list"], TODAY)
        assert lab.run(["market_caps", "ohlc_daily"], FIRST, YESTERDAY).succeeded
        assert_true_closes(lab, sorted([*ODD, "bitcoin"]), FIRST, YESTERDAY)
        assert_true_candles(lab, "ohlc_daily", ODD, FIRST, YESTERDAY)
        listed = lab.sql("FROM coin_list WHERE list_contains(?, coin_id)", ODD)
        names = dict(zip(listed["coin_id"], listed["name"], strict=True))
        assert names == {coin: market.coin(coin).name for coin in ODD}


def test_hostile_ids_find_no_coin_and_harm_no_other(tmp_path: Path, market: Market) -> None:
    universe = {"tracked": 3, "always": HOSTILE}
    with open_lab(tmp_path, market, universe=universe, fetch={"max_missing_share": 1}) as lab:
        assert lab.run(["market_caps", "ranks"], FIRST, YESTERDAY).succeeded
        coins = sorted(market.snapshot(NOON)["coin_id"].head(3))
        assert_true_closes(lab, coins, FIRST, YESTERDAY)
        assert set(lab.sql("SELECT coin_id FROM ranks")["coin_id"]) == set(coins)
        told = lab.sql("SELECT DISTINCT series FROM gaps WHERE table_name = 'market_caps'")
        assert set(told["series"]) == set(HOSTILE)
        assert {status for of in lab.server.stats()["calls"].values() for status in of} == {
            "200",
            "404",
        }


def test_an_id_that_no_url_can_hold_costs_no_other_coin(tmp_path: Path, market: Market) -> None:
    with open_lab(tmp_path, market, universe={"tracked": 25, "always": [".."]}) as lab:
        report = lab.run(["market_caps"], FIRST, YESTERDAY)
        assert report.failures == {}
        assert_true_closes(lab, sorted(market.snapshot(NOON)["coin_id"].head(25)), FIRST, YESTERDAY)
        assert "cannot be part of a URL" in gap_of(lab, "market_caps", "..")[3]
