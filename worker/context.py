"""What every part of a running job shares."""

from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings
from app.storage import Storage
from worker.document import JobDocument
from worker.progress import Reporter


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
    """

    settings: Settings
    storage: Storage
    reporter: Reporter
    document: JobDocument
    scratch: Path
    device: str
