"""The pipe of a job that carries a method out many times: each run tells warnings and its share of progress."""

from typing import Any

from worker.attempt.progress import Reporter


class FoldReporter(Reporter):
    """What a method speaks to in one of many runs; requests are those of the whole job.

    Args:
        whole: the job's own.
        begin: fraction at which this run starts.
        end: fraction at which it ends.
        what: for people, before each warning.
    """

    def __init__(self, whole: Reporter, begin: float, end: float, what: str) -> None:
        self._whole, self._range, self._what = whole, (begin, end), what
        self._began_at = whole.elapsed_seconds

    def log(self, message: str, level: str = "info", /, **data: Any) -> None:
        """Warnings only: one run of many has nothing else to tell."""
        if level != "info":
            self._whole.log(f"{self._what}: {message}", level, **data)

    def metric(self, message: str, **data: float | int | str | None) -> None:
        """Nothing: curves of single folds are not kept."""

    def progress(self, fraction: float, stage: str, eta_seconds: float | None = None) -> None:
        """Within the run's own share."""
        begin, end = self._range
        self._whole.progress(begin + (end - begin) * fraction, f"{self._what}: {stage}")

    @property
    def stop_requested(self) -> bool:
        """See Reporter."""
        return self._whole.stop_requested

    @property
    def yield_requested(self) -> bool:
        """See Reporter."""
        return self._whole.yield_requested

    @property
    def elapsed_seconds(self) -> float:
        """Of the run: a recipe with a time budget has it for each fold."""
        return self._whole.elapsed_seconds - self._began_at
