"""What a runner is told of its job: rows become a document. No torch here."""

from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, UserBackbone
from app.services import attempts, datasets, jobs
from worker.attempt.document import DatasetDocument, JobDocument


def describe(session: Session, job: Job) -> JobDocument:
    """Everything the runner needs to know."""
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
    own = session.query(UserBackbone).filter_by(project_id=job.project_id, state="ready").all()
    return JobDocument(
        id=job.id,
        project=job.project_id,
        attempt=job.attempt,
        earlier_seconds=attempts.earlier_seconds(session, job),
        kind=job.kind,
        recipe=job.recipe,
        seed=job.seed,
        report_mode=job.report_mode,
        model_name=job.model_name,
        backbone=job.backbone,
        user_backbones=[row.document for row in own],
        dataset=dataset and _dataset(dataset),
        inputs=job.inputs,
        datasets={role: _dataset(other) for role, other in jobs.datasets(session, job.id).items()},
        trace_parent=job.trace_parent,
        request_id=job.request_id,
    )


def _dataset(row: Dataset) -> DatasetDocument:
    return DatasetDocument(
        id=row.id,
        prefix=datasets.prefix(row.project_id, row.id),
        task=row.task,
        digest=row.digest,
        seed=row.seed,
        classes=row.classes,
        splits=row.splits,
        base_prefix=datasets.prefix(row.project_id, row.base_id) if row.base_id else None,
    )
