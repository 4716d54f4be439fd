"""Files that jobs make for whoever asked: handed out, and given up. What a kind makes is a word of routes and codes."""

from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from app import extract_jobs, predict_jobs
from app.db.models import Dataset, Job
from app.errors import BadRequest, Conflict, NotFound
from app.services import jobs
from app.states import JobState
from app.storage import Storage

# What jobs of each kind make.
MADE = {predict_jobs.KIND: "predictions", extract_jobs.KIND: "features"}


def file(session: Session, storage: Storage, project: str, job_id: str, kind: str) -> tuple[Path, str]:
    """A local path of what the job has made, whole and in the order of its images, and the name that says its format.

    Raises:
        NotFound: no such job; code no_predictions or no_features, it makes none, or they were deleted.
        Conflict: code predictions_not_ready or features_not_ready.
    """
    job, made = _finished(session, project, job_id, kind), MADE[kind]
    try:
        return storage.fetch(job.inputs["file"]), PurePosixPath(job.inputs["file"]).name
    except NotFound as error:
        raise _none(kind, f"expected the {made} of {job_id}; found them deleted; post the job again") from error


def delete(session: Session, project: str, job_id: str, kind: str) -> str:
    """Gives up what the job has made; the job stays.

    Returns:
        the storage key to delete after the commit.

    Raises:
        NotFound, Conflict: as `file`.
    """
    key: str = _finished(session, project, job_id, kind).inputs["file"]
    return key


def check_images(dataset: Dataset, splits: tuple[str, ...] | None) -> None:
    """Passes where there is an image in the splits.

    Raises:
        BadRequest: code no_images.
    """
    number = sum(dataset.splits.get(split, 0) for split in splits or dataset.splits)
    if not number:
        asked = f"splits {', '.join(splits)}" if splits else "any split"
        raise BadRequest(
            f"expected a dataset with images in {asked}; found {dataset.id} with {dataset.splits}; ask for other "
            "splits or another dataset",
            code="no_images",
        )


def _finished(session: Session, project: str, job_id: str, kind: str) -> Job:
    job = jobs.get(session, project, job_id)
    if job.kind != kind:
        found = f"{job_id} of kind {job.kind}; it makes no {MADE[kind]}"
        raise _none(kind, f"expected a job of kind {kind}; found {found}")
    if job.state != JobState.SUCCEEDED:
        ended = f": {job.failure_message}" if job.failure_message else ""
        is_retried = jobs.is_retried(job.kind, job.inputs, job.failure_code)
        again = "retry it" if is_retried else "send the file again, and post a new job"
        todo = again if job.state in (JobState.FAILED, JobState.CANCELLED) else "wait for it"
        raise Conflict(
            f"expected a job that has succeeded; found {job_id} {job.state}{ended}; {todo}",
            code="predictions_not_ready" if kind == predict_jobs.KIND else "features_not_ready",
        )
    return job


def _none(kind: str, detail: str) -> NotFound:
    return NotFound(detail, code="no_predictions" if kind == predict_jobs.KIND else "no_features")
