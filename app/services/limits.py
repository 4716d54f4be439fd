"""What a project may have at once, where the operator has set a limit on its row; None is no limit.

Requests are counted by each process for itself (`app.api.rates`); bodies have limits of their own, in the settings.
"""

from dataclasses import asdict, dataclass, fields

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.models import Job, Project
from app.errors import NotFound, TooMany
from app.queue import GPU
from app.services import gpu_use, stored_bytes
from app.states import JobState

# A job may end, or something be deleted, at any moment.
RETRY_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one project.

    Args:
        max_bytes: of all that it stores: its datasets (those that are being ingested as they were sent, with their
            base), its uploads as large as they are to be, what is under way, its versions with the graphs that it has
            brought, its backbones and prediction logs, and the rest as the last collection has found it.
        max_jobs: queued and running together.
        max_requests: a second, of each process that answers.
        max_gpu_seconds: of a day (UTC) that its jobs are on GPUs, all of them together; those that run go on.
    """

    max_bytes: int | None = None
    max_jobs: int | None = None
    max_requests: float | None = None
    max_gpu_seconds: int | None = None


def put(session: Session, project: str, wanted: Limits) -> None:
    """Sets all limits of a project; what is beyond them already stays.

    Raises:
        NotFound: there is no such project.
    """
    row = session.get(Project, project, with_for_update={"key_share": True})
    if row is None:
        raise NotFound(f"expected a project; found none named {project!r}; make it with `graft keys create --project`")
    for name, value in asdict(wanted).items():
        setattr(row, name, value)


def every(session: Session) -> list[tuple[str, Limits]]:
    """Limits of all projects, by their names."""
    rows = session.scalars(select(Project).order_by(Project.id))
    return [(row.id, Limits(**{field.name: getattr(row, field.name) for field in fields(Limits)})) for row in rows]


def check_job(session: Session, project: str) -> None:
    """Refuses one job more than the project may have queued and running.

    Raises:
        TooMany: code too_many_jobs.
    """
    most = session.scalar(select(Project.max_jobs).where(Project.id == project))
    if most is None:
        return
    lock(session, project)
    unfinished = Job.state.in_([JobState.QUEUED, JobState.RUNNING])
    found = session.scalar(select(func.count()).where(Job.project_id == project, unfinished)) or 0
    if found >= most:
        raise TooMany(
            f"expected fewer than {most} jobs of the project queued and running; found {found}; wait for one to "
            "end, or cancel one",
            code="too_many_jobs",
            retry_after_seconds=RETRY_SECONDS,
        )


def check_gpu(session: Session, project: str, queue: str) -> None:
    """Refuses a job for a GPU where the project has used up its time of this day.

    Those that wait already are not started before the next day, see `turns`; so nothing is locked here.

    Raises:
        TooMany: code too_many_gpu_seconds.
    """
    if queue != GPU:
        return
    most = session.scalar(select(Project.max_gpu_seconds).where(Project.id == project))
    if most is None:
        return
    used = gpu_use.today(session, project)
    if used >= most:
        raise TooMany(
            f"expected less than {most} seconds of the project on GPUs today (UTC); found {used:.0f}; wait for the "
            "next day, or ask whoever runs the service for more",
            code="too_many_gpu_seconds",
            retry_after_seconds=gpu_use.seconds_to_next_day(),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What a project may store, and has stored."""

    most_bytes: int
    found_bytes: int

    def check(self, more: int) -> None:
        """Refuses so many bytes more.

        Raises:
            TooMany: code too_many_bytes.
        """
        if self.found_bytes + more > self.most_bytes:
            raise TooMany(
                f"expected at most {self.most_bytes} bytes in the project; found {self.found_bytes}, and {more} more "
                "to come; delete a dataset, version, backbone or upload that nobody needs (GET /metrics tells what the "
                "bytes belong to)",
                code="too_many_bytes",
                retry_after_seconds=RETRY_SECONDS,
            )


def room(session: Session, project: str, *, alone: bool = True) -> Room | None:
    """What the project may store; None without a limit.

    Args:
        session: the open transaction.
        project: owner.
        alone: whether nobody else of the project takes any until the commit.
    """
    most = session.scalar(select(Project.max_bytes).where(Project.id == project))
    if most is None:
        return None
    if alone:
        lock(session, project)
    return Room(most, stored_bytes.total(session, project))


def check_bytes(session: Session, project: str, more: int) -> None:
    """Refuses what the project has no room to store.

    Args:
        session: the open transaction.
        project: owner.
        more: bytes that are to come; 0 where nobody knows yet, which is refused where there is too much already.

    Raises:
        TooMany: code too_many_bytes.
    """
    if (found := room(session, project)) is not None:
        found.check(more)


def lock(session: Session, project: str) -> None:
    """One at a time until the transaction ends: two that count at once would both find room for one.

    Comes before the rows of jobs and of what they make, wherever both are locked.
    """
    # Not the strongest lock: rows that refer to the project are still written by others meanwhile.
    session.execute(select(Project.id).where(Project.id == project).with_for_update(key_share=True))
