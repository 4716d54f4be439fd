"""Routes of predictions: what a query says is worked out once, and not anew for each request that has the same one.

The framework goes through every parameter that a route declares for each request, and keeps what its dependencies have
opened: that was a fifth of what the event loop does for a prediction, of which thousands come with the same query, most
often an empty one. Another tenth are its layers around all routes, and the way to one: router by router, and through
each of them twice.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from app.api import callers, slow_bodies
from app.api.answers import AskQuery

# Of which the meaning is remembered, and how long one of them is.
MAX_QUERIES, MAX_QUERY_BYTES = 256, 256

_ERROR = "graft.error"

Endpoint = Callable[[str, Request, str, Any], Awaitable[Response]]


class Direct(APIRoute):
    """A route of POST whose endpoint takes `name`, `request`, `project` and `query`, and makes the response itself.

    A query that it was called with, all of which the framework has checked, is known from then on: the next request
    with the same one is asked for its key's scope, and goes to the endpoint.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        self._known: dict[bytes, AskQuery] = {}

        @wraps(endpoint)
        async def remembering(name: str, request: Request, project: str, query: AskQuery) -> Response:
            self._remember(request.scope["query_string"], query)
            return await endpoint(name, request, project, query)

        self._direct = endpoint
        super().__init__(path, remembering, **options)

    def knows(self, scope: Scope) -> bool:
        """Whether a request can go to the endpoint at once."""
        return scope["query_string"] in self._known and scope["method"] == "POST"

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request whose query it knows, and whose place in `scope` is as the framework would have set it."""
        query, request = self._known[scope["query_string"]], Request(scope, receive, send)
        await callers.check_scope(request)
        project = callers.of(scope).project
        answer = await self._direct(request.path_params["name"], request, project, query)
        await answer(scope, receive, send)

    def _remember(self, written: bytes, query: AskQuery) -> None:
        if len(written) > MAX_QUERY_BYTES:
            return
        if len(self._known) >= MAX_QUERIES:
            self._known.clear()
        self._known[written] = query


class Known:
    """ASGI middleware, the last one: takes what a `Direct` route knows, past the framework's own layers and routers.

    Args:
        app: answers everything else.
        prefix: of the routes' paths.
        routers: that have them, among others.
        handlers: of the application's errors.
    """

    def __init__(
        self, app: ASGIApp, prefix: str, routers: Iterable[APIRouter], handlers: Mapping[Any, ExceptionHandler]
    ) -> None:
        self._failed = ExceptionMiddleware(_raise, handlers)
        routes = [route for router in routers for route in router.routes if isinstance(route, Direct)]
        self._app = app
        self._routes = [(compile_path(prefix + route.path)[0], route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        route = self._find(scope) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        try:
            await route.answer(scope, receive, send)
        except Exception as error:
            if slow_bodies.of(scope).is_answered:
                raise
            scope[_ERROR] = error
            await self._failed(scope, receive, send)

    def _find(self, scope: Scope) -> Direct | None:
        """The route that knows a request, which has its place in `scope` from then on."""
        for path, route in self._routes:
            found = path.fullmatch(scope["path"])
            if found is not None and route.knows(scope):
                scope.update(route=route, endpoint=route.endpoint, path_params=found.groupdict())
                return route
        return None


async def _raise(scope: Scope, _receive: Receive, _send: Send) -> NoReturn:
    """Shows an error to the handlers that the framework asks for its own routes."""
    raise scope.pop(_ERROR)
