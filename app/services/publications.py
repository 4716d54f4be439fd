"""How a bundle in storage becomes a version: by a job, by a class that is added to another version, by an import."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Job, Model, ModelVersion
from app.errors import Conflict
from app.services import limits, models, outbox, stored_bytes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A bundle that lies in storage and is to become a version."""

    id: str
    prefix: str
    spec: dict[str, Any]


def check_labels(session: Session, project: str, name: str, task: str, labels: Sequence[str], allowed: bool) -> None:
    """Refuses to publish another label set or task under a name that clients already call.

    Raises:
        Conflict: code label_change.
    """
    model = session.scalar(select(Model).where(Model.project_id == project, Model.name == name))
    newest = models.newest(session, model.id) if model and not allowed else None
    if newest is None:
        return
    spec = newest.spec
    if spec["task"] != task or set(spec["labels"]) != set(labels):
        gone, new = sorted(set(spec["labels"]) - set(labels)), sorted(set(labels) - set(spec["labels"]))
        raise Conflict(
            f"expected the task and labels of {name!r} version {newest.version} ({spec['task']}); found {task}, "
            f"labels gone: {gone[:10]}, new: {new[:10]}; send allow_label_change: true or another model name",
            code="label_change",
        )


def publish(session: Session, job: Job, prefix: str, spec: dict[str, Any], metrics: dict[str, Any]) -> ModelVersion:
    """Appends a version to the job's model; called in the transaction that makes the job `succeeded`.

    What it stores counts, and is never too much: the work is done, and the next job is refused instead.

    Raises:
        Conflict: the label set changed since the job was made and the job does not allow it.
    """
    if job.model_name is None:
        raise Conflict(f"expected a job with a model name; found {job.id} without one")
    made = NewVersion(new_id("ver"), prefix, spec)
    owner, name, allowed = job.project_id, job.model_name, job.allow_label_change
    return _append(session, owner, name, made, allowed, job_id=job.id, metrics=metrics)


def admit(
    session: Session, project: str, name: str, made: NewVersion, allowed: bool, origin: dict[str, Any]
) -> ModelVersion:
    """Appends a version that came from elsewhere; its metrics are what the other side reported.

    Raises:
        Conflict: code label_change.
        TooMany: the project may store no more bytes.
    """
    _check_room(session, project, made)
    return _append(session, project, name, made, allowed, metrics=made.spec["metrics"], origin=origin)


def append(
    session: Session, name: str, base: ModelVersion, asked: tuple[int | None, str | None], made: NewVersion
) -> ModelVersion:
    """Appends a version that was made from another one, without a job.

    Args:
        session: of the transaction that makes it visible.
        name: of the model.
        base: the version that was read.
        asked: version and alias by which it was found; both None for the default.
        made: the new version.

    Raises:
        NotFound: the base or its model was deleted meanwhile.
        Conflict: code version_moved, the alias or default means another version by now.
        TooMany: the project may store no more bytes.
    """
    _check_room(session, base.project_id, made)
    number = _next_number(session, base.model_id)
    # After the counter, whose lock lets one publication through at a time.
    found = models.resolve(session, base.project_id, name, *asked)
    if number is None or found.id != base.id:
        raise Conflict(
            f"expected {name!r} to mean version {base.version} still; found version {found.version}; send it again, or "
            f"name the version to add to with ?version={base.version}",
            code="version_moved",
        )
    return _add(session, base.project_id, base.model_id, number, made, metrics={})


def _append(session: Session, project: str, name: str, made: NewVersion, allowed: bool, **fields: Any) -> ModelVersion:
    """The next version of a model, which is made when it is new."""
    model = _open(session, project, name)
    number = _next_number(session, model.id)
    # After the counter, whose lock lets one publication through at a time.
    check_labels(session, project, name, made.spec["task"], made.spec["labels"], allowed)
    return _add(session, project, model.id, number, made, **fields)


def _add(
    session: Session, project: str, model_id: str, number: int | None, made: NewVersion, **fields: Any
) -> ModelVersion:
    graph = stored_bytes.brought(made.spec)
    row = ModelVersion(
        id=made.id,
        project_id=project,
        model_id=model_id,
        version=number,
        prefix=made.prefix,
        spec=made.spec,
        size_bytes=stored_bytes.own_files(made.spec),
        graph_key=graph and graph["key"],
        graph_bytes=graph["size_bytes"] if graph else 0,
        **fields,
    )
    session.add(row)
    session.flush()
    outbox.version_published(session, session.get_one(Model, model_id).name, row)
    return row


def _check_room(session: Session, project: str, made: NewVersion) -> None:
    # First the room, since nobody else takes any from then on: somebody may bring the same graph at this moment.
    if (room := limits.room(session, project)) is not None:
        room.check(stored_bytes.of_version(session, project, made.spec))


def _next_number(session: Session, model_id: str) -> int | None:
    """The counter never goes back, so a deleted version's number is not given out again; None without such a model."""
    return session.scalar(
        update(Model)
        .where(Model.id == model_id)
        .values(last_version=Model.last_version + 1)
        .returning(Model.last_version)
    )


def _open(session: Session, project: str, name: str) -> Model:
    """The model of that name, made when it is new. Of two jobs that make it at once the second finds the first's."""
    query = select(Model).where(Model.project_id == project, Model.name == name)
    model = session.scalar(query)
    if model is not None:
        return model
    try:
        with session.begin_nested():
            session.add(Model(id=new_id("mdl"), project_id=project, name=name))
    except IntegrityError:
        log.info("model %s was made by somebody else at the same moment", name)
    return session.scalars(query).one()
