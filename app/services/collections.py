"""Collections: one at a time, of whichever process; and what the last one has found. `collector` makes them."""

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.base import new_id, now
from app.db.collections import Collection
from app.db.locks import Lock, hold
from app.errors import Conflict

# Nobody has heard of it for so long: its process was killed. A page of a listing takes a second.
SILENT = timedelta(minutes=10)
KEPT = timedelta(days=90)


def begin(session: Session, *, removes: bool) -> str:
    """Notes that one begins; returns its id.

    Raises:
        Conflict: another one is under way.
    """
    hold(session.connection(), Lock.COLLECTION)
    running = select(Collection).where(Collection.finished_at.is_(None), Collection.seen_at > now() - SILENT)
    other = session.scalars(running.order_by(Collection.started_at.desc()).limit(1)).first()
    if other is not None:
        raise Conflict(
            f"expected no other collection; found one under way since {other.started_at:%H:%M} UTC; try again when it "
            f"is over, or {SILENT.seconds // 60} minutes after its process was killed"
        )
    session.execute(delete(Collection).where(Collection.started_at < now() - KEPT))
    row = Collection(id=new_id("col"), removes=removes)
    session.add(row)
    session.flush()
    return row.id


def begin_if_due(session: Session, seconds: float) -> str | None:
    """Notes that one begins that removes, if none has begun for so long; else None."""
    newest = select(Collection.started_at).where(Collection.removes).order_by(Collection.started_at.desc()).limit(1)
    last = session.scalar(newest)
    if last is not None and last > now() - timedelta(seconds=seconds):
        return None
    try:
        return begin(session, removes=True)
    except Conflict:
        return None


def last(session: Session) -> Collection | None:
    """The last one that has seen all of storage."""
    whole = Collection.report["is_whole"].as_boolean()
    query = select(Collection).where(Collection.report.is_not(None), whole)
    return session.scalars(query.order_by(Collection.started_at.desc()).limit(1)).first()
