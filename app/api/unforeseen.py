"""What nobody foresaw: an answer that is a problem document as all others, and a trace in the log, once.

The framework answers it outside of every middleware, so without the headers of other answers, and lets the server log
it again.
"""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems

log = logging.getLogger(__name__)


class Unforeseen:
    """ASGI middleware, outside of all others but those that add headers to answers: 500 `internal`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on.

        Raises:
            Exception: one that came amid an answer, which only the server can break off; it logs that too.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_seen(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        except Exception as error:
            if has_begun:
                raise
            # Quoted: a path may have the end of a line in it.
            log.error("%s %r", scope["method"], scope["path"], exc_info=error)
            detail = "an error inside Graft; the server's log has the trace"
            answer = problems.response(scope["path"], 500, "internal", "Internal error", detail)
            await answer(scope, receive, send)
