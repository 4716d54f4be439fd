"""The child of one attempt as its supervisor sees it: messages come, requests go, and it ends. No torch here.

On Linux a child is forked from one process of this worker that has imported `worker.supervision.ahead`, computes
nothing and has no threads of Python (the fork server of `multiprocessing`): imports are 0.8 s of the 2 that a warm job
takes. Elsewhere, where native libraries do not survive a fork, every child is a new interpreter.
"""

import json
import logging
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from multiprocessing import connection, forkserver, util
from pathlib import Path
from typing import Any

from app import in_use, limited, log_lines
from worker import runner
from worker.attempt.document import JobDocument

MAX_BATCH = 500
# Above the longest that a runner has to say, which is what ingestion found: 16 MB of findings and 4 million characters
# of class names, of which JSON may make 180 MB.
MAX_LINE_BYTES = 2**28
# OpenBLAS, and Apple's Accelerate.
THREADS_OF_BLAS = ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
FORKS = sys.platform == "linux"
_CONTEXT = multiprocessing.get_context("forkserver") if FORKS else multiprocessing.get_context("spawn")
# Starting a process and reading its exit status look at the list of all: one thread at a time.
_LOCK = threading.Lock()
# Celery and the runners write what they do over their command line, where `ps` shows it; their environment is kept.
# Runners have what the process that they are forked from was started with.
for _name, _value in {"SPT_NOENV": "1", **limited.ARROW}.items():
    os.environ.setdefault(_name, _value)
_TOO_LONG = {
    "failure": {
        "code": "internal",
        "message": f"expected at most {MAX_LINE_BYTES} bytes in one message of the job's process; found more; use less "
        "data, and report it",
    }
}

log = logging.getLogger(__name__)


def prepare(*, ahead: bool, threads: int) -> None:
    """Starts the process that runners are forked from, as far as this system has one.

    Args:
        ahead: whether it imports what most jobs need; otherwise every runner does.
        threads: of a runner's arithmetic in NumPy and SciPy, whose libraries are told by the environment that they are
            loaded in. What the operator has set counts for more.
    """
    for name in THREADS_OF_BLAS:
        os.environ.setdefault(name, str(threads))
    if FORKS:
        _CONTEXT.set_forkserver_preload(["worker.supervision.ahead"] if ahead else [])
        # Of its socket; a worker that is killed leaves it behind.
        in_use.mark(Path(util.get_temp_dir()))
        forkserver.ensure_running()


class RunnerProcess:
    """The child: `worker.runner JOB` in the process list, in a session of its own."""

    def __init__(self, document: JobDocument) -> None:
        requests, self._requests = _CONTEXT.Pipe(duplex=False)
        self._messages, messages = _CONTEXT.Pipe(duplex=False)
        arguments = (document.model_dump_json(), time.monotonic(), requests, messages)
        self._process = _CONTEXT.Process(target=runner.main, args=arguments, name=document.id)
        with _LOCK:
            self._process.start()
        # The child's ends are the child's alone: when it is gone the pipes are closed.
        requests.close()
        messages.close()
        self._received: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=10_000)
        threading.Thread(target=log_lines.carried(self._read), daemon=True, name=f"read-{self.pid}").start()

    @property
    def pid(self) -> int:
        """Of the process, and of its session."""
        assert self._process.pid is not None
        return self._process.pid

    def receive(self, timeout_seconds: float) -> tuple[list[dict[str, Any]], bool]:
        """Messages that came, waiting for the first one; and whether the child has said its last."""
        batch: list[dict[str, Any]] = []
        try:
            message = self._received.get(timeout=timeout_seconds)
            while message is not None:
                batch.append(message)
                if len(batch) >= MAX_BATCH:
                    return batch, False
                message = self._received.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def ask(self, request: str) -> None:
        """Sends a request; a child that has just ended no longer hears it."""
        try:
            os.write(self._requests.fileno(), json.dumps({"request": request}).encode() + b"\n")
        except BrokenPipeError:
            log.info("runner %s has already ended", self.pid)

    def end(self, grace_seconds: float) -> int:
        """Waits for the child, kills it and all below it after the grace time; returns its exit status.

        The status is 255 where the process that it was forked from has died meanwhile, and took it along.
        """
        if not connection.wait([self._process.sentinel], grace_seconds):
            self._process.kill()
        # Its own children (decoders) share its session and must not outlive it.
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("runner %s left no process behind", self.pid)
        connection.wait([self._process.sentinel])
        with _LOCK:
            self._process.join()
            status = self._process.exitcode
        assert status is not None
        self._requests.close()
        return status

    def _read(self) -> None:
        try:
            with open(self._messages.fileno(), "rb", closefd=False) as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    if len(line) == MAX_LINE_BYTES:
                        self._received.put(_TOO_LONG)
                        break
                    self._received.put(json.loads(line))
        except ValueError:
            log.warning("runner %s was cut off in mid-line", self.pid)
        finally:
            self._messages.close()
            self._received.put(None)
