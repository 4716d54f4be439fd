"""Alignments: fitted once by a job, numbered, immutable afterwards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.alignments import AnyAlignment, Paired
from app.artifact import alignment as artifact
from app.db.alignments import Alignment, DomainBinding
from app.db.base import new_id, now
from app.db.models import Model, Project
from app.errors import BadRequest, Conflict, NotFound
from app.services import backbones, datasets, jobs, paging
from app.storage import Storage

FITTING, READY, FAILED = "fitting", "ready", "failed"


def create(session: Session, project: str, wish: AnyAlignment, offline: bool) -> Alignment:
    """Checks what is asked for, and makes the alignment and its job.

    Raises:
        NotFound: a dataset or backbone is not there.
        Conflict: a dataset is not ready.
        BadRequest: widths that the method cannot join, or weights that cannot be had.
    """
    _check_backbones(session, project, wish, offline)
    target = wish.target if wish.target not in (None, wish.source) else None
    for dataset_id in filter(None, (wish.source, target)):
        jobs.keep_dataset(session, dataset_id)
        datasets.ready(session, project, dataset_id)
    recipe = wish.model_dump(mode="json")
    # The counter's row lets one through at a time, and a deleted alignment's number is not given out again.
    number = session.scalar(
        update(Project)
        .where(Project.id == project)
        .values(last_alignment=Project.last_alignment + 1)
        .returning(Project.last_alignment)
    )
    row = Alignment(
        id=new_id("aln"), project_id=project, number=number, state=FITTING, recipe=recipe, backbone=wish.backbone
    )
    session.add(row)
    session.flush()
    job = jobs.NewJob(
        kind="align",
        dataset_id=wish.source,
        backbone=wish.backbone,
        recipe=recipe,
        seed=wish.seed,
        datasets={"target": target} if target else {},
        inputs={"alignment_id": row.id},
    )
    row.job_id = jobs.create(session, project, job).id
    return row


def get(session: Session, project: str, alignment_id: str) -> Alignment:
    """The project's alignment of that id.

    Raises:
        NotFound: there is none.
    """
    row = session.get(Alignment, alignment_id)
    if row is None or row.project_id != project:
        raise NotFound(
            f"expected an alignment of this project; found none with id {alignment_id!r}; see GET /api/v1/alignments"
        )
    return row


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[Alignment], bool]:
    """Alignments, newest first, below the id `after`; and whether there are more."""
    return paging.newest(
        session, select(Alignment).where(Alignment.project_id == project), Alignment.id, "aln", limit, after
    )


def ready(session: Session, project: str, alignment_id: str) -> Alignment:
    """The project's alignment, if it can be used; it stays until the transaction ends.

    Raises:
        NotFound: there is none.
        Conflict: code alignment_not_ready.
    """
    session.execute(
        select(Alignment.id)
        .where(Alignment.id == alignment_id, Alignment.project_id == project)
        .with_for_update(read=True, key_share=True)
    )
    row = get(session, project, alignment_id)
    if row.state != READY:
        why = f": {row.failure_message}" if row.failure_message else f"; wait for job {row.job_id}"
        raise Conflict(
            f"expected an alignment that is ready; found {alignment_id} {row.state}{why}", code="alignment_not_ready"
        )
    return row


def complete(session: Session, alignment_id: str, result: dict[str, Any]) -> Alignment:
    """Writes what the job has fitted; the alignment is ready from now on."""
    row = session.get_one(Alignment, alignment_id)
    row.state, row.finished_at = READY, now()
    row.backbone_digest, row.moving_backbone = result["backbone_digest"], result["moving_backbone"]
    row.prefix, row.files, row.result = result["prefix"], result["files"], result["result"]
    return row


def fail(session: Session, alignment_id: str, code: str, message: str) -> None:
    """Marks an alignment whose job ended without a result."""
    row = session.get(Alignment, alignment_id)
    if row is not None and row.state == FITTING:
        row.state, row.finished_at = FAILED, now()
        row.failure_code, row.failure_message = code, message


def delete(session: Session, project: str, alignment_id: str) -> list[str]:
    """Removes an alignment that no domain is bound to.

    Returns:
        storage prefixes to delete after the commit.

    Raises:
        Conflict: code in_use, with the domains as `model/domain`, or the job that fits it.
    """
    session.execute(
        select(Alignment.id).where(Alignment.id == alignment_id, Alignment.project_id == project).with_for_update()
    )
    row = get(session, project, alignment_id)
    query = select(Model.name, DomainBinding.domain).join(Model, Model.id == DomainBinding.model_id)
    users = [
        f"{model}/{domain}" for model, domain in session.execute(query.where(DomainBinding.alignment_id == row.id))
    ]
    if row.state == FITTING and row.job_id:
        users.append(row.job_id)
    if users:
        raise Conflict(
            f"expected an alignment that nothing uses; found it used by {', '.join(users)}; "
            "take the domain away, or cancel the job",
            code="in_use",
            users=users,
        )
    session.delete(row)
    return [row.prefix] if row.prefix else []


def file_path(storage: Storage, row: Alignment, name: str) -> Path:
    """A local path of one of the alignment's files.

    Raises:
        Conflict: it is not ready.
        NotFound: it has no file of that name.
    """
    if row.state != READY:
        raise Conflict(
            f"expected an alignment that is ready; found {row.id} {row.state}; wait for job {row.job_id}",
            code="alignment_not_ready",
        )
    if name not in row.files:
        raise NotFound(f"expected one of {', '.join(artifact.FILES)}; found {name!r}")
    return storage.fetch(f"{row.prefix}/{name}")


def _check_backbones(session: Session, project: str, wish: AnyAlignment, offline: bool) -> None:
    names = [wish.backbone]
    if isinstance(wish, Paired) and wish.from_backbone not in (None, wish.backbone):
        names.append(str(wish.from_backbone))
    widths = []
    for name in names:
        known = backbones.find(session, project, name)
        backbones.check_usable(session, project, name, offline)
        widths.append(known.backbone.feature_dim)
    if wish.method == "affine" and len(set(widths)) > 1:
        raise BadRequest(
            f"expected two backbones of one width for affine, which scales every feature by itself; found {names[0]} "
            f"with {widths[0]} and {names[1]} with {widths[1]} features; use ridge or procrustes",
            code="width_mismatch",
        )
