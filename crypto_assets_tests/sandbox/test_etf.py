from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_assets.sandbox import Market
from crypto_assets.sandbox.etf import us_market_holidays

NOW = datetime(2026, 7, 24, 12)


def wide(market: Market, asset: str, as_of: datetime) -> pd.DataFrame:
    flows = market.etf_flows(asset, as_of)
    return flows.pivot(index="date", columns="ticker", values="net_flow_usd_millions")


def test_holidays_are_those_of_the_new_york_stock_exchange():
    # Oracle: the exchange's published calendars.
    assert sorted(us_market_holidays(2024)) == [
        date(2024, 1, 1),
        date(2024, 1, 15),
        date(2024, 2, 19),
        date(2024, 3, 29),
        date(2024, 5, 27),
        date(2024, 6, 19),
        date(2024, 7, 4),
        date(2024, 9, 2),
        date(2024, 11, 28),
        date(2024, 12, 25),
    ]
    assert sorted(us_market_holidays(2026)) == [
        date(2026, 1, 1),
        date(2026, 1, 19),
        date(2026, 2, 16),
        date(2026, 4, 3),
        date(2026, 5, 25),
        date(2026, 6, 19),
        date(2026, 7, 3),
        date(2026, 9, 7),
        date(2026, 11, 26),
        date(2026, 12, 25),
    ]
    assert date(2021, 12, 31) not in us_market_holidays(2021)
    assert date(2025, 1, 9) in us_market_holidays(2025)


def test_rows_are_weekdays_and_holidays_are_not_reported(market: Market):
    table = wide(market, "btc", NOW)
    assert table.index.tolist() == pd.bdate_range("2024-01-11", "2026-07-24").tolist()
    assert table.loc["2026-07-03"].isna().all()
    assert table.loc["2026-07-02"].notna().any()


@pytest.mark.parametrize(
    ("asset", "ticker", "first"),
    [
        ("btc", "IBIT", "2024-01-11"),
        ("btc", "BTC", "2024-07-31"),
        ("btc", "MSBT", "2026-04-08"),
        ("eth", "ETHA", "2024-07-23"),
        ("eth", "ETHB", "2026-03-12"),
        ("eth", "ETH", "2024-07-23"),
    ],
)
def test_funds_report_from_their_first_day(market: Market, asset: str, ticker: str, first: str):
    flows = wide(market, asset, NOW)[ticker]
    assert flows.first_valid_index() == pd.Timestamp(first)


def test_a_day_appears_at_nine_of_the_next_day(market: Market):
    day = pd.Timestamp("2026-07-22")
    assert wide(market, "btc", datetime(2026, 7, 23, 8, 59)).loc[day].isna().all()
    assert wide(market, "btc", datetime(2026, 7, 23, 9, 0)).loc[day].notna().sum() >= 10


def test_known_days_have_their_known_figures_before_and_after_revision(market: Market):
    launch = wide(market, "btc", NOW).loc["2024-01-11"]
    assert launch.sum() == pytest.approx(655.3)
    assert launch["GBTC"] == -95.1
    assert wide(market, "btc", datetime(2024, 10, 3, 9)).loc["2024-10-02", "GBTC"] == 0.0
    assert wide(market, "btc", NOW).loc["2024-10-02", "GBTC"] == -27.3
    assert wide(market, "btc", datetime(2024, 10, 11, 9)).loc["2024-10-10", "GBTC"] == 0.0
    assert wide(market, "btc", NOW).loc["2024-10-10", "GBTC"] == -18.5


def test_a_few_days_are_revised_within_two_weeks_and_then_stay(market: Market):
    final = wide(market, "btc", NOW + timedelta(days=60))
    days = pd.bdate_range("2026-01-05", "2026-06-30")
    first = pd.DataFrame(
        {
            day: wide(market, "btc", (day + timedelta(days=1, hours=9)).to_pydatetime()).loc[day]
            for day in days[::3]
        }
    ).T
    later = final.loc[first.index, first.columns]
    changed = (first != later) & ~(first.isna() & later.isna())
    assert 1 <= changed.to_numpy().sum() <= 0.06 * first.size
    settled = wide(market, "btc", NOW).loc[first.index, first.columns]
    pd.testing.assert_frame_equal(settled, later)


def test_flows_have_one_decimal_and_both_signs(market: Market):
    values = wide(market, "eth", NOW).to_numpy().ravel()
    values = values[~np.isnan(values)]
    assert (np.round(values, 1) == values).all()
    assert (values < 0).any()
    assert (values == 0).any()
    assert (values > 0).any()


def test_a_renamed_fund_shows_its_name_of_the_day(market: Market):
    assert "CETH" in wide(market, "eth", datetime(2025, 1, 1))
    assert "TETH" in wide(market, "eth", NOW)
    assert "CETH" not in wide(market, "eth", NOW)
