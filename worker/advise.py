"""The job that makes a study of kind advice."""

from typing import Any

from app.errors import JobFailure
from worker.context import RunContext


def run(context: RunContext) -> dict[str, Any]:
    """Answers the job's study.

    Returns:
        `result` for the study, `metrics` for the job.

    Raises:
        JobFailure: what the owner of the job can understand.
    """
    raise JobFailure("internal", f"expected a kind of job that is built; found {context.document.kind}")
