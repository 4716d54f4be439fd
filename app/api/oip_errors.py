"""Errors as the protocol has them: `{"error": "..."}` under `/v2`, status codes over gRPC."""

import re
from http import HTTPStatus
from typing import Any

PREFIX = "/v2"
# What the protocol's servers tell apart, and what the service or its guard has to say before the protocol is spoken.
KEPT = frozenset({401, 403, 404, 405, 408, 421, 429, 431, 499, 500, 501, 503, 504})
GRPC_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


# Where clients of other servers ask for what is not spoken here: logs, traces, and tensors in shared memory.
_UNSPOKEN = re.compile(rf"{PREFIX}/(logging|(models/[^/]+/)?trace/setting|(system|cuda)sharedmemory/.+)")


def is_unspoken(path: str) -> bool:
    """Whether the path is one of the protocol's extensions that are not spoken here."""
    return _UNSPOKEN.fullmatch(path) is not None


def concerns(path: str) -> bool:
    """Whether an error at that path is told in the protocol's shape."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def http_status(status: int) -> int:
    """The status that clients of the protocol know; what has none there is a bad request, or an internal error."""
    if status in KEPT:
        return status
    return HTTPStatus.BAD_REQUEST if status < HTTPStatus.INTERNAL_SERVER_ERROR else HTTPStatus.INTERNAL_SERVER_ERROR


def grpc_code(status: int) -> str:
    """The name of the gRPC status."""
    return GRPC_CODES.get(status, "INVALID_ARGUMENT" if status < HTTPStatus.INTERNAL_SERVER_ERROR else "INTERNAL")


def document(detail: str, errors: list[dict[str, str]] | None = None) -> dict[str, Any]:
    """The body of an error.

    Args:
        detail: what was expected, what was found, what to do.
        errors: places in the payload, each with what is wrong there.
    """
    places = "".join(f"; {item['pointer']}: {item['detail']}" for item in errors or ())
    return {"error": detail + places}
