"""The one tree of errors.

    GraftError                      status, code, title; detail says what was expected, found, and what to do
    |- BadRequest 400               bad_request, unsupported_task, not_an_archive, unknown_recipe, ...
    |  `- BadImage 400              image_unreadable, image_truncated, image_too_large, image_unsupported, image_url_*,
    |                               image_not_computed
    |- Unauthorized 401             key_missing, key_unknown, key_expired, key_revoked
    |- Forbidden 403                cross_site, scope_missing
    |- NotFound 404                 not_found
    |- TimedOut 408                 body_stalled
    |- Conflict 409                 in_use, invalid_state, dataset_not_ready, label_change, ...
    |- Gone 410                     upload_gone
    |- WrongVersion 412             tus_version
    |- TooLarge 413                 body_too_large, upload_too_long
    |- UnsupportedMediaType 415     unsupported_media_type
    |- Unsatisfiable 416            range_not_satisfiable
    |- Misdirected 421              unknown_host
    |- Unprocessable 422            invalid_payload, idempotency_mismatch
    |- Locked 423                   upload_locked
    |- WrongChecksum 460            checksum_mismatch
    |- TooMany 429                  rate_limited, too_many_jobs, too_many_bytes, too_many_gpu_seconds
    |- HeadTooLarge 431             head_too_large
    |- Unsupported 501              unsupported
    |- OutOfSpace 507               insufficient_storage
    |- Unavailable 503              unavailable
    |  |- Collected 503             graph_collected
    |  |- NotReady 503              version_not_ready
    |  `- Overloaded 503            overloaded
    |- DeadlineExceeded 504         deadline_exceeded
    JobFailure                      not HTTP: why a job failed, written on its row

Routes never raise an HTTP exception of the web framework; `app.api.problems` turns this tree into RFC 9457 documents.
"""

from typing import Any, ClassVar, TypeVar


class GraftError(Exception):
    """Base of everything a caller can be told.

    Args:
        detail: what was expected, what was found, what to do.
        code: stable machine-readable code; the class's own by default.
        extra: further members of the problem document (JSON-ready).
    """

    status: ClassVar[int] = 500
    code: str = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, code: str | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.extra = extra


E = TypeVar("E", bound=BaseException)


def words_of(error: E) -> E:
    """An error that somebody keeps, without the frames that it came through, and all that stood in them.

    Such a frame often knows who keeps the error: then both would stay until a collection, bodies of requests with them.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class BadRequest(GraftError):
    """The request cannot be carried out as it stands."""

    status = 400
    code = "bad_request"
    title = "Bad request"


class BadImage(BadRequest):
    """Bytes that are no usable image; `code` says which way."""

    code = "image_unreadable"
    title = "Image cannot be used"


class Unauthorized(GraftError):
    """The request brings no key, or none that holds."""

    status = 401
    code = "key_missing"
    title = "Unauthorized"


class Forbidden(GraftError):
    """The caller may not do this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class NotFound(GraftError):
    """Nothing of that name is visible to the caller."""

    status = 404
    code = "not_found"
    title = "Not found"


class TimedOut(GraftError):
    """Nothing more of the body came for too long."""

    status = 408
    code = "body_stalled"
    title = "Request timeout"


class Conflict(GraftError):
    """The resource is in a state that does not allow this."""

    status = 409
    code = "invalid_state"
    title = "Conflict"


class Gone(GraftError):
    """An upload that was there and cannot be continued."""

    status = 410
    code = "upload_gone"
    title = "Gone"


class WrongVersion(GraftError):
    """A version of the tus protocol that is not spoken here."""

    status = 412
    code = "tus_version"
    title = "Precondition failed"


class TooLarge(GraftError):
    """The body is larger than the limit."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class UnsupportedMediaType(GraftError):
    """The body's content type is not one that the route takes."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class Unsatisfiable(GraftError):
    """None of the ranges that are asked for lies in the file."""

    status = 416
    code = "range_not_satisfiable"
    title = "Range not satisfiable"


class Misdirected(GraftError):
    """The Host header names a host that is not ours (a guard against DNS rebinding)."""

    status = 421
    code = "unknown_host"
    title = "Unknown host"


class Unprocessable(GraftError):
    """The payload is malformed, or an idempotency key came back with another payload."""

    status = 422
    code = "invalid_payload"
    title = "Invalid payload"


class Locked(GraftError):
    """Another request writes to the upload at this moment."""

    status = 423
    code = "upload_locked"
    title = "Locked"


class WrongChecksum(GraftError):
    """The bytes of a request are not those of its checksum (a status of the tus protocol)."""

    status = 460
    code = "checksum_mismatch"
    title = "Checksum mismatch"


class TooMany(GraftError):
    """More than the project may have or do; `retry_after_seconds` in `extra` says when to come again."""

    status = 429
    code = "rate_limited"
    title = "Too many"


class HeadTooLarge(GraftError):
    """A request line and headers that are larger than the limit."""

    status = 431
    code = "head_too_large"
    title = "Request header fields too large"


class Unsupported(GraftError):
    """A part of a protocol that is not spoken here."""

    status = 501
    code = "unsupported"
    title = "Not supported"


class Unavailable(GraftError):
    """Something that the request needs is not there at the moment."""

    status = 503
    code = "unavailable"
    title = "Unavailable"


class Collected(Unavailable):
    """A shared object that was there when it was looked for, and was removed before anything named it."""

    code = "graph_collected"
    title = "Graph was removed"


class NotReady(Unavailable):
    """A version that does not say of its stored sample what it said when it was published."""

    code = "version_not_ready"
    title = "Version is not ready"


class Overloaded(Unavailable):
    """More work waits than can be done in time; `retry_after_seconds` in `extra` says when to come again."""

    code = "overloaded"
    title = "Overloaded"


class DeadlineExceeded(GraftError):
    """There was no answer within the time that the request allowed."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class OutOfSpace(GraftError):
    """The disk or object store has no room; nothing was kept."""

    status = 507
    code = "insufficient_storage"
    title = "Insufficient storage"


FAILURES = {
    "dataset_invalid": "The uploaded data cannot be used; the dataset's problems, or the job's log, say why.",
    "weights_unavailable": "The backbone's weights cannot be had here.",
    "unsupported_scope": "The backbone has nothing that the recipe's scope trains.",
    "out_of_memory": "The job needed more memory than there is.",
    "classes_alike": "Two classes of a zero-shot job are one to the text encoder; use other words.",
    "version_deleted": "A version that the job was to look at was deleted meanwhile.",
    "stopped": "The job was asked to stop before it had anything to keep.",
    "diverged": "Training produced numbers that are not finite.",
    "timed_out": "The job ran past its time limit.",
    "worker_lost": "Every attempt ended with its worker or process gone.",
    "internal": "An error inside Graft; the worker's log has the trace.",
}


class JobFailure(Exception):
    """Why a job failed: data on the job's row, safe to show to its owner.

    Args:
        code: one of FAILURES.
        message: what was expected, what was found, what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        if code not in FAILURES:
            raise ValueError(f"unknown failure code {code!r}; one of {sorted(FAILURES)}")
        super().__init__(message)
        self.code = code
        self.message = message
