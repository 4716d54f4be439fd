"""Evaluations: a published version on any labelled dataset, a recipe over repeated folds, a transfer once more."""

from typing import Any

from fastapi import APIRouter

from app.api.accepted import Accepted
from app.api.deps import BARE, WASTE, After, Context, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.api.studies import StudyOut
from app.db.studies import Evaluation
from app.evaluations import AnyEvaluation
from app.services import evaluations, studies

router = APIRouter(prefix="/evaluations", tags=["evaluations"], responses=RESPONSES)
# Carrying a job out again is asked of the job, and answered by an evaluation.
of_jobs = APIRouter(prefix="/jobs", tags=["evaluations"], responses=RESPONSES)
LOCATION = "/api/v1/evaluations/{id}"


@router.post("", status_code=202, response_model=StudyOut)
def create_evaluation(
    body: AnyEvaluation, accept: Accepted, state: Context, session: WriteSession, project: Project
) -> Any:
    """Evaluates a version (`mode: versions`, the default), alone or against another, or a recipe (`mode: folds`)."""

    def make() -> StudyOut:
        return StudyOut.of(evaluations.create(session, project, body, state.settings.offline))

    return accept.answer("POST /evaluations", body.model_dump(mode="json"), make, LOCATION)


@router.get("", response_model=Page[StudyOut])
def list_evaluations(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Evaluations, newest first."""
    rows, more = studies.page(session, Evaluation, project, limit, after)
    return Page(data=[StudyOut.of(row) for row in rows], has_more=more)


@router.get("/{evaluation_id}", response_model=StudyOut)
def get_evaluation(evaluation_id: str, session: ReadSession, project: Project) -> Any:
    """One evaluation; its result once it is `ready`."""
    return StudyOut.of(studies.get(session, Evaluation, project, evaluation_id))


@router.delete("/{evaluation_id}", status_code=204)
def delete_evaluation(evaluation_id: str, session: WriteSession, project: Project) -> None:
    """Removes an evaluation that no job works on."""
    session.info.setdefault(WASTE, []).append(studies.delete(session, Evaluation, project, evaluation_id))


@of_jobs.post("/{job_id}/reproduce", status_code=202, dependencies=[BARE], response_model=StudyOut)
def reproduce_job(job_id: str, accept: Accepted, state: Context, session: WriteSession, project: Project) -> Any:
    """Carries a finished transfer out again, publishes nothing, and says whether the same came out."""

    def make() -> StudyOut:
        return StudyOut.of(evaluations.reproduce(session, project, job_id, state.settings.offline))

    return accept.answer("POST /jobs/reproduce", {"job": job_id}, make, LOCATION)
