"""A load generator that costs little: HTTP/1.1 on kept connections, requests made up beforehand.

Closed loop: so many clients, each sends its next request when it has its answer. Open loop: requests come at random
moments whatever the answers do, and the time of one runs from the moment it was due.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import uvloop

OK = 200
LAST_CHUNK = b"0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)


@dataclass(slots=True)
class Seen:
    """Answers by status, and the seconds that those of status 200 took.

    Args:
        seconds: that were looked at.
        unsent: requests that were due but never sent.
        aside: answers outside of the seconds that were looked at.
        statuses: how often each status came.
        latencies: seconds.
    """

    seconds: float = 0.0
    unsent: int = 0
    aside: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Rates and percentiles, in requests per second and milliseconds."""
        found: dict[str, Any] = {
            "answers_per_second": round(self.statuses[OK] / self.seconds, 2),
            "statuses": {str(status): number for status, number in sorted(self.statuses.items())},
        }
        if self.unsent:
            found["unsent"] = self.unsent
        if self.latencies:
            for name, percent in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
                found[name] = round(1000 * float(np.percentile(self.latencies, percent)), 2)
        return found


def request(host: str, port: int, path: str, body: bytes, content_type: str, **headers: str) -> bytes:
    """A whole POST request."""
    lines = {"Host": f"{host}:{port}", "Content-Type": content_type, "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def multipart(field_name: str, data: bytes) -> tuple[bytes, str]:
    """One file as a form; body and content type."""
    boundary = "graft-benchmark-boundary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field_name}"; filename="a.jpg"\r\n'
    body = f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


def closed(host: str, port: int, requests: Sequence[bytes], clients: int, seconds: float, warm_up: float = 2.0) -> Seen:
    """So many clients for so long, after a warm-up that does not count."""
    return uvloop.run(_closed(host, port, requests, clients, seconds, warm_up))


def opened(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float, most: int = 2000) -> Seen:
    """Requests at random moments, `rate` a second; `most` connections at once.

    What finds no connection free until the time is over is never sent. The rate of answers is over all the time until
    the last one, so that a backlog that drains afterwards adds nothing to it.
    """
    return uvloop.run(_opened(host, port, requests, rate, seconds, most))


def once(host: str, port: int, requests: Sequence[bytes], clients: int) -> Seen:
    """Each request once, by so many clients at a time."""
    return uvloop.run(_once(host, port, requests, clients))


class _Connection:
    """One kept connection, made anew when the server has closed it."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._wire: _Wire | None = None

    async def send(self, data: bytes) -> int:
        """The status of the answer; 0 where there was none."""
        if self._wire is None or self._wire.transport.is_closing():
            loop = asyncio.get_running_loop()
            try:
                _, self._wire = await loop.create_connection(_Wire, self._host, self._port)
            except OSError:
                return 0
        return await self._wire.send(data)

    def close(self) -> None:
        if self._wire is not None:
            self._wire.transport.close()


class _Wire(asyncio.Protocol):
    """No stream: what a client computes for each answer is missing to whoever makes it, on the same cores."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The loop's own kind, which is no subclass.
        self.transport = cast("asyncio.Transport", transport)
        self._came = bytearray()
        self._status: asyncio.Future[int] | None = None

    def connection_lost(self, _: Exception | None) -> None:
        self._end(0)

    async def send(self, data: bytes) -> int:
        """The status of the answer; 0 where there was none."""
        self._came.clear()
        self._num_head_bytes = self._num_bytes = 0
        self._status = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return await self._status

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._num_head_bytes and not self._read_head():
            return
        is_whole = len(self._came) >= self._num_bytes if self._num_bytes else self._came.endswith(LAST_CHUNK)
        if is_whole:
            if b"\r\nconnection: close\r\n" in self._came[: self._num_head_bytes].lower():
                self.transport.close()
            self._end(int(self._came[9:12]))

    def _read_head(self) -> bool:
        """Whether it is there; then how many bytes there are to be, which is not known of an answer in chunks."""
        self._num_head_bytes = self._came.find(b"\r\n\r\n") + 4
        if self._num_head_bytes < 4:
            self._num_head_bytes = 0
            return False
        length = _LENGTH.search(self._came, 0, self._num_head_bytes)
        self._num_bytes = self._num_head_bytes + int(length[1]) if length else 0
        return True

    def _end(self, status: int) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_result(status)


async def _closed(
    host: str, port: int, requests: Sequence[bytes], clients: int, seconds: float, warm_up: float
) -> Seen:
    seen = Seen(seconds)
    begin = time.perf_counter() + warm_up
    end = begin + seconds

    async def client(number: int) -> None:
        connection, place = _Connection(host, port), number
        while (sent := time.perf_counter()) < end:
            status = await connection.send(requests[place % len(requests)])
            done, place = time.perf_counter(), place + clients
            if begin <= done < end:
                seen.statuses[status] += 1
                if status == OK:
                    seen.latencies.append(done - sent)
            else:
                seen.aside += 1
            if not status:
                await asyncio.sleep(0.01)
        connection.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return seen


async def _once(host: str, port: int, requests: Sequence[bytes], clients: int) -> Seen:
    seen, left, begin = Seen(), iter(requests), time.perf_counter()

    async def client() -> None:
        connection = _Connection(host, port)
        for data in left:
            sent = time.perf_counter()
            status = await connection.send(data)
            seen.statuses[status] += 1
            if status == OK:
                seen.latencies.append(time.perf_counter() - sent)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    seen.seconds = time.perf_counter() - begin
    return seen


async def _opened(host: str, port: int, requests: Sequence[bytes], rate: float, seconds: float, most: int) -> Seen:
    seen, begin = Seen(), time.perf_counter()
    chance = np.random.default_rng(0)
    idle: list[_Connection] = []
    room = asyncio.Semaphore(most)

    async def one(due: float, data: bytes) -> None:
        async with room:
            if time.perf_counter() >= end:
                seen.unsent += 1
                return
            connection = idle.pop() if idle else _Connection(host, port)
            status = await connection.send(data)
            idle.append(connection)
        seen.statuses[status] += 1
        if status == OK:
            seen.latencies.append(time.perf_counter() - due)

    due, end, tasks = begin, begin + seconds, []
    for place in range(int(2 * rate * seconds) + 1):
        due += float(chance.exponential(1 / rate))
        if due >= end:
            break
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, requests[place % len(requests)])))
    await asyncio.gather(*tasks)
    seen.seconds = time.perf_counter() - begin
    for connection in idle:
        connection.close()
    return seen
