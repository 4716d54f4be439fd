"""A stack with what scenarios begin with, and how one ends: jobs that have ended, figures that can be compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import exc

from app.db.models import Job
from app.states import FINAL
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.prepare import TINY
from benchmarks.chaos.stack import Stack
from tests import factories

PROBE = {"method": "linear_probe"}
# No figure of time belongs to what must be equal.
TIMES = ("seconds", "per_second", "minutes", "latency")
JOB_SECONDS = 1200.0
# For names of what is made.
numbers = count(1)


@dataclass
class Done:
    """What a scenario has made.

    Args:
        jobs: every one of which must have succeeded, once.
        result: equal to that of an undisturbed run, bit for bit.
        models: each must have so many versions.
    """

    jobs: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)


class Lab:
    """A stack with what scenarios begin with: a dataset, a published version."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.folder = stack, stack.folder
        self.archive = self.folder / "colours.zip"
        self.archive.write_bytes(factories.pack(factories.pictures(16)))
        self.dataset = self.upload("base")
        self.model = "base"
        job = stack.client.start_transfer(self.dataset, self.model, backbone=TINY, recipe=PROBE)
        finish(stack, [job["id"]])
        # A second dataset, once a scenario has asked for it.
        self.other: str | None = None

    def upload(self, name: str) -> str:
        return str(self.ingest(name)["id"])

    def ingest(self, name: str, archive: Path | None = None) -> dict[str, Any]:
        """A dataset, once its ingestion has ended."""
        made = self.post_archive(name, archive)
        finish(self.stack, [made["job_id"]])
        return self.stack.persist(lambda: self.stack.client.dataset(made["id"]))

    def post_archive(self, name: str, archive: Path | None = None) -> dict[str, Any]:
        data = (archive or self.archive).read_bytes()
        key = f"ingest-{next(numbers)}"
        return dict(self.stack.post("/datasets", key, files={"file": ("a.zip", data)}, data={"name": name}))


def finish(stack: Stack, job_ids: list[str], seconds: float = JOB_SECONDS) -> list[Job]:
    """The jobs, once all have ended.

    Raises:
        NoResultFound: one is lost.
        AssertionError: some have not; a table names those.
    """
    found: list[Job] = []
    stack.asked.update(job_ids)

    def ended() -> bool:
        def look() -> list[Job]:
            with stack.database.read() as session:
                return [session.get_one(Job, one) for one in job_ids]

        try:
            found[:] = look()
        except (exc.DBAPIError, exc.TimeoutError):
            # Away for now.
            return False
        return all(job.state in FINAL for job in found)

    try:
        wait_until(ended, f"the end of {len(job_ids)} jobs", seconds)
    except AssertionError as error:
        raise AssertionError("\n".join([str(error), *table(job for job in found if job.state not in FINAL)])) from error
    return found


def table(jobs: Iterable[Job], **more: Mapping[str, int]) -> list[str]:
    """A line for each job, below a head: what there is to know of one that is not as it should be.

    Args:
        jobs: those.
        more: further columns of counts, by the id of a job.
    """
    columns = {"id": "id", "state": "state", "attempts": "attempt", "failure": "failure_code"}
    rows = [[*columns, *more]]
    rows += [
        [*(_told(getattr(job, name)) for name in columns.values()), *(one.get(job.id, 0) for one in more.values())]
        for job in jobs
    ]
    widths = [max(len(str(row[place])) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(f"{cell!s:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _told(value: object) -> object:
    return "-" if value is None else value


def difference(wanted: Any, found: Any, path: str = "") -> list[str]:
    """Where two results are not equal, by the path to each leaf."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        names = [*wanted, *(name for name in found if name not in wanted)]
        return [
            line
            for name in names
            for line in difference(wanted.get(name), found.get(name), f"{path}.{name}".strip("."))
        ]
    return [] if wanted == found else [f"{path}: expected {wanted}; found {found}"]


def plain(metrics: dict[str, Any] | None) -> dict[str, Any]:
    """Figures without those of time."""
    return {name: value for name, value in (metrics or {}).items() if not any(one in name for one in TIMES)}


def timeless(value: Any) -> Any:
    """A result without its figures of time."""
    if isinstance(value, dict):
        return {name: timeless(one) for name, one in value.items() if not any(word in name for word in TIMES)}
    return [timeless(one) for one in value] if isinstance(value, list) else value
