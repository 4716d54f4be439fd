"""Bodies of predictions in memory: how much all requests hold together, and how long nothing of one may come."""

import asyncio
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from app.api import slow_bodies
from app.errors import Overloaded, TimedOut

_HOLD = "graft.hold"
# Of answers that are counted as refusals: too slow a client, no room or no version that is ready, too late.
REFUSALS = frozenset({408, 503, 504})


class Held:
    """What the requests of one process hold; used on the event loop alone.

    Args:
        max_bytes: of all of them.
        largest_bytes: that one body, or one line of a stream, may have.
        idle_seconds: after which a body of which nothing more comes is given up.
    """

    def __init__(self, max_bytes: int, largest_bytes: int, idle_seconds: float) -> None:
        self._max_bytes = max(max_bytes, largest_bytes)
        self.largest_bytes, self.idle_seconds = largest_bytes, idle_seconds
        self.num_bytes = 0

    def check(self, number: int) -> None:
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


class Hold:
    """What one request holds, until it is over.

    Args:
        held: of the process.
    """

    def __init__(self, held: Held) -> None:
        self._held, self._num_bytes = held, 0
        # Whoever reads a stream of lines waits between them for as long as it takes.
        self.is_patient = False

    def take(self, number: int) -> None:
        """More of the body has come.

        Raises:
            Overloaded: as `Held.check`.
        """
        self._held.check(number)
        self._held.num_bytes += number
        self._num_bytes += number

    def release(self, number: int) -> None:
        """So much of it is not held any more."""
        number = min(number, self._num_bytes)
        self._held.num_bytes -= number
        self._num_bytes -= number

    def close(self) -> None:
        """The request is over."""
        self.release(self._num_bytes)

    def receiving(self, scope: Scope, receive: Receive) -> Receive:
        """The request's messages, counted, and each in time as long as the body is not whole.

        Raises:
            Overloaded: at once, where the body that is announced has no room; else by a message.
            TimedOut: by a message, code body_stalled.
        """
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit():
            # A larger one is refused as such, and a stream of lines is not held as a whole.
            self._held.check(min(int(announced), self._held.largest_bytes))
        scope[_HOLD] = scope[slow_bodies.OWN_CLOCK] = self
        is_whole = False

        async def receive_held() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout(None if self.is_patient else self._held.idle_seconds):
                    message = await receive()
            except TimeoutError:
                raise TimedOut(
                    f"expected the rest of a body; found nothing of it for {self._held.idle_seconds:g} s "
                    "(GRAFT_BODY_IDLE_SECONDS); send it again"
                ) from None
            is_whole = not message.get("more_body", False)
            self.take(len(message.get("body", b"")))
            return message

        return receive_held


def of(scope: Any) -> Hold:
    """What a prediction's request holds."""
    found: Hold = scope[_HOLD]
    return found
