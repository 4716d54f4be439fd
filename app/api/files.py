"""A stored file as an answer, in whole or in the ranges that are asked for (RFC 9110, section 14)."""

from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from app.api import problems
from app.errors import Unsatisfiable


class Attachment(FileResponse):
    """The framework's own, but for its refusals, which are plain text.

    A `Range` that is no range is ignored, as if it were not there; one behind the end of the file is a problem.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers."""
        refusal: dict[str, Any] = {}

        async def send_unless_refused(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= HTTPStatus.BAD_REQUEST:
                refusal.update(message)
            if not refusal:
                await send(message)

        await super().__call__(scope, receive, send_unless_refused)
        if not refusal:
            return
        if refusal["status"] == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            found = Headers(scope=scope)["range"]
            size = Headers(raw=refusal["headers"])["content-range"]
            error = Unsatisfiable(
                f"expected a range that begins inside the file ({size.removeprefix('bytes */')} bytes); found {found}; "
                "ask for less, or for the whole file without the header Range"
            )
            answer = problems.of_error(scope["path"], error)
            answer.headers["Content-Range"] = size
            await answer(scope, receive, send)
            if self.background is not None:
                await self.background()
            return
        whole = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": whole}, receive, send)
