"""Whose turn it is: the next job is one of the project that has had least (decision 0030).

Between projects: the one with the fewest running jobs in the queues that are asked for, then the one that was served
longest ago. Within a project, and between projects that are even: priority, then age.

Statements are built once: building them takes ten times as long as the database needs to answer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import FromClause, Row, Select, and_, bindparam, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.models import Job, JobDependency, Project
from app.queue import GPU
from app.services import gpu_use
from app.states import JobState

NEVER = datetime.min.replace(tzinfo=UTC)
# Written out, so that both databases see that the index of waiting jobs is meant.
QUEUED = literal(JobState.QUEUED.value, literal_execute=True)
RUNNING = literal(JobState.RUNNING.value, literal_execute=True)


def take(session: Session, queues: Sequence[str]) -> Job | None:
    """The job whose turn it is, locked until the transaction ends; None where none may start.

    On PostgreSQL concurrent claims skip each other's row and go on to the next; on SQLite the writing transaction
    itself excludes them. Nobody ever waits here: a worker that freezes in mid-claim holds up no other.
    """
    day, asked = now().date(), list(queues)
    heads = [
        row
        for queue in queues
        for row in session.execute(_heads(gpu=queue == GPU), {"queue": queue, "queues": asked, "day": day})
    ]
    for head in sorted(heads, key=_deserts):
        for statement in (_most_urgent(), _any()):
            job = session.scalar(statement, {"queue": head.queue, "project": head.project_id})
            if job is not None:
                return job
    return None


def _deserts(head: Row[Any]) -> tuple[int, datetime, int, str]:
    return head.running, head.served_at or NEVER, -head.priority, head.id


@cache
def _heads(*, gpu: bool) -> Select[Any]:
    """Of each project that may start one in `queue`: its first job there, and what it has had so far.

    Everything is asked project by project, each a look at an index, so that it costs the same among a million jobs.
    A project that has used its time on GPUs up starts nothing there until it has some again.
    """
    job, project = Job.__table__, Project.__table__
    head, other, waiting = job.alias(), job.alias(), job.alias()
    first = select(waiting.c.id).where(
        _ready(waiting, project.c.id), waiting.c.priority == _highest(project.c.id).correlate(project).scalar_subquery()
    )
    first_id = first.order_by(waiting.c.id).limit(1).correlate(project).scalar_subquery()
    running = select(func.count()).where(
        other.c.project_id == project.c.id,
        other.c.state == RUNNING,
        other.c.queue.in_(bindparam("queues", expanding=True)),
    )
    served = select(other.c.claimed_at).where(other.c.project_id == project.c.id, other.c.claimed_at.is_not(None))
    last = served.order_by(other.c.claimed_at.desc()).limit(1)
    query = select(
        project.c.id.label("project_id"),
        head.c.queue,
        head.c.priority,
        head.c.id,
        running.correlate(project).scalar_subquery().label("running"),
        last.correlate(project).scalar_subquery().label("served_at"),
    ).join_from(project, head, head.c.id == first_id)
    if gpu:
        most = project.c.max_gpu_seconds
        query = query.where(or_(most.is_(None), gpu_use.of_day(project.c.id, bindparam("day")) < most))
    return query


@cache
def _most_urgent() -> Select[Job]:
    """The first of the most urgent that nobody else has just taken."""
    project: Any = bindparam("project")
    ready = select(Job).where(_ready(Job.__table__, project), Job.priority == _highest(project).scalar_subquery())
    return ready.order_by(Job.id).limit(1).with_for_update(skip_locked=True, of=Job)


@cache
def _any() -> Select[Job]:
    """Asked where all of the most urgent are taken, since it sorts all that wait."""
    ready = select(Job).where(_ready(Job.__table__, bindparam("project")))
    return ready.order_by(Job.priority.desc(), Job.id).limit(1).with_for_update(skip_locked=True, of=Job)


def _highest(project: Any) -> Select[int]:
    urgent = Job.__table__.alias()
    return select(urgent.c.priority).where(_ready(urgent, project)).order_by(urgent.c.priority.desc()).limit(1)


def _ready(job: FromClause, project: Any) -> Any:
    """Whether it waits in `queue`, and for no other job that has not succeeded yet."""
    needed, link = Job.__table__.alias(), JobDependency.__table__.alias()
    unmet = exists().where(
        link.c.job_id == job.c.id, needed.c.id == link.c.depends_on_id, needed.c.state != JobState.SUCCEEDED
    )
    return and_(
        job.c.project_id == project,
        job.c.queue == bindparam("queue"),
        job.c.state == QUEUED,
        ~unmet.correlate(job),
    )
