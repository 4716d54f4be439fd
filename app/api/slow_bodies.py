"""Gives up requests whose body has stopped coming; neither the framework nor its server has such a limit.

A client that is silent in the middle of a body would hold its connection, a file in scratch and its place among the
requests for as long as it likes. Whoever reads a stream of lines says where it may rest, which is between two of them.
"""

import asyncio
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems, waiting
from app.errors import TimedOut, Unavailable

_BODY = "graft.body"


class SlowBodies:
    """ASGI middleware: 408 when nothing of a body came for so long, and the connection ends.

    Whoever reads the body meets `TimedOut`, and cleans up as after every other error of ours.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app, self._seconds = app, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = scope[_BODY] = Body(receive, send, self._seconds)
        try:
            await self._app(scope, body.receive, body.send)
        except TimedOut:
            # Read where nobody makes a document of it.
            if body.stalled is None:
                raise
        except asyncio.CancelledError:
            # The server gives up what has not ended in time.
            if not waiting.is_stopping(scope) or body.is_answered:
                raise
            body.stalled = Unavailable(
                "expected the request to end before this process; found that it was asked to stop; send it again"
            )
        finally:
            # It knows of the scope, by what it sends through: all that belongs to a request, fifty objects, would wait
            # for the garbage collector, which took 4 % of the event loop's time.
            del scope[_BODY]
        if body.stalled is not None and not body.is_answered:
            await problems.give_up(scope, receive, send, body.stalled)


class Body:
    """One request's body, on the clock."""

    def __init__(self, receive: Receive, send: Send, seconds: float) -> None:
        self._receive, self._send, self._seconds = receive, send, seconds
        # Without a byte, over all that have waited: some give up after a while, and wait again.
        self._waited = 0.0
        self._is_over = False
        # Whoever reads it waits for the next piece for as long as it takes.
        self.is_patient = False
        # Why nobody waits for the rest, nor for the application's answer.
        self.stalled: TimedOut | Unavailable | None = None
        self.is_answered = False

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            TimedOut: none came for too long, whoever has waited for it meanwhile.
        """
        if self._is_over:
            # What comes behind a body is the end of the connection, for which anybody may wait.
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(None if self.is_patient else self._seconds - self._waited):
                message = await self._receive()
        except TimeoutError:
            self.stalled = TimedOut(
                f"expected the rest of the body; found nothing for {self._seconds:g} s (GRAFT_BODY_IDLE_SECONDS); send "
                "it again, large archives and weights in pieces with POST /api/v1/uploads"
            )
            raise self.stalled from None
        except BaseException:
            self._waited += 0.0 if self.is_patient else time.monotonic() - began
            raise
        self._waited = 0.0
        self._is_over = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Answers that nobody has waited for are left out: some readers make another error of a body that stalled."""
        if self.stalled is None or self.is_answered:
            self.is_answered = True
            await self._send(message)


def of(scope: Any) -> Body:
    """The body of a request."""
    found: Body = scope[_BODY]
    return found
