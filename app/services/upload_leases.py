"""The right to write to an upload: one request has it at a time, and all that it writes down is fenced by it.

The lease is given back while no bytes come: a client whose connection died without a word can go on at once, on a new
one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from app import failpoints
from app.db.base import new_id, now
from app.db.session import Database
from app.db.uploads import Upload
from app.errors import Gone, Locked
from app.inbox import Inbox
from app.services import uploads

LEASE = timedelta(seconds=10)
RENEW_SECONDS = 3.0

Check = Callable[[Session, Upload], None]


@dataclass(frozen=True, slots=True)
class Desk:
    """What all of them work with: the process's database, where bytes gather, how long an upload is kept."""

    database: Database
    inbox: Inbox
    keep: timedelta
    most_bytes: int


class Lease:
    """The right to write to one upload.

    Args:
        desk: of the process.
        project: owner.
        upload_id: its row.
    """

    def __init__(self, desk: Desk, project: str, upload_id: str) -> None:
        self._desk, self._project, self._id = desk, project, upload_id
        self.token = new_id("w")
        self.held_since: float | None = None

    def take(self, check: Check) -> Upload:
        """Takes the upload, if `check` of the row does not raise.

        Raises:
            NotFound, Gone: see `uploads.get`.
            Locked: somebody else writes.
        """
        with self._desk.database.write() as session:
            row = uploads.get(session, self._project, self._id, lock=True)
            if row.has_writer:
                raise _locked(self._id)
            check(session, row)
            row.writer, row.writer_expires_at = self.token, now() + LEASE
        failpoints.reach("upload_taken")
        self.held_since = time.monotonic()
        return row

    def change(self, apply: Callable[[Session, Upload], None], *, ends: bool = False) -> Upload:
        """One fenced change, which also renews the lease, or `ends` it.

        Raises:
            Locked: the lease ran out and somebody else has it.
            Gone: the upload was deleted.
        """
        with self._desk.database.write() as session:
            row = session.get(Upload, self._id, with_for_update=True, populate_existing=True)
            if row is None:
                raise Gone(f"expected upload {self._id}; found it deleted meanwhile; begin a new one")
            if row.writer != self.token:
                raise _locked(self._id)
            apply(session, row)
            row.writer_expires_at = None if ends else now() + LEASE
            row.writer = None if ends else self.token
        failpoints.reach("upload_changed")
        self.held_since = None if ends else time.monotonic()
        return row

    def reserve(self, remote_id: str) -> int:
        """See inbox.Writer. What is open in the object store is noted before its first part: else a sweep ends it."""

        def next_part(_session: Session, row: Upload) -> None:
            row.last_part += 1
            row.remote_id = remote_id

        return self.change(next_part).last_part

    def renew(self) -> None:
        """Keeps it for as long again, when that is due."""
        if self.held_since is None or time.monotonic() - self.held_since > RENEW_SECONDS:
            self.change(lambda _session, _row: None)

    def release(self) -> None:
        """Gives it back; nothing is wrong when somebody else has it, or the upload is gone."""
        if self.held_since is None:
            return
        try:
            self.change(lambda _session, _row: None, ends=True)
        except (Locked, Gone):
            self.held_since = None


def _locked(upload_id: str) -> Locked:
    return Locked(
        f"expected upload {upload_id} with no other request that writes to it; found one; wait a moment, ask with HEAD "
        "how far it is, and go on from there",
        retry_after_seconds=1,
    )
