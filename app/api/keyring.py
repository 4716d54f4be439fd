"""Who a key belongs to, remembered for some seconds so that a request does not wait for the database.

A key that was revoked or has changed is refused at the latest KEPT_SECONDS later, in every process; in the one that
revoked it, at once. A key that is in use is looked up again before that, while requests are answered from memory.
"""

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import datetime

from anyio import CapacityLimiter, to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.api.rates import Rates
from app.db.base import now
from app.db.keys import ApiKey
from app.db.session import Database
from app.errors import Unauthorized, Unavailable
from app.services import keys
from app.services.keys import Caller
from app.settings import DEFAULT_PROJECT

FRESH_SECONDS = 2.0
KEPT_SECONDS = 5.0
# Looks at once: keys that nobody knows must not take the threads that requests run in.
NUM_LOOKS = 4
LOCAL = Caller(DEFAULT_PROJECT, frozenset(keys.SCOPES))
REMEDY = "send the header `Authorization: Bearer KEY`"

Found = tuple[ApiKey, float | None] | None

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    caller: Caller
    expires_at: datetime | None
    at: float


class Keyring:
    """The keys that this process has seen lately. Used on the event loop; `forget` from any thread.

    Args:
        database: that they are in.
        required: whether a request needs one; else everybody is `LOCAL`.
    """

    def __init__(self, database: Database, required: bool) -> None:
        self._database, self._required = database, required
        self._known: dict[str, _Entry] = {}
        self._looks: dict[str, asyncio.Task[_Entry]] = {}
        self._touches: set[asyncio.Task[None]] = set()
        self._limiter = CapacityLimiter(NUM_LOOKS)
        self._rates = Rates()
        self._num_forgotten = 0

    async def caller(self, authorization: str) -> Caller:
        """Whose key a header brings.

        Args:
            authorization: the header's value; empty where there is none.

        Raises:
            Unauthorized: codes key_missing, key_unknown, key_expired, key_revoked.
            Unavailable: the database does not answer.
        """
        if not self._required:
            return LOCAL
        digest = keys.digest(_secret(authorization))
        known = self._known.get(digest)
        age = time.monotonic() - known.at if known is not None else KEPT_SECONDS
        if age >= FRESH_SECONDS:
            look = self._looks.get(digest) or self._begin(digest)
            if known is None or age >= KEPT_SECONDS:
                # Shielded: others wait for the same look, and the first of them may go away.
                known = await asyncio.shield(look)
        assert known is not None
        _check_expiry(known.expires_at)
        return known.caller

    async def admit(self, authorization: str) -> Caller:
        """Whose request this is, which counts towards what its project may send.

        Raises:
            Unauthorized, Unavailable: as `caller`.
            TooMany: code rate_limited.
        """
        caller = await self.caller(authorization)
        self._rates.spend(caller)
        return caller

    def remembered(self, authorization: str) -> str | None:
        """The project of a key that this process has seen, by what is in memory alone; None for any other.

        The key may have ended since: this tells whose request is refused, and lets nobody in.
        """
        if not self._required:
            return LOCAL.project
        try:
            known = self._known.get(keys.digest(_secret(authorization)))
        except Unauthorized:
            return None
        return None if known is None else known.caller.project

    async def holds(self, authorization: str) -> bool:
        """Whether a key that was good when a long answer began still is; unknown counts as yes."""
        try:
            await self.caller(authorization)
        except Unauthorized:
            return False
        except Unavailable:
            return True
        return True

    def forget(self, key_id: str) -> None:
        """Looks a key up again before it is believed; a look that has begun already does not count."""
        self._num_forgotten += 1
        for digest, known in list(self._known.items()):
            if known.caller.key_id == key_id:
                self._known.pop(digest, None)

    async def close(self) -> None:
        """Returns when nothing is under way any more."""
        await asyncio.gather(*self._looks.values(), *self._touches, return_exceptions=True)

    def _begin(self, digest: str) -> asyncio.Task[_Entry]:
        look = self._looks[digest] = asyncio.create_task(self._look(digest))

        def ended(task: asyncio.Task[_Entry]) -> None:
            del self._looks[digest]
            # Asked for, since nobody may have waited: whoever comes next gets the answer of a look of its own.
            if not task.cancelled() and task.exception() is not None:
                log.debug("a key was refused: %s", task.exception())

        look.add_done_callback(ended)
        return look

    async def _look(self, digest: str) -> _Entry:
        try:
            while True:
                # Before the look, so that a revocation meanwhile counts from then.
                at, num_forgotten = time.monotonic(), self._num_forgotten
                found = await to_thread.run_sync(self._read, digest, limiter=self._limiter)
                if num_forgotten == self._num_forgotten:
                    break
            entry = _entry(found, at)
        except SQLAlchemyError as error:
            log.warning("keys cannot be looked up: %s", error)
            raise Unavailable("expected a database that knows the key; found none that answers; ask again") from error
        except Unauthorized:
            self._known.pop(digest, None)
            raise
        self._known[digest] = entry
        if found is not None and not keys.is_touched(found[0]):
            touch = asyncio.create_task(self._touch(found[0].id))
            self._touches.add(touch)
            touch.add_done_callback(self._touches.discard)
        return entry

    def _read(self, digest: str) -> Found:
        with self._database.read() as session:
            return keys.find(session, digest)

    async def _touch(self, key_id: str) -> None:
        """Nobody waits for it, and a busy database has more important things to write."""
        try:
            await to_thread.run_sync(self._write_touch, key_id, limiter=self._limiter)
        except SQLAlchemyError as error:
            log.info("the use of key %s was not noted: %s", key_id, error)

    def _write_touch(self, key_id: str) -> None:
        with self._database.write() as session:
            keys.touch(session, key_id)


def _secret(authorization: str) -> str:
    """The key in a header.

    Raises:
        Unauthorized: there is none, or something that was never a key.
    """
    scheme, _, secret = authorization.partition(" ")
    if scheme.lower() != "bearer" or not secret:
        found = "none" if not authorization else "another kind of credentials"
        raise Unauthorized(f"expected an API key; found {found}; {REMEDY}", code="key_missing")
    secret = secret.strip()
    if not keys.SHAPE.fullmatch(secret):
        raise Unauthorized(f"expected an API key of this service; found other text; {REMEDY}", code="key_unknown")
    return secret


def _entry(found: Found, at: float) -> _Entry:
    if found is None:
        raise Unauthorized("expected an API key of this service; found one that nobody knows", code="key_unknown")
    row, max_requests = found
    if row.revoked_at is not None:
        raise Unauthorized(
            f"expected a key that holds; found {row.prefix} revoked at {row.revoked_at:%Y-%m-%d %H:%M} UTC; ask for "
            "another",
            code="key_revoked",
        )
    _check_expiry(row.expires_at)
    return _Entry(Caller(row.project_id, frozenset(row.scopes), row.id, max_requests), row.expires_at, at)


def _check_expiry(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        raise Unauthorized(
            f"expected a key that holds; found one that expired at {expires_at:%Y-%m-%d %H:%M} UTC; ask for another",
            code="key_expired",
        )
