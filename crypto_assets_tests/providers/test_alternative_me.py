"""The Fear & Greed payload, as recorded and as it could go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.providers.alternative_me import FearGreed, parse_fear_greed
from crypto_assets.providers.errors import ContractError, TransientError
from crypto_assets.providers.http import HttpClient
from crypto_assets_tests.providers.stub import Reply, Stub

FIRST_OF_2024 = 1_704_067_200


def entry(day: int = 0, value: Any = "50", label: Any = "Neutral") -> dict[str, Any]:
    return {
        "value": value,
        "value_classification": label,
        "timestamp": str(FIRST_OF_2024 + day * 86_400),
    }


def payload(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"name": "Fear and Greed Index", "data": list(entries), "metadata": {"error": None}}


def test_the_recorded_days_are_read_ascending(recordings: Path) -> None:
    body = json.loads((recordings / "alternative_me" / "fng_limit_2.json").read_text())
    frame = parse_fear_greed(body)
    assert frame.to_dict("records") == [
        {"date": pd.Timestamp("2026-09-07"), "value": 71, "label": "Greed"},
        {"date": pd.Timestamp("2026-09-08"), "value": 69, "label": "Greed"},
    ]
    assert [str(t) for t in frame.dtypes] == ["datetime64[ns]", "int64", "object"]


@given(st.dictionaries(st.integers(-2000, 5000), st.integers(0, 100), min_size=1))
def test_every_day_comes_back_once_in_order(days: dict[int, int]) -> None:
    frame = parse_fear_greed(payload(*(entry(d, str(v)) for d, v in days.items())))
    assert list(frame["value"]) == [days[d] for d in sorted(days)]
    assert frame["date"].is_monotonic_increasing
    assert frame["date"].is_unique


def test_identical_duplicates_are_one_day() -> None:
    assert len(parse_fear_greed(payload(entry(), entry(), entry(1)))) == 2


@pytest.mark.parametrize("other", [entry(value="51"), entry(label="Greed")])
def test_contradictory_duplicates_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match="2024-01-01"):
        parse_fear_greed(payload(entry(), other))


@pytest.mark.parametrize("value", ["101", "-1", "", "50.5", None, True, 50.0, "٥", [1], 999])
def test_a_value_out_of_0_to_100_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ContractError, match="value"):
        parse_fear_greed(payload(entry(value=value)))


@pytest.mark.parametrize("stamp", ["", "soon", "99", "99999999999", None, 1.5])
def test_a_stamp_that_is_no_time_is_refused_by_name(stamp: Any) -> None:
    with pytest.raises(ContractError, match="timestamp"):
        parse_fear_greed(payload({**entry(), "timestamp": stamp}))


@pytest.mark.parametrize("name", ["value", "value_classification", "timestamp"])
def test_a_field_that_is_gone_is_named(name: str) -> None:
    row = entry()
    del row[name]
    with pytest.raises(ContractError, match=name):
        parse_fear_greed(payload(row))


@pytest.mark.parametrize(
    "body",
    [
        {"data": None, "metadata": {"error": "down"}},
        {"data": [entry()], "metadata": {"error": "down"}},
        {"data": None, "metadata": {"error": None}},
        {"name": "x"},
    ],
)
def test_an_error_of_the_provider_is_never_an_empty_frame(body: Any) -> None:
    with pytest.raises(TransientError):
        parse_fear_greed(body)


def test_no_days_at_all_are_refused() -> None:
    with pytest.raises(ContractError, match="at least one day"):
        parse_fear_greed(payload())


def test_the_whole_history_is_asked_for_by_default(
    stub: Stub, client: Callable[..., HttpClient]
) -> None:
    stub.replies = [Reply(payload(entry()))]
    http = client(provider="alternative_me", base_url=f"{stub.url}/alternative_me")
    fetched = FearGreed(http).history()
    assert stub.seen[0].target == "/alternative_me/fng/?limit=0"
    assert fetched.source == "alternative_me/fng"
    assert list(fetched.data["value"]) == [50]
