"""An upload that is all there becomes an object, and is verified by its sha256."""

import hashlib

from sqlalchemy.orm import Session

from app import failpoints
from app.db.base import now
from app.db.uploads import Upload
from app.errors import BadRequest, Conflict
from app.inbox import Held, Part
from app.services import upload_parts, uploads
from app.services.upload_leases import Desk, Lease
from app.services.uploads import State


def complete(desk: Desk, project: str, upload_id: str, sha256: str, given: list[Part] | None = None) -> Upload:
    """Verifies an upload that is all there by its sha256; the same again is answered the same.

    Args:
        desk: of the process.
        project: owner.
        upload_id: its row.
        sha256: in hexadecimal, of the whole file.
        given: parts that the client has put into the object store; only with `via: s3`.

    Raises:
        NotFound, Gone, Locked: see `Lease.take`.
        Conflict: code upload_incomplete, bytes are missing; or sha256_mismatch. The upload stays as it is.
        BadRequest: code parts_invalid.
    """
    lease = Lease(desk, project, upload_id)
    row = lease.take(lambda _session, row: _check_whole(row, given))
    try:
        if row.state in (State.COMPLETE, State.USED):
            _compare(row.id, sha256, row.sha256 or "")
            return row
        if row.state == State.RECEIVING:
            row = assembled(desk, lease, row, given)
        found = hashlib.sha256()
        for data in desk.inbox.read(uploads.incoming(project, row.id)):
            found.update(data)
            lease.renew()
        _compare(row.id, sha256, found.hexdigest())
        failpoints.reach("upload_verified")

        def note(_session: Session, row: Upload) -> None:
            row.state, row.sha256, row.expires_at = State.COMPLETE, sha256, now() + desk.keep

        return lease.change(note, ends=True)
    finally:
        lease.release()


def assembled(desk: Desk, lease: Lease, row: Upload, given: list[Part] | None = None) -> Upload:
    """Makes the object of an upload that is all there, whether or not an earlier attempt was cut short."""
    held = uploads.held(row)
    if row.via == uploads.S3:
        held = Held(held.key, held.working, row.size_bytes or 0, held.remote_id)
        found = desk.inbox.parts(held)
        # None where an attempt was cut short after the object store had put them together.
        parts = [] if found is None else upload_parts.check_parts(row, given or [], found)
    else:
        with desk.database.read() as session:
            parts = uploads.parts(session, row.id)
    desk.inbox.assemble(held, parts, lease)
    failpoints.reach("upload_assembled")

    def note(_session: Session, row: Upload) -> None:
        row.state, row.received_bytes = State.RECEIVED, held.size_bytes
        row.tail, row.tail_bytes, row.remote_id = None, 0, None

    return lease.change(note)


def _check_whole(row: Upload, given: list[Part] | None) -> None:
    if row.via == uploads.S3 and row.state == State.RECEIVING:
        if given is None:
            raise BadRequest(
                "expected `parts`, the number and etag of each part that was put into the object store; found none",
                code="parts_invalid",
            )
    elif row.received_bytes != row.size_bytes:
        size = "a size that was not told yet" if row.size_bytes is None else f"{row.size_bytes} bytes"
        raise Conflict(
            f"expected {size}; found {row.received_bytes} bytes of {row.id}; send the rest first",
            code="upload_incomplete",
        )


def _compare(upload_id: str, expected: str, found: str) -> None:
    if expected != found:
        raise Conflict(
            f"expected sha256 {expected}; found {found} over the bytes of {upload_id}; if that is the file that you "
            "meant to send, complete it with its own sha256, else delete the upload and send it again",
            code="sha256_mismatch",
            sha256=found,
        )
