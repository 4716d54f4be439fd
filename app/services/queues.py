"""Queues: which one a job waits in, who serves them, and the bells that tell a worker that something waits."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.models import Job, WorkerProcess
from app.queue import CPU, GPU
from app.states import JobState

# Kinds that extract features, which a GPU does faster; predict runs the published graph on cores, as it is served.
EXTRACTING = frozenset({"transfer", "align", "rank", "evaluate", "advise", "extract"})
BELLS = "bells"


def note_bell(session: Session, queue: str) -> None:
    """Remembers on the session that a queue is to be rung after the commit."""
    session.info.setdefault(BELLS, set()).add(queue)


def take_bells(session: Session) -> set[str]:
    """The queues that were noted; whoever commits rings them afterwards."""
    bells: set[str] = session.info.pop(BELLS, set())
    return bells


def counts(session: Session, project: str | None = None) -> dict[tuple[str, str], int]:
    """Number of unfinished jobs by (queue, state), of one project or of all."""
    query = (
        select(Job.queue, Job.state, func.count())
        .where(Job.state.in_([JobState.QUEUED, JobState.RUNNING]))
        .group_by(Job.queue, Job.state)
    )
    if project is not None:
        query = query.where(Job.project_id == project)
    return {(queue, state): number for queue, state, number in session.execute(query)}


def oldest_seconds(session: Session, project: str | None = None) -> float:
    """For how long the oldest waiting job has waited, of one project or of all; 0 without one."""
    query = select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED)
    if project is not None:
        query = query.where(Job.project_id == project)
    first = session.scalar(query)
    return 0.0 if first is None else max(0.0, (now() - first).total_seconds())


def live_workers(session: Session, within_seconds: float = 60.0) -> Sequence[WorkerProcess]:
    """Workers that were seen lately."""
    return session.scalars(
        select(WorkerProcess).where(WorkerProcess.seen_at > now() - timedelta(seconds=within_seconds))
    ).all()


def choose(session: Session, kind: str) -> str:
    """What extracts goes to a GPU where such a worker is registered; all else, and everywhere else, to the CPU."""
    if kind not in EXTRACTING:
        return CPU
    return GPU if any(GPU in worker.queues for worker in live_workers(session)) else CPU
