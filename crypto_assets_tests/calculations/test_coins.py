"""The list of coins over time: nobody is lost, nobody is renamed on a guess."""

from datetime import datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.calculations.coins import COLUMNS, merge_coin_list
from crypto_assets.tables import COIN_LIST

MONDAY = datetime(2024, 1, 1)
DAY = timedelta(days=1)
NOTHING = pd.DataFrame()

# A listing: from id to (symbol, name).
Listing = dict[str, tuple[str, str]]

listings = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "[d] e", "x'); DROP TABLE t;--"]),
        st.tuples(st.sampled_from(["s", ""]), st.sampled_from(["n", "m"])),
        max_size=5,
    ),
    min_size=1,
    max_size=5,
)


def listing(coins: Listing) -> pd.DataFrame:
    rows = [(coin, symbol, name, "{}", True) for coin, (symbol, name) in coins.items()]
    found = pd.DataFrame(rows, columns=COLUMNS[:5], dtype="object")
    return found.astype({"is_active": bool})


def merged(*days: Listing, stored: pd.DataFrame = NOTHING) -> pd.DataFrame:
    """The list after a listing a day, from Monday on."""
    for number, coins in enumerate(days):
        stored = merge_coin_list(stored, listing(coins), MONDAY + number * DAY)
    return stored


def told(coins: pd.DataFrame, column: str) -> dict[str, object]:
    values = coins[column].astype("object").where(coins[column].notna(), None)
    return dict(zip(coins["coin_id"], values, strict=True))


BITCOIN: Listing = {"bitcoin": ("btc", "Bitcoin")}
MATIC: Listing = {"matic-network": ("pol", "Polygon")}
POL: Listing = {"polygon-ecosystem-token": ("pol", "Polygon")}


def test_the_first_listing_is_the_list() -> None:
    coins = merged(BITCOIN | MATIC)
    assert list(coins) == COLUMNS == list(COIN_LIST.content_columns)
    assert coins["coin_id"].tolist() == ["bitcoin", "matic-network"]
    assert set(told(coins, "first_seen_at").values()) == {pd.Timestamp(MONDAY)}
    assert set(told(coins, "renamed_to").values()) == {None}


def test_a_new_coin_is_first_seen_when_it_is_first_listed() -> None:
    coins = merged(BITCOIN, BITCOIN | MATIC)
    assert told(coins, "first_seen_at") == {
        "bitcoin": pd.Timestamp("2024-01-01"),
        "matic-network": pd.Timestamp("2024-01-02"),
    }
    assert set(told(coins, "last_seen_at").values()) == {pd.Timestamp("2024-01-02")}


def test_a_coin_that_vanished_stays_as_it_was_last_seen() -> None:
    coins = merged(BITCOIN | MATIC, BITCOIN, BITCOIN).set_index("coin_id")
    gone = coins.loc["matic-network"]
    assert (gone["symbol"], gone["name"], gone["platforms"]) == ("pol", "Polygon", "{}")
    assert not gone["is_active"]
    assert gone["last_seen_at"] == pd.Timestamp("2024-01-01")
    assert coins.loc["bitcoin", "is_active"]


def test_a_coin_that_returned_is_active_since_its_first_listing() -> None:
    coins = merged(BITCOIN | MATIC, BITCOIN | POL, BITCOIN | POL | MATIC).set_index("coin_id")
    back = coins.loc["matic-network"]
    assert back["is_active"]
    assert pd.isna(back["renamed_to"])
    assert back["first_seen_at"] == pd.Timestamp("2024-01-01")
    assert back["last_seen_at"] == pd.Timestamp("2024-01-03")


def test_a_renamed_coin_names_its_successor() -> None:
    coins = merged(BITCOIN | MATIC, BITCOIN | POL, BITCOIN | POL)
    assert told(coins, "renamed_to") == {
        "bitcoin": None,
        "matic-network": "polygon-ecosystem-token",
        "polygon-ecosystem-token": None,
    }


@pytest.mark.parametrize(
    "tuesday",
    [
        {"other": ("pol", "Other")},
        {"other": ("oth", "Polygon")},
        POL | {"polygon-bridged": ("pol", "Polygon")},
        {},
    ],
    ids=["another name", "another symbol", "two candidates", "nobody"],
)
def test_without_exactly_one_candidate_nobody_was_renamed(tuesday: Listing) -> None:
    assert set(told(merged(BITCOIN | MATIC, BITCOIN | tuesday), "renamed_to").values()) == {None}


def test_two_coins_that_vanish_for_one_new_one_are_not_both_it() -> None:
    twins: Listing = {"pol-a": ("pol", "Polygon"), "pol-b": ("pol", "Polygon")}
    coins = merged(BITCOIN | twins, BITCOIN | POL)
    assert set(told(coins, "renamed_to").values()) == {None}


def test_a_first_listing_of_twins_alone_is_a_list_like_others() -> None:
    assert merged(MATIC | POL)["coin_id"].tolist() == ["matic-network", "polygon-ecosystem-token"]


def test_a_coin_that_was_listed_all_along_is_no_successor() -> None:
    coins = merged(BITCOIN | MATIC | POL, BITCOIN | POL)
    assert told(coins, "renamed_to")["matic-network"] is None


def test_an_inactive_coin_that_is_listed_is_inactive_and_seen() -> None:
    coins = merge_coin_list(merged(BITCOIN), listing(BITCOIN).assign(is_active=False), MONDAY + DAY)
    assert told(coins, "is_active") == {"bitcoin": False}
    assert told(coins, "last_seen_at") == {"bitcoin": pd.Timestamp("2024-01-02")}


def test_a_coin_shows_what_it_is_called_now() -> None:
    coins = merged(BITCOIN, {"bitcoin": ("xbt", "Bitcoin Core")})
    assert told(coins, "symbol") == {"bitcoin": "xbt"}
    assert told(coins, "name") == {"bitcoin": "Bitcoin Core"}


@settings(deadline=None, max_examples=40)
@given(listings)
def test_the_list_never_shrinks_and_remembers_the_first_and_last_sight(
    days: list[Listing],
) -> None:
    coins = merged(*days)
    sights: dict[str, list[int]] = {}
    for number, day in enumerate(days):
        for coin in day:
            sights.setdefault(coin, []).append(number)
    assert coins["coin_id"].tolist() == sorted(sights)
    last_day = len(days) - 1
    for row in coins.itertuples():
        seen = sights[row.coin_id]
        assert row.first_seen_at == MONDAY + seen[0] * DAY
        assert row.last_seen_at == MONDAY + seen[-1] * DAY
        assert row.is_active == (seen[-1] == last_day)
        assert not (row.is_active and isinstance(row.renamed_to, str))
        assert row.renamed_to in {None, *sights} or pd.isna(row.renamed_to)


@settings(deadline=None, max_examples=40)
@given(listings)
def test_merging_the_same_listing_again_changes_nothing(days: list[Listing]) -> None:
    once = merged(*days)
    again = merge_coin_list(once, listing(days[-1]), MONDAY + (len(days) - 1) * DAY)
    pd.testing.assert_frame_equal(
        again.reset_index(drop=True), once.reset_index(drop=True), check_dtype=False
    )


def test_a_list_read_back_from_a_database_merges_alike() -> None:
    """DuckDB gives None for NULL and microseconds."""
    stored = merged(BITCOIN | MATIC)
    read = stored.assign(renamed_to=pd.Series([None, None], dtype="object")).astype(
        {"first_seen_at": "datetime64[us]", "last_seen_at": "datetime64[us]"}
    )
    coins = merge_coin_list(read, listing(BITCOIN | POL), MONDAY + DAY)
    assert told(coins, "renamed_to")["matic-network"] == "polygon-ecosystem-token"
    assert told(coins, "first_seen_at")["bitcoin"] == pd.Timestamp(MONDAY)
