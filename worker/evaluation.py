"""The job that makes a study of kind evaluation."""

from collections.abc import Callable
from typing import Any

from app.evaluations import FOLDS, REPORT, REPRODUCE, VERSIONS
from worker.attempt.context import RunContext
from worker.studies import fold_study, full_report, reproduction, version_study

MODES: dict[str, Callable[[RunContext], dict[str, Any]]] = {
    VERSIONS: version_study.run,
    FOLDS: fold_study.run,
    REPRODUCE: reproduction.run,
    REPORT: full_report.run,
}


def run(context: RunContext) -> dict[str, Any]:
    """Answers the job's study.

    Returns:
        `result` for the study, `metrics` for the job.

    Raises:
        JobFailure: what the owner of the job can understand.
    """
    return MODES[context.document.inputs["mode"]](context)
