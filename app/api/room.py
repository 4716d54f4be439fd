"""Refuses predictions that the engine or memory has no room for, before anything is put into them, and counts refusals.

A service at its limit spends on each refusal what it cannot spend on answers, and holds each body that it has read. So
this comes before keys, routes and bodies: at twice the saturation that was 1.3 ms of the event loop for each refusal.
How busy a model is, and that it is there, is told to whom it belongs, by the key as it is remembered: with one that was
never seen, and may be of a project that has nothing in the engine, that refuses behind the key, and the body is read.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import callers, headers, problems
from app.api.held import REFUSALS, Hold
from app.errors import GraftError

# Every path that answers with predictions, and the one that learns a class from images.
_HOLDS = re.compile(
    r"/api/v1/models/(?P<native>[^/]+)/(predict|embed|classes)|/v2/models/(?P<oip>[^/]+)/(versions/[^/]+/)?infer"
)
# Images of a new class are few, and the engine itself refuses them.
_WITHOUT_ENGINE = "/classes"


class Room:
    """ASGI middleware: 503 with `Retry-After` when a prediction would wait too long, in the shape of its door."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on whatever is not a prediction, and predictions while there is room."""
        found = _HOLDS.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        state, name = scope["app"].state.graft, found["native"] or found["oip"]
        remembered = state.keyring.remembered(headers.first(scope, b"authorization") or "") or ""

        async def send_counted(message: Message) -> None:
            if message.get("status") in REFUSALS:
                state.statistics.refused(callers.project(scope) or remembered, name, problems.code(scope))
            await send(message)

        hold = Hold(state.held, remembered)
        try:
            if not scope["path"].endswith(_WITHOUT_ENGINE):
                state.engine.check_room(state.lookup.backbones(remembered, name), remembered)
            receive_held = hold.receiving(scope, receive)
        except GraftError as error:
            problems.note(scope, error.code)
            await problems.of_error(scope["path"], error)(scope, receive, send_counted)
            return
        try:
            await self._app(scope, receive_held, send_counted)
        finally:
            hold.close()
