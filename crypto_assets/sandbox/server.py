"""The sandbox on the wire: sockets, threads, control endpoints, and faults of transport.

What providers answer is not decided here (coingecko.py, alternative_me.py, farside.py).
"""

import json
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from crypto_assets.sandbox.answers import Answers
from crypto_assets.sandbox.clock import Clock, parse_moment
from crypto_assets.sandbox.faults import FaultBook, Rule
from crypto_assets.sandbox.market import Market
from crypto_assets.sandbox.plans import PLANS
from crypto_assets.sandbox.reply import Reply, Request, dump, plain_error

SANDBOX_HEADER = "X-Crypto-Assets-Sandbox"
_ROOTS = {
    ("coingecko", "api", "v3"): "coingecko",
    ("alternative_me",): "alternative_me",
    ("farside",): "farside",
}


class SandboxServer:
    """All providers on one loopback port, in threads of this process.

    `plan` is unlimited, keyless, demo, basic or analyst (CoinGecko's limits); `latency_seconds` is
    added to every provider's answer; `clock` is a Clock, a moment to freeze at, or the wall clock.
    `market` shares a model between servers and overrides `seed` and `coins`. Use the server as a
    context manager or call `start` and `stop`.
    """

    def __init__(
        self,
        seed: int = 7,
        port: int = 0,
        plan: str = "unlimited",
        latency_seconds: float = 0.0,
        clock: Clock | datetime | None = None,
        coins: int = 2_400,
        market: Market | None = None,
    ) -> None:
        if plan not in PLANS:
            raise ValueError(f"Unknown plan {plan!r}; known are {', '.join(PLANS)}.")
        self.market = market if market is not None else Market(seed, coins)
        self.seed = self.market.seed
        self.plan = plan
        self.latency_seconds = latency_seconds
        self.clock = clock if isinstance(clock, Clock) else Clock(clock)
        self.faults = FaultBook(self.seed)
        self._answers = Answers(self.market, self.faults, plan)
        self._calls: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()
        self._life = threading.Lock()  # starting and stopping, which several threads may ask for
        self._stopping = threading.Event()
        self._port = port
        self._server: _Listener | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; the port is known once started."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> "SandboxServer":
        """Listen in a background thread."""
        with self._life:
            if self._server is None:
                self._stopping.clear()
                self._server = _Listener(("127.0.0.1", self._port), self)
                self._port = self._server.server_address[1]
                self._thread = threading.Thread(
                    target=self._server.serve_forever, args=(0.02,), name="sandbox", daemon=True
                )
                self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening; requests that hang end at once."""
        self._stopping.set()
        with self._life:
            if self._server is not None and self._thread is not None:
                self._server.shutdown()
                self._thread.join()
                self._server.close_connections()
                self._server.server_close()
                self._server = self._thread = None

    def serve_forever(self) -> None:
        """Serve until interrupted or stopped from another thread: the CLI's loop."""
        self.start()
        try:
            while not self._stopping.wait(1.0):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()

    def __enter__(self) -> "SandboxServer":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stats(self) -> dict[str, Any]:
        """`{"calls": {"coingecko/coins/markets": {"200": n}}, "total": n}`; status "0" is a request
        that got no answer.
        """
        with self._lock:
            counted = sorted(self._calls.items())
        calls: dict[str, dict[str, int]] = {}
        for (endpoint, status), count in counted:
            calls.setdefault(endpoint, {})[str(status)] = count
        return {"calls": calls, "total": sum(count for _, count in counted)}

    def reset(self) -> None:
        """Clear stats, faults, rate windows and credits; the clock stays."""
        with self._lock:
            self._calls.clear()
        self.faults.clear()
        self._answers.gate.reset()

    def count(self, request: Request, status: int) -> None:
        """Count an answered request."""
        with self._lock:
            self._calls[f"{request.provider}/{request.endpoint}", status] += 1

    def answer(self, request: Request) -> tuple[Reply, Rule | None]:
        """The reply and the fault of the wire it is to suffer, if any."""
        if self.latency_seconds:
            self._stopping.wait(self.latency_seconds)
        return self._answers.answer(request)

    def wait(self, seconds: float) -> None:
        """Sleep, but not beyond the server's end."""
        self._stopping.wait(seconds)

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """The `/_sandbox/...` endpoints."""
        try:
            content = json.loads(body) if body.strip() else None
            result = self._controlled(method, path, content)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            return plain_error(400, str(error))
        return plain_error(404, f"No {method} {path}") if result is None else result

    def _controlled(self, method: str, path: str, content: Any) -> Reply | None:
        if (method, path) == ("POST", "clock"):
            moment = content["now"]
            self.clock.set(None if moment is None else parse_moment(moment))
        elif (method, path) == ("POST", "reset"):
            self.reset()
            if content and content.get("clock"):
                self.clock.set(None)
        elif (method, path) == ("POST", "faults"):
            self.faults.add(*(content if isinstance(content, list) else [content]))
        elif (method, path) == ("DELETE", "faults"):
            self.faults.clear()
        elif method != "GET":
            return None
        shown: dict[str, Any] = {
            "": {"seed": self.seed, "plan": self.plan, "coins": len(self.market.entries)},
            "clock": {"now": self.clock.now().isoformat(), "frozen": self.clock.is_frozen},
            "stats": self.stats(),
            "reset": {"reset": True},
            "faults": self.faults.rules(),
        }
        return Reply(200, dump(shown[path])) if path in shown else None


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], sandbox: SandboxServer) -> None:
        self.sandbox = sandbox
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Skips HTTPServer's reverse look-up of the host name, which can take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End the connections clients keep alive, so that no thread outlives the server."""
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + 2
        while self._open and time.monotonic() < deadline:
            time.sleep(0.005)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0
    server: _Listener

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        sandbox = self.server.sandbox
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        # Split before decoding: an id may hold a slash.
        url = urlsplit("http://sandbox" + self.path if self.path.startswith("/") else self.path)
        parts = tuple(unquote(part) for part in url.path.strip("/").split("/"))
        if parts[0] == "_sandbox":
            self._send(sandbox.control(self.command, "/".join(parts[1:]), body))
            return
        request = self._provider_request(parts, url.query)
        if request is None or self.command != "GET":
            self._send(plain_error(404, "Not found"))
            return
        reply, fault = sandbox.answer(request)
        if fault is not None:
            self._send_badly(request, reply, fault)
            return
        sandbox.count(request, reply.status)
        self._send(reply)

    def _provider_request(self, parts: tuple[str, ...], query: str) -> Request | None:
        for root, provider in _ROOTS.items():
            if parts[: len(root)] == root:
                return Request(
                    provider,
                    parts[len(root) :],
                    dict(parse_qsl(query, keep_blank_values=True)),
                    {name.lower(): value for name, value in self.headers.items()},
                    self.server.sandbox.clock.now(),
                    self.server.sandbox.plan,
                )
        return None

    def _head(self, reply: Reply, length: int) -> bytes:
        phrase = HTTPStatus(reply.status).phrase if reply.status in _PHRASES else "Unknown"
        lines = [
            f"HTTP/1.1 {reply.status} {phrase}",
            f"Date: {format_datetime(self._now(), usegmt=True)}",
            f"Content-Type: {reply.content_type}",
            f"Content-Length: {length}",
            f"{SANDBOX_HEADER}: {self.server.sandbox.seed}",
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        if self.close_connection:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _now(self) -> datetime:
        return self.server.sandbox.clock.now().replace(tzinfo=UTC)

    def _send(self, reply: Reply) -> None:
        self.wfile.write(self._head(reply, len(reply.body)) + reply.body)

    def _send_badly(self, request: Request, reply: Reply, fault: Rule) -> None:
        sandbox, options = self.server.sandbox, fault.options
        seconds = float(options.get("seconds", 60))
        kept = int(len(reply.body) * float(options.get("fraction", 0.5)))
        if fault.kind == "truncate":
            # Complete as HTTP, cut as JSON: what a proxy leaves after its own time-out.
            sandbox.count(request, reply.status)
            self._send(Reply(reply.status, reply.body[:kept], reply.content_type, reply.headers))
            return
        self.close_connection = True
        if fault.kind in {"timeout", "hang"}:
            sandbox.count(request, 0)
            if fault.kind == "hang":
                self.wfile.write(self._head(reply, len(reply.body)))
            sandbox.wait(seconds)
        elif fault.kind == "slow_drip":
            sandbox.count(request, reply.status)
            self._drip(reply, seconds, int(options.get("chunks", 20)))
        else:
            sandbox.count(request, 0)
            self.wfile.write(self._head(reply, len(reply.body)) + reply.body[:kept])
            # Lingering for zero seconds makes close() send a reset.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

    def _drip(self, reply: Reply, seconds: float, chunks: int) -> None:
        self.wfile.write(self._head(reply, len(reply.body)))
        size = max(1, -(-len(reply.body) // max(chunks, 1)))
        for start in range(0, len(reply.body), size):
            self.wfile.write(reply.body[start : start + size])
            self.server.sandbox.wait(seconds / max(chunks, 1))


_PHRASES = frozenset(status.value for status in HTTPStatus)
