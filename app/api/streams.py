"""Predictions line by line (NDJSON): each goes out as soon as it and those before it are there.

Lines may come in the same way, one image each: then memory holds a window of images, however many there are.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.api import answers, held, images, slow_bodies, waiting
from app.api.answers import Ask
from app.api.deps import State
from app.api.forms import checked_json, plain_type
from app.api.held import Hold
from app.api.problems import document
from app.api.waiting import LOST, STOPPING, Waiter
from app.bodies import check_values, why_no_json
from app.errors import GraftError, Overloaded, TimedOut, TooLarge, Unauthorized, Unavailable, Unprocessable, words_of
from app.services.predictions import Found
from app.serving.call import Result, late

MEDIA_TYPE = "application/x-ndjson"
# Images of one stream that are on their way at once: enough to fill batches while lines are written.
WINDOW = 64
# After which an image for which there was no room asks again.
ROOM_SECONDS = 0.05

Line = dict[str, Any]
# An image, and what is held of it until it is answered.
Sent = AsyncIterator[tuple[bytes | GraftError, Hold]]
Begun = asyncio.Future[Result] | GraftError


def wanted(request: Request) -> bool:
    """Whether the client reads lines, or sends some."""
    return any(plain_type(request, header) == MEDIA_TYPE for header in ("accept", "content-type"))


async def response(ask: Ask, line: Callable[[Found, NDArray[Any], NDArray[Any]], Line]) -> StreamingResponse:
    """One line for each image, in their order: `index`, and what `line` makes of the rows, or `problem`.

    A bad image is a line of its own and does not end the stream. What is wrong with the whole request is an answer of
    its own, before the first line.
    """
    if plain_type(ask.request, "content-type") == MEDIA_TYPE:
        sent = _until_stopped(ask.request, _lines(ask.request, ask.state))
    else:
        sent = _each(await ask.read(), held.of(ask.request.scope))
    found = await ask.find()

    def write(index: int, outcome: Result | GraftError) -> bytes:
        if isinstance(outcome, GraftError):
            path = ask.request.scope["path"]
            # Each image is a request of its own here; the place that it has in that says nothing.
            detail = outcome.detail.removeprefix("image 0: ")
            problem = document(outcome.status, outcome.code, outcome.title, detail, path, **outcome.extra)
            return _dumped({"index": index, "problem": problem | {"index": index}})
        return _dumped({"index": index, **line(found, outcome.probabilities_NC[0], outcome.features_ND[0])})

    return _Lines(_written(ask, found, sent, write), headers=answers.described(found), media_type=MEDIA_TYPE)


class _Lines(StreamingResponse):
    """Does not listen for the end of the connection itself: it would take the body's messages from whoever reads it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what the iterator yields, as long as anybody reads it."""
        # The head has gone: no handler of errors can answer any more, and nobody would read it.
        with suppress(ClientDisconnect):
            await self.stream_response(send)


async def _written(
    ask: Ask, found: Found, sent: Sent, write: Callable[[int, Result | GraftError], bytes]
) -> AsyncIterator[bytes]:
    """Lines, while images are still coming: whoever waits for each answer before the next image is served too."""
    begun: asyncio.Queue[Begun | None] = asyncio.Queue(WINDOW)
    reader = asyncio.create_task(_begin_all(ask, found, sent, begun))
    lost = ask.request.scope.get(LOST)
    connection = Waiter(reader, lost) if lost is not None else Waiter(reader)
    index = 0
    try:
        while (one := await connection.settled(asyncio.ensure_future(begun.get()))) is not None:
            yield write(index, await _outcome(one, connection))
            index += 1
    finally:
        reader.cancel()
        while not begun.empty():
            if isinstance(one := begun.get_nowait(), asyncio.Future):
                one.cancel()


async def _begin_all(ask: Ask, found: Found, sent: Sent, begun: asyncio.Queue[Begun | None]) -> None:
    """Gives each image to the engine as it comes; then listens until the connection is closed."""
    authorization, index = ask.request.headers.get("authorization", ""), 0
    async for image, hold in sent:
        if not await ask.state.keyring.holds(authorization):
            # A stream may last longer than its key.
            await begun.put(Unauthorized("expected a key that still holds; found it ended", code="key_revoked"))
            break
        await begun.put(await _begin(ask, found, image, index, hold))
        index += 1
    await begun.put(None)
    await waiting.disconnected(ask.request)


async def _begin(ask: Ask, found: Found, image: bytes | GraftError, index: int, hold: Hold) -> Begun:
    """An image on its way, or why it is not; what is held of it goes with its answer."""
    one = await _submitted(ask, found, image, index)
    if isinstance(one, GraftError):
        hold.close()
    else:
        one.add_done_callback(lambda _: hold.close())
    return one


async def _submitted(ask: Ask, found: Found, image: bytes | GraftError, index: int) -> Begun:
    """Waits for room: what was taken on is answered, however busy the service gets meanwhile."""
    if isinstance(image, GraftError):
        return image
    while True:
        try:
            answer = asyncio.wrap_future(ask.submit(found, [image], index))
            answer.add_done_callback(partial(_compare, ask, found, image))
            return answer
        except Overloaded:
            if ask.is_late:
                return late()
            await asyncio.sleep(ROOM_SECONDS)
        except GraftError as error:
            return error


def _compare(ask: Ask, found: Found, image: bytes, answer: asyncio.Future[Result]) -> None:
    """An image that was answered is one for the shadow, as one of any other request."""
    if not answer.cancelled() and answer.exception() is None:
        ask.compare(found, [image], answer.result())


async def _outcome(one: Begun, connection: Waiter) -> Result | GraftError:
    if isinstance(one, GraftError):
        return one
    try:
        return await connection.settled(one)
    except GraftError as error:
        return words_of(error)


async def _each(sent: list[bytes], hold: Hold) -> Sent:
    """The images of a body that was read as a whole, and is held as long."""
    for image in sent:
        yield image, hold.part(0)


async def _until_stopped(request: Request, sent: Sent) -> Sent:
    """Images that come, for as long as they may; why there are no more, where the server is to stop."""
    stopping = request.scope.get(STOPPING)
    serving = Waiter() if stopping is None else Waiter(stopping)
    try:
        while (one := await serving.settled(asyncio.ensure_future(anext(sent, None)))) is not None:
            yield one
    except ClientDisconnect as error:
        words_of(error)
        if not waiting.is_stopping(request.scope):
            raise
        stopped = Unavailable(
            "expected more lines; found that this process was asked to stop; send what has no answer again"
        )
        yield stopped, held.of(request.scope).part(0)


async def _lines(request: Request, state: State) -> Sent:
    """The images of a body of lines, `ImageIn` each, as they come; a bad line is an error in its place."""
    limit, rest, read = state.settings.max_predict_bytes, bytearray(), _Reader(state)
    hold, body = held.of(request.scope), slow_bodies.of(request.scope)
    chunks, is_refused = request.stream(), False
    while True:
        await hold.readable()
        body.is_patient = not rest and not is_refused
        try:
            chunk = await anext(chunks, None)
        except (Overloaded, TimedOut) as error:
            yield error, hold.part(0)
            return
        if chunk is None:
            break
        if is_refused:
            # What is left of that line; the next one may be an image.
            dropped, feed, chunk = chunk.partition(b"\n")
            hold.part(len(dropped + feed)).close()
            is_refused = not feed
        begun = len(rest)
        rest += chunk
        # Looked for in what is new: a long line comes in many chunks.
        end = rest.rfind(b"\n", begun)
        whole, rest = (rest[:end], rest[end + 1 :]) if end >= 0 else (b"", rest)
        for line in whole.split(b"\n") if end >= 0 else ():
            part = hold.part(len(line) + 1)
            if (image := await read.image(bytes(line), part)) is not None:
                yield image, part
        if len(rest) > limit:
            part, is_refused = hold.part(len(rest)), True
            rest = bytearray()
            yield read.too_large(), part
    part = hold.part(len(rest))
    if (image := await read.image(bytes(rest), part)) is not None:
        yield image, part


class _Reader:
    """Reads a body's lines one after the other, and knows the place of each.

    Args:
        state: of the process.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        # Blank ones are lines too: as an editor numbers them. An image's index, and pointers, leave them out.
        self._num_lines = self._num_images = 0

    async def image(self, line: bytes, hold: Hold) -> bytes | GraftError | None:
        """The image of the next line, or what is wrong with it; None for a blank one, of which nothing is held."""
        if len(line) > self._state.settings.max_predict_bytes:
            return self.too_large()
        self._num_lines += 1
        if not line.strip():
            hold.close()
            return None
        index, self._num_images = self._num_images, self._num_images + 1
        try:
            wanted = await images.aside(len(line), lambda: self._wanted(line, index))
            return (await images.given([wanted], self._state, hold, "/body", index))[0]
        except GraftError as error:
            error.detail = f"line {self._num_lines}: {error.detail}"
            return error

    def too_large(self) -> TooLarge:
        """What is wrong with the next line, which need not have come as a whole: it is larger than a body may be."""
        self._num_lines, self._num_images = self._num_lines + 1, self._num_images + 1
        return TooLarge(
            f"line {self._num_lines}: expected a line of at most {self._state.settings.max_predict_bytes} bytes "
            "(GRAFT_MAX_PREDICT_BYTES); found more; send a smaller image"
        )

    def _wanted(self, line: bytes, index: int) -> images.ImageIn:
        check_values("one image", line, images.FEW_VALUES)
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = why_no_json(error)
            if isinstance(error, json.JSONDecodeError):
                # It would say that every line is line 1.
                why = f"{error.msg} at character {error.pos}"
            raise Unprocessable(
                f'expected one JSON object with an image; found {why}; send {{"b64": ...}} or {{"url": ...}}',
                errors=[{"pointer": f"/body/{index}", "detail": why}],
            ) from error
        return checked_json(images.ImageIn, found, str(index))


def _dumped(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"
