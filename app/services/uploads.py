"""Resumable uploads: begun, looked at, taken by what is made of them, deleted. `receiving` brings the bytes in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from app import inbox as inboxes
from app.db.base import new_id, now
from app.db.session import Database
from app.db.uploads import USED, Upload, UploadPart
from app.errors import Conflict, Gone, NotFound, OutOfSpace, TooLarge
from app.inbox import Held, Inbox, Part
from app.services import limits, paging

PREFIX = "up"
TUS, S3 = "tus", "s3"


class State(StrEnum):
    """Where an upload stands."""

    RECEIVING = "receiving"
    RECEIVED = "received"
    COMPLETE = "complete"
    USED = USED


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What an upload begins with; a size that is not known yet is told by a later request.

    `remote_id` is what it is called in the object store, where its parts go there.
    """

    via: str = TUS
    size_bytes: int | None = None
    filename: str | None = None
    tus_metadata: str | None = None
    part_bytes: int | None = None
    id: str = field(default_factory=lambda: new_id(PREFIX))
    remote_id: str | None = None


def incoming(project: str, name: str) -> str:
    """Where what was sent lies, once it is whole, and where whoever takes it finds it.

    Args:
        project: whose it is.
        name: id of the upload, or of the dataset that a form was sent for; any other that nobody else has.
    """
    return f"incoming/{project}/{name}"


def create(session: Session, inbox: Inbox, project: str, new: NewUpload, most_bytes: int, keep: timedelta) -> Upload:
    """Writes the row of an upload of which nothing has come yet; one via `s3` is `upload_parts.started`.

    Raises:
        TooLarge: it would be larger than `most_bytes`.
        TooMany: the project may have no more bytes.
        OutOfSpace: there is no room for it now.
    """
    check_size(new.size_bytes, most_bytes)
    limits.check_bytes(session, project, new.size_bytes or 0)
    room = inbox.room_bytes()
    if room is not None and (new.size_bytes or 0) > room:
        raise OutOfSpace(
            f"expected room for {new.size_bytes} bytes; found {room} free; free some space and begin the upload again"
        )
    row = Upload(
        id=new.id,
        project_id=project,
        state=State.RECEIVING,
        expires_at=now() + keep,
        via=new.via,
        size_bytes=new.size_bytes,
        filename=new.filename,
        tus_metadata=new.tus_metadata,
        part_bytes=new.part_bytes,
        remote_id=new.remote_id,
    )
    session.add(row)
    session.flush()
    return row


def check_size(size_bytes: int | None, most_bytes: int) -> None:
    """Refuses a size above the limit.

    Raises:
        TooLarge: code upload_too_long.
    """
    if size_bytes is not None and size_bytes > most_bytes:
        raise TooLarge(
            f"expected an upload of at most {most_bytes} bytes (GRAFT_MAX_UPLOAD_BYTES); found {size_bytes}; "
            "split the data",
            code="upload_too_long",
        )


def get(session: Session, project: str, upload_id: str, *, lock: bool = False) -> Upload:
    """The project's upload of that id; `lock` keeps others from changing it until the transaction ends.

    Raises:
        NotFound: there is none.
        Gone: nobody has written to it for too long.
    """
    row = _row(session, project, upload_id, lock)
    if row.has_expired:
        raise Gone(
            f"expected an upload that is still kept; found that {upload_id} expired at {stamp(row.expires_at)}; begin "
            "a new one"
        )
    return row


def _row(session: Session, project: str, upload_id: str, lock: bool) -> Upload:
    row = session.get(Upload, upload_id, with_for_update=lock, populate_existing=lock)
    if row is None or row.project_id != project:
        raise NotFound(
            f"expected an upload of this project; found none with id {upload_id!r}; it may have expired; begin a new "
            "one with POST /api/v1/uploads"
        )
    return row


def page(session: Session, project: str, limit: int, after: str | None) -> tuple[Sequence[Upload], bool]:
    """Uploads that have not expired, newest first, below the id `after`; and whether there are more."""
    query = select(Upload).where(Upload.project_id == project, ~Upload.has_expired)
    return paging.newest(session, query, Upload.id, PREFIX, limit, after)


def beginning(database: Database, inbox: Inbox, project: str, upload_id: str, most_bytes: int) -> bytes | None:
    """The first bytes of a complete upload, to be judged before it is taken; None for one that cannot be.

    Before the transaction that takes it, and in none: the object store may take its time.
    """
    with database.read() as session:
        row = session.get(Upload, upload_id)
    if row is None or row.project_id != project or row.has_expired or row.state != State.COMPLETE:
        return None
    return inboxes.first(inbox, incoming(project, row.id), most_bytes)


def check_complete(row: Upload) -> None:
    """Refuses an upload that nothing can be made of.

    Raises:
        Conflict: code upload_incomplete, its sha256 was not verified; or upload_used.
    """
    if row.state == State.USED:
        raise Conflict(
            f"expected an upload that nothing was made of yet; found that {row.id} has become {row.used_by}; an upload "
            "is used once; send the file again",
            code="upload_used",
        )
    if row.state != State.COMPLETE:
        size = "an unknown number of" if row.size_bytes is None else row.size_bytes
        raise Conflict(
            f"expected an upload whose sha256 was verified; found {row.id} {row.state}, with {row.received_bytes} of "
            f"{size} bytes; send the rest, then POST /api/v1/uploads/{row.id}/complete",
            code="upload_incomplete",
        )


def take(session: Session, project: str, upload_id: str, used_by: str) -> Upload:
    """Uses an upload up: whoever takes it owns the object under its key, and removes it at the end.

    Raises:
        NotFound, Gone: as `get`.
        Conflict: as `check_complete`; of two requests at once, one gets this.
    """
    row = get(session, project, upload_id, lock=True)
    check_complete(row)
    row.state, row.used_by = State.USED, used_by
    return row


def delete(session: Session, project: str, upload_id: str) -> Held:
    """Removes the row, also of one that has expired; a request that writes at the moment finds it gone.

    Returns:
        what to discard once the transaction is committed.

    Raises:
        NotFound: there is none, or the sweep came first.
        Conflict: code upload_used, the bytes belong to what was made of it.
    """
    row = _row(session, project, upload_id, lock=True)
    if row.state == State.USED:
        check_complete(row)
    session.delete(row)
    return held(row)


def held(row: Upload) -> Held:
    """What is durably there of an upload."""
    return Held(
        key=incoming(row.project_id, row.id),
        working=working(row.project_id, row.id),
        size_bytes=row.received_bytes,
        remote_id=row.remote_id,
        tail=row.tail,
        tail_bytes=row.tail_bytes,
    )


def working(project: str, upload_id: str) -> str:
    """Below what its bytes gather until it is whole."""
    return f"{inboxes.ROOT}/{project}/{upload_id}"


def parts(session: Session, upload_id: str) -> list[Part]:
    """Its parts in the object store, in order."""
    rows = session.scalars(select(UploadPart).where(UploadPart.upload_id == upload_id).order_by(UploadPart.number))
    return [Part(row.number, row.etag, row.size_bytes) for row in rows]


def stamp(moment: datetime) -> str:
    """A moment as people and machines read it."""
    return moment.isoformat(timespec="seconds")
