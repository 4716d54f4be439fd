"""Datasets: made by an upload, judged once by an ingest job, immutable afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Select, or_, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session

from app import texts
from app.db.models import Dataset, Job, JobDataset, Problem
from app.db.session import Database
from app.errors import BadRequest, Conflict, NotFound
from app.inbox import Inbox
from app.services import jobs, limits, paging, uploads
from app.states import FINAL, DatasetState

TASKS = ("classification", "multi_label", "regression", "multi_task")
_MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b", b"PAR1")
_TAR_MAGIC_AT = 257
HEAD_BYTES = _TAR_MAGIC_AT + 5
FORMATS = ("auto", "folders", "manifest", "parquet", "unlabelled")


@dataclass(frozen=True, slots=True)
class NewDataset:
    """What a dataset is made from; `archive` is a storage key of `size_bytes`, absent for a child that only changes."""

    name: str
    archive: str | None
    filename: str
    task: str | None = None
    format: str = "auto"
    seed: int | None = None
    base_id: str | None = None
    remove: tuple[str, ...] = ()
    relabel: dict[str, str] | None = None
    size_bytes: int = 0


def prefix(project: str, dataset_id: str) -> str:
    """Where a dataset lies in storage."""
    return f"datasets/{project}/{dataset_id}"


def check_options(task: str | None, form: str) -> None:
    """Refuses a task or format that is not built.

    Raises:
        BadRequest: with code unsupported_task or unknown_format.
    """
    if task is not None and task not in TASKS:
        raise BadRequest(f"expected a task that is built ({', '.join(TASKS)}); found {task!r}", code="unsupported_task")
    if form not in FORMATS:
        raise BadRequest(f"expected a format of {', '.join(FORMATS)}; found {form!r}", code="unknown_format")


def check_upload(path: Path) -> None:
    """Refuses at the door what cannot be an archive; ingestion looks inside the rest.

    Raises:
        BadRequest: with code not_an_archive.
    """
    with path.open("rb") as file:
        check_beginning(file.read(HEAD_BYTES))


def check_beginning(head: bytes) -> None:
    """The same, of a file's first HEAD_BYTES.

    Raises:
        BadRequest: with code not_an_archive.
    """
    if not head.startswith(_MAGIC) and head[_TAR_MAGIC_AT:] != b"ustar":
        found = f"{len(head)} bytes or more that start with {head[:12]!r}" if head else "an empty file"
        raise BadRequest(
            f"expected a zip, tar or tar.gz archive, or a Parquet file; found {found}; "
            "pack the images into a zip with one folder per class",
            code="not_an_archive",
        )


def check_beginning_of(database: Database, inbox: Inbox, project: str, upload_id: str | None) -> None:
    """The same, of a complete upload, before the transaction that takes it.

    Where there is none, or one that cannot be used at all, that is refused when it is taken.

    Raises:
        BadRequest: with code not_an_archive.
    """
    if upload_id is None:
        return
    head = uploads.beginning(database, inbox, project, upload_id, HEAD_BYTES)
    if head is not None:
        check_beginning(head)


def _check_changes(new: NewDataset) -> None:
    relabel = new.relabel or {}
    odd = [one for one in (*new.remove, *relabel, *relabel.values()) if not texts.is_storable(one)]
    if odd:
        raise BadRequest(
            f"expected ids and labels that can be written down; found {odd[0]!a}; remove NUL characters and halves "
            "of surrogate pairs"
        )
    both = sorted(relabel.keys() & set(new.remove))
    if both:
        raise BadRequest(
            f"expected each sample to be removed or to get a label; found {', '.join(both[:5])} in both; name it once"
        )
    bare = sorted(sample for sample, label in relabel.items() if not label)
    if bare:
        raise BadRequest(
            f"expected a label for each sample of relabel; found none for {', '.join(bare[:5])}; name a class, or "
            "remove the sample"
        )


def create(session: Session, project: str, dataset_id: str, new: NewDataset) -> Dataset:
    """Writes the dataset and the job that ingests it.

    Raises:
        BadRequest: unknown task or format, or changes that contradict each other.
        Conflict: the base is not ready.
        TooMany: code too_many_bytes or too_many_jobs.
    """
    check_options(new.task, new.format)
    if new.base_id is not None:
        jobs.keep_dataset(session, new.base_id)
        base = ready(session, project, new.base_id)
        if new.task not in (None, base.task):
            raise BadRequest(f"expected the base's task {base.task!r}; found {new.task!r}", code="task_mismatch")
        if new.seed not in (None, base.seed):
            raise BadRequest(
                f"expected the base's seed {base.seed}, since no sample of a child moves to another split; found "
                f"{new.seed}; leave it out",
                code="seed_mismatch",
            )
        _check_changes(new)
    elif new.remove or new.relabel:
        raise BadRequest(
            "expected a base dataset to remove or relabel samples of; found none; send base", code="base_missing"
        )
    elif new.archive is None:
        raise BadRequest("expected a file; found none; send one as multipart field `file`", code="file_missing")
    # A child has the bytes of its base as well, in files of its own.
    size_bytes = new.size_bytes + (base.size_bytes if new.base_id else 0)
    limits.check_bytes(session, project, size_bytes)
    dataset = Dataset(
        id=dataset_id,
        project_id=project,
        name=new.name,
        task=new.task or (base.task if new.base_id else "classification"),
        modality="image",
        base_id=new.base_id,
        state=DatasetState.INGESTING,
        seed=base.seed if new.base_id else new.seed or 0,
        size_bytes=size_bytes,
    )
    session.add(dataset)
    session.flush()
    inputs = {
        "archive": new.archive,
        "filename": new.filename,
        "format": new.format,
        # Where none is named, the labels say it once they are read.
        "task": new.task or (base.task if new.base_id else None),
        "remove": list(new.remove),
        "relabel": new.relabel or {},
        "base_id": new.base_id,
    }
    # Ingestion goes before transfers: it is short, and somebody waits for it.
    job = jobs.create(session, project, jobs.NewJob(kind="ingest", dataset_id=dataset.id, priority=10, inputs=inputs))
    dataset.job_id = job.id
    return dataset


def get(session: Session, project: str, dataset_id: str) -> Dataset:
    """The project's dataset of that id.

    Raises:
        NotFound: there is none.
    """
    dataset = session.get(Dataset, dataset_id)
    if dataset is None or dataset.project_id != project:
        raise NotFound(
            f"expected a dataset of this project; found none with id {dataset_id!r}; see GET /api/v1/datasets"
        )
    return dataset


def ready(session: Session, project: str, dataset_id: str) -> Dataset:
    """The project's dataset, if it can be used.

    Raises:
        NotFound: there is none.
        Conflict: code dataset_not_ready, it is being ingested or invalid.
    """
    dataset = get(session, project, dataset_id)
    if dataset.state != DatasetState.READY:
        why = f": {dataset.failure_message}" if dataset.failure_message else "; wait until it is ready"
        raise Conflict(
            f"expected a dataset that is ready; found {dataset_id} {dataset.state}{why}", code="dataset_not_ready"
        )
    return dataset


def family(session: Session, project: str, dataset_id: str) -> list[Dataset]:
    """A dataset of the project and its bases, from itself to the first one; nothing where it was deleted.

    A base cannot be deleted before its valid children, so the chain has no holes. An imported bundle may name any id.
    """
    found: list[Dataset] = []
    row = session.get(Dataset, dataset_id)
    while row is not None and row.project_id == project:
        found.append(row)
        row = session.get(Dataset, row.base_id) if row.base_id else None
    return found


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[Dataset], bool]:
    """Datasets, newest first, below the id `after`; and whether there are more."""
    return paging.newest(session, select(Dataset).where(Dataset.project_id == project), Dataset.id, "ds", limit, after)


def problems(session: Session, project: str, dataset_id: str, limit: int, after: int) -> tuple[Sequence[Problem], bool]:
    """Findings with a number above `after`; and whether there are more."""
    get(session, project, dataset_id)
    query = select(Problem).where(Problem.dataset_id == dataset_id, Problem.seq > after).order_by(Problem.seq)
    return paging.first(session, query, limit)


def delete(session: Session, project: str, dataset_id: str) -> list[str]:
    """Removes the dataset's rows. Jobs on it cannot be tried again, so their checkpoints go as well.

    Returns:
        the storage prefixes to delete once the transaction is committed; features of its images go with a collection.

    Raises:
        Conflict: code in_use, with the users' ids, and what to do about each.
    """
    # Whoever is about to use it is waited for and then seen; whoever comes later finds it gone.
    session.execute(select(Dataset.id).where(Dataset.id == dataset_id, Dataset.project_id == project).with_for_update())
    dataset = get(session, project, dataset_id)
    # An invalid one has nothing of it, and can be made no more.
    children = session.scalars(
        select(Dataset.id).where(Dataset.base_id == dataset_id, Dataset.state != DatasetState.INVALID)
    ).all()
    used = or_(Job.dataset_id == dataset_id, Job.id.in_(_beside(dataset_id)))
    active = session.scalars(select(Job.id).where(used, Job.state.not_in(FINAL))).all()
    if children or active:
        raise Conflict(_held(active, children), code="in_use", users=[*active, *children])
    waste = [prefix(project, dataset_id)]
    for job in session.scalars(select(Job).where(used)):
        waste.append(jobs.checkpoints(project, job.id))
        job.inputs = {**job.inputs, "deleted_dataset": dataset_id}
        job.dataset_id = None if job.dataset_id == dataset_id else job.dataset_id
    session.execute(sql_delete(JobDataset).where(JobDataset.dataset_id == dataset_id))
    session.execute(update(Dataset).where(Dataset.base_id == dataset_id).values(base_id=None))
    session.flush()
    session.delete(dataset)
    return waste


def _held(jobs: Sequence[str], children: Sequence[str]) -> str:
    """What keeps a dataset, and what to do about it."""
    found, to_do = [], []
    if jobs:
        found.append(f"jobs that have not ended ({texts.few(jobs)})")
        to_do.append("cancel those jobs (POST /api/v1/jobs/{id}/cancel) or wait for their end")
    if children:
        found.append(f"datasets that were made from it ({texts.few(children)})")
        to_do.append("delete those datasets first (DELETE /api/v1/datasets/{id})")
    return f"expected a dataset that nothing uses; found it used by {' and '.join(found)}; {', and '.join(to_do)}"


def _beside(dataset_id: str) -> Select[str]:
    """Jobs that use the dataset beside the one they work on."""
    return select(JobDataset.job_id).where(JobDataset.dataset_id == dataset_id)
