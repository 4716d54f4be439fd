"""Waiting for an answer on behalf of a client that may go away meanwhile."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")

# In a request's scope: a future that ends with its connection. Our server has one for each connection
# (`app.api.connections`); under another one a task has to listen for each request, which takes 50 us.
LOST = "graft.lost"


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody whose end is noticed while something is waited for.

    Args:
        gone: ends when nobody waits any more.
    """

    gone: asyncio.Future[None]

    async def settled(self, answer: asyncio.Future[T]) -> T:
        """What the future ends with.

        Raises:
            ClientDisconnect: nobody waits any more; what was waited for is cancelled, and not computed.
            Exception: whatever either future raises.
        """

        def end(_: Any) -> None:
            answer.cancel()

        self.gone.add_done_callback(end)
        try:
            return await answer
        except asyncio.CancelledError:
            if not self.gone.done() or self.gone.cancelled():
                raise
            self.gone.result()
            raise ClientDisconnect from None
        finally:
            self.gone.remove_done_callback(end)


async def settled(request: Request, future: Future[T]) -> T:
    """What a future of another thread ends with, for a request that has been read.

    Raises:
        ClientDisconnect, Exception: as `Waiter.settled`.
    """
    answer, lost = asyncio.wrap_future(future), request.scope.get(LOST)
    if lost is not None:
        return await Waiter(lost).settled(answer)
    gone = asyncio.ensure_future(disconnected(request))
    try:
        return await Waiter(gone).settled(answer)
    finally:
        gone.cancel()


async def disconnected(request: Request) -> None:
    """Returns when the connection is closed, whose request has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
