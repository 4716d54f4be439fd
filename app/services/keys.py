"""API keys: made once, shown once, kept as a digest. Each belongs to one project and may do what its scopes say."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.keys import ApiKey
from app.db.many import upsert
from app.db.models import Project
from app.errors import BadRequest, NotFound
from app.services import paging

READ, WRITE, PREDICT, ADMIN = SCOPES = ("read", "write", "predict", "admin")
# What stands in the name of a project goes into paths of storage, and into those of file systems without capitals.
PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
SECRET_BYTES = 32
SHAPE = re.compile(r"graft_[0-9a-f]{8}_[0-9a-f]{64}")
# What people see of a key, of which nothing is secret.
SHOWN = len("graft_") + 8
TOUCHED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request comes from.

    Args:
        project: whose things are meant.
        scopes: what may be done to them.
        key_id: of the key; None where keys are off.
        max_requests: of the project a second; None for no limit.
    """

    project: str
    scopes: frozenset[str]
    key_id: str | None = None
    max_requests: float | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """A new key. Nothing but this ever holds the secret."""

    row: ApiKey
    secret: str


def digest(secret: str) -> str:
    """What is kept of a secret: 256 random bits need no slow hash (decision 0024)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(session: Session, project: str, name: str, scopes: Sequence[str], expires_at: datetime | None) -> Made:
    """Makes a key of a project that is there."""
    shown = f"graft_{secrets.token_hex(4)}"
    secret = f"{shown}_{secrets.token_hex(SECRET_BYTES)}"
    row = ApiKey(
        id=new_id("key"),
        project_id=project,
        name=name,
        prefix=shown,
        digest=digest(secret),
        scopes=[scope for scope in SCOPES if scope in scopes],
        expires_at=expires_at,
    )
    session.add(row)
    session.flush()
    return Made(row, secret)


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[ApiKey], bool]:
    """Keys, newest first, below the id `after`, those that are revoked too; and whether there are more."""
    return paging.newest(session, select(ApiKey).where(ApiKey.project_id == project), ApiKey.id, "key", limit, after)


def revoke(session: Session, project: str, key_id: str) -> ApiKey:
    """Ends a key for good; one that has ended already stays as it is.

    Raises:
        NotFound: the project has none of that id.
    """
    row = session.get(ApiKey, key_id)
    if row is None or row.project_id != project:
        raise NotFound(f"expected a key of this project; found none with id {key_id!r}; see GET /api/v1/keys")
    row.revoked_at = row.revoked_at or now()
    return row


def find(session: Session, digest_: str) -> tuple[ApiKey, float | None] | None:
    """The key with that digest, however it is, and the requests a second of its project."""
    query = select(ApiKey, Project.max_requests).join(Project, Project.id == ApiKey.project_id)
    found = session.execute(query.where(ApiKey.digest == digest_)).one_or_none()
    return None if found is None else (found[0], found[1])


def touch(session: Session, key_id: str) -> None:
    """Notes that a key is used, at most once in TOUCHED_EVERY."""
    at = now()
    unknown = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < at - TOUCHED_EVERY)
    session.execute(update(ApiKey).where(ApiKey.id == key_id, unknown).values(last_used_at=at))


def is_touched(row: ApiKey) -> bool:
    """Whether `touch` would leave the row as it is."""
    return row.last_used_at is not None and row.last_used_at >= now() - TOUCHED_EVERY


def has_admin(session: Session, project: str) -> bool:
    """Whether some key of the project can make others, now."""
    query = select(ApiKey).where(ApiKey.project_id == project, ApiKey.revoked_at.is_(None))
    return any(
        ADMIN in row.scopes and (row.expires_at is None or row.expires_at > now()) for row in session.scalars(query)
    )


def open_project(session: Session, name: str) -> None:
    """Makes a project where there is none of that name.

    Raises:
        BadRequest: it is no name of a project.
    """
    # Locked: of two that make the first key at once, the second sees what the first has made.
    if session.get(Project, name, with_for_update={"key_share": True}) is not None:
        return
    if not PROJECT.fullmatch(name):
        raise BadRequest(
            "expected a project's name of at most 40 small letters, digits, dots, dashes and underscores that begins "
            f"with a letter or digit; found {name!r}; choose another"
        )
    # Of two that make it at once, one waits for the other here.
    session.execute(upsert(session, Project).on_conflict_do_nothing(), [{"id": name}])
    session.get_one(Project, name, with_for_update={"key_share": True})
