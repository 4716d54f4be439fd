"""Waiting for an answer on behalf of a client that may go away meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")

# In a request's scope: a future that ends with its connection. Our server has one for each connection
# (`app.api.connections`); under another one a task has to listen for each request, which takes 50 us.
LOST = "graft.lost"
# Likewise one that ends when the server is asked to stop: it waits for answers, but not for such as have no end.
STOPPING = "graft.stopping"


class Waiter:
    """Somebody whose end is noticed while something is waited for.

    Args:
        gone: any of which ends when nobody waits any more.
    """

    def __init__(self, *gone: asyncio.Future[None]) -> None:
        self._gone = gone

    async def settled(self, answer: asyncio.Future[T]) -> T:
        """What the future ends with.

        Raises:
            ClientDisconnect: nobody waits any more; what was waited for is cancelled, and not computed.
            Exception: whatever any of the futures raises.
        """

        # Not through this frame, which lets go of it: it may be called a moment after it was removed.
        def end(_: Any, cancel: Callable[[], Any] = answer.cancel) -> None:
            cancel()

        for one in self._gone:
            one.add_done_callback(end)
        try:
            return await answer
        except asyncio.CancelledError:
            ended = [one for one in self._gone if one.done() and not one.cancelled()]
            if not ended:
                raise
            for one in ended:
                one.result()
            raise ClientDisconnect from None
        finally:
            for one in self._gone:
                one.remove_done_callback(end)
            # An error that it has ended with holds this frame, and would so hold itself, until a collection.
            del answer, end


async def settled(request: Request, future: Future[T]) -> T:
    """What a future of another thread ends with, for a request that has been read.

    Raises:
        ClientDisconnect, Exception: as `Waiter.settled`.
    """
    answer, lost = asyncio.wrap_future(future), request.scope.get(LOST)
    gone = asyncio.ensure_future(disconnected(request)) if lost is None else lost
    try:
        return await Waiter(gone).settled(answer)
    finally:
        if lost is None:
            gone.cancel()
        del answer, future


async def disconnected(request: Request) -> None:
    """Returns when the connection is closed, whose request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_stopping(scope: Any) -> bool:
    """Whether the server was asked to stop since the request of that scope came."""
    stopping = scope.get(STOPPING)
    return stopping is not None and stopping.done()
