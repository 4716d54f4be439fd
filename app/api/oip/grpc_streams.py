"""A stream's requests over gRPC: several are under way at once, and answered in the order in which they came."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from app.errors import Overloaded

# Requests of one stream that are read and not answered yet: enough for batches to fill on several cores.
WINDOW = 32

Task = asyncio.Task[Any]
Enter = Callable[[], Coroutine[Any, Any, str]]
# Of the project, the request, and what is to be called once the engine has taken the request on.
Compute = Callable[[str, Any, Callable[[], None]], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A request of a stream.

    Args:
        request: as it came.
        project: whose it is; empty where its key was refused.
        task: ends with its answer, or with what is wrong.
    """

    request: Any
    project: str
    task: Task


async def in_order(requests: AsyncIterator[Any], enter: Enter, compute: Compute) -> AsyncGenerator[Begun]:
    """Each request once its task has ended, while later ones are read and computed.

    The stream's own requests do not shut each other out: where there is no room, the next one waits until one before it
    is answered, and nothing is read meanwhile.

    Args:
        requests: as they come.
        enter: looks at the key, for each request anew, and says whose it is.
        compute: makes the answer.

    Raises:
        Exception: whatever reading raises, behind the answers to what was read before.
    """
    places, begun = asyncio.Semaphore(WINDOW), asyncio.Queue[Begun | None]()
    under_way: set[Task] = set()

    async def read() -> None:
        try:
            async for request in requests:
                await places.acquire()
                begun.put_nowait(await _begin(request, enter, compute, under_way))
        finally:
            begun.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (one := await begun.get()) is not None:
            await asyncio.wait((one.task,))
            yield one
            places.release()
        await reader
    finally:
        for task in (reader, *under_way):
            task.cancel()


async def _begin(request: Any, enter: Enter, compute: Compute, under_way: set[Task]) -> Begun:
    """A request that the engine has taken on, or that was refused for good."""

    def ended(task: Task) -> None:
        under_way.discard(task)
        if not task.cancelled():
            # Looked at, since whoever closes the stream does not wait for it.
            task.exception()

    def start(work: Coroutine[Any, Any, Any]) -> Task:
        task = asyncio.create_task(work)
        under_way.add(task)
        task.add_done_callback(ended)
        return task

    entered = start(enter())
    await asyncio.wait((entered,))
    if entered.exception() is not None:
        return Begun(request, "", entered)
    while True:
        taken = asyncio.Event()
        task = start(compute(entered.result(), request, taken.set))
        await _either(task, taken)
        before = under_way - {task}
        if not before or not (task.done() and isinstance(task.exception(), Overloaded)):
            return Begun(request, entered.result(), task)
        await asyncio.wait(before, return_when=asyncio.FIRST_COMPLETED)


async def _either(task: Task, event: asyncio.Event) -> None:
    """Returns when the task has ended, or the event has come."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
