"""Daily ETF flows as Farside Investors publishes them: HTML tables, one column a fund.

Belongs here: which page holds what, and reading its table. Does not belong here: trading
calendars, or when a day counts as final (``periods``).
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, cast

import pandas as pd

from crypto_assets.providers.errors import ContractError, TransientError
from crypto_assets.providers.fetched import Fetched, Source

if TYPE_CHECKING:
    from lxml import html

log = logging.getLogger(__name__)

PROVIDER = "farside"
BASE_URL = "https://farside.co.uk"
# asset: (page with the recent rows, page with all rows)
PAGES = {
    "btc": ("btc/", "bitcoin-etf-flow-all-data/"),
    "eth": ("eth/", "ethereum-etf-flow-all-data/"),
    "sol": ("sol/", "sol/"),
}
# Old tickers that a page may still show, by asset: tickers of coins and funds collide.
RENAMED = {("eth", "CETH"): "TETH"}

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_DATE = re.compile(r"(\d{1,2}) ([A-Z][a-z]{2}) (\d{4})")
_TICKER = re.compile(r"[A-Z][A-Z0-9]{1,5}")
_AMOUNT = re.compile(r"\((?P<outflow>[\d,]+(?:\.\d+)?)\)|(?P<inflow>-?[\d,]+(?:\.\d+)?)")
_NOT_REPORTED = {"", "-", "–", "—"}
_MILLION = Decimal(1_000_000)
# Cells and Total are rounded to one decimal each, so they may disagree by half a step each.
_HALF_STEP = Decimal("0.05")
# A fund that stays silent this many reporting days up to the end of the page has closed.
_CLOSED_AFTER_DAYS = 10

_BTC_FUNDS = ["IBIT", "FBTC", "BITB", "ARKB", "BTCO", "EZBC", "BRRR", "HODL", "BTCW", "GBTC"]
_ETH_FUNDS = ["ETHA", "FETH", "ETHW", "TETH", "ETHV", "QETH", "EZET", "ETHE", "ETH"]
FIRST_DAYS: Mapping[tuple[str, str], date] = {
    **{("btc", ticker): date(2024, 1, 11) for ticker in _BTC_FUNDS},
    ("btc", "BTC"): date(2024, 7, 31),
    ("btc", "MSBT"): date(2026, 4, 8),
    **{("eth", ticker): date(2024, 7, 23) for ticker in _ETH_FUNDS},
    ("eth", "ETHB"): date(2026, 3, 12),
}


@dataclass(frozen=True)
class EtfFlows:
    """One page.

    ``flows``: date (datetime64[ns]), asset, ticker, net_flow_usd (US dollars, not millions); only
    what a fund reported. ``days``: one row a date of the page with asset, reported and active
    (numbers of funds), is_complete (all active funds reported and the Total agrees) and
    is_holiday (nobody reported, but somebody did on a later day). ``refused``: why rows were left
    out, by date.
    """

    flows: pd.DataFrame
    days: pd.DataFrame
    refused: Mapping[date, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Row:
    day: date
    cells: tuple[Decimal | None, ...]
    total: Decimal | None


class Farside:
    """The published flows of the US spot ETFs on "btc", "eth" and "sol"."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def flows(self, asset: str, full: bool = False) -> Fetched[EtfFlows]:
        """The recent rows of one asset, or all since launch, as ``parse_flows`` gives them."""
        page = PAGES[asset][full]
        return self._source.get(page, {}, {}, lambda body: parse_flows(body, asset))


def parse_flows(body: bytes, asset: str) -> EtfFlows:
    """Read one page.

    A page without the table (a CDN's challenge, say) is a TransientError, never an empty frame.
    A table that cannot be read is a ContractError. A row whose Total contradicts its funds is
    refused; when more than one row in ten does, the columns cannot be trusted: ContractError.
    """
    table = _table(body)
    tickers, rows = _read(table, asset)
    active = _active(tickers, rows, asset)
    refused = _contradictions(rows, active)
    flows = [
        (row.day, asset, ticker, float(round(cell * _MILLION)))
        for row in rows
        if row.day not in refused
        for ticker, cell in zip(tickers, row.cells, strict=True)
        if cell is not None
    ]
    last_report = max((r.day for r in rows if any(c is not None for c in r.cells)), default=None)
    days = []
    for row, funds in zip(rows, active, strict=True):
        reported = sum(cell is not None for cell in row.cells)
        complete = _all_reported(row, funds) and row.day not in refused
        holiday = reported == 0 and last_report is not None and row.day < last_report
        days.append((row.day, asset, reported, sum(funds), complete, holiday))
    return EtfFlows(
        _frame(flows, ["date", "asset", "ticker", "net_flow_usd"]),
        _frame(days, ["date", "asset", "reported", "active", "is_complete", "is_holiday"]),
        refused,
    )


def _table(body: bytes) -> list[list[str]]:
    """The cells of the flow table, as text, row by row."""
    # Imported here: it takes long to load, and only who reads a page needs it.
    from lxml import etree, html

    tables: list[html.HtmlElement] = []
    if body.strip():
        # Pages may not name their charset; Farside's are UTF-8.
        parser = html.HTMLParser(encoding="utf-8")
        with contextlib.suppress(etree.LxmlError, ValueError):
            document = cast(html.HtmlElement, html.document_fromstring(body, parser=parser))
            tables = document.find_class("etf")
    if not tables:
        raise TransientError(
            "the page has no table of flows",
            advice="if it shows a browser check, the CDN blocks this client: try later or from "
            "another network",
        )
    return [
        [" ".join(cell.text_content().split()) for cell in row if cell.tag in ("th", "td")]
        for row in max(tables, key=len).iterfind(".//tr")
    ]


def _read(table: Sequence[Sequence[str]], asset: str) -> tuple[list[str], list[_Row]]:
    """Tickers of the fund columns and the rows by date, ascending."""
    header = _header(table)
    tickers = [RENAMED.get((asset, cell), cell) for cell in header[1:-1]]
    if len(set(tickers)) != len(tickers):
        raise ContractError(f"{asset} header", "one column a fund", " ".join(tickers))
    rows: dict[date, _Row] = {}
    for cells in table:
        day = _day(cells[0]) if cells else None
        if day is None:
            continue
        if len(cells) != len(header):
            raise ContractError(f"{asset} row {day}", f"{len(header)} cells", len(cells))
        amounts = [
            _amount(cell, f"{asset} {ticker} on {day}")
            for ticker, cell in zip([*tickers, "Total"], cells[1:], strict=True)
        ]
        row = _Row(day, tuple(amounts[:-1]), amounts[-1])
        if rows.setdefault(day, row) != row:
            raise ContractError(f"{asset} row {day}", "one row a day", "two different rows")
    if not rows:
        raise ContractError(f"{asset} table", "at least one dated row", "none")
    return tickers, [rows[day] for day in sorted(rows)]


def _header(table: Sequence[Sequence[str]]) -> Sequence[str]:
    """The row of tickers; on top of it may be logos, below it fees, and its ends may be empty."""
    for cells in table:
        inner = cells[1:-1]
        if inner and all(_TICKER.fullmatch(cell) for cell in inner):
            if cells[-1] not in {"", "Total", "TOTAL"}:
                raise ContractError("last column", "the Total", cells[-1])
            return cells
    raise ContractError("header", "a row with the ticker of every fund", "none")


def _day(cell: str) -> date | None:
    """The date of a row; None for headers, fees, seeds and the footer."""
    match = _DATE.fullmatch(cell)
    if match is None:
        # What is neither a date nor a known kind of row must not vanish silently.
        if any(c.isdigit() for c in cell):
            raise ContractError("date", "like 06 Jul 2026", cell)
        return None
    day, month, year = match.groups()
    try:
        return date(int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError:
        raise ContractError("date", "like 06 Jul 2026", cell) from None


def _amount(cell: str, where: str) -> Decimal | None:
    """US$ millions; None where nothing was reported, which is not the same as 0.0."""
    if cell in _NOT_REPORTED:
        return None
    match = _AMOUNT.fullmatch(cell)
    if match is None:
        raise ContractError(where, "an amount, (outflow) or -", cell)
    if match["outflow"] is not None:
        return -Decimal(match["outflow"].replace(",", ""))
    return Decimal(match["inflow"].replace(",", ""))


def _active(tickers: Sequence[str], rows: Sequence[_Row], asset: str) -> list[list[bool]]:
    """For each row, which funds should have reported: launched and not closed."""
    reporting = [i for i, row in enumerate(rows) if any(c is not None for c in row.cells)]
    spans: list[tuple[date, date]] = []
    for column, ticker in enumerate(tickers):
        own = [i for i in reporting if rows[i].cells[column] is not None]
        # Of a fund we do not know, the page tells the launch: its first report.
        first = rows[own[0]].day if own else date.max
        first = min(first, FIRST_DAYS.get((asset, ticker), date.max))
        silent = [i for i in reporting if not own or i > own[-1]]
        closed = len(silent) >= _CLOSED_AFTER_DAYS
        last = (rows[own[-1]].day if own else date.min) if closed else date.max
        spans.append((first, last))
    return [[first <= row.day <= last for first, last in spans] for row in rows]


def _all_reported(row: _Row, funds: Sequence[bool]) -> bool:
    expected = [c is not None for c, active in zip(row.cells, funds, strict=True) if active]
    return bool(expected) and all(expected)


def _contradictions(rows: Sequence[_Row], active: Sequence[Sequence[bool]]) -> dict[date, str]:
    """Rows whose Total is not the sum of their funds; only full rows have a Total that counts."""
    checked = 0
    refused: dict[date, str] = {}
    for row, funds in zip(rows, active, strict=True):
        if row.total is None or not _all_reported(row, funds):
            continue
        checked += 1
        amounts = [cell for cell in row.cells if cell is not None]
        if abs(sum(amounts) - row.total) > _HALF_STEP * (len(amounts) + 1):
            refused[row.day] = f"the Total is {row.total}, but the funds add up to {sum(amounts)}"
    if len(refused) > max(1, checked // 10):
        day, reason = next(iter(refused.items()))
        raise ContractError(f"Total on {day}", "the sum of the funds", reason)
    for day, reason in refused.items():
        log.warning("farside: %s is left out: %s", day, reason)
    return refused


def _frame(rows: Sequence[tuple[object, ...]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=columns)
    frame["date"] = pd.to_datetime(frame["date"]).astype("datetime64[ns]")
    if "net_flow_usd" in frame:
        frame["net_flow_usd"] = frame["net_flow_usd"].astype("float64")
    return frame
