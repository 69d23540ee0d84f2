"""What a second answer changes of final rows, and of what is said to be missing."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from crypto_assets.assets.universe import Tracked, unsettled
from crypto_assets.tables import ETF_FLOWS, MARKET_CAPS, OHLC_DAILY, OHLC_HOURLY
from crypto_assets.warehouse.audit import count_offenders
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.rules import DOUBTED, all_rules
from crypto_assets.warehouse.warehouse import Warehouse
from crypto_assets.warehouse.writer import Batch
from crypto_assets_tests.warehouse.frames import D1, LATER, SEEN, candles, caps, hours, to

SNAPSHOT, HISTORY = "sandbox/coingecko/coins/markets", "sandbox/coingecko/market_chart"
WHOLE = range(24)


def provenance(warehouse: Warehouse) -> tuple[str, datetime, datetime]:
    with warehouse.session("a test") as connection:
        row = connection.execute(
            "SELECT source, observed_at, materialized_at FROM market_caps"
        ).fetchone()
    assert row is not None
    return row


def test_a_final_row_that_another_source_confirms_is_that_sources_and_has_not_changed(
    warehouse: Warehouse,
) -> None:
    warehouse.write(Batch(caps((D1, "bitcoin", 7.0), source=SNAPSHOT)), to())
    _, _, written_at = provenance(warehouse)
    again = caps((D1, "bitcoin", 7.0), source=HISTORY, observed_at=LATER)
    report = warehouse.write(Batch(again), to())
    assert (report.changed, report.restated) == (0, 0)
    assert provenance(warehouse) == (HISTORY, LATER, written_at)


def test_a_final_row_that_its_own_source_repeats_stays_as_it_is(warehouse: Warehouse) -> None:
    warehouse.write(Batch(caps((D1, "bitcoin", 7.0), source=HISTORY)), to())
    before = provenance(warehouse)
    warehouse.write(Batch(caps((D1, "bitcoin", 7.0), source=HISTORY, observed_at=LATER)), to())
    assert provenance(warehouse) == before


def missing(day: date) -> Inspection:
    return Inspection({"bitcoin": [day]}, [Gap("bitcoin", day, "missing", "not there yet")], LATER)


@pytest.mark.parametrize(("first", "is_whole"), [(0, True), (1, False)])
def test_a_day_that_two_answers_together_made_whole_is_not_missing(
    warehouse: Warehouse, first: int, is_whole: bool
) -> None:
    warehouse.write(Batch(hours(D1, WHOLE[first:])), to(OHLC_HOURLY))
    # A free plan's answer of half past one has lost the first hours of the day before.
    late = Batch(hours(D1, WHOLE[2:], observed_at=LATER), missing(D1))
    warehouse.write(late, to(OHLC_HOURLY))
    with warehouse.session("a test") as connection:
        gaps = connection.execute("SELECT series, first_day FROM gaps").fetchall()
    assert gaps == ([] if is_whole else [("bitcoin", D1)])


def asked_for(warehouse: Warehouse, day: date) -> set[str]:
    return set(unsettled(warehouse, MARKET_CAPS, {day: Tracked(frozenset({"bitcoin"}), True)}))


@pytest.mark.parametrize(
    ("price", "source", "is_doubted"),
    [
        (100.0, SNAPSHOT, False),
        (109.0, SNAPSHOT, False),
        (111.0, SNAPSHOT, True),
        (85.0, SNAPSHOT, False),
        (80.0, SNAPSHOT, True),
        (111.0, HISTORY, False),
    ],
)
def test_a_snapshots_close_beyond_its_candle_is_asked_for_again(
    warehouse: Warehouse, price: float, source: str, is_doubted: bool
) -> None:
    candle = candles((D1, "bitcoin", 95.0), open=95.0, high=100.0, low=90.0)
    warehouse.write(Batch(candle), to(OHLC_DAILY))
    warehouse.write(Batch(caps((D1, "bitcoin", price), source=source)), to())
    assert asked_for(warehouse, D1) == ({"bitcoin"} if is_doubted else set())


def doubted(warehouse: Warehouse, table: str) -> list[tuple[str, date]]:
    with warehouse.session("a test") as connection:
        return connection.execute(
            DOUBTED[table], {"first": date(2026, 1, 1), "last": date(2026, 12, 31)}
        ).fetchall()


def test_hours_of_a_day_that_was_restated_are_doubted_until_they_agree(
    warehouse: Warehouse,
) -> None:
    warehouse.write(Batch(hours(D1, WHOLE)), to(OHLC_HOURLY))
    # The hours of frames.hours: open 5, high 9, low 2, the last close 5.3.
    day = candles((D1, "bitcoin", 5.3), high=9.0, low=2.0)
    warehouse.write(Batch(day), to(OHLC_DAILY))
    assert doubted(warehouse, "ohlc_hourly") == []
    restated = candles((D1, "bitcoin", 5.3), high=18.0, low=2.0, observed_at=LATER)
    warehouse.write(Batch(restated), to(OHLC_DAILY))
    assert doubted(warehouse, "ohlc_hourly") == [("bitcoin", D1)]
    again = hours(D1, WHOLE, high=18.0, observed_at=LATER)
    warehouse.write(Batch(again), to(OHLC_HOURLY))
    assert doubted(warehouse, "ohlc_hourly") == []


def test_a_known_fund_gone_and_an_unknown_one_there_is_doubted(warehouse: Warehouse) -> None:
    names = ["IBIT", "HODL"]
    with warehouse.session("a test") as connection:
        for day in (5, 6, 7, 8, 9, 12):
            of_day = names if day < 12 else ["IBIT", "HODX"]
            connection.executemany(
                "INSERT INTO etf_flows BY NAME SELECT ? AS date, 'btc' AS asset, ? AS ticker, "
                "1.0 AS net_flow_usd, true AS is_final, ? AS observed_at, 'sandbox/x' AS source, "
                "'r' AS run_id, ? AS materialized_at",
                [(date(2026, 1, day), name, SEEN, SEEN) for name in of_day],
            )
    assert doubted(warehouse, ETF_FLOWS.name) == [("btc", date(2026, 1, 12))]
    with warehouse.session("a test") as connection:
        connection.execute("UPDATE etf_flows SET ticker = 'HODL' WHERE ticker = 'HODX'")
    assert doubted(warehouse, ETF_FLOWS.name) == []


def test_a_close_that_the_history_is_mute_about_withholds_nothing(warehouse: Warehouse) -> None:
    candle = candles((D1, "bitcoin", 95.0), open=95.0, high=100.0, low=90.0)
    warehouse.write(Batch(candle), to(OHLC_DAILY))
    close = caps((D1, "bitcoin", 111.0), source=SNAPSHOT)
    warehouse.write(Batch(close), to())
    (rule,) = (rule for rule in all_rules() if rule.name == "close_within_candle")
    with warehouse.session("a test") as connection:
        assert count_offenders(connection, rule, (D1, D1)) == 1
        connection.execute(
            "INSERT INTO gaps VALUES ('market_caps', 'bitcoin', ?, ?, 'no_data_at_provider', "
            "'the provider has no value', ?)",
            [D1, D1, LATER],
        )
        assert count_offenders(connection, rule, (D1, D1)) == 0
    assert asked_for(warehouse, D1) == set()
