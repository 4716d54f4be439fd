"""A stream's requests over gRPC: several are under way at once, and answered in the order in which they came."""

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc

from app.api.oip import grpc_errors
from app.errors import GraftError, Overloaded

# Requests of one stream that are read and not answered yet: enough for batches to fill on several cores.
WINDOW = 32

Task = asyncio.Task[Any]
Read = Callable[[], Awaitable[Any]]
Enter = Callable[[], Coroutine[Any, Any, str]]
# Of the project, the request, and what is to be called once the engine has taken the request on.
Compute = Callable[[str, Any, Callable[[], None]], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """What is left of a stream's request once its task has ended: it may wait long for a client that reads.

    Args:
        id: of the request.
        model_name: likewise.
        project: whose it is; empty where its key was refused.
        task: ends with its answer, or with what is wrong, as the client is told it.
    """

    id: str
    model_name: str
    project: str
    task: Task


async def in_order(following: Read, enter: Enter, compute: Compute) -> AsyncGenerator[Begun]:
    """Each request once its task has ended, while later ones are read and computed.

    The stream's own requests do not shut each other out: where there is no room, the next one waits until one before it
    is answered, and nothing is read meanwhile.

    Args:
        following: reads the next request, or `grpc.aio.EOF`.
        enter: looks at the key, for each request anew, and says whose it is.
        compute: makes the answer.

    Raises:
        Exception: whatever reading raises, behind the answers to what was read before.
    """
    places, begun = asyncio.Semaphore(WINDOW), asyncio.Queue[Begun | None]()
    under_way: set[Task] = set()

    async def read() -> None:
        try:
            await places.acquire()
            while (request := await following()) is not grpc.aio.EOF:
                begun.put_nowait(await _begin(request, enter, compute, under_way))
                # The next one may be long in coming.
                del request
                await places.acquire()
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
    # What is bound where it enters is known where it is computed.
    context = contextvars.copy_context()

    def start(work: Callable[[], Coroutine[Any, Any, Any]]) -> Task:
        task = asyncio.create_task(_outcome(work), context=context)
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return task

    entered = start(enter)
    await asyncio.wait((entered,))
    project = entered.result()
    if isinstance(project, GraftError):
        return Begun(request.id, request.model_name, "", entered)
    while True:
        taken = asyncio.Event()
        task = start(partial(compute, project, request, taken.set))
        await _either(task, taken)
        before = under_way - {task}
        if not before or not (task.done() and isinstance(task.result(), Overloaded)):
            return Begun(request.id, request.model_name, project, task)
        await asyncio.wait(before, return_when=asyncio.FIRST_COMPLETED)


async def _outcome(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """What it ends with; an error as a value, since one that is raised keeps the frames that it came through."""
    try:
        return await work()
    except Exception as error:
        return grpc_errors.told(error)


async def _either(task: Task, event: asyncio.Event) -> None:
    """Returns when the task has ended, or the event has come."""
    waiting = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
