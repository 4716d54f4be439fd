"""Attempts at a job as workers see them: claim, lease, record, end. All writes are fenced by the lease's owner.

A worker that lost its lease (frozen, cut off) finds its token gone, and nothing it says later has any effect.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app import texts
from app.db.base import now
from app.db.models import Job, JobEvent
from app.errors import FAILURES
from app.queue import CPU
from app.services import gpu_use, jobs, queues, turns
from app.states import JobState


class LeaseLost(Exception):
    """Another worker owns the job now, or it has ended; stop at once and write nothing."""


def claim(session: Session, queues: Sequence[str], owner: str, lease_seconds: float) -> Job | None:
    """Takes the job whose turn it is, see `turns`, and leases it."""
    job = turns.take(session, queues)
    if job is None:
        return None
    job.attempt += 1
    job.lease_owner = owner
    job.claimed_at = now()
    job.lease_expires_at = job.claimed_at + timedelta(seconds=lease_seconds)
    job.started_at = job.started_at or job.claimed_at
    job.progress = dict(jobs.BEGUN)
    jobs.move(session, job, JobState.RUNNING, f"attempt {job.attempt} started", attempt=job.attempt)
    return job


def earlier_seconds(session: Session, job: Job) -> float:
    """How long all attempts before this one went on, by the job's log: each to its end, or until it was missed."""
    if job.attempt < 2:
        return 0.0
    query = select(JobEvent.at, JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.type == "state")
    total, began = 0.0, None
    for at, data in session.execute(query.order_by(JobEvent.seq)):
        if began is not None:
            total += (at - began).total_seconds()
        began = at if data.get("state") == JobState.RUNNING else None
    return total


def owned(session: Session, job_id: str, owner: str) -> Job:
    """The job, locked for this transaction, if the owner still holds it.

    Raises:
        LeaseLost: it does not.
    """
    job = session.scalar(select(Job).where(Job.id == job_id, Job.lease_owner == owner).with_for_update())
    if job is None:
        raise LeaseLost(f"the lease of {job_id} is no longer held by {owner}")
    return job


def renew(session: Session, job_id: str, owner: str, lease_seconds: float, worked_seconds: float = 0.0) -> str | None:
    """Extends the lease: one small UPDATE, and on a GPU another one that counts its time.

    Args:
        session: the open transaction.
        job_id: of the job.
        owner: who believes to hold it.
        lease_seconds: from now on.
        worked_seconds: since they were counted last.

    Returns:
        what the job's user asked for meanwhile (cancel, stop), or None.

    Raises:
        LeaseLost: the lease had run out and somebody else took it.
    """
    statement = update(Job).where(Job.id == job_id, Job.lease_owner == owner)
    row = session.execute(
        statement.values(lease_expires_at=now() + timedelta(seconds=lease_seconds)).returning(
            Job.id, Job.project_id, Job.queue, Job.request
        )
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"the lease of {job_id} is no longer held by {owner}")
    gpu_use.add(session, row, worked_seconds)
    request: str | None = row.request
    return request


def record(
    session: Session, job_id: str, owner: str, entries: Sequence[dict[str, Any]], progress: dict[str, Any] | None
) -> None:
    """Stores a batch of the runner's events, and the latest progress, under the fence.

    A metric says which attempt it is of: one that takes over from a checkpoint computes what came after it again, and
    tells it again.

    Raises:
        LeaseLost: the owner no longer holds the job.
    """
    statement = update(Job).where(Job.id == job_id, Job.lease_owner == owner)
    values: dict[Any, Any] = {Job.last_seq: Job.last_seq + len(entries)}
    if progress is not None:
        values[Job.progress] = progress
    row = session.execute(statement.values(values).returning(Job.last_seq, Job.project_id, Job.attempt)).one_or_none()
    if row is None:
        raise LeaseLost(f"the lease of {job_id} is no longer held by {owner}")
    first = row.last_seq - len(entries) + 1
    session.add_all(
        JobEvent(
            job_id=job_id,
            seq=first + offset,
            project_id=row.project_id,
            level=entry.get("level", "info"),
            type=entry["type"],
            message=texts.storable(entry["message"]),
            data=(entry.get("data") or {}) | ({"attempt": row.attempt} if entry["type"] == "metric" else {}),
        )
        for offset, entry in enumerate(entries)
    )


def hand_back(session: Session, job: Job, reason: str, max_attempts: int, *, counts: bool = True) -> bool:
    """Ends an attempt without a result: another one resumes, unless there were enough of them.

    Args:
        session: the open transaction.
        job: a running job.
        reason: shown in the job's log.
        max_attempts: after this many the job fails as worker_lost.
        counts: whether the attempt counts as lost; one that was handed back on purpose does not.

    Returns:
        whether the job waits for another attempt.
    """
    job.lease_owner = job.lease_expires_at = None
    job.losses += counts
    if job.request == "cancel":
        jobs.move(session, job, JobState.CANCELLED)
        jobs.drop_dependents(session, job)
    elif job.losses >= max_attempts:
        fail(session, job, "worker_lost", f"{FAILURES['worker_lost']} {job.losses} were lost; the last: {reason}")
    else:
        jobs.move(session, job, JobState.QUEUED, f"handed back: {reason}", "warning")
        queues.note_bell(session, job.queue)
        return True
    return False


def fail(session: Session, job: Job, code: str, message: str) -> None:
    """Ends the job as failed; the cause is data on its row, and may quote what a user's file has."""
    message = texts.storable(message)
    job.failure_code, job.failure_message = code, message
    jobs.move(session, job, JobState.FAILED, message, "error", code=code)
    jobs.drop_dependents(session, job)


def expired(session: Session) -> Sequence[Job]:
    """Running jobs whose worker fell silent."""
    query = select(Job).where(Job.state == JobState.RUNNING, Job.lease_expires_at < now())
    return session.scalars(query.limit(100).with_for_update(skip_locked=True)).all()


def waiting_queues(session: Session) -> set[str]:
    """Queues in which a job waits: their bells may have been lost."""
    return set(session.scalars(select(Job.queue).where(Job.state == JobState.QUEUED).distinct()))


def reroute(session: Session) -> None:
    """Moves jobs that wait where no worker serves any more to the CPU: a machine with a GPU may leave for good."""
    served = queues.served(session)
    if CPU not in served:
        return
    lost = select(Job).where(Job.state == JobState.QUEUED, Job.queue.not_in(served)).limit(100)
    for job in session.scalars(lost.with_for_update(skip_locked=True)).all():
        jobs.log(session, job, "log", f"no worker serves the queue {job.queue} any more; moved to {CPU}", "warning")
        job.queue = CPU
        queues.note_bell(session, CPU)
