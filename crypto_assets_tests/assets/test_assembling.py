"""Batches made of many answers, against the same rules spelled out row by row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from crypto_assets.assets.assembling import GRACE, Answer, Columns, Filling, history_batch
from crypto_assets.assets.deliveries import Asked, Histories, Interval, Refusal, expanded
from crypto_assets.periods import DAY, close_of, intervals, midnight
from crypto_assets.providers.coingecko_frames import REFUSED
from crypto_assets.providers.fetched import Fetched
from crypto_assets.providers.routes import Call
from crypto_assets.tables import MARKET_CAPS, OHLC_DAILY

START = date(2024, 2, 27)
NOW = midnight(START + 7 * DAY)
HALF_DAY = timedelta(hours=12)
# All that a table can have at once: several rows a day, exactness, a universe chosen in time.
TWICE_A_DAY = replace(
    OHLC_DAILY,
    rows_a_day=2,
    columns=(*OHLC_DAILY.columns, MARKET_CAPS.column("is_point_in_time")),
)


def as_it_came(_: Call, answer: Fetched[pd.DataFrame]) -> Columns:
    return {"date": answer.data["date"].to_numpy(), "close": answer.data["close"].to_numpy()}


FILLING = Filling(TWICE_A_DAY, as_it_came)


@dataclass(frozen=True)
class Row:
    time: datetime
    close: float
    coin: str
    call: Call
    answer: Fetched[pd.DataFrame]


@st.composite
def asked_and_answered(draw: st.DrawFn) -> tuple[list[Asked], list[list[Answer]]]:
    asked: list[Asked] = []
    answers: list[list[Answer]] = []
    chosen_days = st.sets(st.integers(0, 9).map(lambda n: START + n * DAY), min_size=1)
    for coin in draw(st.lists(st.sampled_from(["b", "a", "c", "ü"]), max_size=4, unique=True)):
        wanted = tuple(intervals(draw(chosen_days)))
        calls, answered = [], []
        for number in range(draw(st.integers(0, 3))):
            first, last = sorted(draw(st.tuples(*2 * [st.integers(0, 9)])))
            exactness = draw(st.sampled_from(["exact", "approximate"]))
            call = Call(
                "ohlc", START + first * DAY, START + last * DAY, exactness=exactness, days=number
            )
            places = sorted(draw(st.sets(st.integers(0, 19), max_size=12)))
            data = pd.DataFrame(
                {
                    "date": np.array(
                        [midnight(START) + place * HALF_DAY for place in places],
                        dtype="datetime64[ns]",
                    ),
                    "close": np.array([draw(st.floats(1, 9)) for _ in places], dtype=float),
                }
            )
            stray = draw(st.integers(0, 9))
            refused = {pd.Timestamp(START + stray * DAY): "odd"} if draw(st.booleans()) else {}
            data.attrs[REFUSED] = refused
            at = NOW + draw(st.integers(-60, 60)) * timedelta(hours=1)
            raw_id = draw(st.sampled_from([None, f"{coin}-{number}"]))
            calls.append(call)
            answered.append((call, Fetched(data, f"s/{number}", at, raw_id)))
        refusal = draw(st.sampled_from([None, Refusal("no", 404), Refusal("down", 500)]))
        again = tuple(intervals(draw(chosen_days))) if draw(st.booleans()) else ()
        asked.append(Asked(coin, wanted, tuple(calls), (), refusal, again))
        answers.append(answered)
    return asked, answers


def kept_rows(asked: Asked, answered: list[Answer]) -> dict[datetime, Row]:
    """Return a coin's rows by time: of the wanted days, exact before approximate, then the last."""
    kept: dict[datetime, Row] = {}
    for call, answer in answered:
        for stamp, close in answer.data.itertuples(index=False):
            time = stamp.to_pydatetime()
            day = time.date()
            if day not in asked.days or not call.first <= day <= call.last:
                continue
            if time in kept and (kept[time].call.exactness, call.exactness) == (
                "exact",
                "approximate",
            ):
                continue
            kept[time] = Row(time, close, asked.coin, call, answer)
    return kept


@settings(deadline=None)
@given(asked_and_answered(), st.booleans(), st.sets(st.integers(0, 9), max_size=4))
def test_a_batch_follows_the_rules_row_by_row(
    case: tuple[list[Asked], list[list[Answer]]], is_recheck: bool, in_time: set[int]
) -> None:
    asked, answers = case
    checked_at = NOW + timedelta(minutes=1)
    days_in_time: tuple[Interval, ...] = tuple(intervals(START + n * DAY for n in in_time))
    histories = Histories(NOW, checked_at, "plan", days_in_time, tuple(asked), is_recheck)
    batch = history_batch(histories, answers, FILLING)

    rows = [kept_rows(*pair) for pair in zip(asked, answers, strict=True)]
    expected = sorted(
        (row for of_coin in rows for row in of_coin.values()), key=lambda r: (r.time, r.coin)
    )
    got = batch.rows
    assert len(got) == len(expected)
    if expected:
        assert [t.to_pydatetime() for t in got["date"]] == [row.time for row in expected]
        assert got["close"].tolist() == [row.close for row in expected]
        assert got["coin_id"].tolist() == [row.coin for row in expected]
        assert got["exactness"].tolist() == [row.call.exactness for row in expected]
        assert got["source"].tolist() == [row.answer.source for row in expected]
        found_ids = [None if pd.isna(raw_id) else raw_id for raw_id in got["raw_id"]]
        assert found_ids == [row.answer.raw_id for row in expected]
        chosen = {START + n * DAY for n in in_time}
        assert got["is_point_in_time"].tolist() == [row.time.date() in chosen for row in expected]
        observed = [row.answer.observed_at for row in expected]
        assert [t.to_pydatetime() for t in got["observed_at"]] == observed
        assert got["is_final"].tolist() == [
            row.time + HALF_DAY + TWICE_A_DAY.ready_after <= row.answer.observed_at
            for row in expected
        ]
    if is_recheck:
        assert batch.inspection is None
        return
    assert batch.inspection is not None
    assert batch.inspection.checked_at == checked_at
    expect_inspected(batch.inspection, asked, answers, rows)


def expect_inspected(
    inspection: object,
    asked: list[Asked],
    answers: list[list[Answer]],
    rows: list[dict[datetime, Row]],
) -> None:
    ends = [
        stamp.to_pydatetime() + HALF_DAY
        for answered in answers
        for _, answer in answered
        for stamp in answer.data["date"]
    ]
    is_crowd = sum(bool(of_coin.calls) for of_coin in asked) >= 3
    inspected: dict[str, list[date]] = {}
    gaps: set[tuple[str, date, str, str]] = set()
    for of_coin, answered, kept in zip(asked, answers, rows, strict=True):
        inspected[of_coin.coin] = []
        refused = {
            (stamp - pd.Timedelta(1, "us")).date()
            for _, answer in answered
            for stamp in answer.data.attrs[REFUSED]
        }
        for day in of_coin.days:
            of_day = [row for row in kept.values() if row.time.date() == day]
            is_whole = len(of_day) == 2
            is_due = close_of(day) + TWICE_A_DAY.ready_after <= NOW
            if day in expanded(of_coin.again) or not (is_whole or is_due):
                continue
            inspected[of_coin.coin].append(day)
            if is_whole:
                if any(row.call.exactness == "approximate" for row in of_day):
                    gaps.add((of_coin.coin, day, "approximate", "rebuilt from hourly prices"))
                continue
            is_young = NOW - close_of(day) < GRACE
            nobody = is_crowd and (not ends or max(ends) < close_of(day))
            never = "no_data_at_provider", "the provider has no value"
            if day in refused:
                why = "missing", "odd"
            elif of_coin.refusal is None:
                late = "missing", "not at the provider yet"
                why = late if is_young or nobody else never
            elif of_coin.refusal.status == 404 and not is_young:
                why = never
            else:
                why = "missing", str(of_coin.refusal)
            gaps.add((of_coin.coin, day, *why))
    assert inspection.days == inspected  # type: ignore[attr-defined]
    found = inspection.gaps  # type: ignore[attr-defined]
    assert len(found) == len(gaps)
    assert {(gap.series, gap.day, gap.state, gap.reason) for gap in found} == gaps
