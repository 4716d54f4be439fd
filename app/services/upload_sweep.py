"""What becomes of uploads that nobody goes on with: rows that have expired, and bytes that no row knows."""

import logging

from sqlalchemy import select

from app import failpoints
from app import inbox as inboxes
from app.db.base import now
from app.db.session import Database
from app.db.uploads import Upload
from app.inbox import Inbox
from app.services import references, uploads
from app.services.uploads import State
from app.storage import Storage

log = logging.getLogger(__name__)


def run(database: Database, storage: Storage, inbox: Inbox) -> int:
    """Removes them; says how many uploads that were.

    The row of an upload is there before its bytes, and goes before them: bytes without a row belong to nobody.
    """
    with database.write() as session:
        expired = select(Upload).where(Upload.expires_at < now(), ~Upload.has_writer)
        rows = session.scalars(expired.with_for_update()).all()
        gone = [uploads.held(row) for row in rows if row.state != State.USED]
        for row in rows:
            session.delete(row)
    if gone:
        failpoints.reach("uploads_expired")
    for held in gone:
        inbox.discard(held)
        failpoints.reach("upload_discarded")
    num_strays = _strays(database, storage) + inbox.strays(lambda key, remote_id: _known(database, key, remote_id))
    if gone or num_strays:
        log.info("removed %d uploads that had expired, and %d that nothing knew of", len(gone), num_strays)
    return len(gone) + num_strays


def _strays(database: Database, storage: Storage) -> int:
    """Bytes whose request was killed between two steps."""
    gathering = {key for key in storage.list(inboxes.ROOT) if _of_upload(key)}
    whole = {key for key in storage.list("incoming") if _of_upload(key)}
    if not gathering and not whole:
        return 0
    with database.read() as session:
        known = {(row.project_id, row.id) for row in session.execute(select(Upload.project_id, Upload.id))}
        wanted = references.sent(session)
    strays = [key for key in gathering | (whole - wanted) if tuple(key.split("/")[1:3]) not in known]
    for key in strays:
        storage.delete(key)
        failpoints.reach("stray_removed")
    return len(strays)


def _of_upload(key: str) -> bool:
    """Whether an object is of an upload: others wait in the same room, and some are not Graft's."""
    place = references.place(key)
    return place is not None and place[2].startswith(f"{uploads.PREFIX}_")


def _known(database: Database, key: str, remote_id: str) -> bool:
    """Whether a multipart upload is to stay: a row knows of it, or it is none of Graft's."""
    place = references.place(key)
    if place is None or "/".join(place) != key:
        return True
    with database.read() as session:
        row = session.get(Upload, key.rpartition("/")[2])
        return row is not None and row.remote_id == remote_id
