"""Places by market cap, against a plain count of who is ahead."""

from collections.abc import Mapping

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.calculations.ranks import rank_by_market_cap

FIRST = pd.Timestamp("2024-02-25")
Caps = Mapping[tuple[int, str], float | None]

# Few coins and few caps, so that ties, missing caps and missing days are common.
market_caps = st.dictionaries(
    st.tuples(st.integers(0, 9), st.sampled_from("abcdef")),
    st.one_of(st.none(), st.sampled_from([1.0, 2.0, 3.0]), st.floats(1e-3, 1e12)),
    max_size=40,
)


def frame(caps: Caps) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "date": pd.to_datetime([FIRST + pd.Timedelta(days=day) for day, _ in caps]),
            "coin_id": pd.Series([coin for _, coin in caps], dtype="object"),
            "market_cap_usd": pd.Series(list(caps.values()), dtype="float64"),
        }
    )


def plain_ranks(caps: Caps) -> dict[tuple[int, str], int]:
    capped = {key: cap for key, cap in caps.items() if cap is not None}
    return {
        (day, coin): 1
        + sum(
            other_day == day and (-other_cap, other) < (-cap, coin)
            for (other_day, other), other_cap in capped.items()
        )
        for (day, coin), cap in capped.items()
    }


def by_key(ranked: pd.DataFrame, column: str) -> dict[tuple[int, str], object]:
    offsets = (ranked["date"] - FIRST).dt.days
    keys = zip(offsets.tolist(), ranked["coin_id"], strict=True)
    return dict(zip(keys, ranked[column].tolist(), strict=True))


@settings(deadline=None, max_examples=50)
@given(market_caps)
def test_each_day_is_ranked_one_to_n_by_cap_with_ties_by_coin_id(caps: Caps) -> None:
    ranked = rank_by_market_cap(frame(caps))
    assert by_key(ranked, "market_cap_rank") == plain_ranks(caps)
    for _, day in ranked.groupby("date"):
        assert day["market_cap_rank"].tolist() == list(range(1, len(day) + 1))


@settings(deadline=None, max_examples=50)
@given(market_caps)
def test_climbs_are_the_places_since_that_very_day(caps: Caps) -> None:
    ranked, ranks = rank_by_market_cap(frame(caps)), plain_ranks(caps)
    for days in (1, 7):
        climbed = by_key(ranked, f"rank_change_{days}d")
        assert climbed.keys() == ranks.keys()
        for (day, coin), found in climbed.items():
            before = ranks.get((day - days, coin))
            if before is None:
                assert found is pd.NA
            else:
                assert found == before - ranks[day, coin]


@settings(deadline=None, max_examples=50)
@given(market_caps)
def test_shares_are_of_the_day_and_sum_to_one(caps: Caps) -> None:
    ranked = rank_by_market_cap(frame(caps))
    for _, day in ranked.groupby("date"):
        assert sum(day["market_share"]) == pytest.approx(1, abs=1e-12)
        total = sum(day["market_cap_usd"])
        assert day["market_share"].tolist() == pytest.approx(
            [cap / total for cap in day["market_cap_usd"]]
        )


def test_ties_go_by_coin_id_and_no_cap_means_no_rank() -> None:
    day = {(0, "b"): 5.0, (0, "a"): 5.0, (0, "c"): None, (0, "d"): 15.0}
    ranked = rank_by_market_cap(frame(day))
    assert ranked["coin_id"].tolist() == ["d", "a", "b"]
    assert ranked["market_cap_rank"].tolist() == [1, 2, 3]
    assert ranked["market_share"].tolist() == [0.6, 0.2, 0.2]


def test_a_coin_without_a_cap_yesterday_has_no_change_today() -> None:
    caps = {(0, "a"): 1.0, (0, "b"): 2.0, (1, "a"): 3.0, (1, "b"): 2.0, (1, "c"): 1.0}
    ranked = rank_by_market_cap(frame(caps))
    assert by_key(ranked, "rank_change_1d") == {
        (0, "a"): pd.NA,
        (0, "b"): pd.NA,
        (1, "a"): 1,
        (1, "b"): -1,
        (1, "c"): pd.NA,
    }


def test_other_columns_stay_with_their_coin() -> None:
    caps = frame({(0, "a"): 1.0, (0, "b"): 3.0, (0, "c"): 2.0})
    ranked = rank_by_market_cap(caps.assign(is_final=[True, False, True], note=["x", "y", "z"]))
    assert ranked["coin_id"].tolist() == ["b", "c", "a"]
    assert ranked["note"].tolist() == ["y", "z", "x"]
    assert ranked["is_final"].tolist() == [False, True, True]


def test_the_order_of_the_rows_does_not_matter() -> None:
    caps = {(day, coin): float(len(coin) + day) for day in range(8) for coin in ("a", "bb", "ccc")}
    shuffled = frame(caps).sample(frac=1, random_state=4)
    pd.testing.assert_frame_equal(rank_by_market_cap(shuffled), rank_by_market_cap(frame(caps)))
