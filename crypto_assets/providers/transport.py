"""One attempt at one HTTP request: a session that keeps to its host and to its deadline.

Belongs here: connections, time-outs, the deadline of an attempt, reading a body. Does not belong
here: limits, retries, classification or parsing (``http``).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from importlib import metadata
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

LARGEST_BODY = 256 * 1024 * 1024
_CHUNK = 64 * 1024
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_current = threading.local()


class LeavesHostError(requests.RequestException):
    """A redirect to another host, which must not be followed: our key would go with it."""


class TooSlowError(requests.RequestException):
    """The attempt took longer than its deadline."""


class TooLargeError(requests.RequestException):
    """The body is larger than any real answer."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (case-insensitive) and the whole decoded body of one response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def new_session(base_url: str, headers: Mapping[str, str], threads: int) -> requests.Session:
    """A session for up to ``threads`` threads: no cookies, no netrc, redirects on one host only."""
    for name, value in headers.items():
        # requests would put the value, a key perhaps, into its message.
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            raise ValueError(f"the value for the header {name} is not plain printable text")
    session = _Session()
    session.headers.clear()
    session.headers.update(
        {
            "User-Agent": f"crypto-assets/{_version()}",
            "Accept": "application/json, text/html;q=0.9, */*;q=0.1",
            "Accept-Encoding": "gzip",
            **headers,
        }
    )
    session.max_redirects = 3
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.auth = _no_auth
    # A proxy meant for the internet must not see what goes to the sandbox.
    session.trust_env = urlsplit(base_url).hostname not in _LOOPBACK
    adapter = _Adapter(pool_connections=2, pool_maxsize=threads, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def exchange(
    session: requests.Session,
    url: str,
    params: Mapping[str, Any],
    *,
    connect_seconds: float,
    read_seconds: float,
    deadline_seconds: float,
) -> Answer:
    """GET ``url`` and read it whole; raises requests' exceptions, or TooSlowError."""
    with _Watch(deadline_seconds) as watch:
        try:
            with session.get(
                url, params=params, timeout=(connect_seconds, read_seconds), stream=True
            ) as response:
                answer = Answer(response.status_code, response.headers, _read(response))
            # A socket shut down while headers drip in looks like a complete, empty answer.
            if not watch.fired:
                return answer
        except Exception:
            # Shutting a socket down surfaces as almost anything, depending on where it was read.
            if not watch.fired:
                raise
    raise TooSlowError(f"no complete answer within {deadline_seconds:g} s")


def _read(response: requests.Response) -> bytes:
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_content(_CHUNK):
        size += len(chunk)
        if size > LARGEST_BODY:
            raise TooLargeError(f"more than {LARGEST_BODY} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


class _Watch:
    """Shuts the attempt's socket down at the deadline.

    Socket time-outs start anew with every byte, so a server that drips one byte a second could
    hold a thread for hours, in the headers as well as in the body.
    """

    def __init__(self, seconds: float) -> None:
        self.fired = False
        self.socket: socket.socket | None = None
        self._seconds = seconds
        self._deadlines = _Deadlines.of_this_process()

    def __enter__(self) -> _Watch:
        _current.watch = self
        self._deadlines.add(self, time.monotonic() + self._seconds)
        return self

    def __exit__(self, *_: object) -> None:
        self._deadlines.remove(self)
        _current.watch = None

    def fire(self) -> None:
        """Make the attempt fail, wherever it waits."""
        self.fired = True
        # TLS within the TLS to a proxy is no socket itself.
        plain: Any = getattr(self.socket, "socket", self.socket)
        # Whatever goes wrong here, other attempts wait for their deadlines.
        with contextlib.suppress(Exception):
            # Not SSLSocket's own shutdown, which forgets the session under the reader.
            socket.socket.shutdown(plain, socket.SHUT_RDWR)


class _Deadlines:
    """Fires each watch at its deadline, from one thread for all: a thread a call costs too much.

    The thread ends when it wakes and nothing is watched, and the next watch starts another one.
    """

    _by_process: ClassVar[dict[int, _Deadlines]] = {}

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._at: dict[_Watch, float] = {}
        self._wakes_at: float | None = None

    @classmethod
    def of_this_process(cls) -> _Deadlines:
        # A fork copies neither the thread nor, in a good state, its lock.
        pid = os.getpid()
        return cls._by_process.get(pid) or cls._by_process.setdefault(pid, cls())

    def add(self, watch: _Watch, at: float) -> None:
        with self._changed:
            if self._wakes_at is None:
                threading.Thread(target=self._run, name="deadlines", daemon=True).start()
                self._wakes_at = at
            elif at < self._wakes_at:
                self._changed.notify()
            self._at[watch] = at

    def remove(self, watch: _Watch) -> None:
        with self._changed:
            self._at.pop(watch, None)

    def _run(self) -> None:
        with self._changed:
            while self._at:
                self._wakes_at = min(self._at.values())
                self._changed.wait(self._wakes_at - time.monotonic())
                now = time.monotonic()
                for watch in [watch for watch, at in self._at.items() if at <= now]:
                    del self._at[watch]
                    watch.fire()
            self._wakes_at = None


class _Watched:
    """Tells the watch of the current attempt which socket it reads from."""

    sock: Any

    def getresponse(self) -> Any:
        watch = getattr(_current, "watch", None)
        if watch is not None:
            watch.socket = self.sock
            if watch.fired:
                raise TimeoutError("the deadline passed while connecting")
        return super().getresponse()  # type: ignore[misc]


class _HTTPConnection(_Watched, HTTPConnection):
    pass


class _HTTPSConnection(_Watched, HTTPSConnection):
    pass


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None:
            here, there = urlsplit(resp.url), urlsplit(urljoin(resp.url, target))
            if (here.scheme, here.netloc) != (there.scheme, there.netloc):
                resp.close()
                raise LeavesHostError(f"redirected to {there.scheme}://{there.hostname}")
        return target


def _no_auth(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _version() -> str:
    try:
        return metadata.version("crypto_assets")
    except metadata.PackageNotFoundError:
        return "0"
