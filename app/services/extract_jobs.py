"""Features of a stored dataset under a backbone: asked for, checked, made by a job."""

from sqlalchemy.orm import Session

from app.db.models import Job
from app.errors import BadRequest
from app.extract_jobs import KIND, ExtractIn
from app.services import backbones, datasets, job_files, jobs


def create(session: Session, project: str, wish: ExtractIn, offline: bool) -> Job:
    """Checks what is asked for, and makes the job.

    Args:
        session: the open transaction.
        project: owner.
        wish: what is asked for.
        offline: whether weights may not be downloaded.

    Raises:
        NotFound: the dataset or the backbone is not there.
        Conflict: the dataset is not ready.
        BadRequest: code no_images or weights_unavailable; or the backbone is auto.
    """
    if wish.backbone == backbones.AUTO:
        raise BadRequest("expected a backbone by its name; found auto; see GET /api/v1/backbones?available=true")
    backbones.check_usable(session, project, wish.backbone, offline)
    jobs.keep_dataset(session, wish.dataset)
    dataset = datasets.ready(session, project, wish.dataset)
    job_files.check_images(dataset, wish.splits)
    inputs = {"request": wish.model_dump(mode="json", exclude={"kind", "priority"})}
    new = jobs.NewJob(kind=KIND, dataset_id=dataset.id, backbone=wish.backbone, priority=wish.priority, inputs=inputs)
    return jobs.create(session, project, new)
