"""Keeps other web pages out of a service that listens on loopback without keys.

A page that the user happens to visit can reach 127.0.0.1: by DNS rebinding (its own host name, pointed at us) and by
simple cross-site requests (a form, or `fetch` in `no-cors` mode). The first shows in Host, the second in Origin or
Sec-Fetch-Site.
"""

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import headers
from app.api.problems import of_error
from app.errors import BadRequest, Forbidden, GraftError, Misdirected, NotFound

LOCAL = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
# A name, or an address of IPv6 in brackets, and a port at most (RFC 9110, section 7.2).
_HOST = re.compile(r"(\[[^]]*\]|[^:]*)(?::[0-9]*)?")
# Where the service listens, but nobody's name for it.
WILDCARDS = frozenset({"0.0.0.0", "::", "[::]", ""})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


# What a page of an allowed origin may read beside the body.
EXPOSED = (
    "Inference-Header-Content-Length", "Location", "Retry-After", "Server-Timing", "WWW-Authenticate",
    "X-Graft-Alignment", "X-Graft-Precision", "X-Graft-Shape", "X-Graft-Version", "X-Request-Id",
    "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm",
    "Upload-Offset", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Expires",
)  # fmt: skip


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Lets pages of these origins call (CORS); they send a key as programs do, and no cookies."""
    from starlette.middleware.cors import CORSMiddleware

    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=("*",),
        expose_headers=EXPOSED,
    )


class Guard:
    """ASGI middleware: refuses foreign hosts (421) and cross-site writes (403).

    Args:
        app: what is guarded.
        hosts: names and addresses that are ours, besides the loopback's.
        origins: of other sites, whose pages may write.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], origins: frozenset[str] = frozenset()) -> None:
        self._origins = origins
        self._app = app
        self._hosts = (LOCAL | {host.lower() for host in hosts}) - WILDCARDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes what is allowed on, and answers the rest itself."""
        if scope["type"] == "http":
            try:
                self._check(scope)
            except GraftError as error:
                await of_error(scope["path"], error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if scope["path"].endswith("\n"):
            # The framework's patterns end before it: it would be the path without, past whoever looks at the whole one.
            raise NotFound(f"expected a path that there is; found {scope['path']!r}; see /docs for the routes")
        if (number := sum(name == b"host" for name, _ in scope["headers"])) > 1:
            # Whoever stands in front may have looked at another one (RFC 9112, section 3.2).
            raise BadRequest(f"expected one Host header; found {number}; send the one that is meant")
        named = headers.first(scope, b"host") or ""
        if _name(named) not in self._hosts:
            raise Misdirected(
                f"expected a host of {', '.join(sorted(self._hosts))}; found {named[:100]!r}; "
                "name it in GRAFT_ALLOWED_HOSTS if it is ours"
            )
        origin = headers.first(scope, b"origin")
        if scope["method"] in SAFE_METHODS or origin in self._origins:
            return
        if headers.first(scope, b"sec-fetch-site") == "cross-site":
            raise Forbidden(
                "expected a write from our own pages or a program; found a cross-site request", code="cross_site"
            )
        if origin is not None and not self._is_ours(origin, named):
            raise Forbidden(f"expected a write from our own origin; found Origin {origin!r}", code="cross_site")

    def _is_ours(self, origin: str, host: str) -> bool:
        """Whether a page of that origin is one of ours: on loopback any other port is somebody else's."""
        name, port = _split(origin)
        if name in self._hosts - LOCAL:
            # Named by the operator. A proxy may stand in front, whose port is not the one that we see.
            return True
        return name in LOCAL and (_name(host) in LOCAL) and port == _split(f"http://{host}")[1]


def _name(host: str) -> str:
    """Host header without its port; nobody's, which is empty, where something else stands behind the name."""
    found = _HOST.fullmatch(host)
    return found[1].lower() if found else ""


def _split(origin: str) -> tuple[str, int]:
    """Host and port of an Origin header; an empty host when it is none that a browser sends."""
    try:
        parts = urlsplit(origin)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0
