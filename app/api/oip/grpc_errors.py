"""Errors as statuses of gRPC."""

import logging
from typing import Any, NoReturn

import grpc
from sqlalchemy.exc import DataError

from app.api import oip_errors, problems
from app.errors import BadRequest, GraftError, words_of

log = logging.getLogger(__name__)


def told(error: Exception) -> GraftError:
    """What the client is told of an error; one that is none of ours goes to the log."""
    if isinstance(error, GraftError):
        return words_of(error)
    if isinstance(error, DataError):
        return BadRequest("expected names that the database can hold; found a NUL character; leave it out")
    if isinstance(error, problems.AWAY):
        log.warning("a call over gRPC: %s", error)
        return problems.of_database(error)
    log.error("a call over gRPC", exc_info=error)
    return GraftError("an error inside Graft; the server's log has the trace")


async def refuse(context: Any, error: GraftError) -> NoReturn:
    """Ends a call with an error's status; where it says when to come again, as gRPC's own retries look for it."""
    later = error.extra.get("retry_after_seconds")
    trailing = (("grpc-retry-pushback-ms", str(1000 * later)),) if later else ()
    await context.abort(grpc.StatusCode[oip_errors.grpc_code(error.status)], error.detail, trailing)
    raise AssertionError("abort never returns")
