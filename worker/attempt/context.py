"""What every part of a running job shares."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from app.storage import Storage
from worker.attempt.document import JobDocument
from worker.attempt.progress import Reporter


def never() -> bool:
    """No extraction is left unfinished."""
    return False


@dataclass(frozen=True)
class RunContext:
    """One attempt, inside its own process.

    Args:
        settings: of the worker.
        storage: where objects lie.
        reporter: the pipe to the supervisor.
        document: the job.
        scratch: a folder of this attempt, removed at its end.
        device: cpu or cuda.
        leaves: asked between the batches of an extraction whether to leave it unfinished. What was extracted is kept,
            and `features.Left` is raised. Only for whoever has something to fall back on.
    """

    settings: Settings
    storage: Storage
    reporter: Reporter
    document: JobDocument
    scratch: Path
    device: str
    leaves: Callable[[], bool] = never
