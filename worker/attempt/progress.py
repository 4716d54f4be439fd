"""The runner's only way to speak: JSON lines to its supervisor, which stores them under the lease's fence.

Requests come back the same way: `stop` (end early, keep the best) and `yield` (checkpoint now, another worker goes on).
When the pipe closes the supervisor is gone, and the process ends at once: it never outlives its supervisor.
"""

import json
import os
import threading
import time
from typing import Any, TextIO

MIN_INTERVAL_SECONDS = 0.2
ABANDONED = 70


class Yielded(Exception):
    """The worker is being shut down; the checkpoint is written and another attempt resumes from it."""


class Reporter:
    """Events and progress of one attempt.

    Args:
        out: where lines go.
        stages: whether to tell how long each stage took, for a trace.
        began: when the attempt began, by `time.monotonic`, which all processes of a machine share; now by default.
    """

    def __init__(self, out: TextIO, *, stages: bool = False, began: float | None = None) -> None:
        self._out = out
        self._stages = stages
        self._stage: tuple[str, int] | None = None
        self._lock = threading.Lock()
        self._last = 0.0
        self._request: str | None = None
        self._began = time.monotonic() if began is None else began

    def listen(self, source: TextIO) -> None:
        """Reads the supervisor's requests in a thread until the pipe closes."""
        threading.Thread(target=self._watch, args=(source,), daemon=True, name="requests").start()

    def log(self, message: str, level: str = "info", /, **data: Any) -> None:
        """One line of the job's log."""
        self._send({"event": {"type": "log", "level": level, "message": message, "data": data}})

    def metric(self, message: str, **data: float | int | str | None) -> None:
        """Numbers of one step of training or evaluation."""
        self._send({"event": {"type": "metric", "level": "info", "message": message, "data": data}})

    def progress(self, fraction: float, stage: str, eta_seconds: float | None = None) -> None:
        """How far the job is, 0 to 1. Sent at most every MIN_INTERVAL_SECONDS, so it may be called for every image."""
        if self._stages:
            self._enter(stage.partition(":")[0])
        moment = time.monotonic()
        if moment - self._last < MIN_INTERVAL_SECONDS:
            return
        self._last = moment
        self._send({"progress": {"fraction": round(fraction, 4), "stage": stage, "eta_seconds": eta_seconds}})

    def end_stage(self) -> None:
        """Tells of the stage that was entered last; nothing more is to come."""
        if self._stage is not None:
            name, began = self._stage
            self._send({"stage": [name, began, time.time_ns()]})
            self._stage = None

    def end(self, message: dict[str, Any]) -> None:
        """The attempt's last word: `{"result": ...}` or `{"failure": {"code", "message"}}`."""
        self._send(message)

    @property
    def stop_requested(self) -> bool:
        """Whether the user wants the best so far."""
        return self._request == "stop"

    @property
    def yield_requested(self) -> bool:
        """Whether the worker must shut down."""
        return self._request == "yield"

    @property
    def elapsed_seconds(self) -> float:
        """Time since the attempt began."""
        return time.monotonic() - self._began

    def check_yield(self) -> None:
        """To be called after a checkpoint was written, or where there is nothing to lose.

        Raises:
            Yielded: the worker must shut down.
        """
        if self.yield_requested:
            raise Yielded

    def _enter(self, stage: str) -> None:
        if self._stage is None or self._stage[0] != stage:
            self.end_stage()
            self._stage = stage, time.time_ns()

    def _send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, allow_nan=False, separators=(",", ":"))
        with self._lock:
            self._out.write(line + "\n")
            self._out.flush()

    def _watch(self, source: TextIO) -> None:
        for line in source:
            self._request = json.loads(line)["request"]
        os._exit(ABANDONED)
