"""Farside's pages: flows as an HTML table, with their cells, footers and odd headers."""

import html
from dataclasses import dataclass, field
from datetime import date, timedelta

import pandas as pd

from crypto_assets.sandbox.etf import FUNDS
from crypto_assets.sandbox.market import Market
from crypto_assets.sandbox.reply import HTML_TYPE, RefusedError, Reply, Request

# Only bitcoin and ether have a page with all rows; solana's short page holds all there is.
PAGES = {
    "btc": ("btc", False),
    "eth": ("eth", False),
    "sol": ("sol", False),
    "bitcoin-etf-flow-all-data": ("btc", True),
    "ethereum-etf-flow-all-data": ("eth", True),
}
_RECENT_ROWS = 21
_CELL = '<div align="right"><span class="tabletext">{}</span></div>'


@dataclass
class FlowPage:
    """A page before it is rendered: flows in US$ millions, NaN where it shows `-`."""

    asset: str
    has_all_rows: bool
    columns: list[str]
    rows: dict[date, list[float]]
    fees: list[str]
    issuers: list[str]
    shown_rows: int | None = None
    totals: dict[date, float] = field(default_factory=dict)  # instead of the sum of the row
    has_table: bool = True


def build_page(market: Market, request: Request) -> FlowPage:
    """The page as the market has it at the request's moment."""
    if request.endpoint not in PAGES:
        raise RefusedError(Reply(404, b"<html><body>Page not found</body></html>", HTML_TYPE))
    asset, has_all_rows = PAGES[request.endpoint]
    funds = FUNDS[asset]
    first = min(fund.first_day for fund in funds)
    if not has_all_rows and asset != "sol":
        first = max(first, request.now.date() - timedelta(days=_RECENT_ROWS * 2))
    flows = market.etf_flows(asset, request.now, since=first)
    columns = [fund.ticker_on(request.now.date()) for fund in funds]
    wide = flows.pivot(index="date", columns="ticker", values="net_flow_usd_millions")
    rows: dict[date, list[float]] = {}
    if len(wide):
        values = wide[columns].to_numpy().tolist()
        rows = {pd.Timestamp(day).date(): row for day, row in zip(wide.index, values, strict=True)}
    return FlowPage(
        asset,
        has_all_rows,
        columns,
        rows,
        [fund.fee for fund in funds],
        [fund.issuer for fund in funds],
        None if has_all_rows or asset == "sol" else _RECENT_ROWS,
    )


def render(page: FlowPage) -> Reply:
    """The page as HTML."""
    if not page.has_table:
        text = "<html><body><p>The table is being updated.</p></body></html>"
        return Reply(200, text.encode(), HTML_TYPE)
    shown = list(page.rows.items())[-(page.shown_rows or len(page.rows)) :]
    body = "\n".join(_row(day, values, page.totals.get(day)) for day, values in shown)
    text = (
        '<html><body>\n<table class="etf">\n<thead>\n'
        f"{_header(page)}\n</thead>\n<tbody>\n{body}\n{_footer(page)}\n</tbody>\n</table>\n"
        "</body></html>\n"
    )
    return Reply(200, text.encode(), HTML_TYPE, {"Cache-Control": "max-age=300"})


def _header(page: FlowPage) -> str:
    tickers = page.columns
    if page.has_all_rows:
        return _header_row(["Date", *tickers, "Total"])
    logos = [
        f'<img src="/images/etf/{name.split()[0].lower()}.jpg" alt="{html.escape(name)}">'
        for name in page.issuers
    ]
    return "\n".join(
        [
            _header_row(["", *logos, "Total"], is_markup=True),
            _header_row(["", *(f"  {ticker}" for ticker in tickers), ""]),
            _header_row(["Fee", *page.fees, ""]),
        ]
    )


def _header_row(cells: list[str], is_markup: bool = False) -> str:
    texts = cells if is_markup else [html.escape(cell) for cell in cells]
    inner = "".join(f"<th>{_CELL.format(text)}</th>" for text in texts)
    return f'<tr bgcolor="#eaeffa">{inner}</tr>'


def _row(day: date, values: list[float], total: float | None) -> str:
    if total is None:
        total = round(sum(value for value in values if value == value), 1) + 0.0
    cells = "".join(_cell(value) for value in [*values, total])
    return f'<tr><td><span class="tabletext">{day:%d %b %Y}</span></td>{cells}</tr>'


def _cell(value: float) -> str:
    kind = "" if value == value and value else ' class="zero-flow"'
    return f"<td{kind}>{_CELL.format(_text(value))}</td>"


def _text(value: float, digits: int = 1) -> str:
    if value != value:
        return "-"
    text = f"{abs(value):,.{digits}f}"
    return f'<span class="redFont">({text})</span>' if value < 0 else text


def _footer(page: FlowPage) -> str:
    columns = [*(list(column) for column in zip(*page.rows.values(), strict=True))]
    totals = [sum(value for value in row if value == value) for row in page.rows.values()]
    columns.append(totals)
    if not page.rows:
        columns = [[] for _ in range(len(page.columns) + 1)]
    known = [[value for value in column if value == value] or [0.0] for column in columns]
    lines = [
        ("Total", [_text(round(sum(column)) + 0.0, 0) for column in known]),
        ("Average", [_text(round(sum(column) / len(column), 1) + 0.0) for column in known]),
        ("Maximum", [_text(max(column)) for column in known]),
        ("Minimum", [_text(min(column)) for column in known]),
    ]
    return "\n".join(
        f'<tr style="background-color: #eaeffa"><td><span class="tabletext">{name}</span></td>'
        + "".join(
            f'<td><div align="right"><span class="tabletext">{cell}</span></div></td>'
            for cell in cells
        )
        + "</tr>"
        for name, cells in lines
    )
