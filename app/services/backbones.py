"""Backbones that a project can use: the catalogue's and its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import backbones
from app.backbones import Backbone
from app.db.models import UserBackbone, WorkerProcess
from app.errors import BadRequest, NotFound

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Known:
    """A backbone, and whether a worker has its weights at hand."""

    backbone: Backbone
    available: bool


def find(session: Session, project: str, name: str) -> Known:
    """The backbone of that name.

    Raises:
        NotFound: code unknown_backbone.
    """
    own = session.scalar(select(UserBackbone).where(UserBackbone.project_id == project, UserBackbone.name == name))
    if own is not None:
        return _ready(own)
    backbone = backbones.find(name)
    if backbone is None:
        near = ", ".join(similar(name)) or "none similar"
        raise NotFound(
            f"expected a backbone of the catalogue or of this project; found {name!r} (similar: {near}); "
            "see GET /api/v1/backbones",
            code="unknown_backbone",
        )
    return Known(backbone, backbone.name in at_hand(session))


def place(own: UserBackbone) -> str:
    """Where a user's own weights tell how far their check is."""
    return f"/api/v1/backbones/own/{own.name.removeprefix(f'{backbones.OWN}/')}"


def _ready(own: UserBackbone) -> Known:
    if own.state != "ready":
        raise NotFound(
            f"expected a backbone that is ready; found {own.name!r} {own.state}; see GET {place(own)}",
            code="unknown_backbone",
        )
    return Known(backbones.from_document(own.document["backbone"]), True)


def every(session: Session, project: str) -> Iterator[Known]:
    """The project's own backbones, then the catalogue in its order."""
    query = select(UserBackbone).where(UserBackbone.project_id == project, UserBackbone.state == "ready")
    for own in session.scalars(query.order_by(UserBackbone.name)):
        yield Known(backbones.from_document(own.document["backbone"]), True)
    names = at_hand(session)
    for backbone in backbones.catalogue():
        yield Known(backbone, backbone.name in names)


def at_hand(session: Session) -> set[str]:
    """Names whose weights some worker has without a download."""
    return {name for names in session.scalars(select(WorkerProcess.backbones)) for name in names}


def check_usable(session: Session, project: str, name: str, offline: bool) -> None:
    """Refuses a name that cannot work, before a job is made.

    Raises:
        NotFound: code unknown_backbone.
        BadRequest: code weights_unavailable, downloads are off and no worker has the weights.
    """
    if name == AUTO:
        return
    known = find(session, project, name)
    if offline and not known.available:
        names = ", ".join(sorted(at_hand(session))) or "none; no worker has shown itself yet"
        raise BadRequest(
            f"expected a backbone whose weights are here, since downloads are off (GRAFT_OFFLINE); found {name!r}; "
            f"available: {names}",
            code="weights_unavailable",
        )


def has_classifier(session: Session, project: str, name: str) -> bool:
    """Whether a backbone brings the ImageNet classifier it was trained with; of own weights nobody knows the classes.

    Raises:
        NotFound: code unknown_backbone.
    """
    if name == AUTO:
        return True
    backbone = find(session, project, name).backbone
    return backbone.provider != backbones.OWN and backbone.weights.classifier


def has_text_tower(session: Session, project: str, name: str) -> bool:
    """Whether a text encoder was trained with a backbone; what `auto` chooses has none, since none of those is ranked.

    Raises:
        NotFound: code unknown_backbone.
    """
    return name != AUTO and find(session, project, name).backbone.text_tower


def similar(name: str) -> list[str]:
    """Names of the catalogue that may have been meant."""
    from difflib import get_close_matches

    # A library's full name of the weights that stand here under their architecture's name alone.
    by_name = {backbone.name: backbone.weights.location for backbone in backbones.catalogue()}
    same = [known for known, location in by_name.items() if location == name]
    return list(dict.fromkeys([*same, *get_close_matches(name, by_name, n=3, cutoff=0.5)]))
