"""The raw store gives back what was accepted, and says clearly when it cannot."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crypto_assets.providers.raw import RawStore, RawStoreError

AT = datetime.fromisoformat("2026-07-06 00:10:00.000123")


def add(store: RawStore, body: bytes = b"[]", **changes: Any) -> str:
    request: dict[str, Any] = {
        "provider": "coingecko",
        "endpoint": "coins/{id}/ohlc",
        "path_params": {"id": "bitcoin"},
        "params": {"days": 1, "vs_currency": "usd"},
        "observed_at": AT,
    }
    return store.append(body=body, **{**request, **changes})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=2000), st.text(st.characters(codec="utf-8"), max_size=50))
def test_any_body_and_id_come_back_unchanged(raw: RawStore, body: bytes, coin: str) -> None:
    meta, stored = raw.read(add(raw, body, path_params={"id": coin}))
    assert stored == body
    assert meta.path_params == {"id": coin}
    assert meta.observed_at == AT


def test_the_request_is_kept_with_the_body(raw: RawStore) -> None:
    meta, _ = raw.read(add(raw, sandbox=True))
    assert meta.provider == "coingecko"
    assert meta.endpoint == "coins/{id}/ohlc"
    assert meta.params == {"days": 1, "vs_currency": "usd"}
    assert meta.sandbox
    assert meta.sha256 == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"


def test_ids_are_the_same_in_every_store_and_tell_requests_apart(
    raw: RawStore, tmp_path: Path
) -> None:
    with closing(RawStore(tmp_path / "other.sqlite")) as other:
        assert add(raw) == add(other)
    assert add(raw) != add(raw, path_params={"id": "ethereum"})
    assert add(raw) != add(raw, observed_at=AT + timedelta(microseconds=1))
    assert add(raw) != add(raw, b"[1]")


def test_the_same_answer_at_the_same_moment_is_kept_once(raw: RawStore) -> None:
    assert add(raw) == add(raw, params={"vs_currency": "usd", "days": 1})
    assert raw.count() == 1


def test_the_newest_answer_to_a_request_is_found(raw: RawStore) -> None:
    request = ("coingecko", "coins/{id}/ohlc", {"id": "bitcoin"}, {"vs_currency": "usd", "days": 1})
    assert raw.latest(*request) is None
    newest = add(raw, b"[2]", observed_at=AT + timedelta(days=1))
    add(raw, b"[1]")
    found = raw.latest(*request)
    assert found is not None
    assert found.raw_id == newest


def test_entries_come_in_the_order_they_were_appended(raw: RawStore) -> None:
    ids = [add(raw, path_params={"id": str(i)}) for i in range(1100)]
    assert [meta.raw_id for meta in raw.entries()] == ids


def test_pruning_removes_only_what_is_older(raw: RawStore) -> None:
    add(raw, observed_at=AT - timedelta(days=1))
    kept = add(raw)
    assert raw.prune(AT) == 1
    assert [meta.raw_id for meta in raw.entries()] == [kept]


def test_an_unknown_id_is_a_key_error(raw: RawStore) -> None:
    with pytest.raises(KeyError, match="nothing"):
        raw.read("nothing")


def test_a_damaged_body_is_noticed(raw: RawStore, tmp_path: Path) -> None:
    raw_id = add(raw, b"[1, 2, 3]")
    raw.close()
    connection = sqlite3.connect(tmp_path / "raw.sqlite")
    with connection:
        connection.execute("UPDATE responses SET body = x'00'")
    connection.close()
    with pytest.raises(RawStoreError, match="damaged"):
        raw.read(raw_id)


def test_a_file_that_is_no_database_is_named_with_advice(tmp_path: Path) -> None:
    (tmp_path / "raw.sqlite").write_bytes(b"only text" * 1000)
    with (
        closing(RawStore(tmp_path / "raw.sqlite")) as store,
        pytest.raises(RawStoreError) as caught,
    ):
        add(store)
    assert "raw.sqlite" in str(caught.value)
    assert "check free disk space" in str(caught.value)


def test_a_full_disk_is_a_clear_error_and_the_store_goes_on_later(raw: RawStore) -> None:
    add(raw)
    with raw._file.transaction() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RawStoreError, match="full"):
        add(raw, os.urandom(200_000))
    with raw._file.transaction() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    add(raw, os.urandom(200_000))
    assert raw.count() == 2


_CHILD = """
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path
from crypto_assets.providers.raw import RawStore
with closing(RawStore(Path(sys.argv[1]))) as store:
    for i in range(100):
        store.append(provider="p", endpoint=sys.argv[2], path_params={}, params={"i": i},
                     observed_at=datetime(2026, 1, 1), body=b"x" * 1000)
"""


def test_processes_and_threads_append_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "new" / "raw.sqlite"
    children = [subprocess.Popen([sys.executable, "-c", _CHILD, str(path), name]) for name in "abc"]
    with closing(RawStore(path)) as store:
        threads = [
            threading.Thread(
                target=lambda t=t: [add(store, params={"t": t, "i": i}) for i in range(50)]
            )
            for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [child.wait() for child in children] == [0, 0, 0]
        assert store.count() == 500
