"""Predictions over a stored dataset or an upload: asked for, checked, pinned to a version, made by a job."""

from typing import Any

from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Job
from app.predict_jobs import KIND, PredictIn
from app.services import datasets, job_files, jobs, limits, models, served_versions, uploads


def create(session: Session, project: str, wish: PredictIn) -> Job:
    """Checks what is asked for, and makes the job. Aliases and domains are read now, and no more later.

    An upload's beginning is looked at before the transaction: `datasets.check_beginning_of`.

    Raises:
        NotFound: the dataset, upload, model, version, alias or domain is not there.
        Gone: the upload has expired.
        Conflict: the dataset is not ready, the upload not complete or used, the alignment does not fit, or a version
            and an alias were given.
        BadRequest: code no_images or unsupported_task.
        TooMany: see `jobs.create`.
    """
    job_id, inputs = new_id("job"), {}
    if wish.dataset is not None:
        jobs.keep_dataset(session, wish.dataset)
        job_files.check_images(datasets.ready(session, project, wish.dataset), wish.splits)
    if wish.upload_id is not None:
        inputs = _taken(session, project, wish.upload_id, job_id)
    row = models.resolve(session, project, wish.model, wish.version, wish.alias)
    version = served_versions.pinned(session, project, wish.model, row, wish.domain)
    alignment = version["alignment"] and version["alignment"]["id"]
    request = wish.model_dump(mode="json", exclude={"kind", "priority"})
    request |= {"version": row.version, "alignment": alignment}
    inputs |= {"request": request, "version": version}
    new = jobs.NewJob(id=job_id, kind=KIND, dataset_id=wish.dataset, priority=wish.priority, inputs=inputs)
    return jobs.create(session, project, new)


def _taken(session: Session, project: str, upload_id: str, job_id: str) -> dict[str, Any]:
    """The inputs that tell of an upload, which is the job's own from now on."""
    taken = uploads.take(session, project, upload_id, job_id)
    # Nothing counts them between the upload, which is used, and the job, which is not there yet.
    limits.check_bytes(session, project, taken.received_bytes)
    return {
        "archive": uploads.incoming(project, taken.id),
        "archive_bytes": taken.received_bytes,
        "filename": taken.filename or "",
    }
