"""Lines of the log: for people, or as JSON for programs. Each says which request, project and job it is about.

Whoever begins something binds its ids; lines that are written below, in whatever module, carry them. Threads that are
started later do not inherit them: `carried` takes them along.
"""

import contextvars
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from app import tracing

TEXT, JSON = "text", "json"
# They tell of every request of their own.
_CHATTY = ("httpx", "httpcore", "botocore", "boto3", "s3transfer", "urllib3")


@dataclass(frozen=True, slots=True)
class Ids:
    """What a line is about; None where it is about none.

    Args:
        request_id: of an HTTP request, or of the one that made the job.
        project: whose it is.
        job_id: of a job.
        attempt: at that job, from 1.
    """

    request_id: str | None = None
    project: str | None = None
    job_id: str | None = None
    attempt: int | None = None


_ids = contextvars.ContextVar("graft_ids", default=Ids())  # noqa: B039  (it is frozen)


def ids() -> Ids:
    """What lines are about at the moment."""
    return _ids.get()


def bind(**given: Any) -> None:
    """Lines are about these too, to the end of the request, task or process."""
    _ids.set(replace(_ids.get(), **given))


@contextmanager
def bound(**given: Any) -> Iterator[None]:
    """Lines are about these too, as long as the block lasts."""
    token = _ids.set(replace(_ids.get(), **given))
    try:
        yield
    finally:
        _ids.reset(token)


def carried(function: Callable[[], None]) -> Callable[[], None]:
    """The function with the ids of whoever calls this, for another thread."""
    context = contextvars.copy_context()
    return lambda: context.run(function)


def setup(level: str, form: str) -> None:
    """Sends all lines of this process to its standard error, warnings and traces of threads included.

    Args:
        level: DEBUG, INFO, WARNING or ERROR.
        form: TEXT or JSON.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(tracing.mark)
    handler.setFormatter(_Json() if form == JSON else _Text())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def _thread_ended(given: threading.ExceptHookArgs) -> None:
    if given.exc_value is not None:
        name = given.thread.name if given.thread is not None else "?"
        logging.getLogger(__name__).error("thread %s ended", name, exc_info=given.exc_value)


class _Text(logging.Formatter):
    """Ids come last, in brackets, where there are any."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s%(trace)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        known = " ".join(f"{name}={value}" for name, value in asdict(ids()).items() if value is not None)
        return super().formatMessage(record) + (f" [{known}]" if known else "")


class _Json(logging.Formatter):
    """One object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **asdict(ids()),
            "trace_id": tracing.trace_id(),
            "process": record.process,
            "thread": record.threadName,
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)
