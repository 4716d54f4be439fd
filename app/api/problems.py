"""Every error as one RFC 9457 document: `application/problem+json` with a stable `code`."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from sqlite3 import SQLITE_FULL
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.api import oip_errors as oip
from app.bodies import MAX_TOLD, pointers, why_no_json
from app.errors import Conflict, GraftError, OutOfSpace, Unavailable, Unsupported, words_of

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
CHALLENGE = 'Bearer realm="graft"'
CLIENT_CLOSED_REQUEST = 499
POSTGRESQL_FULL = "53100"
# What PostgreSQL ends by the bounds that it was given: what was expected, and found.
POSTGRESQL_SLOW = {
    "57014": "no statement of a request to take GRAFT_DATABASE_STATEMENT_SECONDS; found one that took longer",
    "55P03": "to have what others hold within GRAFT_DATABASE_LOCK_SECONDS; found that another request or job holds it",
}
# What is raised where a database cannot be asked, or does not answer in time.
AWAY = (OperationalError, InterfaceError, PoolTimeout)
# What the framework itself refuses, before a route of ours is reached.
FRAMEWORK_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}

_CODE = "graft.code"

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:graft:problem:` and the code; docs/errors.md explains each.")
    title: str
    status: int
    code: str = Field(description="Stable, machine-readable; docs/errors.md has one section for each.")
    detail: str = Field(description="What was expected, what was found, what to do.")
    instance: str = Field(description="Path of the request.")


RESPONSES: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "Any error",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}
# Of routes that take a `timeout`.
TOO_LATE: dict[int | str, dict[str, Any]] = {504: {**RESPONSES["default"], "description": "The time asked for is over"}}


def unsupported(responses: Mapping[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """What the schema says of a route that takes a part of a protocol which nobody here speaks.

    Args:
        responses: that the router describes errors by.
    """
    return {501: {**responses["default"], "description": "A part of the protocol that is not spoken here"}}


def install(app: FastAPI, of_storage: Sequence[type[Exception]] = ()) -> None:
    """Registers the handlers.

    Args:
        app: the application.
        of_storage: what its storage raises when it refuses, or is away where nothing has told so yet.
    """
    for kind in of_storage:
        app.add_exception_handler(kind, _storage_error)
    app.add_exception_handler(GraftError, _graft_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(DataError, _data_error)
    app.add_exception_handler(UnicodeEncodeError, _data_error)
    app.add_exception_handler(IntegrityError, _integrity_error)
    for away in AWAY:
        app.add_exception_handler(away, _database_error)
    app.add_exception_handler(ClientDisconnect, _gone)


def document(status: int, code: str, title: str, detail: str, instance: str, **extra: Any) -> dict[str, Any]:
    """The body of a problem response."""
    return {
        "type": f"urn:graft:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "instance": quote(instance),
        **extra,
    }


class Document(JSONResponse):
    """JSON that may quote whatever a client has sent: half a surrogate pair, which UTF-8 has not, stays escaped."""

    def render(self, content: Any) -> bytes:
        """As bytes."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace")


def response(path: str, status: int, code: str, title: str, detail: str, **extra: Any) -> JSONResponse:
    """A problem response; under `/v2` in the shape of the protocol that is spoken there."""
    headers = _headers(status, code, extra)
    if oip.concerns(path):
        return Document(oip.document(detail, extra.get("errors")), oip.http_status(status), headers)
    return Document(document(status, code, title, detail, path, **extra), status, headers, MEDIA_TYPE)


def _headers(status: int, code: str, extra: Mapping[str, Any]) -> dict[str, str]:
    """What programs look for beside the document: when to come again, how to say who they are (RFC 6750)."""
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.LOCKED):
        return {"Retry-After": str(extra.get("retry_after_seconds", RETRY_AFTER_SECONDS))}
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": CHALLENGE if code == "key_missing" else f'{CHALLENGE}, error="invalid_token"'}
    if code == "scope_missing" and "scope" in extra:
        return {"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{extra["scope"]}"'}
    return {}


def of_error(path: str, error: GraftError) -> JSONResponse:
    """An error of ours."""
    return response(path, error.status, error.code, error.title, error.detail, **error.extra)


async def give_up(scope: Scope, receive: Receive, send: Send, error: GraftError) -> None:
    """Answers in place of the application, and ends the connection: the rest of the body is not read."""
    note(scope, error.code)
    answer = of_error(scope["path"], error)
    answer.headers["Connection"] = "close"
    await answer(scope, receive, send)


def note(scope: Scope, code: str) -> None:
    """Remembers with a request what its answer says, for whoever counts refusals."""
    scope[_CODE] = code


def code(scope: Scope) -> str:
    """What an answer says that was no success."""
    found: str = scope.get(_CODE, Unavailable.code)
    return found


async def _graft_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, GraftError)
    note(request.scope, error.code)
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s", request.method, request.url.path, exc_info=error)
    return of_error(request.scope["path"], words_of(error))


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    words_of(error)
    found = error.errors()
    more = len(found) - MAX_TOLD
    return _unfit(request, pointers(map(_placed, found[:MAX_TOLD])), f", and {more} more" if more > 0 else "")


def _unfit(request: Request, errors: Sequence[Mapping[str, str]], more: str = "") -> JSONResponse:
    places = ", ".join(item["pointer"] for item in errors)
    detail = f"expected a payload that fits the schema at /openapi.json; found problems at {places}{more}; see errors"
    given = request.headers.get("content-type", "none")
    if any(item["pointer"] == "/body" for item in errors) and "json" not in given:
        detail += f"; the body's content type is {given}: send it with Content-Type: application/json"
    return response(request.scope["path"], 422, "invalid_payload", "Invalid payload", detail, errors=errors)


def _placed(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """What does not parse as JSON has the number of a character for its place, which no pointer can name."""
    if item["type"] != "json_invalid":
        return item
    where, number = item["loc"][:-1], item["loc"][-1]
    reason = item.get("ctx", {}).get("error", "")
    return {**item, "loc": where, "msg": f"{item['msg']} at character {number}: {reason}"}


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    why = _why_unread(error)
    words_of(error)
    if why is not None:
        return _unfit(request, [{"pointer": "/body", "detail": f"JSON decode error: {why}"}])
    if error.status_code == HTTPStatus.NOT_FOUND and oip.is_unspoken(request.url.path):
        return of_error(request.scope["path"], _unspoken(f"{request.method} {request.url.path}"))
    phrase = HTTPStatus(error.status_code).phrase
    code = FRAMEWORK_CODES.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
    headers = dict(error.headers or {})
    found = f"{request.method} {request.url.path}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # The framework names those of one route only, and a path can have several.
        headers["Allow"] = ", ".join(_methods(request))
        detail = f"expected one of {headers['Allow']} at this path; found {found}; see /docs for the routes"
    elif error.status_code == HTTPStatus.NOT_FOUND:
        detail = f"expected a path that there is; found {found}; see /docs for the routes"
    else:
        detail = f"expected a request that can be answered; found {found}: {error.detail}; see /docs for the routes"
    answer = response(request.scope["path"], error.status_code, code, phrase, detail)
    answer.headers.update(headers)
    return answer


def _why_unread(error: HTTPException) -> str | None:
    """What is wrong with a body that the framework could not read; None where it refuses something else.

    It tells of a syntax error alone as such, and not of text in no UTF-8, too deep a list or too long a number.
    """
    if error.status_code == HTTPStatus.BAD_REQUEST and isinstance(error.__cause__, ValueError | RecursionError):
        return why_no_json(error.__cause__)
    return None


def _unspoken(found: str) -> Unsupported:
    return Unsupported(
        f"expected one of the extensions that GET {oip.PREFIX} names; found {found}: logs, traces and shared memory "
        "are not spoken here; send tensors in the message, and see /docs for the routes"
    )


def _methods(request: Request) -> list[str]:
    """Every method that the request's path has."""
    found = {
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] == Match.FULL for route in request.app.routes)
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)


async def _data_error(request: Request, error: Exception) -> JSONResponse:
    """PostgreSQL holds less than JSON can say; SQLite has no such limits."""
    log.info("%s %s: %s", request.method, request.url.path, error)
    detail = "expected text that the database can hold; found a NUL character or half a surrogate pair; leave it out"
    return response(request.scope["path"], 400, "bad_request", "Bad request", detail)


async def _integrity_error(request: Request, error: Exception) -> JSONResponse:
    """Two requests that make the same at the same moment; both had looked, and found nothing there."""
    log.warning("%s %s", request.method, request.url.path, exc_info=error)
    detail = "expected to be alone in making this; found that another request did so at the same moment; send it again"
    return of_error(request.scope["path"], Conflict(detail))


async def _database_error(request: Request, error: Exception) -> JSONResponse:
    log.warning("%s %s: %s", request.method, request.url.path, error)
    return of_error(request.scope["path"], of_database(error))


def of_database(error: Exception) -> GraftError:
    """Locked, restarting, cut off: it passes, and so the client is told to come again; a full disk does not pass.

    Args:
        error: one of AWAY.
    """
    cause = getattr(error, "orig", None)
    state = getattr(cause, "sqlstate", None)
    if getattr(cause, "sqlite_errorcode", None) == SQLITE_FULL or state == POSTGRESQL_FULL:
        return OutOfSpace(
            "expected room for a row of the database; the disk is full; free some space and send it again"
        )
    missed = POSTGRESQL_SLOW.get(state or "", "the database to answer; found that it does not")
    return Unavailable(f"expected {missed}; try again in a moment; GET /readyz tells when")


async def _storage_error(request: Request, error: Exception) -> JSONResponse:
    """The store's own words are for the log: they name what is not the caller's."""
    log.error("%s %s", request.method, request.url.path, exc_info=error)
    detail = "expected an object store that answers; found one that does not; send it again in a moment"
    return of_error(request.scope["path"], Unavailable(detail))


async def _gone(request: Request, _: Exception) -> Response:
    """Nobody reads the answer; the status is for the log of whatever stands in front."""
    log.debug("%s %s: the client has closed the connection", request.method, request.url.path)
    return Response(status_code=CLIENT_CLOSED_REQUEST)
