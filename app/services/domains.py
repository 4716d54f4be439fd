"""Domains of a model: which alignment stands between backbone and head for inputs from somewhere else, with history."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.artifact import bundle
from app.db.alignments import Alignment, DomainBinding, DomainChange
from app.db.base import new_id, now
from app.db.models import Model, ModelVersion
from app.errors import Conflict, NotFound
from app.services import alignments, models, paging

CHANGE = "dmc"
# Domains that an error names.
NAMED = 100


def bind(session: Session, project: str, name: str, domain: str, alignment_id: str) -> DomainBinding:
    """Binds a domain of a model to an alignment, and remembers since when.

    Raises:
        NotFound: no such model or alignment.
        Conflict: the alignment is not ready, or not for the version that `predict` takes by default.
    """
    row = alignments.ready(session, project, alignment_id)
    check_fits(models.resolve(session, project, name, None, None), name, domain, row)
    model = session.get_one(Model, models.get(session, project, name).id, with_for_update=True)
    bound = session.get(DomainBinding, (model.id, domain))
    if bound is None:
        bound = DomainBinding(model_id=model.id, domain=domain, project_id=project, alignment_id=row.id)
        session.add(bound)
    elif bound.alignment_id == row.id:
        return bound
    bound.alignment_id, bound.updated_at = row.id, now()
    _remember(session, model, domain, row.id, bound.updated_at)
    return bound


def unbind(session: Session, project: str, name: str, domain: str) -> None:
    """Takes a domain away; its history stays.

    Raises:
        NotFound: no such model, or code unknown_domain.
    """
    model = session.get_one(Model, models.get(session, project, name).id, with_for_update=True)
    bound = session.get(DomainBinding, (model.id, domain))
    if bound is None:
        raise _unknown(session, model, domain)
    session.delete(bound)
    _remember(session, model, domain, None, now())


def every(session: Session, project: str, name: str) -> Sequence[tuple[DomainBinding, Alignment]]:
    """The model's domains by name, each with its alignment."""
    rows = session.execute(_bound(models.get(session, project, name)))
    return [(bound, row) for bound, row in rows]


def page(
    session: Session, project: str, name: str, limit: int, after: str | None
) -> tuple[Sequence[tuple[DomainBinding, Alignment]], bool]:
    """As `every`, up to so many behind the domain `after`; and whether there are more."""
    query = _bound(models.get(session, project, name))
    if after is not None:
        query = query.where(DomainBinding.domain > after)
    rows = [(bound, row) for bound, row in session.execute(query.limit(limit + 1))]
    return rows[:limit], len(rows) > limit


def _bound(model: Model) -> Select[DomainBinding, Alignment]:
    query = select(DomainBinding, Alignment).join(Alignment, Alignment.id == DomainBinding.alignment_id)
    return query.where(DomainBinding.model_id == model.id).order_by(DomainBinding.domain)


def history(
    session: Session, project: str, name: str, domain: str, limit: int, after: str | None = None
) -> tuple[DomainChange, Sequence[DomainChange], bool]:
    """How a domain stands; what it was bound to, newest first, from how it stands on; and whether there is more.

    Raises:
        NotFound: no such model, or code unknown_domain, the domain was never bound.
        BadRequest: see `paging.newest`.
    """
    model = models.get(session, project, name)
    query = select(DomainChange).where(DomainChange.model_id == model.id, DomainChange.domain == domain)
    last = session.scalar(query.order_by(DomainChange.id.desc()).limit(1))
    if last is None:
        raise _unknown(session, model, domain)
    return last, *paging.newest(session, query, DomainChange.id, CHANGE, limit, after)


def resolve(session: Session, project: str, name: str, version: ModelVersion, domain: str) -> Alignment:
    """The alignment that a prediction for that domain passes through.

    Raises:
        NotFound: code unknown_domain, with the names that there are.
        Conflict: code alignment_mismatch, the version does not stand on the backbone that the alignment ends at.
    """
    model = models.get(session, project, name)
    bound = session.get(DomainBinding, (model.id, domain))
    if bound is None:
        raise _unknown(session, model, domain)
    row = session.get_one(Alignment, bound.alignment_id)
    check_fits(version, name, domain, row)
    return row


def check_fits(version: ModelVersion, name: str, domain: str, row: Alignment) -> None:
    """Refuses an alignment whose features the version's head was not trained on.

    A version that changed its backbone's weights has features of its own, which no alignment is keyed to.

    Raises:
        Conflict: code alignment_mismatch.
    """
    backbone = version.spec["backbone"]
    own = version.spec["files"][bundle.BACKBONE]["key"] is None
    if backbone["digest"] == row.backbone_digest and not own:
        return
    found = f"its own network, trained from {backbone['name']}" if own else f"{backbone['name']}"
    todo = (
        f"send `version` of one on the frozen {row.backbone}"
        if own
        else f"fit an alignment with backbone {backbone['name']} and bind {domain!r} to it"
    )
    raise Conflict(
        f"expected a version on {row.backbone} {str(row.backbone_digest)[:12]}, which alignment {row.number} ends at; "
        f"found {name!r} version {version.version} on {found}; {todo}",
        code="alignment_mismatch",
    )


def _unknown(session: Session, model: Model, domain: str) -> NotFound:
    query = select(DomainBinding.domain).where(DomainBinding.model_id == model.id).order_by(DomainBinding.domain)
    names, has_more = paging.first(session, query, NAMED)
    listed = ", ".join(names) + (", and more" if has_more else "") if names else "none; bind one with PUT"
    return NotFound(
        f"expected a domain of model {model.name!r}; found none named {domain[:100]!r}; there are: {listed}",
        code="unknown_domain",
        domains=list(names),
    )


def _remember(session: Session, model: Model, domain: str, alignment_id: str | None, at: datetime) -> None:
    session.add(
        DomainChange(
            id=new_id(CHANGE),
            project_id=model.project_id,
            model_id=model.id,
            domain=domain,
            alignment_id=alignment_id,
            at=at,
        )
    )
