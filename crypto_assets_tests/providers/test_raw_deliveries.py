"""What the raw store knows beyond bodies: deliveries, refusals, how old and large it may get."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from crypto_assets.providers.raw import Delivery, NotStoredError, RawStore, RawStoreError

AT = datetime(2026, 7, 6, 0, 10, 0, 123)
HOUR = timedelta(hours=1)
REQUEST = ("coingecko", "coins/{id}/ohlc", {"id": "bitcoin"}, {"days": 7})


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawStore]:
    with closing(RawStore(tmp_path / "raw.sqlite")) as store:
        yield store


def add(store: RawStore, observed_at: datetime = AT, body: bytes = b"[]") -> str:
    provider, endpoint, path_params, params = REQUEST
    return store.append(
        provider=provider,
        endpoint=endpoint,
        path_params=path_params,
        params=params,
        observed_at=observed_at,
        body=body,
    )


def test_deliveries_come_back_unchanged_and_in_order(raw: RawStore) -> None:
    noted = [
        Delivery(f"table {n}", f"run {n % 3}", AT - n * HOUR, os.urandom(50)) for n in range(1_100)
    ]
    for delivery in noted:
        raw.deliver(delivery)
    assert list(raw.deliveries()) == noted
    assert raw.count_deliveries() == 1_100


def test_the_same_write_noted_twice_is_there_twice(raw: RawStore) -> None:
    delivery = Delivery("ranks", "run", AT, b"{}")
    raw.deliver(delivery)
    raw.deliver(delivery)
    assert list(raw.deliveries()) == [delivery, delivery]


def test_deliveries_outlive_the_process_and_count_as_no_response(
    raw: RawStore, tmp_path: Path
) -> None:
    raw.deliver(Delivery("ranks", "run", AT, b'{"kind": "listing"}'))
    raw.close()
    with closing(RawStore(tmp_path / "raw.sqlite")) as again:
        assert [delivery.details for delivery in again.deliveries()] == [b'{"kind": "listing"}']
        assert again.count() == 0
        assert list(again.entries()) == []


def test_a_store_made_before_there_were_deliveries_gets_them(raw: RawStore, tmp_path: Path) -> None:
    kept = add(raw)
    raw.close()
    with closing(sqlite3.connect(tmp_path / "raw.sqlite")) as connection, connection:
        for table in ("deliveries", "refused", "pruned"):
            connection.execute(f"DROP TABLE {table}")
    with closing(RawStore(tmp_path / "raw.sqlite")) as again:
        again.deliver(Delivery("ranks", "run", AT, b"{}"))
        assert again.count_deliveries() == 1
        assert again.read(kept)[1] == b"[]"
        assert again.pruned_before() is None


def test_a_refused_answer_is_kept_but_never_the_newest_again(raw: RawStore) -> None:
    older, newer = add(raw, AT), add(raw, AT + HOUR, b"[1]")
    raw.refuse([newer])
    found = raw.latest(*REQUEST)
    assert found is not None
    assert found.raw_id == older
    assert raw.read(newer)[1] == b"[1]"
    raw.refuse([older])
    assert raw.latest(*REQUEST) is None
    assert raw.count() == 2


def test_refusing_twice_or_nothing_or_something_unknown_is_fine(raw: RawStore) -> None:
    raw_id = add(raw)
    raw.refuse([])
    raw.refuse([raw_id, raw_id])
    raw.refuse([raw_id, "never stored"])
    assert raw.latest(*REQUEST) is None


def test_an_answer_that_comes_after_a_refused_one_is_taken(raw: RawStore) -> None:
    raw.refuse([add(raw)])
    later = add(raw, AT + HOUR)
    found = raw.latest(*REQUEST)
    assert found is not None
    assert found.raw_id == later


def test_pruning_takes_responses_and_deliveries_from_before_the_moment_only(raw: RawStore) -> None:
    gone, kept = add(raw, AT - HOUR), add(raw, AT)
    for n in (-1, 0, 1):
        raw.deliver(Delivery("ranks", str(n), AT + n * HOUR, b"{}"))
    assert raw.prune(AT) == 1
    with pytest.raises(NotStoredError):
        raw.read(gone)
    assert raw.read(kept)[1] == b"[]"
    assert [delivery.run_id for delivery in raw.deliveries()] == ["0", "1"]


def test_what_was_pruned_is_remembered_and_nothing_pruned_is_not(raw: RawStore) -> None:
    add(raw, AT)
    assert raw.prune(AT) == 0
    assert raw.pruned_before() is None
    assert raw.prune(AT + HOUR) == 1
    assert raw.pruned_before() == AT + HOUR
    add(raw, AT - 5 * HOUR)
    assert raw.prune(AT - HOUR) == 1
    assert raw.pruned_before() == AT + HOUR


def test_a_small_young_store_is_left_alone(raw: RawStore) -> None:
    add(raw)
    raw.deliver(Delivery("ranks", "run", AT, b"{}"))
    assert raw.bound(AT - HOUR, 10_000_000) == 0
    assert raw.count() == 1
    assert raw.count_deliveries() == 1


def test_what_is_too_old_goes_even_from_a_small_store(raw: RawStore) -> None:
    for n in range(10):
        add(raw, AT + n * HOUR)
    assert raw.bound(AT + 4 * HOUR, 10_000_000) == 4
    assert [meta.observed_at for meta in raw.entries()] == [AT + n * HOUR for n in range(4, 10)]


def test_a_store_that_is_too_large_loses_its_oldest_until_it_is_small_enough(raw: RawStore) -> None:
    for n in range(40):
        add(raw, AT + n * HOUR, os.urandom(50_000))
    assert raw.size_bytes() > 2_000_000
    pruned = raw.bound(AT - HOUR, 1_000_000)
    left = [meta.observed_at for meta in raw.entries()]
    assert raw.size_bytes() <= 1_000_000
    assert left == [AT + n * HOUR for n in range(pruned, 40)]
    # At most a tenth of what was left then goes beyond what has to.
    assert len(left) * 50_000 > 800_000


def test_a_bound_smaller_than_one_response_empties_the_store_and_ends(raw: RawStore) -> None:
    for n in range(3):
        add(raw, AT + n * HOUR, os.urandom(50_000))
    assert raw.bound(AT - HOUR, 1) == 3
    assert raw.count() == 0
    assert raw.bound(AT - HOUR, 1) == 0


def test_responses_of_one_moment_do_not_keep_a_store_too_large(raw: RawStore) -> None:
    for n in range(30):
        add(raw, AT, os.urandom(20_000) + bytes([n]))
    raw.bound(AT - HOUR, 100_000)
    assert raw.size_bytes() <= 100_000


def test_a_delivery_to_a_full_disk_is_a_clear_error(raw: RawStore) -> None:
    add(raw)
    with raw._file.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RawStoreError, match="full"):
        raw.deliver(Delivery("ranks", "run", AT, os.urandom(200_000)))
    with raw._file.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    assert raw.count_deliveries() == 0
