"""The registry: named models, numbered versions, aliases with history."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Select, func, or_, select
from sqlalchemy import delete as sql_delete
from sqlalchemy.orm import Session, defer

from app import texts
from app.db.aliases import Alias, AliasChange
from app.db.alignments import DomainBinding, DomainChange
from app.db.logs import PredictionLog
from app.db.many import among
from app.db.models import Job, Model, ModelVersion
from app.db.session import Database
from app.errors import Conflict, NotFound
from app.services import paging, shared
from app.serving import log_records, parts
from app.settings import DEFAULT_PROJECT
from app.states import JobState

PRODUCTION = "production"


def get(session: Session, project: str, name: str) -> Model:
    """The project's model of that name.

    Raises:
        NotFound: there is none.
    """
    # What no model can be called is not asked for: over gRPC it may be as long as a message.
    query = select(Model).where(Model.project_id == project, Model.name == name)
    model = session.scalar(query) if texts.is_name(name) else None
    if model is None:
        raise NotFound(f"expected a model of this project; found none named {name[:100]!r}; see GET /api/v1/models")
    return model


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[Model], bool]:
    """Models, newest first, after the one named `after`; and whether there are more.

    Raises:
        NotFound: there is none of that name, any more.
    """
    last = None if after is None else get(session, project, after).id
    query = select(Model).where(Model.project_id == project)
    rows, more = paging.newest(session, query, Model.id, "mdl", limit, last)
    size = func.sum(paging.length_of(ModelVersion.metrics, ModelVersion.origin))
    sizes = select(ModelVersion.model_id, size).where(ModelVersion.model_id.in_([row.id for row in rows]))
    found: dict[str, int] = dict(session.execute(sizes.group_by(ModelVersion.model_id)).all())
    number = paging.num_fitting(found.get(row.id, 0) for row in rows)
    return rows[:number], more or number < len(rows)


def versions(session: Session, model_ids: Sequence[str], most: int | None = None) -> dict[str, list[ModelVersion]]:
    """Versions of several models in one query, newest first; without their specs, which may have megabytes each.

    Args:
        session: reads.
        model_ids: of the models.
        most: versions of each; None for all.
    """
    found: dict[str, list[ModelVersion]] = {model_id: [] for model_id in model_ids}
    query = _without_specs().where(ModelVersion.model_id.in_(model_ids))
    if most is not None:
        rank = func.row_number().over(partition_by=ModelVersion.model_id, order_by=ModelVersion.version.desc())
        ranked = select(ModelVersion.id, rank.label("rank")).where(ModelVersion.model_id.in_(model_ids)).subquery()
        query = query.join(ranked, ranked.c.id == ModelVersion.id).where(ranked.c.rank <= most)
    for version in session.scalars(query):
        found[version.model_id].append(version)
    return found


def version_page(
    session: Session, project: str, name: str, limit: int, after: int | None
) -> tuple[Sequence[ModelVersion], bool]:
    """Versions of one model, newest first, below the number `after`, without their specs; and whether there are more.

    Raises:
        NotFound: no such model.
    """
    query = _without_specs().where(ModelVersion.model_id == get(session, project, name).id)
    if after is not None:
        query = query.where(ModelVersion.version < after)
    sizes = query.with_only_columns(paging.length_of(ModelVersion.metrics, ModelVersion.origin)).limit(limit)
    return paging.first(session, query, min(limit, paging.num_fitting(session.scalars(sizes))))


def _without_specs() -> Select[ModelVersion]:
    query = select(ModelVersion).options(defer(ModelVersion.spec, raiseload=True))
    return query.order_by(ModelVersion.version.desc())


def newest(session: Session, model_id: str) -> ModelVersion | None:
    """The version that was published last; None for a model that has none."""
    return session.scalar(_newest(model_id))


def every_version(session: Session, project: str) -> list[tuple[str, int, str]]:
    """Name, number and id of every version of every model, by name and number."""
    query = (
        select(Model.name, ModelVersion.version, ModelVersion.id)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(Model.project_id == project)
        .order_by(Model.name, ModelVersion.version)
    )
    return [(name, number, version_id) for name, number, version_id in session.execute(query)]


def label(owner: str, name: str, project: str | None) -> str:
    """A model's name among those of a project; among those of all, it says whose it is, but for `default`."""
    return name if owner in (project, DEFAULT_PROJECT) else f"{owner}/{name}"


def labels(session: Session, project: str | None) -> dict[str, tuple[str, str]]:
    """Label (see there) and number of every version by its id, of a project or of all."""
    query = (
        select(Model.project_id, Model.name, ModelVersion.version, ModelVersion.id)
        .join(Model, Model.id == ModelVersion.model_id)
        .order_by(Model.project_id, Model.name, ModelVersion.version)
    )
    if project is not None:
        query = query.where(Model.project_id == project)
    return {
        version_id: (label(owner, name, project), str(number))
        for owner, name, number, version_id in session.execute(query)
    }


def aliases(session: Session, model_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Aliases of several models in one query."""
    found: dict[str, dict[str, int]] = {model_id: {} for model_id in model_ids}
    for alias in session.scalars(select(Alias).where(Alias.model_id.in_(model_ids)).order_by(Alias.alias)):
        found[alias.model_id][alias.alias] = alias.version
    return found


def version(session: Session, project: str, name: str, number: int) -> ModelVersion:
    """One version of a model.

    Raises:
        NotFound: no such model or version.
    """
    model = get(session, project, name)
    row = session.scalar(select(ModelVersion).where(ModelVersion.model_id == model.id, ModelVersion.version == number))
    if row is None:
        raise NotFound(
            f"expected a version of model {name!r}; found no version {number}; see GET /api/v1/models/{name}"
        )
    return row


def published(database: Database, version_ids: Iterable[str]) -> set[str]:
    """Those of the versions that there are, now; of whatever project."""
    with database.read() as session:
        return set(among(session, select(ModelVersion.id), ModelVersion.id, version_ids))


def resolve(session: Session, project: str, name: str, number: int | None, alias: str | None) -> ModelVersion:
    """The version that a prediction means: the one named, else alias `production`, else the newest.

    Raises:
        NotFound: no such model, version or alias, or the model has no version.
        Conflict: both a version and an alias were named.
    """
    if number is not None and alias is not None:
        raise Conflict("expected a version or an alias; found both; send one of them", code="ambiguous_version")
    if number is not None:
        return version(session, project, name, number)
    model = get(session, project, name)
    pointed = session.get(Alias, (model.id, alias or PRODUCTION))
    if pointed is None and alias is not None:
        raise NotFound(
            f"expected an alias of model {name!r}; found none named {alias!r}; see GET /api/v1/models/{name}"
        )
    query = _newest(model.id)
    row = session.scalar(query.where(ModelVersion.version == pointed.version) if pointed else query)
    if row is None:
        raise NotFound(f"expected a model with a version; found {name!r} without one; run a job that publishes to it")
    return row


def of_jobs(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[str, int]]:
    """(name, version) that each of the jobs has published."""
    query = (
        select(ModelVersion.job_id, Model.name, ModelVersion.version)
        .join(Model, Model.id == ModelVersion.model_id)
        .where(ModelVersion.job_id.in_(job_ids))
    )
    return {str(job_id): (name, number) for job_id, name, number in session.execute(query)}


def delete_version(session: Session, project: str, name: str, number: int) -> list[str]:
    """Removes a version that no alias points at.

    Returns:
        the storage prefixes to delete after the commit.

    Raises:
        Conflict: code in_use, with the aliases.
    """
    row = locked_version(session, project, name, number)
    meant = or_(Alias.version == number, Alias.canary == number, Alias.shadow == number)
    users = session.scalars(select(Alias.alias).where(Alias.model_id == row.model_id, meant)).all()
    if users:
        raise Conflict(
            f"expected a version that no alias points at; found {', '.join(users)}; move them first",
            code="in_use",
            users=list(users),
        )
    shared.give_up(session, [row.graph_key])
    session.delete(row)
    return [row.prefix, parts.prefix(project, row.id)]


def delete(session: Session, project: str, name: str) -> list[str]:
    """Removes a model with all its versions, aliases and domains.

    Returns:
        the storage prefixes to delete after the commit.

    Raises:
        Conflict: code in_use, a job that will publish to it has not ended.
    """
    model = get(session, project, name)
    jobs = select(Job.id).where(
        Job.project_id == project, Job.model_name == name, Job.state.in_([JobState.QUEUED, JobState.RUNNING])
    )
    users = session.scalars(jobs).all()
    if users:
        raise Conflict(
            f"expected a model that no job will publish to; found {texts.few(users)}; cancel those jobs (POST "
            "/api/v1/jobs/{id}/cancel) or wait for their end",
            code="in_use",
            users=list(users),
        )
    prefixes = [log_records.prefix(project, model.id)]
    query = select(ModelVersion.id, ModelVersion.prefix, ModelVersion.graph_key)
    for version_id, prefix, graph in session.execute(query.where(ModelVersion.model_id == model.id)):
        prefixes += [prefix, parts.prefix(project, version_id)]
        shared.give_up(session, [graph])
    for table in (Alias, AliasChange, DomainBinding, DomainChange, PredictionLog, ModelVersion):
        session.execute(sql_delete(table).where(table.model_id == model.id))
    session.delete(model)
    return prefixes


def locked_version(session: Session, project: str, name: str, number: int) -> ModelVersion:
    """One version; until the transaction ends nobody else moves the model's aliases or removes its versions.

    Raises:
        NotFound: no such model or version.
    """
    session.get_one(Model, get(session, project, name).id, with_for_update=True)
    return version(session, project, name, number)


def _newest(model_id: str) -> Select[ModelVersion]:
    query = select(ModelVersion).where(ModelVersion.model_id == model_id)
    return query.order_by(ModelVersion.version.desc()).limit(1)
