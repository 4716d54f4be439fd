"""Whether the servers that a process stands on are there: tried out, so that whoever asks hears of it soon.

A server that is gone refuses; one that is frozen, or behind a cable that was pulled, says nothing for minutes. So each
is tried in a thread of its own, and what has not ended in time is an answer too.
"""

import logging
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.db import refusals
from app.db.session import Database
from app.services import queues
from app.storage import Storage

OBJECT = "health/probe"
# A full disk still takes an empty file.
SIZE_BYTES = 2**16
# An operator hears of a full disk a few seconds later; an object store is paid for each write.
STORAGE_SECONDS = 5.0
PATIENCE_SECONDS = 5.0

log = logging.getLogger(__name__)


class Probe:
    """One server, of one process. Safe to call from any thread: one tries at a time, and all have what that one finds.

    Args:
        what: is tried, for people.
        attempt: gives `ok`, or what is wrong.
        fresh_seconds: for how long that is taken to be so.
        patience_seconds: after which a try that goes on is one that has failed.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        what: str,
        attempt: Callable[[], str],
        fresh_seconds: float = 0.0,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._what, self._attempt, self._fresh = what, attempt, fresh_seconds
        self._patience, self._clock = patience_seconds, clock
        self._lock = threading.Lock()
        self._last: _Try | None = None

    def look(self) -> str:
        """`ok`, or what is wrong."""
        with self._lock:
            one = self._last
            if one is None or (one.ended.is_set() and self._clock() - one.ended_at >= self._fresh):
                one = self._last = _Try(time.monotonic())
                threading.Thread(target=self._run, args=(one,), daemon=True, name=f"probe {self._what}").start()
        if not one.ended.wait(max(0.0, one.began + self._patience - time.monotonic())):
            return f"expected {self._what} to answer within {self._patience:g} s; found that it says nothing"
        return one.found

    def _run(self, one: "_Try") -> None:
        try:
            one.found = self._attempt()
        except Exception as error:
            one.found = f"expected {self._what} to answer; found {_told(error)}"
        one.ended_at = self._clock()
        one.ended.set()


class _Try:
    def __init__(self, began: float) -> None:
        self.began, self.ended_at, self.found = began, 0.0, ""
        self.ended = threading.Event()


@dataclass(frozen=True, slots=True)
class Probes:
    """Those of a process."""

    database: Probe
    workers: Probe
    storage: Probe


def probes(database: Database, storage: Storage, scratch: Path) -> Probes:
    """Of the servers that a process has opened; `scratch` is the folder of the file that storage is tried with."""
    return Probes(
        Probe("the database", partial(_database, database)),
        Probe("the database", partial(_workers, database)),
        Probe("storage", partial(try_storage, storage, scratch), STORAGE_SECONDS),
    )


def try_storage(storage: Storage, scratch: Path) -> str:
    """`ok` when it takes a file and lets it go, or what is wrong."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=scratch) as probe:
            probe.write(bytes(SIZE_BYTES))
            probe.flush()
            storage.put(OBJECT, Path(probe.name))
        storage.delete(OBJECT)
    except Exception as error:
        return f"expected storage that takes a file; found {_told(error)}"
    return "ok"


def _told(error: Exception) -> str:
    """What anybody may hear, key or not: where things lie, and by whose leave, stands in the log."""
    log.warning("%s: %s", type(error).__name__, error)
    said = error.strerror if isinstance(error, OSError) and error.errno else None
    return f"{type(error).__name__}: {said}" if said else f"{type(error).__name__}; the service's log says more"


def _database(database: Database) -> str:
    try:
        with database.read() as session:
            session.execute(text("SELECT 1 FROM project LIMIT 1"))
    except SQLAlchemyError as error:
        if not refusals.is_unmigrated(error):
            raise
        return f"expected a migrated database; found {type(error).__name__}; run `graft migrate`"
    return "ok"


def _workers(database: Database) -> str:
    with database.read() as session:
        return "ok" if queues.live_workers(session) else "expected a live worker; found none; run `graft worker`"
