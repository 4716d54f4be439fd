"""A receiver of webhooks: a real server on loopback that remembers what it got, and answers as it is told."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook

# What a service of a test must be told, so that it sends to this machine.
LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The payload, once the official library has found that whoever has the secret has sent it, just now."""
        return dict(Webhook(secret).verify(self.body, self.headers))


@dataclass(frozen=True)
class Reply:
    """How a request is answered."""

    status: int = 204
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Receiver(ThreadingHTTPServer):
    """Answers with `replies` in their order, and then with 204."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[Got] = []
        self.replies: list[Reply] = []
        # While it is cleared nothing is answered.
        self.answering = threading.Event()
        self.answering.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"

    def ids(self) -> list[str]:
        """`webhook-id` of every request."""
        return [one.headers["webhook-id"] for one in self.got]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for the answer is no error of the test."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(Got(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.server.answering.wait(60)
        reply = self.server.replies.pop(0) if self.server.replies else Reply()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def do_GET(self) -> None:
        self.server.got.append(Got(self.path, {}, b""))
        self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.answering.set()
            server.shutdown()
