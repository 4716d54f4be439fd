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
# A worker that was not seen for so long is gone.
LIVE = timedelta(minutes=1)
# For so long its queues wait for it, or for another one: it may be restarted, or replaced by another release.
RETURN = timedelta(minutes=10)


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


def live_workers(session: Session, within: timedelta = LIVE) -> Sequence[WorkerProcess]:
    """Workers that were seen lately."""
    return session.scalars(select(WorkerProcess).where(WorkerProcess.seen_at > now() - within)).all()


def served(session: Session) -> set[str]:
    """Queues that have a worker, or had one so lately that it may come back."""
    return {queue for worker in live_workers(session, RETURN) for queue in worker.queues}


def choose(session: Session, kind: str) -> str:
    """What extracts goes to a GPU where such a worker is registered; all else, and everywhere else, to the CPU."""
    return GPU if kind in EXTRACTING and GPU in served(session) else CPU
