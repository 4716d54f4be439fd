"""Objects that nothing needs: noted in a transaction, deleted after its commit, by a sweep where that was cut short.

Every prefix in storage has its project as the second part of its name.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, or_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import failpoints
from app.db.base import now
from app.db.many import upsert
from app.db.session import Database
from app.db.waste import Waste
from app.errors import Unavailable
from app.services import limits
from app.storage import Storage

# Whoever has noted it deletes it at once; a sweep comes after that.
GRACE = timedelta(seconds=5)
# From storing something to the commit that makes it wanted.
RESERVED = timedelta(hours=1)
# While one sweep deletes, the others leave it alone.
CLAIMED = timedelta(minutes=1)

# Reserves a prefix for so many bytes and a block, as `reserved` does.
Reserved = Callable[[str, int], AbstractContextManager[None]]

log = logging.getLogger(__name__)


def note(session: Session, prefixes: Sequence[str]) -> None:
    """Gives objects up with this transaction; `clear` them once it is committed. Others may do the same meanwhile."""
    if not prefixes:
        return
    due_at = now() + GRACE
    # In one order everywhere: two transactions wait for each other's rows, and never both.
    rows = [_fields(prefix, due_at) for prefix in sorted(set(prefixes))]
    noted = upsert(session, Waste)
    noted = noted.on_conflict_do_update(index_elements=[Waste.prefix], set_={"due_at": noted.excluded.due_at})
    session.execute(noted, rows)


def reserve(database: Database, prefix: str, size_bytes: int) -> None:
    """Before something is stored of which no row speaks yet: it goes, unless `keep` says in time that it is wanted.

    Its bytes count with the project's from now on. What is reserved already is reserved anew.

    Raises:
        TooMany: code too_many_bytes.
        Unavailable: too late, a sweep is deleting it.
    """
    with database.write() as session:
        row = session.get(Waste, prefix, with_for_update=True)
        if row is not None and row.due_at <= now() + CLAIMED:
            raise _too_late()
        row = row or Waste(**_fields(prefix, now()))
        limits.check_bytes(session, row.project_id, size_bytes - (row.size_bytes or 0))
        row.size_bytes, row.due_at = size_bytes, now() + RESERVED
        session.add(row)
    failpoints.reach("waste_reserved")


def keep(session: Session, prefix: str) -> None:
    """What was reserved is wanted, in the transaction whose rows speak of it.

    Raises:
        Unavailable: too late, it was given up meanwhile.
    """
    # One that is due within a minute may be claimed by a sweep, which is deleting it.
    kept = delete(Waste).where(Waste.prefix == prefix, Waste.due_at > now() + CLAIMED).returning(Waste.prefix)
    if session.scalar(kept) is None:
        raise _too_late()


def forget(session: Session, top: str) -> None:
    """What was given up below a prefix is used again: a job is done once more."""
    below = Waste.prefix.startswith(f"{top}/", autoescape=True)
    session.execute(delete(Waste).where(or_(Waste.prefix == top, below)))


def clear(database: Database, storage: Storage, prefixes: Sequence[str]) -> None:
    """Deletes what was noted. Where storage or database cannot be reached a sweep does it later, and it is logged."""
    for prefix in prefixes:
        try:
            storage.delete(prefix)
            failpoints.reach("waste_deleted")
            with database.write() as session:
                session.execute(delete(Waste).where(Waste.prefix == prefix))
            failpoints.reach("waste_cleared")
        except Exception:
            # The transaction that gave it up is committed: whatever is wrong here changes nothing of what was said.
            log.exception("%s could not be deleted; the sweep will try again", prefix)


def give_back(database: Database, storage: Storage, prefix: str) -> None:
    """Deletes what was reserved and is not wanted after all, unless a commit has kept it whose answer was lost.

    While the database cannot say so nothing is deleted: the reservation runs out.
    """
    claim = update(Waste).where(Waste.prefix == prefix).values(due_at=now() + CLAIMED).returning(Waste.prefix)
    try:
        with database.write() as session:
            is_reserved = session.scalar(claim) is not None
    except SQLAlchemyError:
        log.exception("%s stays reserved; the sweep will try again", prefix)
        return
    if is_reserved:
        failpoints.reach("waste_given_back")
        clear(database, storage, [prefix])


@contextmanager
def reserved(database: Database, storage: Storage, prefix: str, size_bytes: int) -> Iterator[None]:
    """As `reserve`, for a block that stores below the prefix: what raises there is given back at once."""
    reserve(database, prefix, size_bytes)
    try:
        yield
    except BaseException:
        give_back(database, storage, prefix)
        raise


def sweep(database: Database, storage: Storage) -> int:
    """Deletes what is overdue; says how much that was."""
    with database.write() as session:
        due = update(Waste).where(Waste.due_at <= now()).values(due_at=now() + CLAIMED).returning(Waste.prefix)
        prefixes = list(session.scalars(due))
    if prefixes:
        failpoints.reach("waste_taken")
        log.info("deleting what was left behind: %s", ", ".join(prefixes))
    clear(database, storage, prefixes)
    return len(prefixes)


def _fields(prefix: str, due_at: datetime) -> dict[str, Any]:
    return {"prefix": prefix, "project_id": prefix.split("/")[1], "due_at": due_at}


def _too_late() -> Unavailable:
    return Unavailable(
        f"expected the request to be through within {RESERVED.total_seconds():.0f} s of its upload; found that it "
        "took longer, and what it had stored was deleted; send it again"
    )
