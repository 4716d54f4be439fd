"""Writes down what keys change: after the answer has gone out, so that nobody waits for it."""

import logging
from typing import Any

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.callers import CALLER
from app.api.guard import SAFE_METHODS
from app.api.scopes import SCOPES
from app.db.base import new_id
from app.services import audit
from app.services.audit import Change
from app.services.keys import ADMIN, WRITE

log = logging.getLogger(__name__)


class Auditing:
    """ASGI middleware, inside of `Callers`. Calls of models are no changes, and reads neither."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on; of a change it remembers how it was answered."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or scope[CALLER].key_id is None:
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode("latin-1") or new_id("req")
        answer: dict[str, Any] = {"status": 500, "location": None}

        async def send_seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                places = [value.decode("latin-1") for name, value in message["headers"] if name == b"location"]
                answer.update(status=message["status"], location=places[0] if places else None)
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        finally:
            if _changes(scope):
                change = Change(scope[CALLER], scope["method"], scope["path"], request_id=request_id, **answer)
                await to_thread.run_sync(_record, scope["app"].state.graft.database, change)


def _changes(scope: Scope) -> bool:
    route = scope.get("route")
    needed = SCOPES.get(f"{scope['method']} {route.path}", ()) if route is not None else ()
    return WRITE in needed or ADMIN in needed


def _record(database: Any, change: Change) -> None:
    try:
        with database.write() as session:
            audit.record(session, change)
    except SQLAlchemyError as error:
        # What was asked is done by now; the line in the log, which comes first, is all that is left of it.
        log.warning("an entry of the audit log was not stored: %s", error)
