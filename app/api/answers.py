"""Waiting for the engine on behalf of a client that may go away."""

import asyncio
from concurrent.futures import Future

from fastapi import Request
from starlette.requests import ClientDisconnect

from app.serving.call import Result, Timing


async def wait(request: Request, future: Future[Result]) -> Result:
    """The engine's result; what nobody waits for any more is dropped before it is computed.

    Args:
        request: whose body has been read.
        future: the engine's.

    Raises:
        ClientDisconnect: the client has closed the connection.
        GraftError: what the future ends with.
    """
    answer = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientDisconnect
        return answer.result()
    finally:
        gone.cancel()
        answer.cancel()


def server_timing(timing: Timing) -> str:
    """Header `Server-Timing` (W3C): milliseconds of the slowest image in each stage."""
    stages = {"decode": timing.decode, "queue": timing.queue, "compute": timing.compute}
    return ", ".join(f"{stage};dur={1000 * seconds:.2f}" for stage, seconds in stages.items())


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
