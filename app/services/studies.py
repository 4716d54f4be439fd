"""Studies: questions about data and models that a job answers. What rankings, evaluations and advice share."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.models import Job
from app.db.studies import Advice, Evaluation, Ranking, Study
from app.errors import Conflict, NotFound
from app.services import jobs, paging

RUNNING, READY, FAILED = "running", "ready", "failed"
# Kinds of jobs that answer a study: its table, and what its ids begin with.
TABLES: dict[str, tuple[type[Study], str]] = {
    "rank": (Ranking, "rnk"),
    "evaluate": (Evaluation, "evl"),
    "advise": (Advice, "adv"),
}
NAMES: dict[type[Study], str] = {Ranking: "a ranking", Evaluation: "an evaluation", Advice: "advice"}

S = TypeVar("S", bound=Study)


def create(
    session: Session,
    table: type[S],
    project: str,
    request: dict[str, Any],
    job: jobs.NewJob,
    write: Callable[[Session, str, jobs.NewJob], Job] = jobs.create,
) -> S:
    """Writes a study and the job that answers it; `job.inputs` gets the study's id.

    Args:
        session: the open transaction.
        table: of the study.
        project: owner.
        request: what is asked.
        job: that answers.
        write: how the job comes to be; `jobs.enqueue` where no limit is to be looked at.

    Raises:
        GraftError: see `write`.
    """
    row = table(id=new_id(TABLES[job.kind][1]), project_id=project, state=RUNNING, request=request)
    session.add(row)
    session.flush()
    job = replace(job, inputs={**job.inputs, "study_id": row.id})
    row.job_id = write(session, project, job).id
    return row


def get(session: Session, table: type[S], project: str, study_id: str) -> S:
    """The project's study of that id.

    Raises:
        NotFound: there is none.
    """
    row = session.get(table, study_id)
    if row is None or row.project_id != project:
        raise NotFound(f"expected {NAMES[table]} of this project; found none with id {study_id!r}")
    return row


def page(
    session: Session, table: type[S], project: str, limit: int, after: str | None, *conditions: ColumnElement[bool]
) -> tuple[Sequence[S], bool]:
    """Studies that meet all conditions, newest first, below the id `after`; and whether there are more."""
    query = select(table).where(table.project_id == project, *conditions)
    prefix = next(prefix for known, prefix in TABLES.values() if known is table)
    return paging.newest(session, query, table.id, prefix, limit, after)


def ready(session: Session, table: type[S], project: str, study_id: str) -> S:
    """The project's study, if it has its answer.

    Raises:
        NotFound: there is none.
        Conflict: code study_not_ready.
    """
    row = get(session, table, project, study_id)
    if row.state != READY:
        why = f": {row.failure_message}" if row.failure_message else f"; wait for job {row.job_id}"
        raise Conflict(
            f"expected {NAMES[table]} that is ready; found {study_id} {row.state}{why}",
            code="study_not_ready",
        )
    return row


def delete(session: Session, table: type[S], project: str, study_id: str) -> str:
    """Removes a study that no job works on.

    Returns:
        the storage prefix to delete after the commit.

    Raises:
        Conflict: code in_use, with the job.
    """
    row = get(session, table, project, study_id)
    if row.state == RUNNING and row.job_id:
        raise Conflict(
            f"expected {NAMES[table]} that no job works on; found {row.job_id}; cancel it first",
            code="in_use",
            users=[row.job_id],
        )
    session.delete(row)
    return prefix(project, study_id)


def prefix(project: str, study_id: str) -> str:
    """Where a study's files lie in storage, when it has any."""
    return f"studies/{project}/{study_id}"


def complete(session: Session, job: Job, result: dict[str, Any]) -> Study:
    """Writes what the job has found; the study is ready from now on."""
    table, _ = TABLES[job.kind]
    row = session.get_one(table, job.inputs["study_id"])
    row.state, row.finished_at, row.result = READY, now(), result
    return row


def fail(session: Session, job: Job, code: str, message: str) -> None:
    """Marks a study whose job ended without a result."""
    table, _ = TABLES[job.kind]
    row = session.get(table, job.inputs["study_id"])
    if row is not None and row.state == RUNNING:
        row.state, row.finished_at = FAILED, now()
        row.failure_code, row.failure_message = code, message


def reopen(session: Session, job: Job) -> None:
    """Marks a study whose job is tried again as running.

    Raises:
        Conflict: it was deleted meanwhile.
    """
    table, _ = TABLES[job.kind]
    row = session.get(table, job.inputs["study_id"], with_for_update=True)
    if row is None:
        raise Conflict(f"expected {NAMES[table]} to answer; found {job.inputs['study_id']} deleted; post it again")
    row.state, row.finished_at = RUNNING, None
    row.failure_code = row.failure_message = None
