"""One POST to a receiver that a stranger named: to an address that was looked at, within a time, and no further.

The name is resolved once, every address of it is looked at, and the connection goes to one of those: a name server
that says something else a moment later (DNS rebinding) changes nothing. Host and the name in TLS stay those of the URL.
Redirects are not followed, proxies of the environment not used.
"""

import email.utils
import ssl
import time
from collections.abc import Iterable, Mapping
from datetime import UTC

import httpcore

from app.db.base import now
from app.outbound import Guard, Place, Refused, place
from app.services.deliveries import ANSWERED_WELL, Answer

MAX_ANSWER_BYTES = 2048
CONNECT_SECONDS = 5.0


def post(
    url: str, body: bytes, headers: Mapping[str, str], guard: Guard, context: ssl.SSLContext, timeout_seconds: float
) -> Answer:
    """Sends, and reads the beginning of the answer. Whatever goes wrong on the way is an answer too."""
    began = time.monotonic()
    deadline = began + timeout_seconds
    try:
        wanted = place(url)
        backend = _Guarded(guard, wanted, deadline)
        with (
            httpcore.ConnectionPool(network_backend=backend, ssl_context=context) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as answer,
        ):
            text = _beginning(answer)
            wait = None if answer.status in ANSWERED_WELL else _retry_after(answer.headers)
        return Answer(time.monotonic() - began, answer.status, None, text, wait)
    except Refused as refused:
        error = f"expected a public address; found {refused}; nothing was sent"
    except httpcore.TimeoutException:
        error = f"expected an answer within {timeout_seconds:g} s; found none"
    except (ValueError, OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol) as found:
        error = f"expected an answer; found {type(found).__name__}: {found}"
    return Answer(time.monotonic() - began, error=error[:500].replace("\0", ""))


def _beginning(answer: httpcore.Response) -> str:
    data = bytearray()
    for chunk in answer.iter_stream():
        data += chunk
        if len(data) >= MAX_ANSWER_BYTES:
            break
    # PostgreSQL holds no NUL.
    return bytes(data[:MAX_ANSWER_BYTES]).decode(errors="replace").replace("\0", "")


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Seconds that the receiver asks for, as a number or as a date; None where it says nothing that can be read."""
    given = next((value.decode("latin-1").strip() for name, value in headers if name.lower() == b"retry-after"), "")
    # A header may have any byte: ² is a digit as well, but no number.
    if given.isascii() and given.isdigit():
        return float(given[:9])
    try:
        moment = email.utils.parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    return max(0.0, ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now()).total_seconds())


class _Guarded(httpcore.NetworkBackend):
    """Connects to addresses that the guard has looked at, and to no name."""

    def __init__(self, guard: Guard, wanted: Place, deadline: float) -> None:
        self._guard, self._wanted, self._deadline = guard, wanted, deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """Tries the addresses in their order."""
        # What is connected to is what the library has read out of the URL, not what this module has.
        wanted = Place(self._wanted.scheme, host.lower(), port)
        failed: Exception = httpcore.ConnectError("the name has no address")
        for address in self._guard.addresses(wanted):
            try:
                seconds = min(CONNECT_SECONDS, _left(self._deadline))
                stream = self._sockets.connect_tcp(address, port, seconds, local_address, socket_options)
                return _Timed(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed


class _Timed(httpcore.NetworkStream):
    """A connection whose every step ends at one moment, however little a receiver sends at a time."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> object:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return seconds
