"""Which coins are tracked on which day, and which of their days still have to be fetched.

The tracked set of a day is stored with it: its rows in `market_caps` and its gaps. No fetching.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import pandas as pd

from crypto_assets.periods import HOUR, close_of, days, is_final, midnight
from crypto_assets.providers.coingecko_frames import MarketsPage
from crypto_assets.providers.routes import SNAPSHOT_KEPT
from crypto_assets.tables import Table
from crypto_assets.warehouse.gaps import gap_days_sql
from crypto_assets.warehouse.rules import DOUBTED
from crypto_assets.warehouse.session import quoted
from crypto_assets.warehouse.sqls import day_of
from crypto_assets.warehouse.warehouse import Warehouse

# Of the days asked for, and of the nearest day chosen in time on either side of them.
_STORED = f"""
WITH near AS (
    SELECT max(date) FILTER (date < $first) AS before, min(date) FILTER (date > $last) AS after
    FROM market_caps WHERE is_point_in_time
),
stored AS (
    SELECT date, coin_id, is_point_in_time FROM market_caps
    UNION ALL
    SELECT day, series, NULL FROM ({gap_days_sql()}) WHERE table_name = 'market_caps'
)
SELECT date, list(DISTINCT coin_id), bool_or(is_point_in_time)
FROM stored, near
WHERE date BETWEEN $first AND $last OR date = before OR date = after
GROUP BY date
"""


# By day: its coins, and whether they were chosen in time (None where only gaps are stored).
Stored = dict[date, tuple[frozenset[str], bool | None]]


KnownDays = dict[date, datetime | None]
"""Days of a series, and when the provider last told something of each."""


@dataclass(frozen=True)
class Fresh:
    """When asking again brings nothing: the provider serves its own copy for `kept`."""

    now: datetime
    kept: timedelta
    ready_after: timedelta

    def covers(self, day: date, known_at: datetime | None) -> bool:
        """Tell whether what was learnt of an unfinished day at `known_at` is as good as new."""
        if known_at is None or is_final(close_of(day), self.now, self.ready_after):
            return False
        # What was told before a day began says nothing of it, however short ago.
        if known_at < midnight(day):
            return False
        return timedelta(0) <= self.now - known_at < self.kept

    def accepts(self, known: KnownDays, observed_at: datetime) -> bool:
        """Tell whether an answer of that time is news of all these days, and still good."""
        if observed_at > self.now:
            return False  # by a clock that was set back since
        return bool(known) and all(
            (known_at is None or observed_at > known_at)
            and (
                is_final(close_of(day), observed_at, self.ready_after)
                or self.covers(day, observed_at)
            )
            for day, known_at in known.items()
        )


def snapshot_kept(now: datetime) -> Fresh:
    """Return how long a market snapshot is as good as new."""
    return Fresh(now, SNAPSHOT_KEPT, timedelta(0))


@dataclass(frozen=True)
class Tracked:
    """The coins tracked on one day; point in time if they were chosen with what was known then."""

    coins: frozenset[str]
    is_point_in_time: bool
    is_stored: bool = False


def tracked_by_day(
    warehouse: Warehouse, first: date, last: date, known_today: Iterable[str] | None = None
) -> dict[date, Tracked]:
    """Return the tracked set of each day of [first, last] that can be told.

    A stored day keeps its set. Another one takes the last set chosen in time before it, else the
    first one after it, else `known_today`; the latter two are not point in time.
    """
    told = _stored(warehouse, first, last)
    chosen = sorted(day for day, (_, in_time) in told.items() if in_time)
    fallback = Tracked(frozenset(known_today), False) if known_today is not None else None
    found: dict[date, Tracked] = {}
    for day in days(first, last):
        nearest = _nearest(told, chosen, day) or fallback
        if day in told:
            coins, in_time = told[day]
            # A day of gaps alone says nothing of when its coins were chosen.
            if in_time is None:
                in_time = nearest is not None and nearest.is_point_in_time
            found[day] = Tracked(coins, in_time, is_stored=True)
        elif nearest:
            found[day] = nearest
    return found


def _nearest(told: Stored, chosen: Sequence[date], day: date) -> Tracked | None:
    if not chosen:
        return None
    place = bisect_left(chosen, day)
    # The last day chosen in time before this one, else the first after it.
    coins, _ = told[chosen[max(place - 1, 0)]]
    return Tracked(coins, is_point_in_time=place > 0)


def _stored(warehouse: Warehouse, first: date, last: date) -> Stored:
    with warehouse.session("reading the universe") as connection:
        rows = connection.execute(_STORED, {"first": first, "last": last}).fetchall()
    return {day: (frozenset(coins), in_time) for day, coins, in_time in rows}


def unsettled(
    warehouse: Warehouse,
    table: Table,
    wanted: Mapping[date, Tracked],
    *,
    exact_from: date | None = None,
    fresh: Fresh | None = None,
) -> dict[str, KnownDays]:
    """Return, by coin, the days that are neither stored final nor known to have no data.

    With each day comes when the provider last told something of it, if it did. A day is settled
    once all its rows are final and some were observed after its close; candles from `exact_from`
    on have to be exact ones too, and no other rows may contradict them (`rules.doubts`). Days that
    `fresh` says are as good as new are left out.
    """
    pairs = pd.DataFrame(
        [(day, coin) for day, tracked in wanted.items() for coin in tracked.coins],
        columns=["day", "coin_id"],
    )
    if pairs.empty:
        return {}
    pairs["day"] = pd.to_datetime(pairs["day"])
    day, exact = day_of(table), ""
    values = {"table": table.name, "first": min(wanted), "last": max(wanted)}
    if table.has_exactness and exact_from:
        exact = f"AND (bool_and(exactness = 'exact') OR max({day}) < $exact_from)"
        values["exact_from"] = exact_from
    doubted = DOUBTED.get(table.name)
    trusted = f"AND (coin_id, CAST(pairs.day AS DATE)) NOT IN ({doubted})" if doubted else ""
    with warehouse.session(f"planning {table.name}") as connection:
        connection.register("pairs", pairs)
        left = connection.execute(
            f"""WITH stored AS (
                SELECT coin_id, {day} AS day, max(observed_at) AS observed_at,
                    bool_and(is_final)
                    AND max(observed_at) >= max({day}) + INTERVAL 1 DAY
                    AND count(*) >= {table.rows_a_day} {exact} AS is_settled
                FROM {quoted(table.name)} WHERE {day} BETWEEN $first AND $last
                GROUP BY 1, 2
            ),
            absent AS (
                SELECT series AS coin_id, day, checked_at, state = 'missing' AS is_missing,
                    state = 'no_data_at_provider' AS is_hopeless
                FROM ({gap_days_sql()}) WHERE table_name = $table
            )
            SELECT pairs.coin_id, CAST(pairs.day AS DATE),
                greatest(stored.observed_at, absent.checked_at), coalesce(is_missing, false)
            FROM pairs LEFT JOIN stored USING (coin_id, day) LEFT JOIN absent USING (coin_id, day)
            WHERE NOT (coalesce(is_settled, false) {trusted})
                AND NOT coalesce(is_hopeless, false)
            ORDER BY ALL""",
            values,
        ).fetchall()
    found: dict[str, KnownDays] = {}
    for coin_id, day, known_at, is_missing in left:
        if is_missing or fresh is None or not fresh.covers(day, known_at):
            found.setdefault(coin_id, {})[day] = known_at
    return found


def final_days(
    warehouse: Warehouse,
    table: Table,
    coins: Sequence[str],
    first: date,
    last: date,
    *,
    exact_only: bool = True,
) -> dict[str, KnownDays]:
    """Return the days of [first, last] of which the provider's history told final values.

    A close that a snapshot told is another observation than the history's, not an older one.
    """
    exact = "AND exactness = 'exact'" if table.has_exactness and exact_only else ""
    day = day_of(table)
    rows = warehouse.query(
        f"SELECT coin_id, {day} AS day, max(observed_at) AS known_at FROM {quoted(table.name)} "
        f"WHERE list_contains(?, coin_id) AND {day} BETWEEN ? AND ? AND is_final {exact} "
        "AND NOT ends_with(source, 'coins/markets') GROUP BY 1, 2 ORDER BY 1, 2",
        [list(coins), first, last],
        purpose=f"planning {table.name}",
    )
    found: dict[str, KnownDays] = {}
    for coin, stamp, known_at in rows.itertuples(index=False):
        found.setdefault(coin, {})[stamp.date()] = known_at.to_pydatetime()
    return found


def coins_with_hours(
    warehouse: Warehouse, table: Table, first: datetime, end: datetime
) -> frozenset[str]:
    """Return the coins of which every hour of [first, end) is stored final."""
    hours = int((end - first) / HOUR)
    rows = warehouse.query(
        f"SELECT coin_id FROM {quoted(table.name)} WHERE is_final AND open_time >= ? "
        "AND open_time < ? GROUP BY coin_id HAVING count(*) = ?",
        [first, end, hours],
        purpose=f"planning {table.name}",
    )
    return frozenset(rows["coin_id"])


def choose(
    markets: MarketsPage, tracked: int, always: Sequence[str], lately: Iterable[str] = ()
) -> frozenset[str]:
    """Return the `tracked` largest coins of a market snapshot and those always tracked.

    Coins tracked `lately` that the snapshot lacks keep their places: absence from one answer says
    nothing about their size. So do coins whose row was refused, by the cap that could be read.
    """
    refused = markets.refused_caps.items()
    sizes = pd.concat(
        [
            markets.frame[["coin_id", "market_cap_usd"]],
            pd.DataFrame(refused, columns=["coin_id", "market_cap_usd"]).astype(
                {"coin_id": "object", "market_cap_usd": "float64"}
            ),
        ],
        ignore_index=True,
    )
    absent = set(lately) - set(sizes["coin_id"])
    ordered = sizes.sort_values(["market_cap_usd", "coin_id"], ascending=[False, True])
    largest = ordered.head(max(0, tracked - len(absent - set(always))))["coin_id"]
    return frozenset([*largest, *absent, *always])


def coins_with_rows(warehouse: Warehouse, first: date, last: date) -> frozenset[str]:
    """Return the coins that have a stored close on a day of [first, last]."""
    rows = warehouse.query(
        "SELECT DISTINCT coin_id FROM market_caps WHERE date BETWEEN ? AND ?",
        [first, last],
        purpose="reading the universe",
    )
    return frozenset(rows["coin_id"])
