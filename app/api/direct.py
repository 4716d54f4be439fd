"""Routes of predictions: what a query says is worked out once, and not anew for each request that has the same one.

The framework goes through every parameter that a route declares for each request: that was a seventh of what the event
loop does for a prediction, of which thousands come with the same query, most often an empty one.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.api import callers
from app.api.answers import AskQuery

# Of which the meaning is remembered, and how long one of them is.
MAX_QUERIES, MAX_QUERY_BYTES = 256, 256

Endpoint = Callable[[str, Request, str, Any], Awaitable[Response]]


class Direct(APIRoute):
    """A route whose endpoint takes `name`, `request`, `project` and `query`, and answers with a response of its own.

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

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's own, for queries that are new; it also says what is wrong with one."""
        framework = super().get_route_handler()

        async def handler(request: Request) -> Response:
            query = self._known.get(request.scope["query_string"])
            if query is None:
                return await framework(request)
            await callers.check_scope(request)
            project = callers.of(request.scope).project
            return await self._direct(request.path_params["name"], request, project, query)

        return handler

    def _remember(self, written: bytes, query: AskQuery) -> None:
        if len(written) > MAX_QUERY_BYTES:
            return
        if len(self._known) >= MAX_QUERIES:
            self._known.clear()
        self._known[written] = query
