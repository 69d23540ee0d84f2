"""From the answers of many coins to one batch: rows with their provenance, and what is not there.

Shared by every table that is filled coin by coin. What a row looks like is each table's own. Whole
slices are arrays here: a frame for each answer would cost more than all the rest of a backfill.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from crypto_assets.assets.deliveries import Asked, Histories, Interval
from crypto_assets.periods import DAY, close_of, is_final
from crypto_assets.providers.coingecko_frames import REFUSED
from crypto_assets.providers.fetched import Fetched
from crypto_assets.providers.routes import Call
from crypto_assets.tables import Table
from crypto_assets.warehouse.gaps import Gap, Inspection
from crypto_assets.warehouse.writer import Batch

# How long a provider may be late before a day is taken for one it does not have.
GRACE = timedelta(hours=48)
# As many coins without a day are a provider that is late.
_SILENCE = 3
# The HTTP status for a coin that the provider does not know, or not any more.
UNKNOWN = 404
_APPROXIMATE = "approximate"

Answer = tuple[Call, Fetched[pd.DataFrame]]
Columns = Mapping[str, npt.NDArray[Any]]
_Whole = npt.NDArray[np.int64]
_Truth = npt.NDArray[np.bool_]

# Days are counted as `date.toordinal`, and of many coins as coin * _ALL_DAYS + day.
_ALL_DAYS = 1 << 22
_EPOCH = date(1970, 1, 1).toordinal()
_DAY_NS = DAY // timedelta(microseconds=1) * 1_000


@dataclass(frozen=True)
class Filling:
    """How answers become rows of a table.

    rows: from one call's answer to its time column (datetime64[ns], ascending) and value columns.
    more: adds the columns that follow from the time alone, to all rows of a slice.
    """

    table: Table
    rows: Callable[[Call, Fetched[pd.DataFrame]], Columns]
    more: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows


def history_batch(
    histories: Histories, answers: Sequence[Sequence[Answer]], filling: Filling
) -> Batch:
    """Return the rows of the answers (one sequence for each asked coin), and what is not there.

    Rows come ordered by time, then coin; text columns are categories.
    """
    asked = histories.asked
    wanted = _day_keys([of_coin.wanted for of_coin in asked])
    pieces = _pieces(asked, answers, filling)
    found = _found(pieces, wanted, filling, histories.in_time)
    if histories.is_recheck:
        return Batch(found.rows)
    again = np.isin(wanted, _day_keys([of_coin.again for of_coin in asked]))
    told = _Told(histories, answers, wanted, found.seen_until, filling.table)
    # What is not due yet is neither there nor missing: what is known of it stays.
    missing = told.due & ~found.whole & ~again
    approximate = found.approximate & found.whole & ~again
    gaps = told.gaps(missing, approximate)
    inspected = told.inspected((found.whole | told.due) & ~again)
    return Batch(found.rows, Inspection(inspected, gaps, histories.checked_at))


@dataclass(frozen=True)
class _Piece:
    """What one answer brought, and for which of the asked."""

    place: int
    coin: str
    call: Call
    answer: Fetched[pd.DataFrame]
    columns: Columns


@dataclass(frozen=True)
class _Found:
    """The rows of a slice; of the wanted days, which are whole and which have approximate rows."""

    rows: pd.DataFrame
    seen_until: datetime | None
    whole: _Truth
    approximate: _Truth


def _pieces(
    asked: Sequence[Asked], answers: Sequence[Sequence[Answer]], filling: Filling
) -> list[_Piece]:
    """Return what came, by coin; of each coin the approximate first, as the last of a key stays."""
    found = [
        _Piece(place, of_coin.coin, call, answer, filling.rows(call, answer))
        for place, (of_coin, answered) in enumerate(zip(asked, answers, strict=True))
        for call, answer in answered
    ]
    found = [piece for piece in found if len(piece.columns[filling.table.time_column or ""])]
    return sorted(found, key=lambda p: (p.coin, p.place, p.call.exactness != _APPROXIMATE))


def _found(
    pieces: Sequence[_Piece], wanted: _Whole, filling: Filling, in_time: Sequence[Interval]
) -> _Found:
    table = filling.table
    nothing = np.zeros(len(wanted), dtype=bool)
    if not pieces:
        return _Found(pd.DataFrame(), None, nothing, nothing)
    time_column = table.time_column or ""
    times = np.concatenate([piece.columns[time_column] for piece in pieces])
    piece_of = np.repeat(np.arange(len(pieces)), [len(p.columns[time_column]) for p in pieces])
    period = DAY / table.rows_a_day
    seen_until = pd.Timestamp(times.max()).to_pydatetime() + period

    days = times.astype("datetime64[ns]").view(np.int64) // _DAY_NS + _EPOCH
    pair_of, is_mine = _pairs(pieces, piece_of, days, wanted)
    at = np.flatnonzero(is_mine)
    # Pieces come by coin, so that a stable sort by time leaves the rows of a time by coin.
    at = at[np.argsort(times[at], kind="stable")]
    at = at[_is_last(times[at], np.array([p.place for p in pieces])[piece_of[at]])]
    whole = np.bincount(pair_of[at], minlength=len(wanted)) >= table.rows_a_day
    is_rebuilt = np.array([p.call.exactness == _APPROXIMATE for p in pieces])
    rebuilt = at[is_rebuilt[piece_of[at]]]
    approximate = np.bincount(pair_of[rebuilt], minlength=len(wanted)) > 0
    if not len(at):
        return _Found(pd.DataFrame(), seen_until, whole, approximate)
    values = {
        name: np.concatenate([piece.columns[name] for piece in pieces])[at]
        for name in pieces[0].columns
    }
    rows = filling.more(_with_provenance(values, pieces, piece_of[at], table))
    if "is_point_in_time" in table.content_columns:
        rows["is_point_in_time"] = _within(days[at], in_time)
    return _Found(rows, seen_until, whole, approximate)


def _with_provenance(
    values: Columns, pieces: Sequence[_Piece], piece_of: _Whole, table: Table
) -> pd.DataFrame:
    """Return rows with what is known of the answers they come from."""
    observed_at = np.array([p.answer.observed_at for p in pieces], dtype="datetime64[us]")
    ready_after = np.timedelta64(DAY / table.rows_a_day + table.ready_after)
    is_ready = values[table.time_column or ""] + ready_after <= observed_at[piece_of]
    columns = {
        **values,
        "coin_id": _texts([p.coin for p in pieces], piece_of),
        "is_final": is_ready,
        "source": _texts([p.answer.source for p in pieces], piece_of),
        "observed_at": observed_at[piece_of],
        "raw_id": _texts([p.answer.raw_id for p in pieces], piece_of),
    }
    if table.has_exactness:
        columns["exactness"] = _texts([p.call.exactness for p in pieces], piece_of)
    return pd.DataFrame(columns, copy=False)


def _texts(of_pieces: Sequence[str | None], piece_of: _Whole) -> pd.Categorical:
    """Return each row's text as categories, from the text of its piece."""
    texts = sorted({text for text in of_pieces if text is not None})
    codes = {text: code for code, text in enumerate(texts)}
    code_of = np.array([-1 if text is None else codes[text] for text in of_pieces])
    told: pd.Index[str] = pd.Index(texts, dtype=object)
    return pd.Categorical.from_codes(code_of[piece_of], told)  # type: ignore[arg-type]


def _pairs(
    pieces: Sequence[_Piece], piece_of: _Whole, days: _Whole, wanted: _Whole
) -> tuple[_Whole, _Truth]:
    """Return each row's place among the wanted days, and whether it is there by right.

    An answer reaches beyond its days, where it is cut off or another call knows better.
    """
    keys = np.array([p.place for p in pieces])[piece_of] * _ALL_DAYS + days
    first = np.array([p.call.first.toordinal() for p in pieces])[piece_of]
    last = np.array([p.call.last.toordinal() for p in pieces])[piece_of]
    pair_of = np.minimum(np.searchsorted(wanted, keys), max(len(wanted) - 1, 0))
    if not len(wanted):
        return pair_of, np.zeros(len(keys), dtype=bool)
    return pair_of, (wanted[pair_of] == keys) & (first <= days) & (days <= last)


def _is_last(times: npt.NDArray[Any], places: _Whole) -> _Truth:
    """Tell which of the ordered rows is the last one of its coin and time."""
    last = np.ones(len(times), dtype=bool)
    last[:-1] = (times[1:] != times[:-1]) | (places[1:] != places[:-1])
    return last


def _day_keys(by_place: Sequence[Sequence[Interval]]) -> _Whole:
    """Return the days of each one's intervals as keys, ascending and without doubles."""
    firsts, lengths = [], []
    for place, intervals in enumerate(by_place):
        for first, last in intervals:
            firsts.append(place * _ALL_DAYS + first.toordinal())
            lengths.append((last - first).days + 1)
    counts = np.array(lengths, dtype=np.int64)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.unique(np.repeat(np.array(firsts, dtype=np.int64), counts) + offsets)


def _within(days: _Whole, intervals: Sequence[Interval]) -> _Truth:
    """Tell which days are in one of the intervals, which are ascending."""
    if not intervals:
        return np.zeros(len(days), dtype=bool)
    first = np.array([interval[0].toordinal() for interval in intervals])
    last = np.array([interval[1].toordinal() for interval in intervals])
    place = np.searchsorted(first, days, side="right") - 1
    return (place >= 0) & (days <= last[place])


class _Told:
    """What can be said of the wanted days: which are due, and why one is not there."""

    def __init__(
        self,
        histories: Histories,
        answers: Sequence[Sequence[Answer]],
        wanted: _Whole,
        seen_until: datetime | None,
        table: Table,
    ) -> None:
        self._asked = histories.asked
        self._answers = answers
        self._place = wanted // _ALL_DAYS
        days, self._day = np.unique(wanted % _ALL_DAYS, return_inverse=True)
        self._days = [date.fromordinal(day) for day in days.tolist()]
        closes = [close_of(day) for day in self._days]
        is_crowd = sum(1 for of_coin in histories.asked if of_coin.calls) >= _SILENCE
        # Where no coin at all reaches the day, the provider is at fault rather than they.
        self._is_stuck = [is_crowd and (seen_until is None or seen_until < at) for at in closes]
        self._is_young = [histories.now - at < GRACE for at in closes]
        due = [is_final(at, histories.now, table.ready_after) for at in closes]
        self.due: _Truth = np.array(due, dtype=bool)[self._day]

    def inspected(self, chosen: _Truth) -> dict[str, list[date]]:
        """Return the chosen days, by coin."""
        found: dict[str, list[date]] = {of_coin.coin: [] for of_coin in self._asked}
        for place, day in zip(
            self._place[chosen].tolist(), self._day[chosen].tolist(), strict=True
        ):
            found[self._asked[place].coin].append(self._days[day])
        return found

    def gaps(self, missing: _Truth, approximate: _Truth) -> list[Gap]:
        """Return why days are not there, or not exact."""
        return [*self._missing(missing), *self._approximate(approximate)]

    def _missing(self, missing: _Truth) -> Iterator[Gap]:
        places, days = self._place[missing].tolist(), self._day[missing].tolist()
        refused = {place: self._refused(place) for place in set(places)}
        for place, at in zip(places, days, strict=True):
            asked, day = self._asked[place], self._days[at]
            if day in refused[place]:
                yield Gap(asked.coin, day, "missing", refused[place][day])
                continue
            is_young = self._is_young[at]
            yield _gap(asked, day, may_come=is_young or self._is_stuck[at], is_young=is_young)

    def _approximate(self, approximate: _Truth) -> Iterator[Gap]:
        for place, at in zip(
            self._place[approximate].tolist(), self._day[approximate].tolist(), strict=True
        ):
            coin, day = self._asked[place].coin, self._days[at]
            yield Gap(coin, day, "approximate", "rebuilt from hourly prices")

    def _refused(self, place: int) -> dict[date, str]:
        """Return the days of which a point or candle came that can't be, and why it can't."""
        return {
            # Points and candles are stamped with the end of what they are of.
            (stamp - pd.Timedelta(microseconds=1)).date(): reason
            for _, answer in self._answers[place]
            for stamp, reason in answer.data.attrs.get(REFUSED, {}).items()
        }


def _gap(asked: Asked, day: date, *, may_come: bool, is_young: bool) -> Gap:
    """Say whether a day that is not there may still come, or will not."""
    if asked.refusal is None:
        if may_come:
            return Gap(asked.coin, day, "missing", "not at the provider yet")
    elif asked.refusal.status != UNKNOWN or is_young:
        return Gap(asked.coin, day, "missing", str(asked.refusal))
    return Gap(asked.coin, day, "no_data_at_provider", "the provider has no value")
