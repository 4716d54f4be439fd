"""Who calls, and whether they may: a key for every request but the open ones, a scope for every route.

The key is looked at before anything of the request is read; the scope once the route is found, before its body is
checked. Neither touches the database on the event loop (see `app.api.keyring`).
"""

from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app import log_lines
from app.api import description, headers
from app.api.problems import of_error
from app.api.scopes import OPEN, SCOPES, Scopes
from app.errors import Forbidden, GraftError
from app.services.keys import Caller

CALLER = "graft.caller"
# Where no key is looked at. It has no project, so nothing of any can be reached through it.
ANYBODY = Caller("", frozenset())


def open_paths(*further: str) -> frozenset[str]:
    """Paths that need no key, as they are written in requests: none of them has a parameter."""
    # The interface's description is that of the program and not of what it holds.
    return (
        description.PATHS | {name.partition(" ")[2] for name, needed in SCOPES.items() if needed == OPEN} | {*further}
    )


class Callers:
    """ASGI middleware: writes down whose request it is, or answers 401 itself.

    Args:
        app: what it stands before.
        open_paths: that need no key.
    """

    def __init__(self, app: ASGIApp, open_paths: frozenset[str]) -> None:
        self._app, self._open = app, open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what has a caller on."""
        if scope["type"] == "http":
            try:
                scope[CALLER] = caller = await self._caller(scope)
                log_lines.bind(project=caller.project or None)
            except GraftError as error:
                await of_error(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller:
        if scope["path"] in self._open:
            return ANYBODY
        header = headers.first(scope, b"authorization") or ""
        caller: Caller = await scope["app"].state.graft.keyring.admit(header)
        return caller


async def check_scope(request: Request) -> None:
    """What every route asks first.

    Raises:
        Forbidden: code scope_missing.
    """
    scope = request.scope
    caller: Caller = scope[CALLER]
    if caller.key_id is None:
        # Keys are off, or the path is open.
        return
    check(caller, SCOPES.get(f"{scope['method']} {scope['route'].path}"), f"{scope['method']} {scope['path']}")


def check(caller: Caller, needed: Scopes | None, what: str) -> None:
    """Refuses a caller without any of the scopes; what no line names, everybody.

    Raises:
        Forbidden: code scope_missing.
    """
    if needed is None:
        raise Forbidden(
            f"expected a call that keys are meant for; found {what}, which has no scope", code="scope_missing"
        )
    if needed != OPEN and caller.scopes.isdisjoint(needed):
        has = ", ".join(sorted(caller.scopes)) or "none"
        raise Forbidden(
            f"expected a key with scope {' or '.join(needed)} for {what}; found one with {has}; ask for a key that has "
            "it",
            code="scope_missing",
            scope=" ".join(needed),
        )


def of(scope: Any) -> Caller:
    """Who a request comes from, by its scope."""
    caller: Caller = scope[CALLER]
    return caller


def project(scope: Any) -> str | None:
    """Whose request it is; None as long as no key was looked at."""
    caller: Caller | None = scope.get(CALLER)
    return None if caller is None else caller.project
