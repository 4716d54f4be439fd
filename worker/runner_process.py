"""The child of one attempt as its supervisor sees it: messages come, requests go, and it ends. No torch here."""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

from worker.document import JobDocument

MAX_BATCH = 500
# In the place of a job's id: imports first, and waits for whichever job comes.
STANDBY = "--standby"

log = logging.getLogger(__name__)


class RunnerProcess:
    """The child: `python -m worker.runner JOB` in a session of its own.

    Args:
        job_id: named in the process list; None for one that starts ahead, and waits for whichever job comes.
    """

    def __init__(self, job_id: str | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.runner", job_id or STANDBY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            # Threads that spin while they wait would starve the other jobs of a small machine (113 s instead of 22 s).
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            text=True,
            encoding="utf-8",
        )
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=10_000)
        threading.Thread(target=self._read, daemon=True, name=f"read-{self._process.pid}").start()

    @property
    def pid(self) -> int:
        """Of the process, and of its session."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def begin(self, document: JobDocument) -> None:
        """Tells the child what to do; once."""
        self._write(document.model_dump_json())

    def receive(self, timeout_seconds: float) -> tuple[list[dict[str, Any]], bool]:
        """Messages that came, waiting for the first one; and whether the child has said its last."""
        batch: list[dict[str, Any]] = []
        try:
            message = self._messages.get(timeout=timeout_seconds)
            while message is not None:
                batch.append(message)
                if len(batch) >= MAX_BATCH:
                    return batch, False
                message = self._messages.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def ask(self, request: str) -> None:
        """Sends a request; a child that has just ended no longer hears it."""
        self._write(json.dumps({"request": request}))

    def end(self, grace_seconds: float) -> int:
        """Waits for the child, kills it and all below it after the grace time; returns its exit status."""
        try:
            status = self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            status = None
        # Its own children (decoders) share its session and must not outlive it.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("runner %s left no process behind", self._process.pid)
        status = self._process.wait() if status is None else status
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._messages.put(json.loads(line))
        except ValueError:
            log.warning("runner %s was cut off in mid-line", self._process.pid)
        self._messages.put(None)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            log.info("runner %s has already ended", self._process.pid)


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        log.debug("the pipe had been closed on the other side")
