"""What was observed, in storage: one object for each state of a slot, and one for a day that is long over.

Objects never change: a newer state has a name of its own, and the older one is removed behind it. So a process may be
killed anywhere, and any number of them may store, read and join at once; which objects count is told by their names
(`slots.chosen`). Nobody stores anything for a day that is joined: see `LATE_SECONDS`.
"""

import logging
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

from app import failpoints
from app.artifact import tensors
from app.artifact.spec import BundleError
from app.errors import NotFound, Unavailable
from app.inbox import open_inbox
from app.serving import moments as sums
from app.serving.moments import Moments
from app.serving.slots import DAY, EVERYBODY, HOUR, LATE_SECONDS, Key, Span, chosen
from app.storage import Storage, Stored

ROOT = "observed"
SUFFIX = ".safetensors"
# The alignment of a call without a domain.
PLAIN = "plain"
_FOLDER = re.compile(rf"{ROOT}/[^/]+/ver_[^/]+/[^/]+/\d{{4}}-\d\d-\d\d")
_NAME = re.compile(r"([0-9a-f]{32})-(10|60)-(\d+)-(\d{12})")
# Others replace what was listed, about once a minute each.
READS = 5
# Who has listed the parts of a day when it was joined has read them by then.
READ_SECONDS = 600.0

log = logging.getLogger(__name__)


class Parts:
    """The stored states of all slots. Safe to call from any thread.

    Args:
        storage: where they are.
        scratch: folder for a file that is being made.
    """

    def __init__(self, storage: Storage, scratch: Path) -> None:
        self._storage, self._inbox, self._scratch = storage, open_inbox(storage), scratch

    def put(self, key: Key, span: Span, moments: Moments) -> None:
        """Stores a state."""
        self._put(_name(key, span), moments)
        failpoints.reach("sums_stored")

    def remove(self, key: Key, span: Span) -> None:
        """Removes a state, behind a newer one."""
        self._storage.remove(Stored(_name(key, span), 0, 0.0))

    def read(self, key: Key, oldest: float, fresh: Mapping[Span, Moments]) -> dict[Span, Moments]:
        """All that counts of what is stored and of what is known beside it, in order.

        Args:
            key: of the version.
            oldest: slots that began after it are wanted.
            fresh: states that processes of this service hold.

        Raises:
            Unavailable: storage is away, or the parts are replaced faster than they are read.
        """
        known: dict[Span, Moments | None] = dict(fresh)
        for _ in range(READS):
            places = {span: name for name in self._storage.list(_prefix(key)) if (span := span_of(name))}
            wanted = chosen({*known, *places}, oldest)
            try:
                for span in wanted:
                    if span not in known:
                        known[span] = self._load(places[span], cached=span.seconds >= HOUR)
            except NotFound:
                continue
            return {span: moments for span in wanted if (moments := known[span]) is not None}
        raise Unavailable(f"expected stored sums that stay for a moment; found them replaced {READS} times; try again")

    def tidy(self, is_published: Callable[[str], bool], keep_seconds: float, now: float) -> None:
        """Removes days that are over and what is of no version, and joins the parts of the other days.

        Args:
            is_published: whether there is a version of that id.
            keep_seconds: how long a day is kept.
            now: seconds since 1970.
        """
        for folder, names in groupby(self._storage.list(ROOT), lambda name: name.rpartition("/")[0]):
            day = day_of(folder)
            if day is None:
                continue
            if day + DAY + keep_seconds <= now or not is_published(folder.split("/")[2]):
                self._storage.delete(folder)
                failpoints.reach("sums_expired")
            else:
                self._join(folder, list(names), is_over=day + DAY + 2 * LATE_SECONDS <= now, now=now)

    def _join(self, folder: str, names: Sequence[str], is_over: bool, now: float) -> None:
        """Puts the parts of a day together when it is long over, and removes them by a later call.

        Whoever listed them before has read them by then. Two that join at once store the same sums.
        """
        parts = {span: name for name in names if (span := span_of(name)) and span.series != EVERYBODY}
        whole = f"{folder}/{EVERYBODY}{SUFFIX}"
        if whole in names:
            stored = self._storage.stat(whole) if parts else None
            if stored is not None and stored.stored_at + READ_SECONDS < now:
                for name in parts.values():
                    self._storage.remove(Stored(name, 0, 0.0))
        elif is_over:
            try:
                read = [self._load(parts[span], cached=False) for span in chosen(parts, oldest=0)]
            except NotFound:
                # Somebody else has joined them, or the version was deleted.
                return
            found = sums.total(moments for moments in read if moments is not None)
            if found is not None:
                self._put(whole, found)
                failpoints.reach("sums_joined")

    def _put(self, name: str, moments: Moments) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="sums-") as place:
            path = Path(place) / "part"
            path.write_bytes(tensors.dump(sums.pack(moments)))
            self._storage.put(name, path)

    def _load(self, name: str, *, cached: bool) -> Moments | None:
        """The sums of an object; None where it is damaged, which no other one has to suffer from.

        Args:
            name: of the object.
            cached: whether a local copy is kept of what lies in an object store; not of what lives for a minute.

        Raises:
            NotFound: it was replaced.
        """
        try:
            data = self._storage.fetch(name).read_bytes() if cached else b"".join(self._inbox.read(name))
            return sums.unpack(tensors.loads(data, name))
        except FileNotFoundError as error:
            raise NotFound(f"expected an object under {name!r}; found that it has just gone") from error
        except (BundleError, KeyError, ValueError) as error:
            log.error("sums are left out: %r", error)
            return None


def prefix(project: str, version_id: str) -> str:
    """Where all of a version lies."""
    return f"{ROOT}/{project}/{version_id}"


def span_of(name: str) -> Span | None:
    """What an object's name says; None for another one."""
    folder, _, last = name.removesuffix(SUFFIX).rpartition("/")
    day = day_of(folder)
    if last == EVERYBODY and day is not None:
        return Span(day, DAY, EVERYBODY, 0)
    parts = _NAME.fullmatch(last)
    return None if parts is None else Span(int(parts[3]), 60 * int(parts[2]), parts[1], int(parts[4]))


def day_of(folder: str) -> int | None:
    """When the day of a folder begins, in seconds since 1970; None for another folder."""
    if not _FOLDER.fullmatch(folder):
        return None
    try:
        day = datetime.fromisoformat(f"{folder.rpartition('/')[2]}T00:00+00:00")
    except ValueError:
        # Of somebody else: no calendar has such a day.
        return None
    return int(day.timestamp())


def _name(key: Key, span: Span) -> str:
    """Names sort as states follow one another: a listing that misses one that has just gone shows what replaced it."""
    day = datetime.fromtimestamp(span.start, UTC).date()
    return f"{_prefix(key)}/{day}/{span.series}-{span.seconds // 60:02d}-{span.start}-{span.number:012d}{SUFFIX}"


def _prefix(key: Key) -> str:
    return f"{prefix(key.project, key.version_id)}/{key.alignment or PLAIN}"
