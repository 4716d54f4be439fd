"""Jobs as their owners see them; what they ask of one is in `job_requests`.

Every move between states passes through `move`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import log_lines, tracing
from app.db.base import new_id, now
from app.db.models import Dataset, Job, JobDataset, JobDependency, JobEvent
from app.errors import Conflict, NotFound
from app.services import limits, outbox, paging, queues
from app.states import FINAL, JobState, check_move

# Kinds whose inputs stay, so that the same job can be done again; where it had an upload, that is gone.
RETRIED = ("transfer", "rank", "evaluate", "advise", "predict", "extract")
# How the check of own weights ends that finds fault with them: they are given up.
REFUSED = "weights_unavailable"
NOT_BEGUN = {"fraction": 0.0, "stage": "queued", "eta_seconds": None}
# Of an attempt, until its runner says more.
BEGUN = {"fraction": 0.0, "stage": "start", "eta_seconds": None}

lines = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewJob:
    """What a job is made from; `datasets` are those beside its own by role, `inputs` is what only its kind knows.

    `id` is given where something else has to name the job first.
    """

    kind: str
    dataset_id: str | None = None
    backbone: str | None = None
    recipe: dict[str, Any] | None = None
    model_name: str | None = None
    allow_label_change: bool = False
    seed: int = 0
    report_mode: str = "fast"
    priority: int = 0
    depends_on: tuple[str, ...] = ()
    datasets: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


def create(session: Session, project: str, new: NewJob) -> Job:
    """Writes the row and notes that its queue's bell is to be rung once the transaction is committed.

    Raises:
        NotFound: a job that it depends on does not exist.
        Conflict: a job that it depends on has failed or was cancelled.
        TooMany: codes too_many_jobs, too_many_gpu_seconds; too_many_bytes, the project stores more than it may already.
    """
    limits.check_job(session, project)
    limits.check_bytes(session, project, 0)
    limits.check_gpu(session, project, queues.choose(session, new.kind))
    return enqueue(session, project, new)


def enqueue(session: Session, project: str, new: NewJob) -> Job:
    """Writes a job that takes another one's place, so that no limit is looked at; else as `create`.

    A project that has used up its time on GPUs waits for the next day, as with every job that waits.
    """
    queue = queues.choose(session, new.kind)
    job = Job(
        id=new.id or new_id("job"),
        project_id=project,
        kind=new.kind,
        state=JobState.QUEUED,
        queue=queue,
        priority=new.priority,
        dataset_id=new.dataset_id,
        backbone=new.backbone,
        recipe=new.recipe,
        model_name=new.model_name,
        allow_label_change=new.allow_label_change,
        seed=new.seed,
        report_mode=new.report_mode,
        inputs=new.inputs,
        request_id=log_lines.ids().request_id,
        progress=dict(NOT_BEGUN),
        trace_parent=tracing.current(),
    )
    session.add(job)
    session.flush()
    for other in dict.fromkeys(new.depends_on):
        check_dependency(locked(session, project, other))
        session.add(JobDependency(job_id=job.id, depends_on_id=other, project_id=project))
    for role, dataset_id in new.datasets.items():
        session.add(JobDataset(job_id=job.id, role=role, dataset_id=dataset_id, project_id=project))
    log(session, job, "state", "queued")
    queues.note_bell(session, job.queue)
    with log_lines.bound(project=project, job_id=job.id):
        lines.info("a job of kind %s waits", job.kind)
    return job


def get(session: Session, project: str, job_id: str) -> Job:
    """The project's job of that id.

    Raises:
        NotFound: there is none.
    """
    job = session.get(Job, job_id)
    if job is None or job.project_id != project:
        raise NotFound(f"expected a job of this project; found none with id {job_id!r}; see GET /api/v1/jobs")
    return job


def checkpoints(project: str, job_id: str) -> str:
    """Storage prefix of what a job's attempts hand on to each other; `worker.attempt.document` tells the runner."""
    return f"checkpoints/{project}/{job_id}"


def is_retried(kind: str, inputs: dict[str, Any], failure_code: str | None) -> bool:
    """Whether such a job can be done again after it has failed: all that it works on is still there.

    Own weights are, unless the check has found that they cannot be used, or was cancelled.
    """
    if kind == "backbone":
        return failure_code not in (None, REFUSED)
    return kind in RETRIED and "archive" not in inputs


def page(
    session: Session,
    project: str,
    limit: int,
    after: str | None,
    state: str | None = None,
    dataset_id: str | None = None,
) -> tuple[Sequence[Job], bool]:
    """Jobs, newest first, below the id `after`; and whether there are more."""
    query = select(Job).where(Job.project_id == project)
    if state:
        query = query.where(Job.state == state)
    if dataset_id:
        query = query.where(Job.dataset_id == dataset_id)
    return paging.newest(session, query, Job.id, "job", limit, after)


def events(session: Session, job_id: str, after: int, limit: int) -> tuple[Sequence[JobEvent], bool]:
    """Events with a number above `after`, in order; and whether there are more."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after).order_by(JobEvent.seq)
    return paging.first(session, query, limit)


def move(
    session: Session, job: Job, wanted: JobState, message: str | None = None, level: str = "info", **data: Any
) -> None:
    """Moves the job to another state, logs it, and tells those who listen.

    Raises:
        Conflict: the move is not in the table.
    """
    check_move(JobState(job.state), wanted)
    job.state = wanted
    if wanted in FINAL:
        job.finished_at = now()
        job.lease_owner = job.lease_expires_at = None
        job.request = None
    seq = log(session, job, "state", message or str(wanted), level, state=str(wanted), **data)
    outbox.job_moved(session, job, seq, data)


def log(session: Session, job: Job, kind: str, message: str, level: str = "info", **data: Any) -> int:
    """Appends an event; its number is taken in this transaction, so there are neither holes nor doubles."""
    session.flush()
    statement = update(Job).where(Job.id == job.id).values(last_seq=Job.last_seq + 1)
    seq: int | None = session.scalar(statement.returning(Job.last_seq))
    if seq is None:
        raise NotFound(f"expected a job; found none with id {job.id!r}")
    session.add(
        JobEvent(job_id=job.id, seq=seq, project_id=job.project_id, level=level, type=kind, message=message, data=data)
    )
    return seq


def drop_dependents(session: Session, job: Job) -> None:
    """Cancels what waited for a job that did not succeed, and what waited for those, each once and in no deep chain."""
    ended = [job]
    while ended:
        cause = ended.pop()
        waiting = select(Job).join(JobDependency, JobDependency.job_id == Job.id)
        waiting = waiting.where(JobDependency.depends_on_id == cause.id, Job.state == JobState.QUEUED)
        # As they are now, and for the rest of this transaction: of two that one waits for, another may end as well.
        locked = waiting.order_by(Job.id).with_for_update(of=Job).execution_options(populate_existing=True)
        for other in session.scalars(locked).all():
            why = f"cancelled: {cause.id}, which it depends on, is {cause.state}"
            move(session, other, JobState.CANCELLED, why, "warning")
            ended.append(other)


def datasets(session: Session, job_id: str) -> dict[str, Dataset]:
    """What a job uses beside the dataset it works on, by role."""
    query = select(JobDataset.role, Dataset).join(Dataset, Dataset.id == JobDataset.dataset_id)
    query = query.where(JobDataset.job_id == job_id).order_by(JobDataset.role)
    return dict(session.execute(query).all())


def keep_dataset(session: Session, dataset_id: str | None) -> None:
    """Keeps a dataset from being deleted until this transaction ends; waits for a deletion that is under way."""
    session.execute(select(Dataset.id).where(Dataset.id == dataset_id).with_for_update(read=True, key_share=True))


def locked(session: Session, project: str, job_id: str) -> Job:
    """The project's job, as it is now and for the rest of this transaction: no worker or other request moves it.

    Raises:
        NotFound: there is none.
    """
    get(session, project, job_id)
    return session.get_one(Job, job_id, with_for_update=True)


def check_dependency(needed: Job) -> None:
    """Refuses to wait for a job that will not succeed: nothing would ever end the waiting.

    Raises:
        Conflict: it has failed or was cancelled.
    """
    if needed.state in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(
            f"expected a job to depend on that can still succeed; found {needed.id} {needed.state}; retry that one"
        )
