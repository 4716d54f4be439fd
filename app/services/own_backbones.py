"""A project's own backbones: weights that it has sent, or that a version of it has trained, in a known architecture."""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, String, cast, or_, select
from sqlalchemy.orm import Session

from app import backbones, texts
from app.artifact import bundle
from app.backbones import InputChanges
from app.db.base import new_id
from app.db.models import Job, Model, ModelVersion, UserBackbone
from app.errors import Conflict, NotFound
from app.services import jobs, limits, models, waste
from app.services.backbones import AUTO, similar
from app.states import FINAL


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A user's file of weights.

    Args:
        file: its storage key.
        size_bytes: of that.
        changes: of the architecture's input.
    """

    file: str
    size_bytes: int
    changes: InputChanges


def add(session: Session, project: str, name: str, architecture: str, checkpoint: Checkpoint) -> UserBackbone:
    """Writes the row of a user's own weights, and the job that opens and maps them.

    Args:
        session: the open transaction.
        project: owner.
        name: under which jobs will name it: `user/...`.
        architecture: a name of the catalogue.
        checkpoint: as it came.

    Raises:
        NotFound: the architecture is not in the catalogue.
        BadRequest: code weights_too_large.
        Unprocessable: the changes contradict each other.
        TooMany: the project may store no more bytes.
        Conflict: the name is taken.
    """
    base = backbones.find(architecture)
    if base is None:
        near = ", ".join(similar(architecture)) or "none similar"
        raise NotFound(
            f"expected an architecture of the catalogue; found {architecture!r} (similar: {near}); "
            "see GET /api/v1/backbones",
            code="unknown_backbone",
        )
    backbones.check_checkpoint_size(base, checkpoint.size_bytes)
    inputs = {"file": checkpoint.file, "input": asdict(checkpoint.changes.applied(base.preprocess))}
    return _checking(session, project, name, {"architecture": architecture}, inputs, checkpoint.size_bytes)


def add_version(session: Session, project: str, name: str, model: str, number: int) -> UserBackbone:
    """Writes the row of a backbone whose weights a finished version has trained, and the job that prepares it.

    Args:
        session: the open transaction.
        project: owner.
        name: under which jobs will name it: `user/...`.
        model: whose version it is.
        number: of the version.

    Raises:
        NotFound: no such model or version.
        Conflict: the name is taken; code backbone_unchanged, the version stands on a frozen backbone; code
            weights_missing, its bundle is older than such files.
    """
    row = models.version(session, project, model, number)
    spec = row.spec
    network = spec["backbone"]["name"]
    if spec["files"][bundle.BACKBONE]["key"] is not None:
        raise Conflict(
            f"expected a version that has trained its network; found {model!r} version {number} on the frozen "
            f"{network}, unchanged; start from {network} itself",
            code="backbone_unchanged",
        )
    if bundle.STATE not in spec["files"]:
        raise Conflict(
            f"expected a version whose bundle has {bundle.STATE}; found {model!r} version {number} without: it "
            "is older than that file, or a network from scratch; run its job again, without `fallback`",
            code="weights_missing",
        )
    base = session.scalar(_named(project, network))
    architecture = str(base.document["architecture"]) if base is not None else network
    source = {
        "model": model,
        "version": number,
        "version_id": row.id,
        "weights_sha256": spec["files"][bundle.STATE]["sha256"],
        "backbone": network,
        "dataset": (spec["dataset"] or {}).get("id"),
        # The version may be deleted one day, and so may what is below it: what is known of them goes along.
        "job": row.job_id,
        "data": {role: spec[role] for role in ("dataset", "source") if spec.get(role) is not None},
        "network": {name: spec["backbone"][name] for name in ("name", "digest", "licence")},
        "below": None if base is None else base.document.get("source"),
    }
    inputs = {"prefix": row.prefix, "source": source}
    size_bytes = spec["files"][bundle.STATE]["size_bytes"]
    return _checking(session, project, name, {"architecture": architecture, "source": source}, inputs, size_bytes)


def _checking(
    session: Session, project: str, name: str, document: dict[str, Any], inputs: dict[str, Any], size_bytes: int
) -> UserBackbone:
    """The row in state `checking`, and its job.

    Raises:
        Conflict: the name is taken.
    """
    full = f"{backbones.OWN}/{name}"
    limits.lock(session, project)
    taken = session.scalar(_named(project, full).with_for_update())
    if taken is not None and taken.state != "invalid":
        raise Conflict(f"expected a new name; found a backbone {full!r}; choose another name", code="name_taken")
    if taken is not None:
        waste.note(session, _kept(session, taken))
        session.delete(taken)
        session.flush()
    limits.check_bytes(session, project, size_bytes)
    row = UserBackbone(
        id=new_id("bb"),
        project_id=project,
        name=full,
        state="checking",
        prefix=None,
        document=document,
        size_bytes=size_bytes,
    )
    session.add(row)
    session.flush()
    inputs = {"backbone_id": row.id, "name": full, "architecture": document["architecture"], **inputs}
    row.job_id = jobs.create(session, project, jobs.NewJob(kind="backbone", backbone=full, inputs=inputs)).id
    return row


def own(session: Session, project: str, name: str) -> UserBackbone:
    """The project's own backbone `user/NAME`, in whatever state it is.

    Raises:
        NotFound: there is none.
    """
    return _found(session, _named(project, f"{backbones.OWN}/{name}"), name)


def delete(session: Session, project: str, name: str) -> list[str]:
    """Gives up the project's own backbone `user/NAME`; its name is free again.

    Returns:
        the storage prefixes to delete once the transaction is committed.

    Raises:
        NotFound: there is none.
        Conflict: code in_use, with the jobs that may open it and the versions that stand on it.
    """
    # Locked before it is asked who uses it: a check that is tried again at this moment comes before, or finds it gone.
    row = _found(session, _named(project, f"{backbones.OWN}/{name}").with_for_update(), name)
    may_open = or_(Job.backbone.in_((row.name, AUTO)), _mentions(row.name))
    jobs_on_it = select(Job.id).where(Job.project_id == project, Job.state.not_in(FINAL), may_open)
    on_it = ModelVersion.spec["backbone"]["name"].as_string() == row.name
    versions = select(Model.name, ModelVersion.version).join(Model, Model.id == ModelVersion.model_id)
    users = [*session.scalars(jobs_on_it)]
    for model, number in session.execute(versions.where(Model.project_id == project, on_it)):
        users.append(f"{model} version {number}")
    if users:
        raise Conflict(
            f"expected a backbone that nothing uses; found it used by {texts.few(users)}; cancel those jobs or "
            "wait for their end, and delete those versions first",
            code="in_use",
            users=users,
        )
    session.delete(row)
    stored = row.document.get("prefix")
    return [*_kept(session, row), *([str(stored)] if stored else [])]


def reopen(session: Session, job: Job) -> None:
    """Marks own weights whose check is tried again as being checked.

    Raises:
        Conflict: they were deleted meanwhile, or sent again; or the version that has trained them was.
        TooMany: the project may store no more bytes.
    """
    row = session.get(UserBackbone, job.inputs["backbone_id"], with_for_update=True)
    if row is None:
        raise Conflict(f"expected weights to check; found {job.backbone} deleted, or sent again; post them again")
    if "file" in job.inputs and not row.size_bytes:
        # A release that kept no file counted none.
        raise Conflict(f"expected weights to check; found those of {job.backbone} gone; post them again")
    if "source" in job.inputs and not row.size_bytes:
        row.size_bytes = _of_version(session, job)
    row.state = "checking"
    row.failure_code = row.failure_message = None


def _of_version(session: Session, job: Job) -> int:
    """What a version's network counts while it is checked again, as when it was asked for."""
    source = job.inputs["source"]
    version = session.get(ModelVersion, source["version_id"])
    if version is None:
        raise Conflict(
            f"expected version {source['version']} of {source['model']!r}, whose network this is; found it deleted; "
            "take another version"
        )
    size_bytes = int(version.spec["files"][bundle.STATE]["size_bytes"])
    limits.check_bytes(session, job.project_id, size_bytes)
    return size_bytes


def _named(project: str, name: str) -> Select[UserBackbone]:
    return select(UserBackbone).where(UserBackbone.project_id == project, UserBackbone.name == name)


def _found(session: Session, query: Select[UserBackbone], name: str) -> UserBackbone:
    row = session.scalar(query)
    if row is None:
        raise NotFound(f"expected a backbone that was added to this project; found none named {name!r}")
    return row


def _kept(session: Session, row: UserBackbone) -> list[str]:
    """What was sent for weights that are not ready: it stays as long as its check may be tried again."""
    job = session.get(Job, row.job_id) if row.state == "invalid" else None
    return [job.inputs["file"]] if job is not None and "file" in job.inputs else []


def _mentions(name: str) -> ColumnElement[bool]:
    """Jobs that name a backbone among others, as rankings do."""
    return cast(Job.inputs, String).contains(f'"{name}"', autoescape=True)
