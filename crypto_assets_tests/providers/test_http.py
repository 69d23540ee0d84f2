"""What the client does with answers that are late, broken, hostile or from the wrong place."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crypto_assets.providers import transport
from crypto_assets.providers.errors import (
    ContractError,
    PermanentError,
    ProviderError,
    TransientError,
    UnsendableError,
)
from crypto_assets.providers.http import SANDBOX_HEADER, HttpClient
from crypto_assets.providers.limiter import SharedLimiter
from crypto_assets.providers.payloads import json_parser
from crypto_assets.providers.raw import RawStore
from crypto_assets.providers.waits import retry_after_seconds
from crypto_assets_tests.providers.conftest import Clock
from crypto_assets_tests.providers.stub import Reply, Stub

Make = Callable[..., HttpClient]
NOON = datetime.fromisoformat("2026-07-06 12:00")
KEY = "CG-canary-5f1e0c9a7b"
parse = json_parser(lambda payload: payload, provider="coingecko")


def ask(http: HttpClient, coin: str = "bitcoin") -> Any:
    return http.get("coins/{id}/ohlc", {"id": coin}, {"days": 1}, parse)


def failure(http: HttpClient, kind: type[ProviderError], coin: str = "bitcoin") -> ProviderError:
    with pytest.raises(kind) as caught:
        ask(http, coin)
    assert type(caught.value) is kind
    return caught.value


def test_an_accepted_answer_names_its_source_its_moment_and_its_bytes(
    stub: Stub, client: Make, raw: RawStore
) -> None:
    stub.replies = [Reply(b"[1, 2]")]
    fetched = ask(client())
    assert fetched.data == [1, 2]
    assert fetched.source == "coingecko/coins/{id}/ohlc"
    assert fetched.observed_at == NOON
    meta, body = raw.read(fetched.raw_id)
    assert body == b"[1, 2]"
    assert meta.path_params == {"id": "bitcoin"}
    assert meta.params == {"days": 1}
    assert stub.seen[0].target == "/api/v3/coins/bitcoin/ohlc?days=1"
    assert stub.seen[0].headers["User-Agent"].startswith("crypto-assets/")
    assert stub.seen[0].headers["Accept-Encoding"] == "gzip"


def test_observed_at_is_when_the_accepted_attempt_began_not_the_first(
    stub: Stub, client: Make
) -> None:
    stub.replies = [Reply(status=500), Reply(status=503), Reply([1])]
    assert ask(client()).observed_at == NOON + timedelta(seconds=1 + 2)


@pytest.mark.parametrize(
    ("header", "wait"),
    [("7", 7.0), ("119", 119.0), (None, 60.0), ("soon", 60.0), ("nan", 60.0), ("0", 1.0)],
)
def test_a_429_is_not_asked_again_before_its_time(
    stub: Stub, client: Make, clock: Clock, header: str | None, wait: float
) -> None:
    headers = {} if header is None else {"Retry-After": header}
    stub.replies = [Reply("Throttled", 429, headers), Reply([1])]
    assert ask(client()).data == [1]
    assert clock.elapsed == pytest.approx(wait)


def test_a_429_may_name_a_date_and_the_servers_own_clock_counts(
    stub: Stub, client: Make, clock: Clock
) -> None:
    # The stub's Date header is the real time, far from the test's clock.
    real = datetime.now().astimezone() + timedelta(seconds=100)
    stub.replies = [
        Reply("", 429, {"Retry-After": format_datetime(real)}),
        Reply([1]),
    ]
    ask(client())
    assert 98 <= clock.elapsed <= 101


@pytest.mark.parametrize("header", ["1000000000", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_an_absurd_wait_fails_at_once_and_holds_everyone_back_for_a_bounded_time(
    stub: Stub, client: Make, clock: Clock, header: str
) -> None:
    stub.replies = [Reply("", 429, {"Retry-After": header}), Reply([1])]
    http = client()
    assert "it asked for a wait of" in str(failure(http, TransientError))
    assert clock.elapsed == 0
    assert "asked for a pause" in str(failure(http, TransientError, "ethereum"))
    assert len(stub.seen) == 1
    clock.elapsed += 900
    assert ask(http).data == [1]


def test_a_429_holds_back_every_thread(stub: Stub, client: Make, clock: Clock) -> None:
    stub.replies = [Reply("", 429, {"Retry-After": "30"}), Reply([1])]
    http = client(retry_budget_seconds=10)
    failure(http, TransientError)
    patient = client(retry_budget_seconds=100)
    assert ask(patient, "ethereum").observed_at >= NOON + timedelta(seconds=30)


def test_endless_429s_end_within_the_budget(stub: Stub, client: Make, clock: Clock) -> None:
    stub.replies = [Reply("", 429)]
    error = failure(client(retry_budget_seconds=300), TransientError)
    assert clock.elapsed <= 300
    assert error.status == 429
    assert len(stub.seen) == 6


def test_a_lasting_server_fault_is_tried_a_bounded_number_of_times(
    stub: Stub, client: Make, clock: Clock
) -> None:
    stub.replies = [Reply("<h1>Bad gateway</h1>", 502)]
    error = failure(client(), TransientError)
    assert len(stub.seen) == 8
    assert clock.naps == [1, 2, 4, 8, 16, 20, 20]
    assert error.status == 502
    assert "gave up after 8 attempts" in str(error)
    assert "Bad gateway" in str(error)
    assert "id=bitcoin" in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 422])
def test_a_permanent_refusal_is_never_asked_again(
    stub: Stub, client: Make, raw: RawStore, status: int
) -> None:
    stub.replies = [Reply({"error": "no"}, status)]
    assert failure(client(), PermanentError).status == status
    assert len(stub.seen) == 1
    assert raw.count() == 0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b""),
        Reply(b"   "),
        Reply(b"{}"),
        Reply(b'[{"id": "bitc'),
        Reply("<html>Just a moment...</html>"),
        Reply("<html></html>", headers={"Content-Type": "application/json"}),
        Reply({"error": "try later"}),
        Reply({"status": {"error_code": 429, "error_message": "slow"}}),
        Reply(b"[1, 2, 3, 4, 5, 6]", fault="truncated"),
        Reply(b"[1, 2, 3, 4, 5, 6]", fault="reset"),
        Reply(b"not gzip", headers={"Content-Encoding": "gzip"}),
        Reply(b"[" * 100_000),
    ],
)
def test_a_broken_body_is_asked_for_again_and_never_stored(
    stub: Stub, client: Make, raw: RawStore, reply: Reply
) -> None:
    stub.replies = [reply, reply, Reply([1])]
    assert ask(client()).data == [1]
    assert raw.count() == 1
    stub.replies = [reply]
    failure(client(), TransientError)
    assert raw.count() == 1


def test_a_well_formed_body_that_breaks_its_contract_is_not_asked_for_again(
    stub: Stub, client: Make, raw: RawStore
) -> None:
    def picky(payload: Any) -> Any:
        raise ContractError("bitcoin.price", "a number", payload)

    stub.replies = [Reply(["x"])]
    with pytest.raises(ContractError) as caught:
        client().get("coins/markets", {}, {"page": 1}, json_parser(picky, provider="coingecko"))
    assert str(caught.value).startswith("coingecko was asked for coins/markets (page=1): ")
    assert "bitcoin.price should be a number, not ['x']" in str(caught.value)
    assert caught.value.excerpt == '["x"]'
    assert len(stub.seen) == 1
    assert raw.count() == 0


@pytest.mark.parametrize("fault", ["drip", "drip_headers", "hang"])
def test_a_server_that_drips_or_hangs_cannot_hold_a_thread(
    stub: Stub, client: Make, fault: str
) -> None:
    stub.replies = [Reply(b"[" + b"1," * 500 + b"1]", fault=fault)]
    started = time.monotonic()
    error = failure(client(deadline_seconds=0.3, max_attempts=2), TransientError)
    assert time.monotonic() - started < 2
    assert "no complete answer within 0.3 s" in str(error)


@pytest.mark.parametrize("first", [20.0, 0.3])
def test_each_attempt_has_a_deadline_of_its_own(stub: Stub, client: Make, first: float) -> None:
    """The server is silent for 10 s: who may wait for 20 s hears of that, the other does not."""
    stub.replies = [Reply(fault="hang")]
    patient, hasty = (client(deadline_seconds=s, max_attempts=1) for s in (20.0, 0.3))
    order = [patient, hasty] if first == 20.0 else [hasty, patient]
    found: dict[HttpClient, str] = {}

    def wait(http: HttpClient) -> None:
        found[http] = str(failure(http, TransientError))

    waiting = [threading.Thread(target=wait, args=(http,)) for http in order]
    for number, thread in enumerate(waiting, start=1):
        thread.start()
        while len(stub.seen) < number:
            time.sleep(0.01)
    waiting[order.index(hasty)].join(5)
    assert "no complete answer within 0.3 s" in found[hasty]
    assert patient not in found
    stub.stop.set()
    waiting[order.index(patient)].join(5)
    assert "did not answer in full" in found[patient]


def test_a_connection_that_can_not_be_shut_down_stops_no_other_deadline(
    stub: Stub, client: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What urllib3 puts over TLS to a proxy is no socket."""
    real = transport._Watched.getresponse

    def with_no_socket(connection: Any) -> Any:
        monkeypatch.setattr(transport._Watched, "getresponse", real)
        transport._current.watch.socket = object()
        return super(transport._Watched, connection).getresponse()  # type: ignore[misc]

    monkeypatch.setattr(transport._Watched, "getresponse", with_no_socket)
    stub.replies = [Reply(fault="hang")]
    http = client(deadline_seconds=0.3, read_seconds=1.0, max_attempts=1)
    for _ in range(2):
        assert "no complete answer within 0.3 s" in str(failure(http, TransientError))


def test_a_forked_process_keeps_to_its_deadlines(stub: Stub, client: Make) -> None:
    stub.replies = [Reply([1]), Reply(fault="hang")]
    http = client(deadline_seconds=0.3, max_attempts=1)
    ask(http)
    child = os.fork()
    if child == 0:  # pragma: no cover
        told = ""
        with contextlib.suppress(BaseException):
            told = str(failure(http, TransientError))
        os._exit(0 if "no complete answer within 0.3 s" in told else 1)
    deadline = time.monotonic() + 8
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def test_a_silent_server_runs_into_the_read_time_out(stub: Stub, client: Make) -> None:
    stub.replies = [Reply(fault="hang")]
    error = failure(client(read_seconds=0.1, max_attempts=1), TransientError)
    assert "was too slow" in str(error)


def test_an_unreachable_host_is_named_with_what_to_check(client: Make, stub: Stub) -> None:
    http = client(base_url="http://127.0.0.1:9", max_attempts=2)
    error = failure(http, TransientError)
    assert "check the network and the base URL http://127.0.0.1:9" in str(error)


@pytest.mark.parametrize(
    ("coin", "path"),
    [
        ("1move token", "1move%20token"),
        ("boringdao-[old]", "boringdao-%5Bold%5D"),
        ("a/b", "a%2Fb"),
        ("../../key", "..%2F..%2Fkey"),
        ("%2F", "%252F"),
        ("?x=1", "%3Fx%3D1"),
        ("a#b", "a%23b"),
        ("nul\x00", "nul%00"),
        ("x'); DROP TABLE t;--", "x%27%29%3B%20DROP%20TABLE%20t%3B--"),
        ("\u202eevil", "%E2%80%AEevil"),
        ("{id}", "%7Bid%7D"),
        ("10€", "10%E2%82%AC"),
    ],
)
def test_a_hostile_id_stays_one_segment_of_the_path(
    stub: Stub, client: Make, coin: str, path: str
) -> None:
    stub.replies = [Reply([1])]
    ask(client(), coin)
    assert stub.seen[0].target == f"/api/v3/coins/{path}/ohlc?days=1"


@pytest.mark.parametrize("coin", ["", ".", "..", "\ud800"])
def test_an_id_that_would_change_the_path_is_refused_without_a_call(
    stub: Stub, client: Make, coin: str
) -> None:
    assert "cannot be part of a URL" in str(failure(client(), UnsendableError, coin))
    assert issubclass(UnsendableError, PermanentError)
    assert stub.seen == []


def test_sandbox_data_cannot_get_into_a_live_home(stub: Stub, client: Make, raw: RawStore) -> None:
    stub.replies = [Reply([1], headers={SANDBOX_HEADER: "1"})]
    assert "live home" in str(failure(client(), PermanentError))
    assert raw.count() == 0
    fetched = ask(client(expect_sandbox=True))
    assert fetched.source == "sandbox/coingecko/coins/{id}/ohlc"
    assert raw.read(fetched.raw_id)[0].sandbox


def test_live_data_cannot_get_into_a_sandbox_home(stub: Stub, client: Make, raw: RawStore) -> None:
    stub.replies = [Reply([1])]
    assert "sandbox" in str(failure(client(expect_sandbox=True), PermanentError))
    assert len(stub.seen) == 1
    assert raw.count() == 0


def test_a_redirect_to_another_host_is_not_followed(stub: Stub, client: Make) -> None:
    other = Stub()
    other.replies = [Reply([1])]
    try:
        stub.replies = [Reply(b"", 302, {"Location": f"{other.url}/elsewhere"})]
        http = client(headers={"x-cg-demo-api-key": KEY}, secrets=[KEY])
        error = failure(http, PermanentError)
        assert "check the base URL" in str(error)
        assert other.seen == []
    finally:
        other.close()


def test_a_redirect_on_the_same_host_is_followed(stub: Stub, client: Make) -> None:
    stub.replies = [Reply(b"", 301, {"Location": "/moved"}), Reply([1])]
    assert ask(client()).data == [1]
    assert stub.seen[1].target == "/moved"


def test_redirects_in_a_circle_end(stub: Stub, client: Make) -> None:
    stub.replies = [Reply(b"", 302, {"Location": "/round"})]
    failure(client(), PermanentError)
    assert len(stub.seen) <= 5


def test_each_attempt_takes_a_permit(
    stub: Stub, client: Make, clock: Clock, tmp_path: Path
) -> None:
    stub.replies = [Reply(status=500), Reply(status=500), Reply([1])]
    shared = SharedLimiter(
        tmp_path / "limit", 2, wall=clock.wall, monotonic=clock.monotonic, sleep=clock.sleep
    )
    with shared:
        http = client(limiter=shared)
        ask(http)
    assert clock.elapsed > 60
    assert http.calls == 3
    assert http.credits == 1


def _everything_said(error: BaseException) -> str:
    """All that a logger, Dagster or a user could print of an exception and what it hangs on."""
    seen: list[BaseException] = []
    todo: list[BaseException | None] = [error]
    while todo:
        current = todo.pop()
        if current is not None and current not in seen:
            seen.append(current)
            todo += [current.__cause__, current.__context__]
    texts = [repr(e) + str(e) + repr(e.args) + repr(vars(e)) for e in seen]
    return "".join(texts) + "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"status": {"error_code": 10002, "error_message": f"bad key {KEY}"}}, 401),
        Reply({"error": f"who is {KEY}"}, 404),
        Reply(f"<html>{'x' * 190}{KEY}</html>", 200),
        Reply(f"upstream {KEY} failed", 502),
        Reply(f"{KEY} is throttled", 429, {"Retry-After": "1000000000"}),
        Reply({"unexpected": KEY}),
        Reply(f"[{KEY}", fault="truncated"),
        Reply(b"", 302, {"Location": f"http://{KEY}.example/"}),
        Reply(b"", 302, {"Location": f"/{KEY}"}),
        Reply(fault="hang"),
    ],
)
def test_the_key_is_in_no_error_log_or_stored_byte(
    stub: Stub,
    client: Make,
    raw: RawStore,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    reply: Reply,
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.replies = [reply]
    http = client(
        headers={"x-cg-demo-api-key": KEY}, secrets=[KEY], max_attempts=2, deadline_seconds=0.2
    )

    def refuse(payload: Any) -> Any:
        raise ContractError("payload", "a list", payload)

    with pytest.raises(ProviderError) as caught:
        http.get("coins/list", {}, {}, json_parser(refuse, provider="coingecko"))
    assert stub.seen[0].headers["x-cg-demo-api-key"] == KEY
    assert KEY not in _everything_said(caught.value)
    if "Location" not in reply.headers:
        assert KEY not in caplog.text
    assert KEY not in repr(http) + repr(vars(caught.value))


def test_a_key_echoed_in_good_data_is_masked_before_it_is_parsed_and_stored(
    stub: Stub, client: Make, raw: RawStore, tmp_path: Path
) -> None:
    stub.replies = [Reply(["ok", KEY])]
    fetched = ask(client(headers={"x-cg-demo-api-key": KEY}, secrets=[KEY]))
    assert fetched.data == ["ok", "***"]
    assert raw.read(fetched.raw_id)[1] == b'["ok", "***"]'
    raw.close()
    connection = sqlite3.connect(tmp_path / "raw.sqlite")
    dump = "".join(str(row) for row in connection.execute("SELECT * FROM responses"))
    connection.close()
    assert KEY not in dump


@pytest.mark.parametrize("key", ["CG-\nnewline", "CG-é", " CG-space", ""])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    client: Make, key: str
) -> None:
    with pytest.raises(ValueError, match="x-cg-demo-api-key") as caught:
        client(headers={"x-cg-demo-api-key": key}, secrets=[key])
    assert "CG-" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "ftp://x", "host/path", "https://", "https://u:p@host"])
def test_a_base_url_that_cannot_work_is_refused_at_once(client: Make, url: str) -> None:
    with pytest.raises(ValueError, match="base URL"):
        client(base_url=url)


def test_many_threads_use_one_client(stub: Stub, client: Make, raw: RawStore) -> None:
    stub.replies = [Reply([1])]
    http = client()
    problems: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for i in range(10):
                ask(http, f"{name}-{i}")
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert raw.count() == 80
    assert http.calls == 80


@given(st.text(max_size=40))
def test_no_retry_after_header_breaks_the_client(header: str) -> None:
    seconds = retry_after_seconds(header, NOON)
    assert seconds is None or 0 <= seconds < 1e12


def test_a_retry_after_in_the_past_means_now() -> None:
    assert retry_after_seconds("Sun, 05 Jul 2026 12:00:00 GMT", NOON) == 0
    assert retry_after_seconds("Mon, 06 Jul 2026 12:01:30 GMT", NOON) == 90
    assert retry_after_seconds("-5", NOON) == 0


def test_ids_come_back_from_the_raw_store_as_they_were_asked(
    stub: Stub, client: Make, raw: RawStore
) -> None:
    stub.replies = [Reply([1])]
    for coin in ("a/b", "../..", "%2F", "nul\x00", "[old] x"):
        fetched = ask(client(), coin)
        assert raw.read(fetched.raw_id)[0].path_params == {"id": coin}
