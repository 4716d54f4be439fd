"""A file that comes in a form: counted with its project while it comes, and gone unless something was made of it."""

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import CancelScope, to_thread
from fastapi import Request, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.api import headers, multipart
from app.api.accepted import Once
from app.errors import Conflict
from app.services import uploads, waste

# A body of unknown length is counted each time that it has grown by so much, or by that share.
STEP_BYTES, STEP_SHARE = 4 * 2**20, 1 / 16
# What a form may have beside its file, which is not stored: room for exactly the file is enough.
FORM_BYTES = 2**16
# A slow one is counted anew before it is taken for what a killed process has left.
RENEW_SECONDS = waste.RESERVED.total_seconds() / 4
AGAIN_SECONDS = 60.0

log = logging.getLogger(__name__)


class Arrival:
    """A file on its way into storage.

    Args:
        once: of the request.
        route: that its Idempotency-Key is of.
        key: where it is to lie; reserved from the start.
        path: where it comes in.
        is_answered: whether the request's Idempotency-Key has an answer. Then the file is read for its digest alone.
    """

    def __init__(self, once: Once, route: str, key: str, path: Path, *, is_answered: bool = False) -> None:
        self.key, self.path = key, path
        self._once, self._route, self._is_answered = once, route, is_answered
        self._state = once.state
        self._reserved_bytes, self._renew_at, self._may_count = 0, 0.0, False

    async def counted(self, num_bytes: int) -> None:
        """So much has come.

        Raises:
            TooMany: code too_many_bytes.
        """
        if self._is_answered:
            return
        if num_bytes > self._reserved_bytes + max(STEP_BYTES, int(STEP_SHARE * num_bytes)):
            await to_thread.run_sync(self.reserve, num_bytes)
        elif time.monotonic() > self._renew_at:
            await to_thread.run_sync(self._renew)

    def reserve(self, num_bytes: int) -> None:
        """Counts so much with what the project stores.

        Raises:
            TooMany: code too_many_bytes.
        """
        # Before it does: of a commit whose answer was lost nobody knows.
        self._may_count = True
        waste.reserve(self._state.database, self.key, num_bytes)
        self._reserved_bytes, self._renew_at = num_bytes, time.monotonic() + RENEW_SECONDS

    def _renew(self) -> None:
        """The same again; a database that is away ends no upload, as long as the reservation holds."""
        try:
            self.reserve(self._reserved_bytes)
        except SQLAlchemyError:
            log.exception("%s is reserved as before; it is tried again", self.key)
            self._renew_at = time.monotonic() + AGAIN_SECONDS

    def answered(self, asked: Any, status: int) -> Response | None:
        """The answer that the same request has had; None where something is to be made of the file.

        Args:
            asked: as `Once.before`.
            status: likewise.

        Raises:
            Unprocessable: code idempotency_mismatch.
            Conflict: the file was read for its digest alone, and the answer that was there is not there any more.
        """
        kept = self._once.before(self._route, asked, status)
        if kept is None and self._is_answered:
            raise Conflict(
                "expected the answer that this Idempotency-Key had when the request began; found that it went "
                "meanwhile; send the request again",
                code="idempotency_in_flight",
            )
        return kept

    def store(self) -> None:
        """Puts the file, all of which has come, into storage.

        Raises:
            TooMany: code too_many_bytes.
        """
        size_bytes = self.path.stat().st_size
        if size_bytes > self._reserved_bytes:
            self.reserve(size_bytes)
        elif time.monotonic() > self._renew_at:
            self._renew()
        self._state.storage.put(self.key, self.path)

    def keep(self, session: Session) -> None:
        """It is wanted, in the transaction whose rows speak of it.

        Raises:
            Unavailable: see `waste.keep`.
        """
        waste.keep(session, self.key)

    def give_back(self) -> None:
        """It is not wanted, and counts no more, unless a commit has kept it."""
        if self._may_count:
            waste.give_back(self._state.database, self._state.storage, self.key)
            self._may_count = False


@asynccontextmanager
async def arriving(request: Request, once: Once, route: str, name: str) -> AsyncIterator[Arrival]:
    """Takes in the file of a request; what is left of it after the block is what a commit has kept.

    Args:
        request: not yet read.
        once: of it.
        route: that its Idempotency-Key is of.
        name: that the file has among those of the project that wait.

    Raises:
        TooMany: code too_many_bytes; nothing was read.
    """
    key = uploads.incoming(once.project, name)
    if await to_thread.run_sync(once.is_answered, route):
        # An answer that was given comes again in a full project, too; the body says whether it is the same request.
        yield Arrival(once, route, key, Path(os.devnull), is_answered=True)
        return
    with multipart.landing(once.state.settings.scratch) as path:
        arrival = Arrival(once, route, key, path)
        try:
            await to_thread.run_sync(arrival.reserve, _file_bytes(request, once.state.settings.max_upload_bytes))
            yield arrival
        finally:
            with CancelScope(shield=True):
                await to_thread.run_sync(arrival.give_back)


def _file_bytes(request: Request, most_bytes: int) -> int:
    """Bytes of the file that is to come, at least, as far as the request says."""
    return max(0, min(headers.body_bytes(request.scope) or 0, most_bytes) - FORM_BYTES)
