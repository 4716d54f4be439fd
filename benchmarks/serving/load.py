"""A load generator that costs little: HTTP/1.1 on kept connections, requests made up beforehand.

Closed loop: so many clients, each sends its next request when it has its answer. Open loop: requests come at random
moments whatever the answers do, and the time of one runs from the moment it was due.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvloop

OK = 200


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
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes) -> int:
        """The status of the answer; 0 where there was none."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(data)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
            if b"content-length" in fields:
                await reader.readexactly(int(fields[b"content-length"]))
            else:
                await _chunks(reader)
            if fields.get(b"connection", b"").strip() == b"close":
                self.close()
            return status
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return 0

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _chunks(reader: asyncio.StreamReader) -> None:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readexactly(2)


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
