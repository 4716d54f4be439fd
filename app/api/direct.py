"""Routes of predictions: what a query says is worked out once, and not anew for each request that has the same one.

The framework goes through every parameter that a route declares for each request, and keeps what its dependencies have
opened: that was a fifth of what the event loop does for a prediction, of which thousands come with the same query, most
often an empty one. Another twentieth is the way to a route: router by router, and through each of them twice.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Match, NoMatchFound, compile_path
from starlette.types import Receive, Scope, Send

from app.api import callers
from app.api.answers import AskQuery

# Of which the meaning is remembered, and how long one of them is.
MAX_QUERIES, MAX_QUERY_BYTES = 256, 256

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

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The framework's own way for queries that are new, which also says what is wrong with one."""
        if not self.knows(scope):
            await super().handle(scope, receive, send)
            return
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


class Known(BaseRoute):
    """Stands before all other routes, and takes what a `Direct` one knows; it answers nothing that they would not.

    Args:
        prefix: of their paths.
        routers: that have them, among others.
    """

    def __init__(self, prefix: str, routers: Iterable[APIRouter]) -> None:
        routes = [route for router in routers for route in router.routes if isinstance(route, Direct)]
        self._routes = [(compile_path(prefix + route.path)[0], route) for route in routes]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The route that it is for, as the framework would have found it."""
        if scope["type"] == "http":
            for path, route in self._routes:
                found = path.fullmatch(scope["path"])
                if found is not None and route.knows(scope):
                    return Match.FULL, {"route": route, "endpoint": route.endpoint, "path_params": found.groupdict()}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request that matches."""
        await scope["route"].handle(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> NoReturn:
        """It has no name."""
        raise NoMatchFound(name, path_params)
