"""Gives every request an id: the client's own, or a new one. Lines of the log carry it, and so does the answer."""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import log_lines
from app.api import headers
from app.db.base import new_id

HEADER = b"x-request-id"
_ALLOWED = re.compile(r"[\x21-\x7e]{1,200}")
_JOB = re.compile(r"/api/v1/jobs/(job_[0-9a-z]{1,40})(/|$)")


class Requests:
    """ASGI middleware, the first that a request meets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = headers.first(scope, HEADER) or ""
        # What somebody else has written may go into lines and headers as it is, or not at all.
        request_id = given if _ALLOWED.fullmatch(given) else new_id("req")
        job = _JOB.match(scope["path"])
        # To the end of the task, which is the request's own: the server may have a line to add.
        log_lines.bind(request_id=request_id, project=None, job_id=job[1] if job else None)
        named = (HEADER, request_id.encode())

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), named]
            await send(message)

        await self._app(scope, receive, send_named)
