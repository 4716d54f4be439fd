"""Refuses predictions that the engine has no room for, before anything is put into them.

A service at its limit spends on each refusal what it cannot spend on answers, and holds each body that it has read. So
this comes before keys, routes and bodies: at twice the saturation that was 1.3 ms of the event loop for each refusal.
What it says is no secret: how busy the service is.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import problems
from app.errors import Overloaded

# Every path that answers with predictions. Images of a new class are few, and the engine itself refuses them.
_PREDICTS = re.compile(r"/api/v1/models/[^/]+/(predict|embed)|/v2/models/[^/]+/(versions/[^/]+/)?infer")


class Room:
    """ASGI middleware: 503 with `Retry-After` when a prediction would wait too long, in the shape of its door."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on whatever is not a prediction, and predictions while there is room."""
        if scope["type"] == "http" and scope["method"] == "POST" and _PREDICTS.fullmatch(scope["path"]):
            try:
                scope["app"].state.graft.engine.check_room()
            except Overloaded as error:
                await problems.of_error(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
