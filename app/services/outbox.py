"""What happens, told to whom it may concern: the outbox of webhooks.

A delivery is a row of the transaction that changes something, so nothing is sent of what was rolled back, and nothing
that was committed is forgotten. Whoever moves a state calls this; `worker.supervision.webhooks` sends.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import webhooks
from app.db.base import new_id, now
from app.db.models import Dataset, Job, ModelVersion
from app.db.webhooks import Webhook, WebhookDelivery
from app.states import DatasetState, JobState
from app.webhooks import EventType

PENDING = "pending"
_JOBS: dict[JobState, EventType] = {
    JobState.RUNNING: "job.started",
    JobState.SUCCEEDED: "job.succeeded",
    JobState.FAILED: "job.failed",
    JobState.CANCELLED: "job.cancelled",
}
_DATASETS: dict[DatasetState, EventType] = {
    DatasetState.READY: "dataset.ready",
    DatasetState.INVALID: "dataset.invalid",
}


def job_moved(session: Session, job: Job, seq: int, said: Mapping[str, Any]) -> None:
    """Tells that a job has another state.

    Args:
        session: of the transaction that moved it.
        job: as it is now.
        seq: number of the entry in its log; later entries have larger ones, in whatever order they arrive.
        said: the entry's data: `model` and `version` where it has published one, or asked one.
    """
    kind = _JOBS.get(JobState(job.state))
    if kind is None:
        return
    _tell(
        session,
        job.project_id,
        kind,
        {
            "id": job.id,
            "kind": job.kind,
            "state": str(job.state),
            "seq": seq,
            "attempt": job.attempt,
            "dataset": job.dataset_id,
            "model": {"name": said["model"], "version": said["version"]} if "version" in said else None,
            "metrics": job.metrics,
            "failure": _failure(job),
        },
    )


def dataset_judged(session: Session, dataset: Dataset) -> None:
    """Tells that a dataset has become ready or invalid."""
    data = {
        "id": dataset.id,
        "name": dataset.name,
        "state": str(dataset.state),
        "job_id": dataset.job_id,
        "num_samples": dataset.num_samples,
        "num_problems": dataset.num_problems,
        "failure": _failure(dataset),
    }
    _tell(session, dataset.project_id, _DATASETS[DatasetState(dataset.state)], data)


def version_published(session: Session, name: str, row: ModelVersion) -> None:
    """Tells that a model has a new version: of a job, of a class that was added, or imported."""
    data = {"model": name, "version": row.version, "job_id": row.job_id, "metrics": row.metrics}
    _tell(session, row.project_id, "model.version_published", data)


def alias_moved(session: Session, project: str, data: dict[str, Any]) -> None:
    """Tells that an alias means something else, or nothing any more."""
    _tell(session, project, "model.alias_moved", data)


def delivery(hook: Webhook, event_id: str, kind: str, body: str, replay_of: str | None = None) -> WebhookDelivery:
    """A row that waits to be sent at once."""
    return WebhookDelivery(
        id=new_id("whd"),
        project_id=hook.project_id,
        webhook_id=hook.id,
        event_id=event_id,
        type=kind,
        body=body,
        state=PENDING,
        next_attempt_at=now(),
        replay_of=replay_of,
    )


def _tell(session: Session, project: str, kind: EventType, data: dict[str, Any]) -> None:
    query = select(Webhook).where(Webhook.project_id == project, Webhook.enabled.is_(True)).order_by(Webhook.id)
    # Shared with whoever changes it, but not with whoever deletes it: a row for a receiver that is gone would be
    # refused, and with it the change that it tells of.
    hooks = session.scalars(query.with_for_update(read=True, key_share=True)).all()
    listening = [hook for hook in hooks if kind in hook.events]
    if listening:
        event_id = new_id("evt")
        body = webhooks.body(event_id, kind, now(), data)
        session.add_all(delivery(hook, event_id, kind, body) for hook in listening)


def _failure(row: Job | Dataset) -> dict[str, str] | None:
    return {"code": row.failure_code, "message": row.failure_message or ""} if row.failure_code else None
