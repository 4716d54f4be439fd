"""Aliases of a model's versions, with history."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.models import Alias, AliasChange
from app.errors import NotFound
from app.services import models


def point(session: Session, project: str, name: str, alias: str, number: int) -> Alias:
    """Points an alias at a version, and remembers since when.

    Raises:
        NotFound: no such model or version.
    """
    row = models.locked_version(session, project, name, number)
    pointed = session.get(Alias, (row.model_id, alias))
    if pointed is None:
        pointed = Alias(model_id=row.model_id, alias=alias, project_id=project, version=number)
        session.add(pointed)
    elif pointed.version == number:
        return pointed
    pointed.version, pointed.updated_at = number, now()
    _remember(session, project, row.model_id, alias, number)
    return pointed


def remove(session: Session, project: str, name: str, alias: str) -> None:
    """Takes an alias away.

    Raises:
        NotFound: no such model or alias.
    """
    model = models.get(session, project, name)
    pointed = session.get(Alias, (model.id, alias))
    if pointed is None:
        raise NotFound(f"expected an alias of model {name!r}; found none named {alias!r}")
    session.delete(pointed)
    _remember(session, project, model.id, alias, None)


def history(session: Session, project: str, name: str, alias: str) -> Sequence[AliasChange]:
    """What an alias pointed at, newest first."""
    model = models.get(session, project, name)
    query = select(AliasChange).where(AliasChange.model_id == model.id, AliasChange.alias == alias)
    return session.scalars(query.order_by(AliasChange.id.desc())).all()


def _remember(session: Session, project: str, model_id: str, alias: str, number: int | None) -> None:
    session.add(AliasChange(id=new_id("alc"), project_id=project, model_id=model_id, alias=alias, version=number))
