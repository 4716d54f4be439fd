"""Time on GPUs: what each project has used of a day (UTC), by the heartbeats of its attempts.

An attempt at a job of the queue `gpu` counts from its claim to its end. Each heartbeat adds the time since the one
before it, in the transaction that renews the lease; so one that was killed counts for as long as it was heard of.
"""

from datetime import datetime, time, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.gpu import GpuUse
from app.queue import GPU

KEPT = timedelta(days=90)


def add(session: Session, job: Any, seconds: float) -> None:
    """Counts time of a job whose lease the caller holds; of other queues nothing.

    Args:
        session: the transaction that has locked the job's row.
        job: its row, or what of it is needed: `id`, `project_id`, `queue`.
        seconds: since it was counted last.
    """
    if job.queue != GPU or seconds <= 0:
        return
    key = {"project_id": job.project_id, "day": now().date(), "job_id": job.id}
    counted = update(GpuUse).filter_by(**key).values(seconds=GpuUse.seconds + seconds)
    if session.scalar(counted.returning(GpuUse.job_id)) is None:
        session.add(GpuUse(**key, seconds=seconds))


def of_day(project: Any, day: Any) -> Any:
    """Seconds of a day, of a project or of each in a query: a part of a statement."""
    query = select(func.coalesce(func.sum(GpuUse.seconds), 0.0))
    return query.where(GpuUse.project_id == project, GpuUse.day == day).scalar_subquery()


def today(session: Session, project: str) -> float:
    """Seconds of the day so far."""
    return float(session.scalar(select(of_day(project, now().date()))) or 0.0)


def of_all(session: Session) -> dict[str, float]:
    """Seconds of the day so far, by project."""
    query = select(GpuUse.project_id, func.sum(GpuUse.seconds)).where(GpuUse.day == now().date())
    return {project: float(seconds) for project, seconds in session.execute(query.group_by(GpuUse.project_id))}


def seconds_to_next_day() -> int:
    """Until there is time again."""
    at = now()
    midnight = datetime.combine(at.date() + timedelta(days=1), time(), at.tzinfo)
    return max(1, int((midnight - at).total_seconds()) + 1)


def expire(session: Session) -> None:
    """Removes days that nobody asks for any more."""
    session.execute(delete(GpuUse).where(GpuUse.day < (now() - KEPT).date()))
