"""Bodies of predictions in memory: how much all requests hold together, and one project's at most.

A body that comes packed counts as what it is unpacked, and an image that comes by URL as what was fetched.
"""

import asyncio
from collections import Counter
from typing import Any

from starlette.types import Message, Receive, Scope

from app.api import headers
from app.errors import Overloaded

_HOLD = "graft.hold"
# Of answers that are counted as refusals: too slow a client, no room or no version that is ready, too late.
REFUSALS = frozenset({408, 503, 504})
# A project may hold so many times what it leaves free: one alone has three quarters, and whoever comes then finds a
# quarter (dynamic thresholds; Choudhury and Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
TIMES_FREE = 3
# Of all bytes: what the images of one stream that are under way may take, before its next lines are read.
STREAM_SHARE = 1 / 8
# What the server hands on of a body at once, at most: 64 KB after which it reads no more, and what it read last.
CHUNK_BYTES = 5 * 2**16


class Held:
    """What the requests of one process hold; used on the event loop alone.

    Args:
        max_bytes: of all of them.
        largest_bytes: that one body, or one line of a stream, may have.
        has_projects: whether requests are of several projects, so that none may take all.
    """

    def __init__(self, max_bytes: int, largest_bytes: int, *, has_projects: bool = False) -> None:
        self._max_bytes, self.largest_bytes = max(max_bytes, largest_bytes), largest_bytes
        self._has_projects = has_projects
        self._of: Counter[str] = Counter()
        self.num_bytes = 0

    @property
    def stream_bytes(self) -> int:
        """What the images of one stream that are under way may take."""
        return int(self._max_bytes * STREAM_SHARE)

    def add(self, project: str, number: int) -> None:
        """A project holds so much more, or less."""
        self.num_bytes += number
        self._of[project] += number
        if not self._of[project]:
            del self._of[project]

    def has_room(self, project: str, number: int) -> bool:
        """Whether so much more would not be refused."""
        try:
            self.check(project, number)
        except Overloaded:
            return False
        return True

    def check(self, project: str, number: int) -> None:
        """Refuses what there would be no room for.

        Raises:
            Overloaded: with the seconds after which to come again.
        """
        if self.num_bytes + number > self._max_bytes:
            raise Overloaded(
                f"expected room for a body in memory; found {self.num_bytes} bytes of others, of at most "
                f"{self._max_bytes} (GRAFT_MAX_HELD_BYTES); send it again later, or send less at once",
                retry_after_seconds=1,
            )
        own_bytes, free_bytes = self._of[project], self._max_bytes - self.num_bytes
        if self._has_projects and own_bytes + number > max(self.largest_bytes, TIMES_FREE * (free_bytes - number)):
            raise Overloaded(
                f"expected room for a body in memory; found {own_bytes} bytes of the same project, and that the "
                f"{free_bytes} that are free of {self._max_bytes} (GRAFT_MAX_HELD_BYTES) are for others; send it again "
                "later, or send less at once",
                retry_after_seconds=1,
            )


class Hold:
    """What one request holds, until it is over.

    Args:
        held: of the process.
        project: whose request it is; empty of a key that was never seen, and where keys are off.
    """

    def __init__(self, held: Held, project: str) -> None:
        self._held, self._project, self._num_bytes = held, project, 0
        self._whole: Hold | None = None
        self._parts: set[Hold] = set()
        self._part_ended = asyncio.Event()

    def take(self, number: int) -> None:
        """More of the body has come.

        Raises:
            Overloaded: as `Held.check`.
        """
        self._held.check(self._project, number)
        self._held.add(self._project, number)
        self._num_bytes += number

    def part(self, number: int) -> "Hold":
        """So much of it as a hold of its own, which may be over earlier, and take more meanwhile."""
        part = Hold(self._held, self._project)
        part._whole, part._num_bytes = self, min(number, self._num_bytes)
        self._num_bytes -= part._num_bytes
        self._parts.add(part)
        return part

    async def readable(self) -> None:
        """Waits for parts of it to be over, where there is no room for what comes next of a stream.

        So a stream waits for its own images, as long as it has any, and is refused only for what others hold.
        """
        while self._parts and not self._has_room():
            self._part_ended.clear()
            await self._part_ended.wait()

    def close(self) -> None:
        """The request, or this part of it, is over."""
        self._held.add(self._project, -self._num_bytes)
        self._num_bytes = 0
        for part in tuple(self._parts):
            part.close()
        if self._whole is not None:
            self._whole._parts.discard(self)
            self._whole._part_ended.set()

    def _has_room(self) -> bool:
        in_parts = sum(part._num_bytes for part in self._parts)
        return in_parts <= self._held.stream_bytes and self._held.has_room(self._project, CHUNK_BYTES)

    def receiving(self, scope: Scope, receive: Receive) -> Receive:
        """The request's messages, counted.

        Raises:
            Overloaded: at once, where the body that is announced has no room; else by a message.
        """
        if (announced := headers.body_bytes(scope)) is not None:
            # A larger one is refused as such, and a stream of lines is not held as a whole.
            self._held.check(self._project, min(announced, self._held.largest_bytes))
        scope[_HOLD] = self

        async def receive_held() -> Message:
            message = await receive()
            self.take(len(message.get("body", b"")))
            return message

        return receive_held


def of(scope: Any) -> Hold:
    """What a prediction's request holds."""
    found: Hold = scope[_HOLD]
    return found
