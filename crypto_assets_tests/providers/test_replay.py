"""Stored answers stand in for the provider: which are taken, what they look like, what is asked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from crypto_assets.providers.errors import ContractError
from crypto_assets.providers.fetched import Fetched
from crypto_assets.providers.raw import NotStoredError, RawStore, RawStoreError
from crypto_assets.providers.replay import Probe, Recorded, ReplayFirst

AT = datetime(2026, 7, 6, 0, 10, 0, 123)
NEWER = AT + timedelta(hours=1)
REQUEST: tuple[str, dict[str, str], dict[str, Any]] = (
    "coins/{id}/ohlc",
    {"id": "bitcoin"},
    {"vs_currency": "usd", "days": 7},
)


class Provider:
    """A provider that counts what it is asked and always answers 99."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = []

    def get(
        self,
        endpoint: str,
        path_params: Any,
        params: Any,
        parse: Callable[[bytes], Any],
        *,
        keep: bool = True,
    ) -> Fetched[Any]:
        self.asked.append((endpoint, dict(path_params), dict(params), keep))
        return Fetched(parse(b"[99]"), "coingecko/live", NEWER, "asked", ("asked",))


def add(raw: RawStore, body: bytes, observed_at: datetime = AT, **changes: Any) -> str:
    endpoint, path_params, params = REQUEST
    request: dict[str, Any] = {
        "provider": "coingecko",
        "endpoint": endpoint,
        "path_params": path_params,
        "params": params,
        "observed_at": observed_at,
    }
    return raw.append(body=body, **{**request, **changes})


def replay_first(
    raw: RawStore,
    provider: Provider,
    accept: Callable[[datetime], bool] = lambda _: True,
    *,
    sandbox: bool = False,
) -> ReplayFirst:
    return ReplayFirst("coingecko", provider, raw, accept, sandbox=sandbox)


@pytest.mark.parametrize(
    ("sandbox", "source"),
    [(True, "sandbox/coingecko/coins/{id}/ohlc"), (False, "coingecko/coins/{id}/ohlc")],
)
def test_a_stored_answer_comes_as_if_it_came_just_now_and_nobody_is_asked(
    raw: RawStore, sandbox: bool, source: str
) -> None:
    raw_id = add(raw, b"[1, 2]", sandbox=sandbox)
    provider = Provider()
    found = replay_first(raw, provider, sandbox=sandbox).get(*REQUEST, json.loads)
    assert found == Fetched([1, 2], source, AT, raw_id, (raw_id,))
    assert provider.asked == []


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_sandbox_and_a_live_host_never_answer_for_each_other(
    raw: RawStore, sandbox: bool
) -> None:
    add(raw, b"[1]", NEWER, sandbox=not sandbox)
    provider = Provider()
    assert replay_first(raw, provider, sandbox=sandbox).get(*REQUEST, json.loads).data == [99]
    assert provider.asked == [(*REQUEST, True)]
    # Nor does a newer one of the other kind hide an older one of this.
    add(raw, b"[2]", AT, sandbox=sandbox)
    assert replay_first(raw, provider, sandbox=sandbox).get(*REQUEST, json.loads).data == [2]
    assert len(provider.asked) == 1


@pytest.mark.parametrize("sandbox", [True, False])
def test_the_newest_stored_answer_is_that_of_the_kind_asked_for(
    raw: RawStore, sandbox: bool
) -> None:
    endpoint, path_params, params = REQUEST
    add(raw, b"[1]", NEWER, sandbox=not sandbox)
    request = ("coingecko", endpoint, path_params, params)
    assert raw.latest(*request, sandbox=sandbox) is None
    raw_id = add(raw, b"[2]", AT, sandbox=sandbox)
    found = raw.latest(*request, sandbox=sandbox)
    assert found is not None
    assert (found.raw_id, found.sandbox) == (raw_id, sandbox)


def test_an_answer_of_a_live_host_is_not_marked_as_sandbox(raw: RawStore) -> None:
    add(raw, b"[1]")
    assert (
        replay_first(raw, Provider()).get(*REQUEST, json.loads).source
        == "coingecko/coins/{id}/ohlc"
    )


def test_the_order_of_parameters_makes_no_other_request(raw: RawStore) -> None:
    add(raw, b"[1]")
    provider = Provider()
    endpoint, path_params, _ = REQUEST
    found = replay_first(raw, provider).get(
        endpoint, path_params, {"days": 7, "vs_currency": "usd"}, json.loads
    )
    assert found.data == [1]
    assert provider.asked == []


@pytest.mark.parametrize(
    "other",
    [
        ("coins/{id}/market_chart", {"id": "bitcoin"}, {"vs_currency": "usd", "days": 7}),
        ("coins/{id}/ohlc", {"id": "ethereum"}, {"vs_currency": "usd", "days": 7}),
        ("coins/{id}/ohlc", {"id": "bitcoin"}, {"vs_currency": "usd", "days": 14}),
    ],
)
def test_only_the_very_request_is_answered_from_the_store(
    raw: RawStore, other: tuple[str, dict[str, str], dict[str, Any]]
) -> None:
    add(raw, b"[1]")
    provider = Provider()
    assert replay_first(raw, provider).get(*other, json.loads).data == [99]
    assert provider.asked == [(*other, True)]


def test_another_providers_answer_is_not_taken(raw: RawStore) -> None:
    add(raw, b"[1]", provider="farside")
    assert replay_first(raw, Provider()).get(*REQUEST, json.loads).data == [99]


def test_the_newest_answer_is_judged_by_when_it_was_observed(raw: RawStore) -> None:
    add(raw, b"[2]", NEWER)
    add(raw, b"[1]", AT)
    told: list[datetime] = []

    def accept(observed_at: datetime) -> bool:
        told.append(observed_at)
        return True

    assert replay_first(raw, Provider(), accept).get(*REQUEST, json.loads).data == [2]
    assert told == [NEWER]


def test_an_answer_that_is_not_accepted_is_asked_for_again(raw: RawStore) -> None:
    add(raw, b"[1]")
    provider = Provider()
    found = replay_first(raw, provider, lambda _: False).get(*REQUEST, json.loads)
    assert (found.data, found.raw_id) == ([99], "asked")
    assert len(provider.asked) == 1


def test_a_refused_answer_is_asked_for_again_and_an_older_good_one_serves(raw: RawStore) -> None:
    older, newer = add(raw, b"[1]", AT), add(raw, b"[2]", NEWER)
    raw.refuse([newer])
    provider = Provider()
    assert replay_first(raw, provider).get(*REQUEST, json.loads).raw_id == older
    raw.refuse([older])
    assert replay_first(raw, provider).get(*REQUEST, json.loads).data == [99]
    assert len(provider.asked) == 1


def test_what_can_not_be_read_any_more_is_asked_for_again(raw: RawStore) -> None:
    add(raw, b"old")
    provider = Provider()

    def parse(body: bytes) -> str:
        if body == b"old":
            raise ContractError("ohlc", "the form of today", "old")
        return body.decode()

    assert replay_first(raw, provider).get(*REQUEST, parse).data == "[99]"
    assert len(provider.asked) == 1


def test_what_is_not_to_be_kept_is_always_asked_for(raw: RawStore) -> None:
    add(raw, b"[1]")
    provider = Provider()
    assert replay_first(raw, provider).get(*REQUEST, json.loads, keep=False).data == [99]
    assert provider.asked == [(*REQUEST, False)]


def test_a_damaged_stored_body_is_told_and_asked_for_again(
    raw: RawStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    raw_id = add(raw, b"[1]")
    raw.close()
    with closing(sqlite3.connect(tmp_path / "raw.sqlite")) as connection, connection:
        connection.execute("UPDATE responses SET body = x'00'")
    provider = Provider()
    found = replay_first(raw, provider).get(*REQUEST, json.loads)
    assert (found.data, found.raw_ids) == ([99], ("asked",))
    assert provider.asked == [(*REQUEST, True)]
    assert "damaged" in caplog.text
    with pytest.raises(RawStoreError, match="damaged"):
        raw.read(raw_id)


def test_a_stored_body_that_is_gone_by_the_time_it_is_read_is_asked_for_again(
    raw: RawStore,
) -> None:
    add(raw, b"[1]")

    def pruned_meanwhile(_: datetime) -> bool:
        raw.prune(NEWER)
        return True

    provider = Provider()
    assert replay_first(raw, provider, pruned_meanwhile).get(*REQUEST, json.loads).data == [99]
    assert provider.asked == [(*REQUEST, True)]


def test_recorded_answers_come_in_the_order_given_whatever_is_asked(raw: RawStore) -> None:
    first, second = add(raw, b"[1]", AT), add(raw, b"[2]", NEWER)
    recorded = Recorded(raw, [second, first, second])
    got = [recorded.get("anything", {}, {"asked": n}, json.loads) for n in range(3)]
    assert [one.data for one in got] == [[2], [1], [2]]
    assert [one.raw_ids for one in got] == [(second,), (first,), (second,)]
    assert [one.observed_at for one in got] == [NEWER, AT, NEWER]
    # The source is that of the stored request, not of what is asked now.
    assert {one.source for one in got} == {"coingecko/coins/{id}/ohlc"}


def test_recorded_answers_are_read_also_when_they_were_refused(raw: RawStore) -> None:
    raw_id = add(raw, b"[1]")
    raw.refuse([raw_id])
    assert Recorded(raw, [raw_id]).get(*REQUEST, json.loads).data == [1]


def test_a_recorded_answer_that_was_pruned_is_a_not_stored_error(raw: RawStore) -> None:
    raw_id = add(raw, b"[1]")
    raw.prune(NEWER)
    with pytest.raises(NotStoredError, match=raw_id):
        Recorded(raw, [raw_id]).get(*REQUEST, json.loads)


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_recorded_answer_of_the_other_kind_is_a_not_stored_error(
    raw: RawStore, sandbox: bool
) -> None:
    raw_id = add(raw, b"[1]", sandbox=sandbox)
    with pytest.raises(NotStoredError, match=raw_id):
        Recorded(raw, [raw_id], sandbox=not sandbox).get(*REQUEST, json.loads)
    assert Recorded(raw, [raw_id], sandbox=sandbox).get(*REQUEST, json.loads).data == [1]


@pytest.mark.parametrize("sandbox", [True, False])
def test_a_probe_looks_only_at_answers_of_its_kind(raw: RawStore, sandbox: bool) -> None:
    add(raw, b"[1]", sandbox=sandbox)
    for asked in (sandbox, not sandbox):
        with pytest.raises(Probe.Told) as told:
            Probe("coingecko", raw, lambda _: True, sandbox=asked).get(*REQUEST, json.loads)
        assert told.value.is_answered is (asked == sandbox)


@pytest.mark.parametrize(
    ("is_stored", "is_accepted", "is_answered"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_a_probe_tells_whether_the_stored_answer_would_do_and_never_parses(
    raw: RawStore, is_stored: bool, is_accepted: bool, is_answered: bool
) -> None:
    if is_stored:
        add(raw, b"not even JSON")
    with pytest.raises(Probe.Told) as told:
        Probe("coingecko", raw, lambda _: is_accepted).get(*REQUEST, json.loads)
    assert told.value.is_answered is is_answered


def test_a_probe_counts_a_refused_answer_as_none(raw: RawStore) -> None:
    raw.refuse([add(raw, b"[1]")])
    with pytest.raises(Probe.Told) as told:
        Probe("coingecko", raw, lambda _: True).get(*REQUEST, json.loads)
    assert not told.value.is_answered
