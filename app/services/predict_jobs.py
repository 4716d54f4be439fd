"""Predictions over a stored dataset: asked for, checked, pinned to a version, made by a job, handed out as a file."""

from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from app.db.models import Dataset, Job
from app.errors import BadRequest, Conflict, NotFound
from app.predict_jobs import KIND, PredictIn
from app.services import datasets, jobs, models, served_versions
from app.states import JobState
from app.storage import Storage


def create(session: Session, project: str, wish: PredictIn) -> Job:
    """Checks what is asked for, and makes the job. Aliases and domains are read now, and no more later.

    Raises:
        NotFound: the dataset, model, version, alias or domain is not there.
        Conflict: the dataset is not ready, the alignment does not fit, or a version and an alias were given.
        BadRequest: code no_images, or unsupported_task.
    """
    jobs.keep_dataset(session, wish.dataset)
    dataset = datasets.ready(session, project, wish.dataset)
    _check_images(dataset, wish)
    row = models.resolve(session, project, wish.model, wish.version, wish.alias)
    version = served_versions.pinned(session, project, wish.model, row, wish.domain)
    alignment = version["alignment"] and version["alignment"]["id"]
    request = wish.model_dump(mode="json", exclude={"kind", "priority"})
    request |= {"version": row.version, "alignment": alignment}
    inputs = {"request": request, "version": version}
    new = jobs.NewJob(kind=KIND, dataset_id=dataset.id, priority=wish.priority, inputs=inputs)
    return jobs.create(session, project, new)


def file(session: Session, storage: Storage, project: str, job_id: str) -> tuple[Path, str]:
    """A local path of the predictions, complete and in the dataset's order, and the name that says their format.

    Raises:
        NotFound: no such job; code no_predictions, it makes none, or they were deleted.
        Conflict: code predictions_not_ready.
    """
    job = _finished(session, project, job_id)
    try:
        return storage.fetch(job.inputs["file"]), PurePosixPath(job.inputs["file"]).name
    except NotFound as error:
        raise NotFound(
            f"expected the predictions of {job_id}; found them deleted; post the job again", code="no_predictions"
        ) from error


def delete(session: Session, project: str, job_id: str) -> str:
    """Gives up the predictions; the job stays.

    Returns:
        the storage key to delete after the commit.

    Raises:
        NotFound, Conflict: as `file`.
    """
    key: str = _finished(session, project, job_id).inputs["file"]
    return key


def _finished(session: Session, project: str, job_id: str) -> Job:
    job = jobs.get(session, project, job_id)
    if job.kind != KIND:
        raise NotFound(
            f"expected a job of kind {KIND}; found {job_id} of kind {job.kind}; it makes no predictions",
            code="no_predictions",
        )
    if job.state != JobState.SUCCEEDED:
        ended = f": {job.failure_message}" if job.failure_message else ""
        todo = "retry it" if job.state in (JobState.FAILED, JobState.CANCELLED) else "wait for it"
        raise Conflict(
            f"expected a job that has succeeded; found {job_id} {job.state}{ended}; {todo}",
            code="predictions_not_ready",
        )
    return job


def _check_images(dataset: Dataset, wish: PredictIn) -> None:
    number = sum(dataset.splits.get(split, 0) for split in wish.splits or dataset.splits)
    if not number:
        asked = f"splits {', '.join(wish.splits)}" if wish.splits else "any split"
        raise BadRequest(
            f"expected a dataset with images in {asked}; found {dataset.id} with {dataset.splits}; ask for other "
            "splits or another dataset",
            code="no_images",
        )
