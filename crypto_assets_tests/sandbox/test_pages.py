import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pandas as pd
import pytest
from lxml import html

from crypto_assets.sandbox import Market

NOON = datetime(2026, 3, 1, 12, 0)


def test_fear_and_greed_is_all_strings_newest_first(shared: Any, market: Market):
    body = shared.json("alternative_me/fng/", limit=0)
    truth = market.fear_greed(date(2018, 2, 1), date(2026, 3, 1)).iloc[::-1]
    stamps = [
        int(datetime.fromtimestamp(int(row["timestamp"]), UTC).timestamp()) for row in body["data"]
    ]
    assert stamps == [int(day.timestamp()) for day in truth["date"]]
    assert [row["value"] for row in body["data"]] == [str(value) for value in truth["value"]]
    assert [row["value_classification"] for row in body["data"]] == truth["label"].tolist()
    assert body["metadata"] == {"error": None}
    assert body["name"] == "Fear and Greed Index"


def test_only_the_newest_value_says_when_the_next_comes(shared: Any):
    newest, *others = shared.json("alternative_me/fng/", limit=10)["data"]
    assert newest["time_until_update"] == str(12 * 3_600)
    assert len(others) == 9
    assert not [row for row in others if "time_until_update" in row]


def test_a_day_is_there_from_its_midnight_on(start: Callable[..., Any]):
    before = start(datetime(2026, 2, 28, 23, 59, 59)).json("alternative_me/fng/")["data"]
    after = start(datetime(2026, 3, 1)).json("alternative_me/fng/")["data"]
    assert [row["timestamp"] for row in before + after] == ["1772236800", "1772323200"]


def cells(row: Any) -> list[str]:
    return [" ".join(cell.text_content().split()) for cell in row.xpath("./th|./td")]


def table(sandbox: Any, page: str) -> tuple[list[list[str]], list[list[str]]]:
    response = sandbox.get(f"farside/{page}/")
    assert response.status_code == 200
    found = html.fromstring(response.content).xpath("//table[contains(@class, 'etf')]")
    assert len(found) == 1
    return (
        [cells(row) for row in found[0].xpath("./thead/tr")],
        [cells(row) for row in found[0].xpath("./tbody/tr")],
    )


def number(text: str) -> float:
    if text == "-":
        return math.nan
    value = float(text.strip("()").replace(",", ""))
    return -value if text.startswith("(") else value


@pytest.mark.parametrize(
    ("page", "asset"),
    [
        ("btc", "btc"),
        ("eth", "eth"),
        ("sol", "sol"),
        ("bitcoin-etf-flow-all-data", "btc"),
        ("ethereum-etf-flow-all-data", "eth"),
    ],
)
def test_pages_show_the_flows_of_the_market(shared: Any, market: Market, page: str, asset: str):
    header, body = table(shared, page)
    truth = market.etf_flows(asset, NOON)
    wide = truth.pivot(index="date", columns="ticker", values="net_flow_usd_millions")
    tickers = (header[0] if "all-data" in page else header[1])[1:-1]
    assert sorted(tickers) == sorted(wide.columns)
    rows, footer = body[:-4], body[-4:]
    assert [row[0] for row in footer] == ["Total", "Average", "Maximum", "Minimum"]
    if "all-data" in page or asset == "sol":
        assert len(rows) == len(wide)
    for row in rows:
        day = pd.Timestamp(datetime.strptime(row[0], "%d %b %Y"))  # noqa: DTZ007
        expected = wide.loc[day, tickers].tolist()
        assert [number(text) for text in row[1:-1]] == pytest.approx(expected, nan_ok=True, abs=0)
        total = sum(value for value in expected if value == value)
        assert number(row[-1]) == pytest.approx(total, abs=0.051)


def test_recent_pages_have_three_header_rows_and_the_full_ones_a_single_one(shared: Any):
    header, body = table(shared, "btc")
    assert len(header) == 3
    assert (header[1][0], header[1][-1]) == ("", "")
    assert header[2][0] == "Fee"
    assert 20 <= len(body) - 4 <= 25
    full, _ = table(shared, "bitcoin-etf-flow-all-data")
    assert len(full) == 1


def test_cells_have_commas_parentheses_and_dashes_with_a_zero_total(start: Callable[..., Any]):
    _, body = table(start(datetime(2026, 7, 6, 12)), "bitcoin-etf-flow-all-data")
    texts = [cell for row in body for cell in row[1:]]
    assert [text for text in texts if text.startswith("(")]
    assert [text for text in texts if "," in text]
    holiday = next(row for row in body if row[0] == "03 Jul 2026")
    assert set(holiday[1:-1]) == {"-"}
    assert holiday[-1] == "0.0"
    today = next(row for row in body if row[0] == "06 Jul 2026")
    assert set(today[1:-1]) == {"-"}


def test_an_unknown_page_is_a_404_page(shared: Any):
    response = shared.get("farside/doge/")
    assert response.status_code == 404
    assert "html" in response.headers["Content-Type"]
