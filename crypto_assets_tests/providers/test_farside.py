"""The pages of ETF flows, as recorded and as they could go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.providers.errors import ContractError, TransientError
from crypto_assets.providers.farside import Farside, parse_flows
from crypto_assets.providers.http import HttpClient
from crypto_assets_tests.providers.stub import Reply, Stub

FOOTER = [
    ["Total", "60,809", "(27,416)", "51,904"],
    ["Average", "96.1", "(43.3)", "82.0"],
    ["Maximum", "1,119.9", "102.5", "1,373.8"],
    ["Minimum", "(528.3)", "(642.5)", "(1,113.7)"],
]


def page(rows: Sequence[Sequence[str]], tickers: Sequence[str] = ("IBIT", "GBTC")) -> bytes:
    """A page like the recent one: logos, tickers with empty ends, fees, rows, footer."""
    header = [["", *[""] * len(tickers), "Total"], ["", *tickers, ""]]
    fees = [["Fee", *["0.25%"] * len(tickers), ""]]
    return table([*header, *fees, *rows, *FOOTER])


def table(rows: Sequence[Sequence[str]]) -> bytes:
    cells = "".join(
        "<tr>" + "".join(f"<td><span>\u00a0 {c} </span></td>" for c in row) + "</tr>"
        for row in rows
    )
    return f'<html><body><table class="etf">{cells}</table></body></html>'.encode()


def flow(body: bytes, day: str, ticker: str, asset: str = "btc") -> float:
    frame = parse_flows(body, asset).flows
    found = frame[(frame["date"] == pd.Timestamp(day)) & (frame["ticker"] == ticker)]
    return float(found["net_flow_usd"].item())


def test_the_recorded_page_is_read_in_dollars(recordings: Path) -> None:
    body = (recordings / "farside" / "btc_2026-07.html").read_bytes()
    result = parse_flows(body, "btc")
    assert flow(body, "2026-07-06", "IBIT") == 209_400_000.0
    assert flow(body, "2026-07-06", "GBTC") == -44_500_000.0
    assert flow(body, "2026-07-06", "BTC") == 42_300_000.0
    assert flow(body, "2026-07-13", "FBTC") == -245_600_000.0
    assert flow(body, "2026-07-09", "IBIT") == 0.0
    assert len(result.flows) == 13 * 12
    assert result.flows["date"].min() == pd.Timestamp("2026-07-06")
    assert result.refused == {}
    sums = result.flows.groupby("date")["net_flow_usd"].sum()
    assert sums[pd.Timestamp("2026-07-13")] == -424_700_000.0
    assert sums[pd.Timestamp("2026-07-22")] == 69_100_000.0


def test_the_recorded_day_without_reports_is_listed_but_has_no_flows(recordings: Path) -> None:
    result = parse_flows((recordings / "farside" / "btc_2026-07.html").read_bytes(), "btc")
    last = result.days.iloc[-1]
    assert last["date"] == pd.Timestamp("2026-07-23")
    assert (last["reported"], last["active"]) == (0, 12)
    assert not last["is_complete"]
    assert not last["is_holiday"]
    assert result.days["is_complete"].sum() == 13
    assert pd.Timestamp("2026-07-23") not in set(result.flows["date"])


def test_a_dash_is_not_a_zero() -> None:
    body = page([["10 Oct 2024", "0.0", "-", "0.0"], ["11 Oct 2024", "1.0", "(2.0)", "(1.0)"]])
    result = parse_flows(body, "btc")
    assert len(result.flows) == 3
    assert flow(body, "2024-10-10", "IBIT") == 0.0
    assert list(result.days["is_complete"]) == [False, True]


def test_a_holiday_is_a_row_of_dashes_before_a_later_report() -> None:
    body = page(
        [
            ["03 Jul 2025", "1.0", "1.0", "2.0"],
            ["04 Jul 2025", "-", "-", "0.0"],
            ["07 Jul 2025", "1.0", "-", "1.0"],
            ["08 Jul 2025", "-", "-", "0.0"],
        ]
    )
    days = parse_flows(body, "btc").days
    assert list(days["is_holiday"]) == [False, True, False, False]
    assert list(days["reported"]) == [2, 0, 1, 0]


def test_a_total_that_contradicts_its_funds_refuses_that_row_and_says_so() -> None:
    rows = [[f"{d:02} Oct 2024", "1.0", "2.0", "3.0"] for d in (7, 8, 9, 10)]
    rows[2][3] = "30.0"
    result = parse_flows(page(rows), "btc")
    assert result.refused == {date(2024, 10, 9): "the Total is 30.0, but the funds add up to 3.0"}
    assert pd.Timestamp("2024-10-09") not in set(result.flows["date"])
    assert list(result.days["is_complete"]) == [True, True, False, True]


def test_when_several_totals_are_wrong_the_columns_cannot_be_trusted() -> None:
    rows = [[f"{d:02} Oct 2024", "1.0", "2.0", "3.0"] for d in (7, 8, 9, 10)]
    rows[1][3] = rows[2][3] = "-3.0"
    with pytest.raises(ContractError, match="Total on 2024-10-08"):
        parse_flows(page(rows), "btc")


def test_the_total_may_differ_by_rounding_and_is_not_checked_on_partial_days() -> None:
    body = page([["07 Oct 2024", "1.0", "2.0", "3.1"], ["08 Oct 2024", "1.0", "-", "99.0"]])
    assert parse_flows(body, "btc").refused == {}


def test_a_fund_that_has_not_launched_is_not_waited_for() -> None:
    body = page(
        [
            ["07 Apr 2026", "1.0", "-", "1.0"],
            ["08 Apr 2026", "1.0", "-", "1.0"],
            ["09 Apr 2026", "1.0", "2.0", "3.0"],
        ],
        tickers=("IBIT", "MSBT"),
    )
    # MSBT's first day is known to be the 8th, so its silence on that day counts.
    assert list(parse_flows(body, "btc").days["is_complete"]) == [True, False, True]


def test_an_unknown_fund_starts_with_its_first_report() -> None:
    rows = [["07 Apr 2026", "1.0", "-", "1.0"], ["08 Apr 2026", "1.0", "2.0", "3.0"]]
    result = parse_flows(page(rows, tickers=("BSOL", "NEWF")), "sol")
    assert list(result.days["active"]) == [1, 2]
    assert list(result.days["is_complete"]) == [True, True]


def test_a_fund_that_closed_is_no_longer_waited_for() -> None:
    rows = [["01 Oct 2024", "1.0", "2.0", "3.0"]]
    rows += [[f"{d:02} Oct 2024", "1.0", "-", "1.0"] for d in range(2, 12)]
    assert parse_flows(page(rows), "btc").days["is_complete"].all()
    assert parse_flows(page(rows[:-1]), "btc").days["is_complete"].sum() == 1


def test_the_full_page_has_one_header_row_and_the_known_first_day() -> None:
    body = table(
        [
            ["Date", "IBIT", "GBTC", "BTC", "Total"],
            ["11 Jan 2024", "750.4", "(95.1)", "-", "655.3"],
            ["Total", "1", "2", "3", "4"],
        ]
    )
    result = parse_flows(body, "btc")
    assert flow(body, "2024-01-11", "GBTC") == -95_100_000.0
    assert result.flows["net_flow_usd"].sum() == 655_300_000.0
    assert list(result.days["is_complete"]) == [True]


def test_columns_may_be_reordered_and_renamed() -> None:
    body = page([["07 Oct 2024", "(2.5)", "1,001.0", "998.5"]], tickers=("CETH", "ETHA"))
    assert flow(body, "2024-10-07", "TETH", "eth") == -2_500_000.0
    assert flow(body, "2024-10-07", "ETHA", "eth") == 1_001_000_000.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"\x00\xff",
        b"<html><title>Just a moment...</title><p>Checking your browser</p></html>",
        b"<table><tr><td>07 Oct 2024</td></tr></table>",
        b'{"error": "json"}',
        b"<!-- -->",
    ],
)
def test_a_page_without_the_table_is_an_error_and_never_empty(body: bytes) -> None:
    with pytest.raises(TransientError, match="no table of flows"):
        parse_flows(body, "btc")


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([["07 Oct 2024", "1.0", "n/a", "1.0"]], "GBTC on 2024-10-07"),
        ([["07 Oct 2024", "1.0", "(2.0", "1.0"]], "GBTC on 2024-10-07"),
        ([["07 Oct 2024", "1.0", "1.0"]], "4 cells"),
        ([["2024-10-07", "1.0", "1.0", "2.0"]], "date"),
        ([["31 Feb 2024", "1.0", "1.0", "2.0"]], "date"),
        ([["07 Okt 2024", "1.0", "1.0", "2.0"]], "date"),
        ([["07 Oct 2024", "1", "1", "2"], ["07 Oct 2024", "1", "2", "3"]], "one row a day"),
        ([], "at least one dated row"),
    ],
)
def test_a_table_that_cannot_be_read_names_the_cell(rows: list[list[str]], name: str) -> None:
    with pytest.raises(ContractError, match=name):
        parse_flows(page(rows), "btc")


def test_a_table_without_tickers_is_refused() -> None:
    with pytest.raises(ContractError, match="ticker"):
        parse_flows(table([["07 Oct 2024", "1.0", "2.0", "3.0"]]), "btc")


def test_two_columns_of_one_fund_are_refused() -> None:
    with pytest.raises(ContractError, match="one column a fund"):
        parse_flows(page([["07 Oct 2024", "1", "2", "3"]], tickers=("CETH", "TETH")), "eth")


amounts = st.decimals(-9_999, 9_999, places=1)


def shown(value: Decimal | None) -> str:
    if value is None:
        return "-"
    return f"({abs(value):,.1f})" if value < 0 else f"{value:,.1f}"


@given(st.lists(st.tuples(st.none() | amounts, st.none() | amounts), min_size=1, max_size=20))
def test_every_reported_amount_comes_back_to_the_dollar(
    rows: list[tuple[Decimal | None, Decimal | None]],
) -> None:
    days = pd.bdate_range("2024-10-01", periods=len(rows))
    cells = [
        [f"{d:%d} {d:%b} {d:%Y}", *map(shown, row), shown(sum((v or 0 for v in row), Decimal(0)))]
        for d, row in zip(days, rows, strict=True)
    ]
    frame = parse_flows(page(cells), "btc").flows
    expected = [int(v * 1_000_000) for row in rows for v in row if v is not None]
    assert list(frame["net_flow_usd"]) == expected


@pytest.mark.parametrize(
    ("asset", "full", "path"),
    [
        ("btc", False, "/btc/"),
        ("btc", True, "/bitcoin-etf-flow-all-data/"),
        ("eth", False, "/eth/"),
        ("eth", True, "/ethereum-etf-flow-all-data/"),
        ("sol", False, "/sol/"),
        ("sol", True, "/sol/"),
    ],
)
def test_each_page_is_asked_for_by_its_own_path(
    stub: Stub, client: Callable[..., HttpClient], asset: str, full: bool, path: str
) -> None:
    stub.replies = [Reply(page([["07 Oct 2024", "1.0", "2.0", "3.0"]]))]
    fetched = Farside(client(provider="farside", base_url=stub.url)).flows(asset, full)
    assert stub.seen[0].target == path
    assert fetched.source == f"farside{path.rstrip('/')}"
    assert set(fetched.data.flows["asset"]) == {asset}
