"""Views and macros for the questions people ask, declared once: name, meaning, columns, SQL.

The warehouse file, its comments and the data dictionary are made from here. Whatever they tell
follows from the tables: they hold no rows. What compares days does so by calendar, never by
counting rows, and only with a final close: a value seen during a day is no close of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from crypto_assets.tables import (
    COIN_LIST,
    COIN_OF_ETF_ASSET,
    DAILY_SNAPSHOT,
    EMA_SIGNALS,
    ETF_FLOWS,
    MARKET_CAPS,
    RANKS,
    Column,
    ColumnType,
    Table,
)
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import literal


@dataclass(frozen=True)
class View:
    """A query with a name, stored in the file."""

    name: str
    row: str
    """What a row is, as a sentence."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    sql: str


@dataclass(frozen=True)
class Macro:
    """A query with a name that takes parameters, stored in the file."""

    name: str
    parameters: tuple[str, ...]
    description: str
    example: str
    """A statement that uses it."""
    sql: str
    """A query, or an expression where it returns a value."""
    is_table: bool = True
    """Whether it stands in FROM, rather than where a value does."""


def _fraction(name: str, description: str) -> Column:
    return Column(name, "DOUBLE", description, nullable=True, unit="fraction")


def _usd(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, "DOUBLE", description, nullable=nullable, unit="US dollars")


def _of(table: Table, *names: str) -> Iterator[Column]:
    yield from (table.column(name) for name in names)


def _if_known(table: Table, *names: str) -> Iterator[Column]:
    """Columns of a table that may have no row for the key."""
    yield from (replace(column, nullable=True) for column in _of(table, *names))


def _plain(name: str, kind: ColumnType, description: str, *, nullable: bool = False) -> Column:
    return Column(name, kind, description, nullable=nullable)


_IS_FINAL = _plain("is_final", "BOOLEAN", "False while the day runs: its values still change.")

# The running day has no close yet, and a close that came too late to be seen is none either.
_LAST_CLOSED_DAY = "SELECT max(date) FROM market_caps WHERE is_final"


def _market_sql(day: str) -> str:
    """The market of one day, which is an SQL expression."""
    return f"""
WITH chosen AS (SELECT CAST({day} AS DATE) AS chosen_day),
closes AS (
    SELECT coin_id,
        max(price_usd) FILTER (WHERE date = chosen_day - 1) AS a_day_before,
        max(price_usd) FILTER (WHERE date = chosen_day - 7) AS a_week_before,
        max(price_usd) FILTER (WHERE date = chosen_day - 30) AS a_month_before
    FROM market_caps JOIN chosen ON date IN (chosen_day - 1, chosen_day - 7, chosen_day - 30)
    WHERE is_final AND date BETWEEN CAST({day} AS DATE) - 30 AND CAST({day} AS DATE) - 1
    GROUP BY coin_id
),
trends AS (
    SELECT coin_id, avg(tanh(trend_z)) AS trend
    FROM ema_signals WHERE date = CAST({day} AS DATE) AND is_warm
    GROUP BY coin_id
)
SELECT market.date, market.coin_id, coins.symbol, coins.name, ranked.market_cap_rank,
    market.price_usd, market.market_cap_usd, ranked.market_share, market.volume_24h_usd,
    market.price_usd / closes.a_day_before - 1 AS change_24h,
    market.price_usd / closes.a_week_before - 1 AS change_7d,
    market.price_usd / closes.a_month_before - 1 AS change_30d,
    ranked.rank_change_7d, trends.trend,
    market.is_final, market.is_point_in_time, market.observed_at
FROM market_caps AS market
LEFT JOIN coin_list AS coins USING (coin_id)
LEFT JOIN (FROM ranks WHERE date = CAST({day} AS DATE)) AS ranked USING (coin_id)
LEFT JOIN closes USING (coin_id)
LEFT JOIN trends USING (coin_id)
WHERE market.date = CAST({day} AS DATE)
ORDER BY ranked.market_cap_rank NULLS LAST, market.coin_id"""


LATEST_MARKET = View(
    name="latest_market",
    row="One tracked coin on the newest day, largest first. That is the running day once it has "
    "begun to be stored: then prices are the newest seen, changes are so far, is_final is false.",
    columns=(
        *_of(MARKET_CAPS, "date", "coin_id"),
        *_if_known(COIN_LIST, "symbol", "name"),
        Column(
            "market_cap_rank",
            "INTEGER",
            "1 is the largest of the tracked set; NULL without a market cap.",
            nullable=True,
        ),
        _usd("price_usd", "Price at the day's close, or the newest one while the day runs."),
        *_of(MARKET_CAPS, "market_cap_usd"),
        _fraction("market_share", RANKS.column("market_share").description),
        *_of(MARKET_CAPS, "volume_24h_usd"),
        _fraction(
            "change_24h",
            "Price over the final close exactly 1 day before, less 1 (since midnight, while the "
            "day runs); NULL without that close.",
        ),
        _fraction("change_7d", "The same over the close exactly 7 days before."),
        _fraction("change_30d", "The same over the close exactly 30 days before."),
        *_of(RANKS, "rank_change_7d"),
        Column("trend", "DOUBLE", DAILY_SNAPSHOT.column("trend").description, nullable=True),
        _IS_FINAL,
        *_of(MARKET_CAPS, "is_point_in_time", "observed_at"),
    ),
    key=("coin_id",),
    sql=_market_sql("(SELECT max(date) FROM market_caps)"),
)

_RETURN_DAYS = (1, 7, 30, 90)


def _close_before(days: int | str, alias: str) -> str:
    return (
        f"LEFT JOIN market_caps AS {alias} ON {alias}.coin_id = now.coin_id "
        f"AND {alias}.date = now.date - {days} AND {alias}.is_final"
    )


RETURNS = View(
    name="returns",
    row="One tracked coin on one day, with its returns up to that day's close. The running day "
    "is there with is_final false: its returns are so far.",
    columns=(
        *_of(MARKET_CAPS, "date", "coin_id"),
        _usd("close_usd", "Price at the day's close, or the newest one while the day runs."),
        *(
            _fraction(
                f"return_{days}d",
                f"Close over the final close exactly {days} calendar "
                f"{'day' if days == 1 else 'days'} before, less 1; NULL without that close.",
            )
            for days in _RETURN_DAYS
        ),
        Column(
            "log_return_1d",
            "DOUBLE",
            "Natural logarithm of the close over the close of the day before.",
            nullable=True,
        ),
        _IS_FINAL,
        *_of(MARKET_CAPS, "is_point_in_time"),
    ),
    key=("date", "coin_id"),
    sql=f"""
SELECT now.date, now.coin_id, now.price_usd AS close_usd,
    {", ".join(f"now.price_usd / d{n}.price_usd - 1 AS return_{n}d" for n in _RETURN_DAYS)},
    ln(now.price_usd / d1.price_usd) AS log_return_1d,
    now.is_final, now.is_point_in_time
FROM market_caps AS now
{" ".join(_close_before(days, f"d{days}") for days in _RETURN_DAYS)}""",
)

CURRENT_SIGNALS = View(
    name="current_signals",
    row="State of one coin and EMA pair at the newest close, latest cross first. The running day "
    "is left out: until its close a cross can undo itself.",
    columns=(
        *_of(EMA_SIGNALS, "date", "coin_id"),
        *_if_known(COIN_LIST, "symbol"),
        *_of(
            EMA_SIGNALS,
            *("fast_span", "slow_span", "price_usd", "ema_fast", "ema_slow"),
            *("strength", "trend_z", "state"),
        ),
        _plain(
            "crossed_on",
            "DATE",
            "Day of the last cross at a final close, once the pair was warm; NULL without one.",
            nullable=True,
        ),
        Column(
            "days_since_cross",
            "INTEGER",
            "Days from that cross to `date`.",
            nullable=True,
            unit="days",
        ),
        _fraction("return_since_cross", "Close over the close of the day of the cross, less 1."),
        *_of(EMA_SIGNALS, "is_warm"),
    ),
    key=("coin_id", "fast_span", "slow_span"),
    sql=f"""
WITH chosen AS (
    SELECT max(date) AS day FROM ema_signals WHERE date <= ({_LAST_CLOSED_DAY})
),
crosses AS (
    SELECT coin_id, fast_span, slow_span,
        max(date) AS crossed_on, max_by(price_usd, date) AS crossed_at_usd
    FROM ema_signals
    WHERE event <> 0 AND is_warm AND date <= (SELECT day FROM chosen)
    GROUP BY ALL
)
SELECT signals.date, signals.coin_id, coins.symbol, signals.fast_span, signals.slow_span,
    signals.price_usd, signals.ema_fast, signals.ema_slow,
    signals.strength, signals.trend_z, signals.state,
    crosses.crossed_on,
    CAST(signals.date - crosses.crossed_on AS INTEGER) AS days_since_cross,
    signals.price_usd / crosses.crossed_at_usd - 1 AS return_since_cross,
    signals.is_warm
FROM ema_signals AS signals
SEMI JOIN (FROM market_caps WHERE is_final AND date = (SELECT day FROM chosen)) AS closed
    ON closed.coin_id = signals.coin_id
LEFT JOIN coin_list AS coins ON coins.coin_id = signals.coin_id
LEFT JOIN crosses ON crosses.coin_id = signals.coin_id
    AND crosses.fast_span = signals.fast_span AND crosses.slow_span = signals.slow_span
WHERE signals.date = (SELECT day FROM chosen)
ORDER BY crosses.crossed_on DESC NULLS LAST, signals.coin_id, signals.slow_span,
    signals.fast_span""",
)


def _flows_of_days(days: int) -> str:
    window = f"(PARTITION BY asset ORDER BY date ROWS {days - 1} PRECEDING)"
    return (
        f"CASE WHEN count(*) OVER {window} = {days} "
        f"THEN sum(net_flow_usd) OVER {window} END AS net_flow_{days}d_usd"
    )


_COIN_OF_ASSET = " ".join(
    f"WHEN {literal(asset)} THEN {literal(coin)}" for asset, coin in COIN_OF_ETF_ASSET.items()
)

ETF_FLOW_SUMMARY = View(
    name="etf_flow_summary",
    row="All US funds of one asset on one trading day on which any of them reported.",
    columns=(
        *_of(ETF_FLOWS, "date", "asset"),
        _plain("coin_id", "VARCHAR", "CoinGecko's id of that coin."),
        _usd("net_flow_usd", "Net flow into the funds that reported."),
        _plain("funds_reported", "INTEGER", "How many funds reported."),
        *(
            _usd(
                f"net_flow_{days}d_usd",
                f"Net flow of the last {days} trading days that were reported, this one among "
                "them; NULL where fewer are stored.",
                nullable=True,
            )
            for days in (5, 20)
        ),
        _usd("cumulative_flow_usd", "Net flow since the first day of the warehouse."),
        _plain("is_final", "BOOLEAN", "Whether all funds had reported the day; sums may grow."),
    ),
    key=("date", "asset"),
    sql=f"""
WITH days AS (
    SELECT date, asset, sum(net_flow_usd) AS net_flow_usd,
        CAST(count(*) AS INTEGER) AS funds_reported, bool_and(is_final) AS is_final
    FROM etf_flows GROUP BY date, asset
)
SELECT date, asset, CASE asset {_COIN_OF_ASSET} END AS coin_id, net_flow_usd, funds_reported,
    {_flows_of_days(5)},
    {_flows_of_days(20)},
    sum(net_flow_usd) OVER (PARTITION BY asset ORDER BY date) AS cumulative_flow_usd,
    is_final
FROM days ORDER BY date, asset""",
)

VIEWS: dict[str, View] = {
    view.name: view for view in (LATEST_MARKET, RETURNS, CURRENT_SIGNALS, ETF_FLOW_SUMMARY)
}

LAST_CLOSED_DAY = Macro(
    name="last_closed_day",
    parameters=(),
    description="The newest day that has a final close: the day before the running one.",
    example="SELECT last_closed_day()",
    sql=f"({_LAST_CLOSED_DAY})",
    is_table=False,
)

MARKET_ON = Macro(
    name="market_on",
    parameters=("day",),
    description="The market of a day, with the columns of latest_market, as stored today; "
    "where is_point_in_time is false the day's coins were chosen later.",
    example="FROM market_on(last_closed_day())",
    sql=_market_sql("day"),
)

RETURNS_OVER = Macro(
    name="returns_over",
    parameters=("days",),
    description="date, coin_id, close_usd, is_final and return: close over the final close exactly "
    "so many calendar days before, less 1; NULL without that close.",
    example="FROM returns_over(14) WHERE date = last_closed_day()",
    sql=f"""
SELECT now.date, now.coin_id, now.price_usd AS close_usd,
    now.price_usd / past.price_usd - 1 AS return, now.is_final
FROM market_caps AS now {_close_before("CAST(days AS INTEGER)", "past")}""",
)


def _quoted_sql(expression: str, quote: str) -> str:
    """SQL that puts a text between quotes and doubles those in it."""
    one, two = literal(quote), literal(quote * 2)
    return f"{one} || replace({expression}, {one}, {two}) || {one}"


# PIVOT takes no list in a macro, so the query is composed; names are quoted on the way.
WIDE_CLOSES = Macro(
    name="wide_closes",
    parameters=("coins",),
    description="Final closes in US dollars, a row a day, a column for each coin of a list of "
    "coin ids, in its order; NULL where a coin has no final close, or is misspelt. The running "
    "day is left out.",
    example="FROM wide_closes(['bitcoin', 'ethereum'])",
    sql=f"""
FROM query('SELECT date, ' || array_to_string(list_transform(coins, lambda coin:
    'max(price_usd) FILTER (WHERE coin_id = ' || {_quoted_sql("coin", "'")}
    || ') AS ' || {_quoted_sql("coin", '"')}), ', ')
    || ' FROM market_caps WHERE is_final GROUP BY date ORDER BY date')""",
)

MACROS: dict[str, Macro] = {
    macro.name: macro for macro in (LAST_CLOSED_DAY, MARKET_ON, RETURNS_OVER, WIDE_CLOSES)
}


def statements() -> Iterator[str]:
    """Yield what makes all views and macros in a warehouse, or makes them anew."""
    for view in VIEWS.values():
        name = quoted(view.name)
        yield f"CREATE OR REPLACE VIEW {name} AS {view.sql}"
        yield f"COMMENT ON VIEW {name} IS {literal(view.row)}"
        for column in view.columns:
            text = literal(column.documentation)
            yield f"COMMENT ON COLUMN {name}.{quoted(column.name)} IS {text}"
    for macro in MACROS.values():
        kind, table = ("TABLE ", "TABLE ") if macro.is_table else ("", "")
        head = f"{quoted(macro.name)}({', '.join(macro.parameters)})"
        yield f"CREATE OR REPLACE MACRO {head} AS {kind}{macro.sql}"
        text = literal(f"{macro.description} Example: {macro.example}")
        yield f"COMMENT ON MACRO {table}{quoted(macro.name)} IS {text}"
