"""One contract per table: columns, types, units, keys, bounds and rules, declared once.

The DDL, the validation before a commit, the column docs in the Dagster UI and the checks are all
generated from here. No SQL connection, no Dagster, no data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from crypto_assets import periods

ColumnType = Literal["VARCHAR", "DOUBLE", "INTEGER", "BOOLEAN", "DATE", "TIMESTAMP"]


@dataclass(frozen=True)
class Column:
    """One column: its DuckDB type, its meaning, and what a value may be."""

    name: str
    type: ColumnType
    description: str
    nullable: bool = False
    unit: str | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    one_of: tuple[str, ...] | None = None
    keeps_stored: bool = False
    """A NULL never overwrites a stored value: another route may not know this column."""

    @property
    def documentation(self) -> str:
        """The description with its unit, as people read it."""
        return f"{self.description} Unit: {self.unit}." if self.unit else self.description


@dataclass(frozen=True)
class Rule:
    """A condition (SQL over the table's columns) that holds for every row."""

    name: str
    condition: str


@dataclass(frozen=True)
class Table:
    """The contract of one table, which is also one asset."""

    name: str
    row: str
    """What a row is, as a sentence."""
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    time_column: str | None
    """The column that places a row in its day partition; none where the table is merged."""
    series_column: str | None = None
    """The column that names the series (coin, asset) whose absence is a gap."""
    rows_a_day: int = 1
    """How many rows a series has on a whole day."""
    ready_after: timedelta = periods.CANDLES_READY_AFTER
    """How long after the end of a period its final value can be had."""
    derived: bool = False
    """Computed from other tables, rather than told by a provider."""
    rules: tuple[Rule, ...] = ()
    group: str = "market"
    kinds: tuple[str, ...] = ("duckdb",)

    @property
    def all_columns(self) -> tuple[Column, ...]:
        """Content columns, then provenance."""
        if self.time_column is None:
            return self.columns + MERGED_PROVENANCE
        return self.columns + PROVENANCE + (() if self.derived else (FIRST_FINAL_AT,))

    @property
    def has_exactness(self) -> bool:
        """Whether its rows say if they are exact."""
        return "exactness" in self.content_columns

    @property
    def content_columns(self) -> tuple[str, ...]:
        """Names of the columns that hold data rather than provenance."""
        return tuple(column.name for column in self.columns)

    @property
    def compared_columns(self) -> tuple[str, ...]:
        """Names of the columns that make rows of two warehouses equal."""
        return self.content_columns + (("is_final",) if self.time_column else ())

    def column(self, name: str) -> Column:
        """Return a column by name. Raises `KeyError`."""
        return {column.name: column for column in self.all_columns}[name]


def _coin_id() -> Column:
    return Column("coin_id", "VARCHAR", "CoinGecko's id of the coin.")


def _date() -> Column:
    return Column("date", "DATE", "Day in UTC; values are those of its close, the next midnight.")


def _usd(name: str, description: str, **bounds: object) -> Column:
    return Column(name, "DOUBLE", description, unit="US dollars", **bounds)  # type: ignore[arg-type]


_RUN = (
    Column("source", "VARCHAR", "Provider and endpoint, prefixed 'sandbox/' when invented."),
    Column("run_id", "VARCHAR", "Dagster run that wrote the row."),
    Column("materialized_at", "TIMESTAMP", "When the row was written, by the machine's clock."),
    Column(
        "raw_id",
        "VARCHAR",
        "Response in the raw store, where one is behind the row.",
        nullable=True,
    ),
)

MERGED_PROVENANCE = _RUN

PROVENANCE = (
    Column("is_final", "BOOLEAN", "Whether the period was over and the provider ready."),
    Column("observed_at", "TIMESTAMP", "When the fetch behind the row began, UTC."),
    *_RUN,
)

FIRST_FINAL_AT = Column(
    "first_final_at",
    "TIMESTAMP",
    "When a final value of the row was first observed, UTC (of an exact candle: an exact one); "
    "stays when the provider restates it.",
    nullable=True,
)

_CANDLE_RULES = (
    Rule("low is the lowest", "low <= least(open, close)"),
    Rule("high is the highest", "high >= greatest(open, close)"),
)


def _candle_columns(period: str) -> tuple[Column, ...]:
    return (
        _usd("open", f"Price at the start of the {period}.", above=0),
        _usd("high", f"Highest price of the {period}.", above=0),
        _usd("low", f"Lowest price of the {period}.", above=0),
        _usd("close", f"Price at the end of the {period}.", above=0),
        _usd(
            "volume_usd",
            f"Traded in the {period}; NULL from CoinGecko, which has none by candle.",
            nullable=True,
            minimum=0,
        ),
    )


_EXACTNESS = Column(
    "exactness",
    "VARCHAR",
    "'exact': the provider's own candles; 'approximate': rebuilt from spaced prices.",
    one_of=("exact", "approximate"),
)

COIN_LIST = Table(
    name="coin_list",
    row="One coin that CoinGecko lists or once listed; rows are never removed.",
    columns=(
        _coin_id(),
        Column("symbol", "VARCHAR", "Ticker symbol; not unique, may be empty."),
        Column("name", "VARCHAR", "Name; not unique."),
        Column("platforms", "VARCHAR", "Contract address by chain, as JSON.", nullable=True),
        Column("is_active", "BOOLEAN", "Whether the last listing had it."),
        Column("first_seen_at", "TIMESTAMP", "First listing that had it, UTC."),
        Column("last_seen_at", "TIMESTAMP", "Last listing that had it, UTC."),
        Column("renamed_to", "VARCHAR", "Id that took over when this one vanished.", nullable=True),
    ),
    key=("coin_id",),
    time_column=None,
    kinds=("coingecko", "duckdb"),
)

MARKET_CAPS = Table(
    name="market_caps",
    row="Price, market cap and supply of one tracked coin at the close of one day.",
    columns=(
        _date(),
        _coin_id(),
        _usd("price_usd", "Price.", above=0),
        _usd("market_cap_usd", "Price times circulating supply.", nullable=True, above=0),
        _usd("volume_24h_usd", "Traded in the 24 hours before.", nullable=True, minimum=0),
        Column(
            "circulating_supply",
            "DOUBLE",
            "Coins in circulation; NULL where healed from histories, which lack it.",
            unit="coins",
            nullable=True,
            minimum=0,
            keeps_stored=True,
        ),
        Column(
            "provider_rank",
            "INTEGER",
            "CoinGecko's own rank; NULL where healed from histories.",
            nullable=True,
            minimum=1,
            keeps_stored=True,
        ),
        Column(
            "is_point_in_time",
            "BOOLEAN",
            "Whether the coin was chosen with what was known that day; "
            "false: chosen later, so the day's universe has survivorship bias.",
        ),
    ),
    key=("date", "coin_id"),
    time_column="date",
    ready_after=periods.CHART_READY_AFTER,
    series_column="coin_id",
    kinds=("coingecko", "duckdb"),
)

RANKS = Table(
    name="ranks",
    row="Place of one tracked coin by market cap at the close of one day.",
    columns=(
        _date(),
        _coin_id(),
        Column(
            "market_cap_rank",
            "INTEGER",
            "1 is the largest of the tracked set; ties by coin_id; without a cap no row.",
            minimum=1,
        ),
        _usd("market_cap_usd", "What it is ranked by.", above=0),
        Column(
            "market_share",
            "DOUBLE",
            "Share of the tracked set's market cap.",
            unit="fraction",
            above=0,
            maximum=1,
        ),
        Column(
            "rank_change_1d",
            "INTEGER",
            "Places climbed since the day before (negative: fallen).",
            nullable=True,
        ),
        Column(
            "rank_change_7d",
            "INTEGER",
            "Places climbed in seven days (negative: fallen).",
            nullable=True,
        ),
        Column("is_point_in_time", "BOOLEAN", "As in market_caps."),
    ),
    key=("date", "coin_id"),
    time_column="date",
    ready_after=periods.CHART_READY_AFTER,
    series_column="coin_id",
    derived=True,
)

EMA_SIGNALS = Table(
    name="ema_signals",
    row="Trend of one coin by one pair of exponential moving averages at the close of one day.",
    columns=(
        _date(),
        _coin_id(),
        Column("fast_span", "INTEGER", "Span of the fast EMA.", unit="days", minimum=2),
        Column("slow_span", "INTEGER", "Span of the slow EMA.", unit="days", minimum=3),
        _usd("price_usd", "Price the averages end with.", above=0),
        _usd("ema_fast", "Fast EMA, seeded with the first price.", above=0),
        _usd("ema_slow", "Slow EMA, seeded with the first price.", above=0),
        Column("strength", "DOUBLE", "(ema_fast - ema_slow) / ema_slow.", unit="fraction"),
        Column(
            "trend_z",
            "DOUBLE",
            "ln(ema_fast / ema_slow) over its standard deviation on a random walk of the coin's "
            "20-day volatility; comparable across coins.",
            nullable=True,
            unit="standard deviations",
        ),
        Column(
            "state",
            "INTEGER",
            "+1 fast above slow, -1 below, 0 not yet told; a tie keeps the state.",
            minimum=-1,
            maximum=1,
        ),
        Column(
            "event",
            "INTEGER",
            "+1 crossed up, -1 crossed down, 0 no cross; NULL while not warm or not final.",
            nullable=True,
            minimum=-1,
            maximum=1,
        ),
        Column("is_warm", "BOOLEAN", "Whether the seed's weight has faded (3 slow spans)."),
    ),
    key=("date", "coin_id", "fast_span", "slow_span"),
    time_column="date",
    ready_after=periods.CHART_READY_AFTER,
    series_column="coin_id",
    derived=True,
    rules=(Rule("fast span below slow span", "fast_span < slow_span"),),
    group="signals",
)

OHLC_HOURLY = Table(
    name="ohlc_hourly",
    row="Candle of one coin and one hour.",
    columns=(
        Column("open_time", "TIMESTAMP", "Start of the hour, UTC."),
        _coin_id(),
        *_candle_columns("hour"),
        Column(
            "session",
            "VARCHAR",
            "Trading session it opens in: Asia 00-08, Europe 08-16, US 16-24 UTC.",
            one_of=("Asia", "Europe", "US"),
        ),
        _EXACTNESS,
    ),
    key=("open_time", "coin_id"),
    time_column="open_time",
    rows_a_day=24,
    series_column="coin_id",
    rules=(
        *_CANDLE_RULES,
        Rule("starts on the hour", "open_time = date_trunc('hour', open_time)"),
    ),
    group="candles",
    kinds=("coingecko", "duckdb"),
)

OHLC_DAILY = Table(
    name="ohlc_daily",
    row="Candle of one coin and one day.",
    columns=(_date(), _coin_id(), *_candle_columns("day"), _EXACTNESS),
    key=("date", "coin_id"),
    time_column="date",
    series_column="coin_id",
    rules=_CANDLE_RULES,
    group="candles",
    kinds=("coingecko", "duckdb"),
)

FEAR_GREED = Table(
    name="fear_greed",
    row="The Fear & Greed index of one day.",
    columns=(
        Column("date", "DATE", "Day in UTC; its index is set at 00:00, from the days before."),
        Column("value", "INTEGER", "0 extreme fear, 100 extreme greed.", minimum=0, maximum=100),
        Column("label", "VARCHAR", "The provider's word for it, as received."),
        Column(
            "band",
            "VARCHAR",
            "Our word for it, by value alone.",
            one_of=("extreme fear", "fear", "neutral", "greed", "extreme greed"),
        ),
    ),
    key=("date",),
    time_column="date",
    ready_after=periods.FEAR_GREED_READY_AFTER,
    group="sentiment",
    kinds=("alternative_me", "duckdb"),
)

# Coins whose flows into US funds are reported, by the asset name used there.
COIN_OF_ETF_ASSET = {"btc": "bitcoin", "eth": "ethereum", "sol": "solana"}

ETF_FLOWS = Table(
    name="etf_flows",
    row="Net flow into one exchange-traded fund on one trading day, where it was reported.",
    columns=(
        Column("date", "DATE", "US trading day."),
        Column("asset", "VARCHAR", "Coin the fund holds.", one_of=tuple(COIN_OF_ETF_ASSET)),
        Column("ticker", "VARCHAR", "Fund; not unique without its asset (BTC and ETH are funds)."),
        _usd("net_flow_usd", "Bought less redeemed (dollars, not millions)."),
    ),
    key=("date", "asset", "ticker"),
    time_column="date",
    ready_after=periods.ETF_FLOWS_READY_AFTER,
    series_column="asset",
    rules=(Rule("weekdays only", "isodow(date) <= 5"),),
    group="flows",
    kinds=("farside", "duckdb"),
)

DAILY_SNAPSHOT = Table(
    name="daily_snapshot",
    row="Everything known of one tracked coin at the close of one day, on one row.",
    columns=(
        _date(),
        _coin_id(),
        _usd("close_usd", "Price at the close, from market_caps.", above=0),
        _usd("high_usd", "Highest price of the day, from ohlc_daily.", nullable=True, above=0),
        _usd("low_usd", "Lowest price of the day, from ohlc_daily.", nullable=True, above=0),
        Column(
            "change_24h",
            "DOUBLE",
            "Close over the close of the day before, less 1; NULL without that close.",
            nullable=True,
            unit="fraction",
        ),
        Column(
            "volatility_7d",
            "DOUBLE",
            "Standard deviation of the last 7 daily log returns, times sqrt(365).",
            nullable=True,
            unit="fraction a year",
            minimum=0,
        ),
        _usd("market_cap_usd", "Market cap.", nullable=True, above=0),
        Column("market_cap_rank", "INTEGER", "As in ranks.", nullable=True, minimum=1),
        Column(
            "dominance",
            "DOUBLE",
            "Share of the market cap of the tracked set (not of all coins).",
            nullable=True,
            unit="fraction",
            above=0,
            maximum=1,
        ),
        Column(
            "trend",
            "DOUBLE",
            "Mean of tanh(trend_z) over the warm EMA pairs.",
            nullable=True,
            minimum=-1,
            maximum=1,
        ),
        Column(
            "fear_greed", "INTEGER", "The index of the day.", nullable=True, minimum=0, maximum=100
        ),
        _usd(
            "etf_net_flow_usd",
            "Net flow into all funds of the coin; NULL unless every fund reported.",
            nullable=True,
        ),
        Column("return_asia", "DOUBLE", "Return of 00-08 UTC.", nullable=True, unit="fraction"),
        Column("return_europe", "DOUBLE", "Return of 08-16 UTC.", nullable=True, unit="fraction"),
        Column("return_us", "DOUBLE", "Return of 16-24 UTC.", nullable=True, unit="fraction"),
        Column("is_point_in_time", "BOOLEAN", "As in market_caps."),
    ),
    key=("date", "coin_id"),
    time_column="date",
    # Its slowest source are the fund flows.
    ready_after=periods.ETF_FLOWS_READY_AFTER,
    series_column="coin_id",
    derived=True,
    group="snapshot",
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        COIN_LIST,
        MARKET_CAPS,
        RANKS,
        EMA_SIGNALS,
        OHLC_HOURLY,
        OHLC_DAILY,
        FEAR_GREED,
        ETF_FLOWS,
        DAILY_SNAPSHOT,
    )
}


def partitioned() -> Iterator[Table]:
    """Yield the tables that have day partitions."""
    return (table for table in TABLES.values() if table.time_column)
