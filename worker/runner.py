"""One attempt at one job, in a process of its own, which `worker.supervision.runner_process` starts.

Its exit status means nothing to anybody: what counts is the last line it sends (`result` or `failure`).
"""

import errno
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from app import failpoints, log_lines, process, tracing
from app.errors import GraftError, JobFailure, Unavailable
from app.settings import Settings
from app.storage import open_storage, out_of_space
from worker.attempt.context import RunContext
from worker.attempt.document import JobDocument
from worker.attempt.progress import Reporter, Yielded

# Exit status of an attempt that handed its job back.
YIELDED = 75
NO_ROOM = [os.strerror(number).lower() for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]
NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "failed to map segment")

log = logging.getLogger(__name__)


def _ingest(context: RunContext) -> dict[str, Any]:
    from worker import ingestion

    return ingestion.run(context)


def _transfer(context: RunContext) -> dict[str, Any]:
    from worker import transfer

    return transfer.run(context)


def _backbone(context: RunContext) -> dict[str, Any]:
    from worker import own_backbone

    return own_backbone.run(context)


def _align(context: RunContext) -> dict[str, Any]:
    from worker import align

    return align.run(context)


def _rank(context: RunContext) -> dict[str, Any]:
    from worker import rank

    return rank.run(context)


def _evaluate(context: RunContext) -> dict[str, Any]:
    from worker import evaluation

    return evaluation.run(context)


def _advise(context: RunContext) -> dict[str, Any]:
    from worker import advise

    return advise.run(context)


def _predict(context: RunContext) -> dict[str, Any]:
    from worker import predict

    return predict.run(context)


def _extract(context: RunContext) -> dict[str, Any]:
    from worker import extract

    return extract.run(context)


# Imported when called: an ingest job must not pay for what a transfer needs.
RUNNERS: dict[str, Callable[[RunContext], dict[str, Any]]] = {
    "ingest": _ingest,
    "transfer": _transfer,
    "backbone": _backbone,
    "align": _align,
    "rank": _rank,
    "evaluate": _evaluate,
    "advise": _advise,
    "predict": _predict,
    "extract": _extract,
}


def main(described: str, began: float, requests: "Connection[Any, Any]", messages: "Connection[Any, Any]") -> None:
    """Runs one job.

    Args:
        described: its `JobDocument`, as JSON.
        began: when its supervisor asked for this process, by `time.monotonic`: starting one is part of the job's time.
        requests: lines come from the supervisor; when it closes, the supervisor is gone, and this process ends.
        messages: JSON lines go to the supervisor.
    """
    # A session of its own: it is ended with all that it starts, and by nobody's Ctrl-C.
    os.setsid()
    # Threads that spin while they wait would starve the other jobs of a small machine (113 s instead of 22 s).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    settings = Settings()
    process.give_way(settings.runner_nice)
    log_lines.setup(settings.log_level, settings.log_format)
    document = JobDocument.model_validate_json(described)
    log_lines.bind(**document.ids())
    setproctitle(f"graft: worker.runner {document.id}")
    # Never closed here: the thread that waits for requests holds it to the end.
    source = os.fdopen(requests.fileno(), encoding="utf-8", closefd=False)
    with open(messages.fileno(), "w", encoding="utf-8", closefd=False) as out:
        reporter = Reporter(out, stages=document.trace_parent is not None, began=began)
        reporter.listen(source)
        with tracing.within(document.trace_parent):
            message = _in_scratch(settings, document, reporter)
        reporter.end_stage()
        if message is None:
            sys.exit(YIELDED)
        # Last of all: the supervisor ends this process as soon as it hears it.
        failpoints.reach("result_ready")
        reporter.end(message)
        failpoints.reach("result_told")


def _in_scratch(settings: Settings, document: JobDocument, reporter: Reporter) -> dict[str, Any] | None:
    """The attempt, with a folder that is gone afterwards."""
    settings.scratch.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=settings.scratch, prefix=f"{document.id}-{document.attempt}-"))
    try:
        context = RunContext(
            settings=settings,
            storage=open_storage(settings.resolved_storage_url, settings.home_path / "cache", patient=True),
            reporter=reporter,
            document=document,
            scratch=scratch,
            device="cuda" if process.gpu_name(settings.device) else "cpu",
        )
        return _attempt(context)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _attempt(context: RunContext) -> dict[str, Any] | None:
    """The attempt's last word; None when it yields."""
    job = context.document.id
    try:
        return {"result": RUNNERS[context.document.kind](context)}
    except Yielded:
        log.info("job %s yields: the worker shuts down", job)
        return None
    except JobFailure as failure:
        return _failure(failure.code, failure.message)
    except Unavailable as error:
        log.exception("job %s", job)
        context.reporter.log(f"handed back: {error.detail}", "warning")
        return None
    except Exception as error:  # (the one place where a job's trace goes to the log and its owner is told)
        log.exception("job %s", job)
        return unforeseen(error)


def unforeseen(error: Exception) -> dict[str, Any]:
    """What a job's owner is told of an error that nobody expected."""
    if out_of_memory(error):
        return _failure(
            "out_of_memory", "expected to fit into memory; found none left; use a smaller backbone or less data"
        )
    if any(word in str(error).lower() for word in NO_ROOM):
        # Libraries that write by themselves have errors of their own.
        error = OSError(errno.ENOSPC, str(error))
    shown = out_of_space(error) if isinstance(error, OSError) else error
    unknown = f"{type(error).__name__} inside Graft; the worker's log has the trace"
    return _failure("internal", shown.detail if isinstance(shown, GraftError) else unknown)


def out_of_memory(error: Exception) -> bool:
    """Whether there was no memory; torch, onnxruntime and the loader of libraries say so in words of their own."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return any(word in str(error).lower() for word in NO_MEMORY)


def _failure(code: str, message: str) -> dict[str, Any]:
    return {"failure": {"code": code, "message": message}}
