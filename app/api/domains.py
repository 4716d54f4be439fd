"""Domains of a model: bind an alignment, look, take away."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from app.api.deps import After, Limit, Page, Project, ReadSession, WriteSession
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.services import domains
from app.texts import NAME

router = APIRouter(prefix="/models", tags=["models"], responses=RESPONSES)
DomainName = Annotated[str, Path(pattern=NAME)]


class DomainIn(BaseModel):
    """What a domain is to be bound to."""

    model_config = BODY

    alignment: str = Field(max_length=40)


class DomainOut(BaseModel):
    """What a domain is bound to; `alignment` is null once it was taken away."""

    domain: str
    alignment: str | None
    updated_at: datetime


class DomainListed(DomainOut):
    """One of a model's domains."""

    number: int
    method: str


class DomainChangeOut(BaseModel):
    """What a domain was bound to since when; null means taken away."""

    id: str
    alignment: str | None
    at: datetime


class DomainDetail(DomainOut):
    """One domain and a page of its history, newest first."""

    history: list[DomainChangeOut]
    has_more: bool = Field(description="Whether the history goes on; `after` is the id of its last entry here.")


@router.get("/{name}/domains", response_model=Page[DomainListed])
def list_domains(name: str, session: ReadSession, project: Project, limit: Limit = 100, after: After = None) -> Any:
    """What `predict?domain=` takes, by name; `after` is one."""
    found, more = domains.page(session, project, name, limit, after)
    rows = [
        DomainListed(
            domain=bound.domain,
            alignment=row.id,
            number=row.number,
            method=row.recipe["method"],
            updated_at=bound.updated_at,
        )
        for bound, row in found
    ]
    return Page(data=rows, has_more=more)


@router.get("/{name}/domains/{domain}", response_model=DomainDetail)
def get_domain(
    name: str, domain: DomainName, session: ReadSession, project: Project, limit: Limit = 100, after: After = None
) -> Any:
    """What a domain is bound to, and was; `after` is the id of an entry of its history."""
    last, changes, more = domains.history(session, project, name, domain, limit, after)
    return DomainDetail(
        domain=domain,
        alignment=last.alignment_id,
        updated_at=last.at,
        history=[DomainChangeOut(id=change.id, alignment=change.alignment_id, at=change.at) for change in changes],
        has_more=more,
    )


@router.put("/{name}/domains/{domain}", response_model=DomainOut)
def put_domain(name: str, domain: DomainName, body: DomainIn, session: WriteSession, project: Project) -> Any:
    """Binds a domain: its alignment stands between backbone and head from the next prediction on."""
    bound = domains.bind(session, project, name, domain, body.alignment)
    return DomainOut(domain=bound.domain, alignment=bound.alignment_id, updated_at=bound.updated_at)


@router.delete("/{name}/domains/{domain}", status_code=204)
def delete_domain(name: str, domain: DomainName, session: WriteSession, project: Project) -> None:
    """Takes a domain away; its history stays."""
    domains.unbind(session, project, name, domain)
