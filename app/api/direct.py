"""Routes of predictions: what a query says is worked out once, and not anew for each request that has the same one.

The framework goes through every parameter that a route declares for each request, and keeps what its dependencies have
opened: that was a fifth of what the event loop does for a prediction, of which thousands come with the same query, most
often an empty one.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
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

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The framework's own way for queries that are new, which also says what is wrong with one."""
        query = self._known.get(scope["query_string"])
        if query is None or scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        request = Request(scope, receive, send)
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
