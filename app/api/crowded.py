"""JSON of more values than may become objects: refused while it comes, before anything is made of it.

As objects, empty lists take forty times their text, and what is wrong with each of them five hundred times.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import headers, oip_errors, problems
from app.bodies import num_values, too_many_values
from app.errors import TooLarge


class Crowded:
    """ASGI middleware for routes whose JSON the framework reads.

    Args:
        app: whose routes have a limit.
        most: values in one body.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on; tensors are read by hand, and most of their values are numbers."""
        if scope["type"] != "http" or oip_errors.concerns(scope["path"]) or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        number, refusal = 0, None

        async def receive_counted() -> Message:
            nonlocal number, refusal
            message = await receive()
            number += num_values(message.get("body", b""))
            if number > self._most:
                refusal = too_many_values("body", self._most, " (GRAFT_MAX_JSON_VALUES)")
                raise refusal
            return message

        async def send_unless_refused(message: Message) -> None:
            # Whoever reads the body makes another error of it.
            if refusal is None:
                await send(message)

        try:
            await self._app(scope, receive_counted, send_unless_refused)
        except TooLarge:
            if refusal is None:
                raise
        if refusal is not None:
            await problems.give_up(scope, receive, send, refusal)


def _is_json(scope: Scope) -> bool:
    # As the framework sees it: of several kinds the end of the last one counts.
    kind = headers.media_type(scope, b"content-type")
    return kind == "application/json" or kind.endswith("+json")
