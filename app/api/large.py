"""Bodies beyond the limit of all small routes, refused in the shape of every other error."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import problems
from app.errors import TooLarge

# The framework refuses on its own, before a handler of errors is asked, and in words of its own.
_WORDS = (b"content-type", b"text/plain; charset=utf-8")


class Large:
    """ASGI middleware: the framework's 413 as a problem document.

    Args:
        app: whose routes have a limit.
        max_bytes: the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes all other answers on."""
        replaced = False

        async def send_problem(message: Message) -> None:
            nonlocal replaced
            if replaced:
                return
            replaced = message.get("status") == TooLarge.status and _WORDS in message.get("headers", ())
            if not replaced:
                await send(message)
                return
            words = f"expected a body of at most {self._max_bytes} bytes (GRAFT_MAX_JSON_BYTES); found more; send less"
            await problems.of_error(scope["path"], TooLarge(words))(scope, receive, send)

        await self._app(scope, receive, send_problem)
