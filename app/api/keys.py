"""API keys of a project: make, list, revoke. `graft keys` makes the first one."""

from datetime import datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from app.api.deps import After, Context, Limit, Page, Project, ReadSession, WriteSession, finish
from app.api.problems import RESPONSES
from app.bodies import BODY
from app.db.base import now
from app.db.keys import ApiKey
from app.services import keys
from app.texts import NAME

router = APIRouter(prefix="/keys", tags=["keys"], responses=RESPONSES)
ScopeName = Literal["read", "write", "predict", "admin"]
MAX_DAYS = 3650


class KeyIn(BaseModel):
    """What a key is to be for."""

    model_config = BODY

    name: str = Field(pattern=NAME, description="Who or what uses it; names need not be unique.")
    scopes: list[ScopeName] = Field(
        min_length=1,
        max_length=4,
        description="read: look and download. write: upload, start jobs, change, delete. predict: call models. "
        "admin: make and revoke keys.",
    )
    expires_days: int | None = Field(None, ge=1, le=MAX_DAYS, description="Days from now; null: it does not expire.")


class KeyOut(BaseModel):
    """One key, without its secret."""

    id: str
    name: str
    prefix: str = Field(description="How the secret begins; what follows is known to its holder alone.")
    scopes: list[ScopeName]
    project: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class NewKeyOut(KeyOut):
    """A key that was just made."""

    secret: str = Field(description="What is sent as `Authorization: Bearer`. It is shown this once and not kept.")


def _fields(row: ApiKey) -> dict[str, Any]:
    names = KeyOut.model_fields.keys() - {"project"}
    return {name: getattr(row, name) for name in names} | {"project": row.project_id}


@router.post("", status_code=201, response_model=NewKeyOut)
def create_key(body: KeyIn, response: Response, session: WriteSession, project: Project) -> Any:
    """Makes a key of the caller's project. There is no Idempotency-Key: the answer must not be kept anywhere."""
    expires_at = None if body.expires_days is None else now() + timedelta(days=body.expires_days)
    made = keys.create(session, project, body.name, body.scopes, expires_at)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyOut(**_fields(made.row), secret=made.secret)


@router.get("", response_model=Page[KeyOut])
def list_keys(session: ReadSession, project: Project, limit: Limit = 50, after: After = None) -> Any:
    """Keys of the project, newest first, those that are revoked too."""
    rows, more = keys.page(session, project, limit, after)
    return Page(data=[KeyOut(**_fields(row)) for row in rows], has_more=more)


@router.delete("/{key_id}", status_code=204)
def delete_key(key_id: str, state: Context, session: WriteSession, project: Project) -> None:
    """Revokes a key: at once in this process, within five seconds in all others. Its row stays, to be looked up."""
    keys.revoke(session, project, key_id)
    finish(state, session)
    state.keyring.forget(key_id)
