from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from crypto_assets.tables import TABLES
from crypto_assets_tests.lab import NOON, Lab

DAY = date(2026, 3, 6)  # a Friday


@pytest.mark.slow
def test_a_snapshot_row_says_what_every_table_says(lab: Lab) -> None:
    lab._overrides["signals"] = {"span_pairs": [[3, 6], [4, 8]]}
    assert lab.run(list(TABLES), DAY - timedelta(days=40), DAY).succeeded
    row = lab.sql("FROM daily_snapshot WHERE coin_id = 'bitcoin' AND date = ?", DAY).iloc[0]
    truth = lab.market.daily("bitcoin", DAY - timedelta(days=7), DAY)
    closes = truth["price_usd"].to_numpy()
    assert row["close_usd"] == closes[-1]
    assert row["change_24h"] == pytest.approx(closes[-1] / closes[-2] - 1, rel=1e-12)
    returns = np.diff(np.log(closes))
    assert row["volatility_7d"] == pytest.approx(returns.std(ddof=1) * np.sqrt(365), rel=1e-12)
    start = pd.Timestamp(DAY).to_pydatetime()
    for name, hour in (("return_asia", 0), ("return_europe", 8), ("return_us", 16)):
        opened = lab.market.price("bitcoin", start + timedelta(hours=hour))
        closed = lab.market.price("bitcoin", start + timedelta(hours=hour + 8))
        assert row[name] == pytest.approx(closed / opened - 1, rel=1e-9)
    candle = lab.market.candles("bitcoin", "1D", start, start + timedelta(days=1)).iloc[0]
    assert (row["high_usd"], row["low_usd"]) == (candle["high"], candle["low"])
    assert row["fear_greed"] == lab.market.fear_greed(DAY, DAY)["value"].iloc[0]
    flows = lab.market.etf_flows("btc", NOON)
    of_day = flows.loc[flows["date"] == pd.Timestamp(DAY), "net_flow_usd_millions"]
    assert row["etf_net_flow_usd"] == pytest.approx(of_day.sum() * 1e6)
    assert row["market_cap_rank"] == 1
    caps = lab.sql("SELECT market_cap_usd FROM market_caps WHERE date = ?", DAY)["market_cap_usd"]
    assert row["dominance"] == pytest.approx(truth["market_cap_usd"].iloc[-1] / caps.sum())
    z = lab.sql(
        "SELECT trend_z FROM ema_signals WHERE coin_id = 'bitcoin' AND date = ? AND is_warm", DAY
    )["trend_z"]
    assert len(z) == 2
    assert row["trend"] == pytest.approx(np.tanh(z).mean())
    assert row["is_final"]


@pytest.mark.slow
def test_coins_without_a_fund_have_no_flow_rather_than_zero(lab: Lab) -> None:
    lab.run(list(TABLES), DAY - timedelta(days=2), DAY)
    flows = lab.sql("SELECT coin_id, etf_net_flow_usd FROM daily_snapshot WHERE date = ?", DAY)
    told = set(flows.loc[flows["etf_net_flow_usd"].notna(), "coin_id"])
    assert told <= {"bitcoin", "ethereum", "solana"}
    assert "bitcoin" in told


@pytest.mark.slow
def test_weekends_have_no_fund_flow(lab: Lab) -> None:
    saturday = DAY + timedelta(days=1)
    lab.run(list(TABLES), DAY, saturday)
    flows = lab.sql("SELECT etf_net_flow_usd FROM daily_snapshot WHERE date = ?", saturday)
    assert flows["etf_net_flow_usd"].isna().all()
