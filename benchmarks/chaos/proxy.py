"""A TCP proxy on loopback that can lose what passes through it: before a database, a broker, an object store."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

ERROR = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
SLOW_SECONDS = 0.3


class Proxy:
    """Listens in a thread of its own.

    `mode` is `open`; `hang`: bytes stay where they are until it opens again, as when a cable is pulled; `refuse`:
    connections are cut and new ones closed at once; `error`: requests get HTTP 503; `slow`: each piece waits.
    `num_broken` counts the connections and pieces that met something else than `open`.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._mode = "open"
        self.num_broken = 0
        self._links: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self.port = 0
        self._thread = threading.Thread(target=asyncio.run, args=(self._listen(),), daemon=True, name="proxy")
        self._thread.start()
        assert self._ready.wait(10)

    def set(self, mode: str) -> None:
        """From now on; connections that are open are cut where the mode says so."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(self._change, mode, done)
        assert done.wait(10)

    def close(self) -> None:
        """Cuts everything."""
        self.set("refuse")
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(10)

    def _change(self, mode: str, done: threading.Event) -> None:
        self._mode = mode
        if mode in ("refuse", "error"):
            self.num_broken += len(self._links)
            for writer in list(self._links):
                writer.transport.abort()
        done.set()

    async def _listen(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._ending.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_broken += self._mode in ("refuse", "error")
        if self._mode == "refuse":
            writer.transport.abort()
            return
        if self._mode == "error":
            with suppress(OSError):
                await reader.read(65536)
                writer.write(ERROR)
                await writer.drain()
                writer.close()
            return
        try:
            far_reader, far_writer = await self._dial()
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._links |= both
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except OSError:
            pass  # one of the two sides has gone: so does the other
        finally:
            self._links -= both
            for one in both:
                one.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            self.num_broken += self._mode in ("hang", "slow")
            while self._mode == "hang":
                await asyncio.sleep(0.05)
            if self._mode == "slow":
                await asyncio.sleep(SLOW_SECONDS)
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
