"""The audit log: every request of a key that was to change something, kept for some time."""

import logging
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete
from sqlalchemy.orm import Session

from app.db.audit import AuditEntry
from app.db.base import now
from app.services.keys import Caller

KEPT = timedelta(days=90)
MAX_PATH, MAX_REQUEST_ID = 500, 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A request that was to change something.

    Args:
        entry_id: of its row.
        caller: whose it was.
        method: of HTTP.
        path: what was asked for, with its ids.
        location: of what was made; None for nothing.
        status: of the answer.
        request_id: what the client called it, or we.
    """

    entry_id: str
    caller: Caller
    method: str
    path: str
    location: str | None
    status: int
    request_id: str


def tell(change: Change) -> None:
    """A line of the log."""
    log.info(
        "audit project=%s key=%s method=%s path=%r location=%s status=%d request=%r",
        change.caller.project, change.caller.key_id, change.method, change.path, change.location, change.status,
        change.request_id,
    )  # fmt: skip


def record(session: Session, change: Change) -> None:
    """Writes the entry, or writes it again where it is there already and the request has ended in another way."""
    session.merge(
        AuditEntry(
            id=change.entry_id,
            project_id=change.caller.project,
            key_id=change.caller.key_id,
            method=change.method,
            path=_plain(change.path, MAX_PATH),
            location=change.location and _plain(change.location, MAX_PATH),
            status=change.status,
            request_id=_plain(change.request_id, MAX_REQUEST_ID),
        )
    )


def expire(session: Session) -> None:
    """Drops what is older than KEPT."""
    session.execute(delete(AuditEntry).where(AuditEntry.at < now() - KEPT))


def _plain(text: str, length: int) -> str:
    """As both databases can hold it."""
    return text.encode(errors="replace").decode().replace("\0", "?")[:length]
