"""Rules of the Fear & Greed index and of the funds' flows, with what is known of both."""

from dataclasses import dataclass
from datetime import date

from crypto_assets.warehouse.rules.rule import Rule
from crypto_assets.warehouse.sqls import literal

# Days that alternative.me itself has no index for.
MISSING_FEAR_GREED_DAYS = (
    date(2018, 4, 14),
    date(2018, 4, 15),
    date(2018, 4, 16),
    date(2024, 10, 26),
)


@dataclass(frozen=True)
class Fund:
    """A fund whose flows are known to be reported, from its first day on."""

    asset: str
    ticker: str
    first_day: date
    now_called: str | None = None
    """The ticker it goes by today; stored rows keep the one they were read with."""


def _funds(asset: str, first_day: date, tickers: str) -> tuple[Fund, ...]:
    return tuple(Fund(asset, ticker, first_day) for ticker in tickers.split())


_BTC, _ETH, _SOL = date(2024, 1, 11), date(2024, 7, 23), date(2025, 10, 28)
FUNDS = (
    *_funds("btc", _BTC, "IBIT FBTC BITB ARKB BTCO EZBC BRRR HODL BTCW GBTC"),
    Fund("btc", "BTC", date(2024, 7, 31)),
    Fund("btc", "MSBT", date(2026, 4, 8)),
    *_funds("eth", _ETH, "ETHA FETH ETHW TETH ETHV QETH EZET ETHE ETH"),
    Fund("eth", "CETH", _ETH, now_called="TETH"),
    Fund("eth", "ETHB", date(2026, 3, 12)),
    Fund("sol", "SSK", date(2025, 7, 2)),
    *_funds("sol", _SOL, "BSOL GSOL VSOL FSOL TSOL SOEZ"),
    # The sandbox's inventions.
    Fund("sol", "SLNA", _SOL),
    Fund("sol", "SLNB", date(2025, 10, 29)),
    Fund("sol", "SLNC", date(2025, 11, 18)),
)

_MISSING_DAYS = ", ".join(f"DATE '{day}'" for day in MISSING_FEAR_GREED_DAYS)
_KNOWN = ", ".join(
    f"({literal(fund.asset)}, {literal(fund.ticker)}, DATE '{fund.first_day}', "
    f"{literal(fund.now_called or fund.ticker)})"
    for fund in FUNDS
)
_KNOWN_FUNDS = f"(VALUES {_KNOWN}) AS known(asset, ticker, first_day, now_called)"

# What comes after the last stored day is `complete`'s to tell.
_INDEX_HAS_NO_HOLES = Rule(
    "fear_greed",
    "no_unknown_holes",
    "From the first stored day to the last, each day has an index, but for the four days that the "
    "provider is known to lack.",
    f"""SELECT CAST(day AS DATE) AS date FROM (
        SELECT unnest(range(
            greatest(CAST($first AS TIMESTAMP), CAST(min(date) AS TIMESTAMP)),
            CAST(least(CAST($last AS DATE), max(date)) + 1 AS TIMESTAMP), INTERVAL 1 DAY)) AS day
        FROM fear_greed
    ) WHERE date NOT IN (SELECT date FROM fear_greed) AND date NOT IN ({_MISSING_DAYS})""",
    is_error=False,
)

_NO_WEEKEND_ROWS = Rule(
    "etf_flows",
    "no_weekend_rows",
    "Funds trade on weekdays only.",
    "SELECT date, dayname(date) AS weekday, asset, ticker, net_flow_usd FROM etf_flows "
    "WHERE date BETWEEN $first AND $last AND isodow(date) > 5",
)

# Five trading days and the longest holidays between them.
_LOOK_BACK_DAYS = 21

# Days in doubt are no reporting days: small funds are often a day late.
ACTIVE_FUNDS_REPORT = Rule(
    "etf_flows",
    "active_funds_report",
    "A fund that reported on each of the five reporting days before reports on a final day too.",
    f"""WITH told AS (
        SELECT f.date, f.asset, coalesce(known.now_called, f.ticker) AS ticker
        FROM etf_flows AS f
        LEFT JOIN {_KNOWN_FUNDS} ON known.asset = f.asset AND known.ticker = f.ticker
        WHERE f.date BETWEEN CAST($first AS DATE) - {_LOOK_BACK_DAYS} AND $last
    ),
    days AS (
        SELECT date, asset, row_number() OVER (PARTITION BY asset ORDER BY date) AS number
        FROM etf_flows
        WHERE date BETWEEN CAST($first AS DATE) - {_LOOK_BACK_DAYS} AND $last
        GROUP BY date, asset HAVING bool_and(is_final)
    ),
    numbered AS (SELECT DISTINCT number, told.asset, ticker FROM told JOIN days USING (date, asset))
    SELECT today.date, today.asset, before.ticker
    FROM days AS today
    JOIN numbered AS before ON before.asset = today.asset
        AND before.number BETWEEN today.number - 5 AND today.number - 1
    ANTI JOIN numbered AS now ON now.asset = today.asset AND now.ticker = before.ticker
        AND now.number = today.number
    WHERE today.date >= $first
    GROUP BY today.date, today.asset, before.ticker HAVING count(*) = 5""",
    is_error=False,
)

FUNDS_ARE_KNOWN = Rule(
    "etf_flows",
    "funds_are_known",
    "Each row is of a fund that is known, and not from before its first day: a new ticker may be "
    "a fund renamed, which would count twice.",
    f"""SELECT f.date, f.asset, f.ticker, f.net_flow_usd, known.first_day
    FROM etf_flows AS f
    LEFT JOIN {_KNOWN_FUNDS} ON known.asset = f.asset AND known.ticker = f.ticker
    WHERE f.date BETWEEN $first AND $last AND f.date >= coalesce(known.first_day, f.date + 1)
        IS NOT TRUE""",
    is_error=False,
)

RULES = (_INDEX_HAS_NO_HOLES, _NO_WEEKEND_ROWS, ACTIVE_FUNDS_REPORT, FUNDS_ARE_KNOWN)
