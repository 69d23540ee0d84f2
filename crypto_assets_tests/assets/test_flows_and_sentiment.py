from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_assets_tests.lab import NOON, Lab

TODAY = NOON.date()
FIRST = date(2026, 1, 1)
YESTERDAY = TODAY - timedelta(days=1)


def test_flows_are_the_reported_dollars_and_nothing_else(lab: Lab) -> None:
    assert lab.run(["etf_flows"], FIRST, YESTERDAY).succeeded
    stored = lab.sql("FROM etf_flows ORDER BY date, asset, ticker")
    frames = [
        lab.market.etf_flows(asset, NOON).assign(asset=asset) for asset in ("btc", "eth", "sol")
    ]
    told = pd.concat(frames).dropna(subset=["net_flow_usd_millions"])
    told = told[told["date"].between(pd.Timestamp(FIRST), pd.Timestamp(YESTERDAY))]
    told = told.sort_values(["date", "asset", "ticker"], ignore_index=True)
    assert list(stored["date"]) == list(told["date"])
    assert list(stored["ticker"]) == list(told["ticker"])
    np.testing.assert_allclose(stored["net_flow_usd"], told["net_flow_usd_millions"] * 1e6)
    assert (stored["date"].dt.dayofweek < 5).all()


def test_weekends_and_holidays_are_known_to_have_no_flows(lab: Lab) -> None:
    lab.run(["etf_flows"], FIRST, YESTERDAY)
    gaps = lab.sql("FROM gaps WHERE series = 'btc'")
    assert set(gaps["state"]) == {"no_data_at_provider"}
    holidays = gaps[gaps["reason"].str.contains("holiday")]
    days = {stamp.date() for stamp in holidays["first_day"]}
    # New Year, Martin Luther King Day and Presidents' Day.
    assert days == {date(2026, 1, 1), date(2026, 1, 19), date(2026, 2, 16)}


@pytest.mark.slow
def test_a_revised_flow_replaces_the_first_one_and_is_written_down(lab: Lab) -> None:
    lab.at(datetime(2026, 3, 6, 12, 0)).run(["etf_flows"], date(2026, 3, 2), date(2026, 3, 5))
    rule = {"kind": "etf_revised_row", "ticker": "GBTC", "date": "2026-03-03", "value": -27.3}
    before = lab.sql(
        "SELECT net_flow_usd FROM etf_flows WHERE ticker = 'GBTC' AND date = '2026-03-03'"
    )["net_flow_usd"][0]
    lab.server.faults.add(rule)
    lab.at(datetime(2026, 3, 6, 13, 0)).run(["etf_flows"], date(2026, 3, 2), date(2026, 3, 5))
    after = lab.sql(
        "SELECT net_flow_usd FROM etf_flows WHERE ticker = 'GBTC' AND date = '2026-03-03'"
    )["net_flow_usd"][0]
    assert after == -27_300_000
    told = lab.sql("FROM restatements WHERE day = '2026-03-03'")
    assert float(told["old_value"][0]) == before
    assert float(told["new_value"][0]) == -27_300_000


def test_an_etf_page_behind_a_challenge_is_an_error_and_the_others_are_stored(lab: Lab) -> None:
    lab.server.faults.add(
        {"kind": "challenge", "match": {"provider": "farside", "endpoint": "eth"}}
    )
    report = lab.run(["etf_flows", "fear_greed"], date(2026, 3, 2), date(2026, 3, 6))
    assert "etf_flows" in report.failures
    assert "fear_greed" in report.seconds
    assert "farside" in report.failures["etf_flows"]


def test_fear_and_greed_equals_the_model_with_our_own_band(lab: Lab) -> None:
    lab.run(["fear_greed"], FIRST, TODAY)
    stored = lab.sql("FROM fear_greed ORDER BY date")
    told = lab.market.fear_greed(FIRST, TODAY)
    assert list(stored["date"]) == list(told["date"])
    assert list(stored["value"]) == list(told["value"])
    assert list(stored["label"]) == list(told["label"])
    assert list(stored["is_final"]) == [True] * (len(stored) - 1) + [False]
    assert (stored.loc[stored["value"] <= 24, "band"] == "extreme fear").all()


def test_a_day_the_index_lacks_is_remembered_as_the_providers_own_gap(lab: Lab) -> None:
    lab.server.faults.add(
        {"kind": "missing_day", "date": "2026-02-03", "match": {"endpoint": "fng"}}
    )
    assert lab.run(["fear_greed"], date(2026, 2, 1), date(2026, 2, 5)).succeeded
    assert len(lab.sql("FROM fear_greed")) == 4
    gap = lab.sql("SELECT first_day, last_day, state FROM gaps WHERE table_name = 'fear_greed'")
    assert gap["first_day"][0].date() == gap["last_day"][0].date() == date(2026, 2, 3)
    assert gap["state"][0] == "no_data_at_provider"
