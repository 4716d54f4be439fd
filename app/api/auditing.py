"""Writes down what keys change: in the transaction that makes the change, or at the latest before the answer leaves.

A process that is killed at any moment has no change behind it without its entry, where the change is made in the
transaction that `app.api.deps.finish` commits. What is refused, and bytes of uploads, which come in transactions of
their own, are written down after the fact, while the answer waits.
"""

import logging
from contextvars import ContextVar
from typing import Any

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import log_lines
from app.api.callers import CALLER
from app.api.guard import SAFE_METHODS
from app.api.scopes import SCOPES
from app.db.base import new_id
from app.services import audit
from app.services.audit import Change
from app.services.keys import ADMIN, WRITE

FAILED = 500

log = logging.getLogger(__name__)


class Note:
    """What is known of one request that is to change something."""

    def __init__(self, scope: Scope, request_id: str) -> None:
        self._scope, self._request_id = scope, request_id
        self._id = new_id("aud")
        self._stored: Change | None = None

    def change(self, status: int, location: str | None) -> Change:
        """The request, with an end."""
        scope = self._scope
        return Change(self._id, scope[CALLER], scope["method"], scope["path"], location, status, self._request_id)

    def add(self, session: Session, location: str | None) -> Change | None:
        """Puts the entry into the transaction that makes the change; `stored` is to be told of its commit."""
        if self._stored is not None or not _changes(self._scope):
            return None
        change = self.change(self._scope["route"].status_code or 200, location)
        audit.record(session, change)
        return change

    def stored(self, change: Change | None) -> None:
        """After the commit."""
        self._stored = change or self._stored

    async def end(self, status: int, location: str | None) -> None:
        """Before the answer leaves: what is stored by then says how it ended."""
        change = self.change(status, location)
        if not _changes(self._scope):
            return
        audit.tell(change)
        if change != self._stored:
            await to_thread.run_sync(_write, self._scope["app"].state.graft.database, change)
            self._stored = change


# Of the request that is being answered, also in the threads that do so; None for one that is not written down.
_NOTE: ContextVar[Note | None] = ContextVar("graft_audit", default=None)


def current() -> Note | None:
    """What the request's transaction puts its entry into."""
    return _NOTE.get()


class Auditing:
    """ASGI middleware, inside of `Callers`. Calls of models are no changes, and reads neither."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on; the answer to a change waits until it is written down."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or scope[CALLER].key_id is None:
            await self._app(scope, receive, send)
            return
        note = Note(scope, log_lines.ids().request_id or new_id("req"))
        before = _NOTE.set(note)
        answered = False

        async def send_written(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                places = [value.decode("latin-1") for name, value in message["headers"] if name == b"location"]
                await note.end(message["status"], places[0] if places else None)
            await send(message)

        try:
            await self._app(scope, receive, send_written)
        finally:
            _NOTE.reset(before)
            if not answered:
                await note.end(FAILED, None)


def _changes(scope: Scope) -> bool:
    route = scope.get("route")
    needed = SCOPES.get(f"{scope['method']} {route.path}", ()) if route is not None else ()
    return WRITE in needed or ADMIN in needed


def _write(database: Any, change: Change) -> None:
    try:
        with database.write() as session:
            audit.record(session, change)
    except SQLAlchemyError as error:
        # A refusal that nobody can write down is still one; the line in the log is all that is left of it.
        log.warning("an entry of the audit log was not stored: %s", error)
