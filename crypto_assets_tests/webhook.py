"""A channel for alerts on loopback: apprise's `json://`, with every message it was sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Webhook:
    """What was sent to it, oldest first; `status` is what it answers."""

    port: int
    status: int = 200
    messages: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The apprise URL of it."""
        return f"json://127.0.0.1:{self.port}/hook-secret-8c1d"

    @property
    def titles(self) -> list[str]:
        """The titles of what it was sent, oldest first."""
        return [message["title"] for message in self.messages]


@contextmanager
def open_webhook() -> Iterator[Webhook]:
    """Yield a channel that takes messages until it is closed."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status == 200:
                hook.messages.append(json.loads(body))
            self.send_response(hook.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Webhook(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield hook
        finally:
            server.shutdown()
            thread.join()
