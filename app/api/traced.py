"""A span for every request, where traces are sent somewhere; it goes on from the client's `traceparent`."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.api import headers
from app.api.callers import CALLER
from app.tracing import Span

PREFIX = "/api/v1"
# Asked all day by machines.
UNTRACED = frozenset({"/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})


class Traced:
    """ASGI middleware, within what answers for the unforeseen, adds headers and keeps room; outside of all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        given = headers.first(scope, b"traceparent") or ""
        span = scope["app"].state.graft.tracer.begin(scope["method"], given, serves=True)
        has_begun = False

        async def send_seen(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                _describe(span, scope, message["status"])
            await send(message)

        try:
            with tracing.within(span.trace_parent):
                await self._app(scope, receive, send_seen)
        except BaseException as error:
            if not has_begun:
                # What it is answered with is made outside (`Unforeseen`), and not seen here.
                _describe(span, scope, HTTPStatus.INTERNAL_SERVER_ERROR)
            span.fail(type(error).__name__)
            raise
        finally:
            span.end()


def _describe(span: Span, scope: Scope, status: int) -> None:
    route = scope.get("route")
    caller = scope.get(CALLER)
    path = getattr(route, "path", None)
    if path is not None and scope["path"].startswith(PREFIX) and not path.startswith(PREFIX):
        # A route's own path lacks what it was mounted under.
        path = PREFIX + path
    span.name(f"{scope['method']} {path}" if path else scope["method"])
    span.tell(
        http__request__method=scope["method"],
        http__route=path,
        url__path=scope["path"],
        http__response__status_code=status,
        graft__project=caller.project if caller is not None and caller.project else None,
    )
    if status >= 500:
        span.fail(str(status))
