"""Looks at everything in storage, and removes what no row names: what killed processes and deletions have left behind.

Bytes come before the row that names them, so what has just come stays (`before`), whoever it belongs to. Decision 0032
says why a collection may run beside everything else. Memory holds one page of the listing at a time.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from app import failpoints
from app.db.base import now
from app.db.collections import Collection
from app.db.session import Database
from app.db.uploads import Upload
from app.errors import NotFound, OutOfSpace
from app.feature_files import KEYS, ROWS
from app.inbox import Inbox
from app.services import feature_chunks, references, shared, stored_bytes
from app.services.feature_chunks import LiveImages
from app.storage import Storage, Stored

PAGE = 1000
# Removed at most in one pass of a worker; the next one goes on.
MAX_REMOVED = 100_000

# What a damaged object raises where it is read, and a full disk where a chunk is written anew.
SPOILT = (ValueError, KeyError, OSError, OutOfSpace)

What = Literal["orphan", "unfinished", "rewritten"]
Told = Callable[[Stored, What], None]

log = logging.getLogger(__name__)


@dataclass
class Count:
    """Some objects."""

    objects: int = 0
    size_bytes: int = 0

    def add(self, stored: Stored) -> None:
        """One more."""
        self.objects += 1
        self.size_bytes += stored.size_bytes


@dataclass
class Report:
    """What a pass has seen.

    Args:
        seen: all of it.
        removed: what no row names; only counted where nothing is to be removed.
        young: what no row names, and came too lately to tell.
        rewritten: chunks of features of which some rows went, at their old size; `freed_bytes` is the difference.
        foreign: not Graft's; never removed.
        is_whole: whether the pass came to the end of storage.
        beside: bytes that stay and that no row tells the size of, by project and room of storage; once it is whole.
    """

    seen: Count = field(default_factory=Count)
    removed: Count = field(default_factory=Count)
    young: Count = field(default_factory=Count)
    rewritten: Count = field(default_factory=Count)
    foreign: Count = field(default_factory=Count)
    freed_bytes: int = 0
    is_whole: bool = False
    beside: stored_bytes.Bytes = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Collector:
    """One pass.

    Args:
        database: the rows.
        storage: the bytes.
        inbox: of the same storage.
        scratch: folder for what is written anew.
        before: what came later stays; a moment by the storage's clock.
        removes: whether anything is removed, or only told of.
        told: of each object that is, or would be.
        max_removed: objects, after which the pass ends.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        inbox: Inbox,
        scratch: Path,
        before: datetime,
        *,
        removes: bool,
        told: Told = lambda _stored, _what: None,
        max_removed: int = MAX_REMOVED,
    ) -> None:
        self._database, self._storage, self._inbox, self._scratch = database, storage, inbox, scratch
        self._before, self._removes, self._told, self._max_removed = before.timestamp(), removes, told, max_removed
        self._live: dict[str, LiveImages | None] = {}
        # Of the last chunk of features: its name, and whether its rows go.
        self._chunk: tuple[str, What | None] = ("", None)
        self._kept: stored_bytes.Bytes = {}
        self.report = Report()

    def run(self, stopping: threading.Event | None = None, renew: Callable[[], None] = lambda: None) -> Report:
        """Goes through storage once, or until it is told to stop.

        Args:
            stopping: ends the pass at the next page.
            renew: called for every page.
        """
        listing = self._storage.walk()
        while page := list(islice(listing, PAGE)):
            renew()
            self._look(page)
            if self.report.removed.objects >= self._max_removed or (stopping is not None and stopping.is_set()):
                return self.report
        with self._database.read() as session:
            self.report.beside = stored_bytes.beside(session, self._kept)
        self.report.is_whole = True
        return self.report

    def _look(self, page: list[Stored]) -> None:
        places = {stored.key: references.place(stored.key) for stored in page}
        with self._database.read() as session:
            named = references.named(session, {one for one in places.values() if one is not None})
        waiting: set[references.Place] = set()
        for stored in page:
            place = places[stored.key]
            self.report.seen.add(stored)
            self._keep(stored, stored.size_bytes)
            if stored.unfinished and references.is_ours(stored.key):
                self._unfinished(stored)
            elif place is None:
                self.report.foreign.add(stored)
            elif place in named:
                continue
            elif place[0] == references.FEATURES:
                self._features(stored)
            elif stored.stored_at > self._before:
                self.report.young.add(stored)
            elif references.ROOMS[place[0]].is_shared:
                waiting.add(place)
            else:
                self._remove(stored, "orphan")
        if waiting:
            self._shared(waiting)

    def _unfinished(self, stored: Stored) -> None:
        """What nobody reads: of a killed process, or of one that still writes, or an upload in parts that has a row."""
        if stored.stored_at > self._before:
            self.report.young.add(stored)
            return
        with self._database.read() as session:
            row = session.get(Upload, stored.key.rpartition("/")[2])
        if row is None or row.remote_id != stored.unfinished:
            self._remove(stored, "unfinished")

    def _shared(self, waiting: set[references.Place]) -> None:
        """Under the lock that keeps everybody from naming one; each as a whole, with a last look at its age."""
        for place in sorted(waiting):
            # One transaction each: nobody waits for more than a few files.
            with self._database.write() as session:
                shared.take(session)
                if references.named(session, {place}):
                    continue
                looked = [self._storage.stat(key) for key in self._storage.list("/".join(place))]
                found = [stored for stored in looked if stored is not None]
                young = any(stored.stored_at > self._before for stored in found)
                for stored in found:
                    if young:
                        self.report.young.add(stored)
                    else:
                        self._remove(stored, "orphan")

    def _features(self, stored: Stored) -> None:
        """Digests of a chunk come before its rows in every listing, and decide about both."""
        stem, _, kind = stored.key.rpartition(".")
        if stored.stored_at > self._before:
            self.report.young.add(stored)
            if f".{kind}" == KEYS:
                self._chunk = (stem, None)
        elif f".{kind}" == KEYS:
            self._chunk = (stem, self._judge(stored, stem))
        elif f".{kind}" == ROWS and self._chunk[0] == stem:
            if self._chunk[1] == "rewritten":
                self.report.rewritten.add(stored)
                self.report.freed_bytes += stored.size_bytes
            if self._chunk[1] is not None:
                self._remove(stored, self._chunk[1])
        else:
            self._without_digests(stored, stem)

    def _without_digests(self, stored: Stored, stem: str) -> None:
        """Rows of a process that was killed before it stored the digests, with a last look at both.

        This pass, or whoever extracts, may have stored the same chunk anew since it was listed.
        """
        looked = self._storage.stat(stored.key)
        is_young = looked is not None and looked.stored_at > self._before
        if is_young or self._storage.stat(stem + KEYS) is not None:
            self.report.young.add(stored)
        else:
            self._remove(stored, "orphan")

    def _judge(self, stored: Stored, stem: str) -> What | None:
        """What becomes of a chunk, by the images that it is of; its digests go first."""
        live = self._images(stored.key.split("/")[1])
        if live is None:
            return None
        try:
            keys_N = feature_chunks.read_keys(self._inbox, stored.key)
            kept_N = live.are(keys_N)
            if kept_N.all() and len(kept_N):
                return None
            if not kept_N.any():
                self._remove(stored, "orphan")
                return "orphan"
            if self._removes:
                self.report.freed_bytes -= feature_chunks.rewrite(
                    self._storage, self._inbox, self._scratch, stem, keys_N, kept_N
                )
        except NotFound:
            log.info("%s went while it was looked at", stem)
            return None
        except SPOILT as error:
            # All else is looked at nevertheless, in this pass and in those to come.
            log.error("%s is left alone: %s: %s", stem, type(error).__name__, error)
            return None
        self.report.rewritten.add(stored)
        self.report.freed_bytes += stored.size_bytes
        self._remove(stored, "rewritten")
        return "rewritten"

    def _images(self, project: str) -> LiveImages | None:
        """The project's images; None where those of a dataset cannot be read, so that nobody knows."""
        if project not in self._live:
            # One project at a time: listings go from one to the next.
            self._live.clear()
            try:
                self._live[project] = LiveImages(self._database, self._storage, project)
            except (NotFound, *SPOILT) as error:
                log.error("features of project %s are left alone: %s: %s", project, type(error).__name__, error)
                self._live[project] = None
        return self._live[project]

    def _remove(self, stored: Stored, what: What) -> None:
        if what != "rewritten":
            self.report.removed.add(stored)
            self.report.freed_bytes += stored.size_bytes
        self._told(stored, what)
        if self._removes:
            self._storage.remove(stored)
            failpoints.reach("orphan_removed")
            self._keep(stored, -stored.size_bytes)

    def _keep(self, stored: Stored, size_bytes: int) -> None:
        """Counts an object with its project, where rows do not; or takes it off again."""
        room, _, rest = stored.key.partition("/")
        if room in stored_bytes.ROOMS and not stored.unfinished:
            rooms = self._kept.setdefault(rest.partition("/")[0], {})
            rooms[room] = rooms.get(room, 0) + size_bytes


def carry_out(
    database: Database, collector: Collector, collection_id: str, stopping: threading.Event | None = None
) -> Report:
    """Makes the pass, and notes how it ended; one that failed has no report."""
    report: Report | None = None
    try:
        report = collector.run(stopping, lambda: _renew(database, collection_id))
        return report
    finally:
        with database.write() as session:
            row = session.get_one(Collection, collection_id)
            row.finished_at = row.seen_at = now()
            row.report = None if report is None else report.document()
        failpoints.reach("collection_noted")


def _renew(database: Database, collection_id: str) -> None:
    with database.write() as session:
        session.get_one(Collection, collection_id).seen_at = now()
