"""A tiny real HTTP server that answers what a test tells it to, faults of the wire included."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """One answer. ``fault`` is "", truncated, reset, drip, drip_headers or hang."""

    body: bytes | str | list[Any] | dict[str, Any] = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    fault: str = ""

    def raw(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        if isinstance(self.body, str):
            return self.body.encode()
        return json.dumps(self.body).encode()


@dataclass
class Seen:
    target: str
    headers: Mapping[str, str]
    at: float


class Stub:
    """Replies in the order given; the last one is repeated."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.seen: list[Seen] = []
        self.stop = threading.Event()
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                stub._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.stop.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.seen.append(Seen(handler.path, dict(handler.headers), time.monotonic()))
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply.fault == "hang":
            self.stop.wait(10)
            handler.close_connection = True
            return
        body = reply.raw()
        if reply.fault == "drip_headers":
            self._drip(handler, b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 500)
            return
        handler.send_response(reply.status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if reply.fault == "truncated":
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True
        elif reply.fault == "drip":
            self._drip(handler, body)
        elif reply.fault == "reset":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            handler.connection.close()
            handler.close_connection = True
        else:
            handler.wfile.write(body)

    def _drip(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.close_connection = True
        try:
            for i in range(len(data)):
                handler.wfile.write(data[i : i + 1])
                handler.wfile.flush()
                if self.stop.wait(0.02):
                    return
        except OSError:
            pass
