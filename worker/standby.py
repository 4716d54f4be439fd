"""One runner that has started ahead and waits for its job: imports are 0.8 s of the 2 that a warm job takes."""

import threading

from worker.document import JobDocument
from worker.runner_process import RunnerProcess


class Standby:
    """The waiting runner of one worker process.

    Args:
        enabled: whether one is kept; otherwise every job starts its own.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled
        self._lock = threading.Lock()
        self._waiting: RunnerProcess | None = None

    def prepare(self) -> None:
        """Starts one, unless one waits."""
        with self._lock:
            if self._enabled and self._living() is None:
                self._waiting = RunnerProcess()

    def begin(self, document: JobDocument) -> RunnerProcess:
        """Gives the job to the one that waits, or to a new one."""
        with self._lock:
            runner, self._waiting = self._living(), None
        if runner is None:
            runner = RunnerProcess(document.id)
        runner.begin(document)
        return runner

    def end(self) -> None:
        """Ends the one that waits, and keeps none from now on."""
        with self._lock:
            self._enabled = False
            runner, self._waiting = self._waiting, None
        if runner is not None:
            runner.end(0.0)

    def _living(self) -> RunnerProcess | None:
        """The one that waits; one that died meanwhile is cleared away."""
        if self._waiting is not None and not self._waiting.is_alive:
            self._waiting.end(0.0)
            self._waiting = None
        return self._waiting
