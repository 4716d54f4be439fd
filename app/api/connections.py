"""How much of a request's head a connection may bring, and for how long it may keep us waiting for one.

The server's own parser has no such limits, and nothing of ours sees a request before its head is complete: anybody who
reaches the port, key or not, could fill the memory with one header, or hold every descriptor with connections that say
nothing. And whoever computes something for a connection can see here when it is lost.
"""

import math
from asyncio import TimerHandle, Transport
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api import problems, safety
from app.api.waiting import LOST, STOPPING
from app.errors import BadRequest, GraftError, HeadTooLarge

MAX_HEAD_BYTES = 64 * 2**10
# What a field takes in memory beside its bytes, as HTTP/2 counts it (RFC 9113, section 6.5.2): thousands of empty ones
# are not small.
FIELD_BYTES = 32
HEAD_SECONDS = 30.0
# Requests that may be sent ahead of the answer to the first one. They are parsed as they come, before anybody asks for
# a key: 27 MB of small ones took 1.3 GB.
MAX_AHEAD = 64
# Whoever reads nothing of what waits for it for so long, and for as long again, is gone.
READ_SECONDS = 30.0
NO_HTTP = (
    "expected an HTTP/1.1 request; found bytes that are none; send plain HTTP (TLS ends at a proxy in front), with a "
    "known method, and a body whose length, or whose chunks, are as its head says"
)
# Of a path in an answer: the path itself may be what is too large.
MAX_PATH_BYTES = 200


class Connection(HttpToolsProtocol):
    """The server's own, which refuses what is too large (431) or no HTTP (400) and closes what is too slow.

    Trailers, which are fields behind a body, count as part of the head. Between an answer and the next byte the
    server's own rule for idle connections holds.
    """

    head_seconds, read_seconds = HEAD_SECONDS, READ_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.url = b""
        self._head_bytes = 0
        # Read, and part of nothing that the parser has told of: the beginning of a field, mostly.
        self._untold_bytes = 0
        # Whether what comes next belongs to the newest request, whose head is complete: its body, or its trailers.
        self._is_in_body = False
        self._end: TimerHandle | None = None
        self._look: TimerHandle | None = None
        self._unread_bytes = math.inf

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Somebody comes."""
        super().connection_made(transport)
        self._lost, self._stopping = self.loop.create_future(), self.loop.create_future()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody comes any more."""
        self._stop_waiting()
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)
        self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Whatever comes."""
        self._unset_keepalive_if_required()
        self._untold_bytes += len(data)
        try:
            self._parse(memoryview(data))
        except httptools.HttpParserError:
            if len(self.pipeline) >= MAX_AHEAD:
                # Between two answers nothing could be said that would be understood.
                self.transport.close()
                return
            said = "Invalid HTTP request received."
            self.logger.warning(said)
            self.send_400_response(said)
        if self._untold_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large(self._head_bytes + self._untold_bytes))
        elif self._end is None and not self._is_answering:
            # The server has just stopped its own clock for idle connections.
            self._wait()

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._head_bytes = self._untold_bytes = 0
        self._is_in_body = False
        super().on_message_begin()
        self.scope[LOST] = self._lost  # type: ignore[literal-required]
        self.scope[STOPPING] = self._stopping  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        """A piece of it."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field, of the head or of the trailers."""
        self._count(len(name) + len(value) + FIELD_BYTES)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there; how long its body may take is told elsewhere (`slow_bodies`)."""
        self._untold_bytes = 0
        self._stop_waiting()
        if self.parser.get_method() == b"CONNECT" or len(self.pipeline) >= MAX_AHEAD:
            # Stops the parser, which knows no other way.
            raise ValueError("no proxy, or too many at once")
        if not self.parser.should_upgrade():
            super().on_headers_complete()
            self._is_in_body = True

    def on_body(self, body: bytes) -> None:
        """A piece of it; also of one that nobody reads any more, since the answer was given before its end."""
        self._untold_bytes = 0
        self._stop_waiting()
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there. Whoever computes an answer reads no more, and yet waits for the end of the connection."""
        if self.parser.should_upgrade():
            return
        self._is_in_body = False
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        """The next one is begun; nothing is read that would only stand behind others."""
        super().on_response_complete()
        if self.pipeline:
            self.flow.pause_reading()
        self._watch()

    def shutdown(self) -> None:
        """The server is to stop; what has no end of its own ends now."""
        super().shutdown()
        self._stopping.set_result(None)

    def pause_writing(self) -> None:
        """More is there than the client has read."""
        super().pause_writing()
        self._watch()

    def send_400_response(self, msg: str) -> None:
        """What the parser has stopped at: something that is no HTTP, or our own count."""
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_too_large(self._head_bytes))
        else:
            self._refuse(BadRequest(NO_HTTP))

    def _parse(self, data: memoryview) -> None:
        """Feeds the parser, which takes what follows a wish for another protocol (`Upgrade`) for that protocol.

        We speak this one alone, and answer in it, as a server may (RFC 9110, section 7.8): some clients wish for HTTP/2
        in every first request (Java's own does), with a body behind it, which would be read as the next request. So the
        head is parsed anew without its wish.
        """
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as wish:
                head, data = self._plain_head(), data[wish.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
            else:
                return

    def _plain_head(self) -> bytes:
        """The head that has just been parsed, without a wish for another protocol."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                lines.append(b"connection: " + b", ".join(one for one in tokens if one.lower() != b"upgrade"))
            elif name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _is_next(self) -> bool:
        """Whether an answer would be taken for that of what is being read: not amid another one, nor ahead of one."""
        if self.pipeline:
            return False
        # Of a body, it is the answer that the request itself has not had.
        return not (self.cycle.response_started if self._is_in_body else self._is_answering)

    def _count(self, num_bytes: int) -> None:
        self._untold_bytes = 0
        self._head_bytes += num_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            # Stops the parser, which knows no other way.
            raise HeadTooLarge("")

    def _wait(self) -> None:
        if not self.transport.is_closing():
            self._end = self.loop.call_later(self.head_seconds, self.transport.close)

    def _watch(self) -> None:
        """Looks after a while whether the client has read, for which the server would wait without an end."""
        if self._look is None:
            self._look = self.loop.call_later(self.read_seconds, self._check_reader)

    def _check_reader(self) -> None:
        self._look, before = None, self._unread_bytes
        self._unread_bytes = self.transport.get_write_buffer_size() or math.inf
        if self._unread_bytes == math.inf:
            return
        if self._unread_bytes >= before:
            self.transport.abort()
        else:
            self._watch()

    def _stop_waiting(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None

    def _refuse(self, error: GraftError) -> None:
        """Answers in place of the application, where that can be understood, and closes the connection."""
        if self.transport.is_closing():
            return
        if self._is_next:
            self.transport.write(self._refusal(error))
            if self.cycle is not None:
                # Whoever waits for the rest of the body waits no more, and says nothing behind this.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
        self.transport.close()

    def _refusal(self, error: GraftError) -> bytes:
        path = unquote(self.url[:MAX_PATH_BYTES].partition(b"?")[0].decode("latin-1"))
        answer = problems.of_error(path, error)
        ours = [*safety.HEADERS, safety.POLICY, *answer.raw_headers, (b"connection", b"close")]
        lines = b"".join(b"%s: %s\r\n" % header for header in [*self.server_state.default_headers, *ours])
        return STATUS_LINE[answer.status_code] + lines + b"\r\n" + bytes(answer.body)


def _too_large(found_bytes: int) -> HeadTooLarge:
    return HeadTooLarge(
        f"expected a request line and headers of at most {MAX_HEAD_BYTES} bytes, with {FIELD_BYTES} more for each "
        f"header; found {found_bytes} so far; send less in cookies and headers, and data in the body"
    )


def server(app: ASGIApp, host: str, port: int, connection: type[Connection] = Connection) -> uvicorn.Server:
    """What answers for an application; not yet running.

    Args:
        app: the application.
        host: to listen on.
        port: likewise; 0 for a free one.
        connection: how each connection is read.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=connection,
            ws="none",
            log_config=None,
            access_log=False,
            # No address of a caller is looked at, and no address of ours is handed out.
            proxy_headers=False,
            timeout_graceful_shutdown=3,
            timeout_keep_alive=30,
        )
    )
