"""Predictions over a stored dataset: asked for, checked, pinned to a version, made by a job."""

from sqlalchemy.orm import Session

from app.db.models import Job
from app.predict_jobs import KIND, PredictIn
from app.services import datasets, job_files, jobs, models, served_versions


def create(session: Session, project: str, wish: PredictIn) -> Job:
    """Checks what is asked for, and makes the job. Aliases and domains are read now, and no more later.

    Raises:
        NotFound: the dataset, model, version, alias or domain is not there.
        Conflict: the dataset is not ready, the alignment does not fit, or a version and an alias were given.
        BadRequest: code no_images, or unsupported_task.
    """
    jobs.keep_dataset(session, wish.dataset)
    dataset = datasets.ready(session, project, wish.dataset)
    job_files.check_images(dataset, wish.splits)
    row = models.resolve(session, project, wish.model, wish.version, wish.alias)
    version = served_versions.pinned(session, project, wish.model, row, wish.domain)
    alignment = version["alignment"] and version["alignment"]["id"]
    request = wish.model_dump(mode="json", exclude={"kind", "priority"})
    request |= {"version": row.version, "alignment": alignment}
    inputs = {"request": request, "version": version}
    new = jobs.NewJob(kind=KIND, dataset_id=dataset.id, priority=wish.priority, inputs=inputs)
    return jobs.create(session, project, new)
