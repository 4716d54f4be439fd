"""Bytes on their way into an upload: one writer at a time, what has come is durable, and the sum is right."""

import hashlib
import time
from typing import Self

from sqlalchemy.orm import Session

from app import failpoints
from app.db.base import now
from app.db.uploads import Upload, UploadPart
from app.errors import BadRequest, Conflict, TimedOut, TooLarge, TooMany, WrongChecksum
from app.inbox import Held, Part, Sink
from app.services import limits, uploads
from app.services.upload_completion import assembled
from app.services.upload_leases import LEASE, Desk, Lease
from app.services.uploads import State

# A process that is killed loses what came after the last look at this clock, or this many bytes.
SYNC_SECONDS = 3.0
SYNC_BYTES = 32 * 2**20


class Receiver:
    """One request's bytes. Open it, write, then `end`, or `keep` where the request broke off; `close` in any case.

    Args:
        desk: of the process.
        project: owner.
        upload_id: its row.
        offset: where the client says that its bytes begin.
        size_bytes: the whole upload's, where this request tells it.
        num_bytes: of the request's body, where that is known.
        checksum: algorithm and digest of the body. All of it is kept, or nothing.
    """

    def __init__(
        self,
        desk: Desk,
        project: str,
        upload_id: str,
        offset: int,
        *,
        size_bytes: int | None = None,
        num_bytes: int | None = None,
        checksum: tuple[str, bytes] | None = None,
    ) -> None:
        self._desk, self._project, self._id = desk, project, upload_id
        self._position = self._begun = offset
        self._size_bytes, self._num_bytes = size_bytes, num_bytes
        self._digest = hashlib.new(checksum[0], usedforsecurity=False) if checksum else None
        self._expected = checksum[1] if checksum else b""
        self._lease = Lease(desk, project, upload_id)
        self._sink: Sink | None = None
        self._held: Held | None = None
        self._row: Upload | None = None
        # Where nobody has told how much will come: what the project may still store, as the request begins.
        self._room: limits.Room | None = None
        self._unsynced = 0
        self._synced_at = 0.0

    def open(self) -> Self:
        """Takes the upload.

        Raises:
            NotFound, Gone, Locked: see `Lease.take`.
            Conflict: code offset_mismatch, or upload_via.
            TooLarge: code upload_too_long.
            BadRequest: code size_mismatch, another size than was told before.
            TooMany: more than the project may have.
        """
        row = self._lease.take(self._check)
        self._held = uploads.held(row)
        self._size_bytes = row.size_bytes if row.size_bytes is not None else self._size_bytes
        self._row = row
        self._synced_at = time.monotonic()
        if row.state == State.RECEIVING:
            self._sink = self._desk.inbox.open(self._held, self._lease)
        return self

    def write(self, data: bytes) -> None:
        """Takes bytes, durable from time to time.

        Raises:
            TooLarge: more than the upload has.
            TooMany: more than the project may have.
            OutOfSpace: there is no room.
            Locked, Conflict: another request has gone on meanwhile.
        """
        if self._lease.held_since is None:
            self._open_again()
        self._fits(self._position + len(data))
        assert self._sink is not None
        if self._room is not None:
            # Before it is stored: of what a request is refused for nothing stays.
            self._room.check(self._position + len(data) - self._begun)
        if self._digest is not None:
            self._digest.update(data)
        self._sink.write(data)
        self._position += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES or time.monotonic() - self._synced_at > SYNC_SECONDS:
            self._sync(ending=False)

    def pause(self) -> None:
        """No bytes come: what has come is kept, and another request may go on.

        Raises:
            TimedOut: half a body with a checksum cannot be verified, and keeps others out for long enough.
        """
        if self._lease.held_since is None:
            return
        if self._digest is None:
            self._sync(ending=True)
            self._let_go()
        elif time.monotonic() - self._lease.held_since > LEASE.total_seconds():
            raise TimedOut(
                f"expected the rest of a body that has a checksum; found nothing for {LEASE.total_seconds():.0f} s; "
                "none of it was kept; send it again"
            )

    def keep(self) -> None:
        """The request broke off: what has come is kept, unless only all of it could be verified."""
        if self._lease.held_since is not None and self._digest is None:
            self._sync(ending=True)

    def end(self) -> Upload:
        """The request is over; an upload that is all there becomes an object.

        Raises:
            WrongChecksum: the bytes are not those that were announced; none of them is kept.
        """
        if self._digest is not None and self._digest.digest() != self._expected:
            raise WrongChecksum(
                f"expected bytes with {self._digest.name} {self._expected.hex()}; found {self._digest.hexdigest()}; "
                "none of them was kept; send them again"
            )
        if self._lease.held_since is None:
            self._open_again()
        if self._sink is not None:
            self._sync(ending=True)
        assert self._row is not None
        if self._row.state == State.RECEIVING and self._row.received_bytes == self._row.size_bytes:
            self._row = assembled(self._desk, self._lease, self._row)
        self._row = self._lease.change(lambda _session, _row: None, ends=True)
        return self._row

    def close(self) -> None:
        """Lets go of the upload."""
        self._let_go()

    def _check(self, session: Session, row: Upload) -> None:
        if row.via != uploads.TUS:
            raise Conflict(
                f"expected an upload that was begun via tus; found {row.id} via {row.via}; put its parts where "
                f"GET /api/v1/uploads/{row.id}/parts says",
                code="upload_via",
            )
        if row.received_bytes != self._position:
            raise Conflict(
                f"expected Upload-Offset {row.received_bytes}, since so many bytes are here; found {self._position}; "
                f"ask with HEAD /api/v1/uploads/{row.id} and go on from there",
                code="offset_mismatch",
                offset=row.received_bytes,
            )
        told = self._size_bytes
        if told is not None and (row.size_bytes not in (None, told) or told < row.received_bytes):
            before = "none" if row.size_bytes is None else row.size_bytes
            raise BadRequest(
                f"expected the upload's size to be told once, and to be no less than the {row.received_bytes} bytes "
                f"that are here; found {told}, with {before} before; leave Upload-Length out, or begin a new upload",
                code="size_mismatch",
            )
        uploads.check_size(told, self._desk.most_bytes)
        if row.size_bytes is None and told is not None:
            limits.check_bytes(session, self._project, told - row.received_bytes)
            row.size_bytes = told
        self._size_bytes = row.size_bytes
        self._fits(self._position + (self._num_bytes or 0))
        self._begun = row.received_bytes
        self._room = limits.room(session, self._project) if row.size_bytes is None else None
        if self._room is not None:
            self._room.check(self._num_bytes or 0)

    def _fits(self, end: int) -> None:
        most = self._desk.most_bytes if self._size_bytes is None else self._size_bytes
        if end > most:
            raise TooLarge(
                f"expected no byte behind the {most} of the upload; found a request that reaches to {end} or further; "
                "the bytes that do not fit were not kept; compare the file with the size that was told",
                code="upload_too_long",
            )

    def _open_again(self) -> None:
        """After a pause; only where no other request has gone on."""
        self._lease = Lease(self._desk, self._project, self._id)
        self._num_bytes = None
        self.open()

    def _sync(self, *, ending: bool) -> None:
        self._synced_at, self._unsynced = time.monotonic(), 0
        if self._sink is None or (self._digest is not None and not ending):
            self._lease.renew()
            return
        before, synced = self._held, self._sink.sync(ending=ending)
        failpoints.reach("upload_synced")

        def note(session: Session, row: Upload) -> None:
            held = synced.held
            if row.size_bytes is None:
                limits.check_bytes(session, self._project, held.size_bytes - row.received_bytes)
            row.received_bytes, row.remote_id = held.size_bytes, held.remote_id
            row.tail, row.tail_bytes = held.tail, held.tail_bytes
            row.expires_at = now() + self._desk.keep
            session.add_all(_part(row, part) for part in synced.parts)

        is_new_tail = before is None or before.tail != synced.held.tail
        # Whatever else ends it may have come after the commit.
        self._held = None
        try:
            self._row = self._lease.change(note)
        except TooMany:
            self._held = before
            # Others of the project have taken the room meanwhile.
            if is_new_tail:
                self._desk.inbox.forget(synced.held)
            raise
        failpoints.reach("upload_noted")
        self._held = synced.held
        if before is not None and is_new_tail:
            self._desk.inbox.forget(before)

    def _let_go(self) -> None:
        if self._sink is not None:
            self._sink.close(self._held)
            self._sink = None
        self._lease.release()


def _part(row: Upload, part: Part) -> UploadPart:
    return UploadPart(
        upload_id=row.id, number=part.number, project_id=row.project_id, etag=part.etag, size_bytes=part.size_bytes
    )
