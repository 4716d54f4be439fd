"""Aliases of a model's versions, with history; and the versions that are tried beside the one that an alias means."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from sqlalchemy import Select, exists, func, select
from sqlalchemy.orm import Session

from app.db.aliases import Alias, AliasChange
from app.db.base import new_id, now
from app.db.models import ModelVersion
from app.errors import Conflict, NotFound
from app.services import models, outbox, paging

CHANGE = "alc"
# Most versions that a refusal names.
NAMED = 10

How = Literal["pointed", "rolled_back", "removed"]


@dataclass(frozen=True, slots=True)
class Target:
    """What an alias means.

    Args:
        version: that answers.
        canary: another one, which answers a share of the requests; None for none.
        share: of the requests, between 0 and 1; None without a canary.
        shadow: a version that is asked too, whose answers are compared and dropped; None for none.
    """

    version: int
    canary: int | None = None
    share: float | None = None
    shadow: int | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """Versions that are tried beside the one that an alias means."""

    canary: ModelVersion | None
    share: float
    shadow: ModelVersion | None


def beside(session: Session, row: ModelVersion, alias: str | None) -> Beside:
    """What is tried beside a version that was found by an alias, or by default."""
    pointed = session.get(Alias, (row.model_id, alias or models.PRODUCTION))
    if pointed is None or (pointed.canary is None and pointed.shadow is None):
        return Beside(None, 0.0, None)
    wanted = [number for number in (pointed.canary, pointed.shadow) if number is not None]
    query = select(ModelVersion).where(ModelVersion.model_id == row.model_id, ModelVersion.version.in_(wanted))
    found = {other.version: other for other in session.scalars(query)}
    canary, shadow = (found.get(number) if number else None for number in (pointed.canary, pointed.shadow))
    return Beside(canary, pointed.share or 0.0, shadow)


def versions(session: Session, project: str, name: str, target: Target) -> list[ModelVersion]:
    """What an alias is to mean, the version that answers first.

    Raises:
        NotFound, Conflict: as `point`.
    """
    row = models.version(session, project, name, target.version)
    beside = [models.version(session, project, name, one) for one in (target.canary, target.shadow) if one is not None]
    for other in beside:
        if other.spec["labels"] != row.spec["labels"]:
            raise Conflict(
                f"expected versions with the same labels, in the same order; found version {other.version} with "
                f"others than version {target.version}; point another alias at it, or move this one",
                code="label_change",
            )
    return [row, *beside]


def point(session: Session, project: str, name: str, alias: str, target: Target, how: How = "pointed") -> Alias:
    """Points an alias, remembers since when, and tells those who listen.

    Raises:
        NotFound: no such model or version.
        Conflict: code label_change, a canary or shadow names other classes than the version.
    """
    models.locked_version(session, project, name, target.version)
    row = versions(session, project, name, target)[0]
    pointed = session.get(Alias, (row.model_id, alias))
    was = None if pointed is None else pointed.version
    if pointed is None:
        pointed = Alias(model_id=row.model_id, alias=alias, project_id=project, version=target.version)
        session.add(pointed)
    elif _target(pointed) == target:
        return pointed
    pointed.version, pointed.canary, pointed.share = target.version, target.canary, target.share
    pointed.shadow, pointed.updated_at = target.shadow, now()
    _remember(session, name, pointed, how, was, target)
    return pointed


def roll_back(session: Session, project: str, name: str, alias: str, tried: Target) -> Alias:
    """Ends the canary of an alias, or points it at the version that it meant before; without canary or shadow.

    Two at once go back once: `tried` is what `before` has said, and was tried since.

    Raises:
        NotFound: no such model or alias.
        Conflict: code nothing_before, the alias has no canary, and has meant no other version that is still there;
            invalid_state, it was moved since.
    """
    # Held from the look to the commit, lest another one moves the alias in between.
    models.locked_version(session, project, name, tried.version)
    if before(session, project, name, alias) != tried:
        raise Conflict(
            f"expected alias {alias!r} of {name!r} to mean what it did when this request came; found that another one "
            "has moved it; GET the alias, and send this again where it is still wanted"
        )
    return point(session, project, name, alias, tried, "rolled_back")


def before(session: Session, project: str, name: str, alias: str) -> Target:
    """What an alias goes back to: its version alone where a canary is what is new, else the version before.

    Raises:
        NotFound, Conflict: as `roll_back`.
    """
    pointed = _get(session, project, name, alias)
    if pointed.canary is not None:
        return Target(pointed.version)
    # Where it was removed it meant none, which the database calls no other.
    others = _changes(pointed.model_id, alias).where(AliasChange.version != pointed.version)
    is_there = exists().where(
        ModelVersion.model_id == AliasChange.model_id, ModelVersion.version == AliasChange.version
    )
    newest = others.where(is_there).order_by(AliasChange.id.desc()).limit(1)
    found = session.scalar(newest.with_only_columns(AliasChange.version))
    if found is None:
        latest = others.group_by(AliasChange.version).order_by(func.max(AliasChange.id).desc()).limit(NAMED)
        deleted = list(session.scalars(latest.with_only_columns(AliasChange.version)))
        gone = f", beside {', '.join(map(str, deleted))}, deleted since" if deleted else ""
        raise Conflict(
            f"expected alias {alias!r} of {name!r} to have meant another version before; found version "
            f"{pointed.version} only{gone}; PUT the version that you want",
            code="nothing_before",
        )
    return Target(found)


def remove(session: Session, project: str, name: str, alias: str) -> None:
    """Takes an alias away.

    Raises:
        NotFound: no such model or alias.
    """
    pointed = _get(session, project, name, alias)
    session.delete(pointed)
    _remember(session, name, pointed, "removed", pointed.version, None)


def history(
    session: Session, project: str, name: str, alias: str, limit: int, after: str | None = None
) -> tuple[Sequence[AliasChange], bool]:
    """What an alias meant, newest first, also of one that was removed; and whether there is more.

    Raises:
        NotFound: no such model, or an alias that never was.
        BadRequest: see `paging.newest`.
    """
    query = _changes(models.get(session, project, name).id, alias)
    rows, more = paging.newest(session, query, AliasChange.id, CHANGE, limit, after)
    if not rows and session.scalar(query.limit(1)) is None:
        raise _missing(name, alias)
    return rows, more


def _changes(model_id: str, alias: str) -> Select[AliasChange]:
    return select(AliasChange).where(AliasChange.model_id == model_id, AliasChange.alias == alias)


def _get(session: Session, project: str, name: str, alias: str) -> Alias:
    model = models.get(session, project, name)
    pointed = session.get(Alias, (model.id, alias))
    if pointed is None:
        raise _missing(name, alias)
    return pointed


def _missing(name: str, alias: str) -> NotFound:
    return NotFound(f"expected an alias of model {name!r}; found none named {alias!r}; see GET /api/v1/models/{name}")


def _target(row: Alias) -> Target:
    return Target(row.version, row.canary, row.share, row.shadow)


def _remember(session: Session, name: str, pointed: Alias, how: How, before: int | None, target: Target | None) -> None:
    """Writes down what an alias means from now on, and tells those who listen; no target: it was removed."""
    meant = dict.fromkeys(("version", "canary", "share", "shadow")) if target is None else asdict(target)
    owner, alias = pointed.project_id, pointed.alias
    session.add(AliasChange(id=new_id(CHANGE), project_id=owner, model_id=pointed.model_id, alias=alias, **meant))
    outbox.alias_moved(session, owner, {"model": name, "alias": alias, "how": how, "before": before, **meant})
