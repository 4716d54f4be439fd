"""One call of a version: find it, its bundle and its graphs, and give its images to the engine."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session

from app.artifact import alignment as artifact
from app.artifact import spec as specs
from app.artifact.precisions import FLOAT, INT8, WORDS, Precision, Second
from app.db.alignments import Alignment
from app.db.models import ModelVersion
from app.db.session import Database
from app.errors import Conflict, NotFound
from app.services import aliases, domains, logs, models
from app.serving import stored
from app.serving.log_records import Policy
from app.serving.model import Served
from app.serving.providers import CPU, Device
from app.storage import Storage

NUM_OPENED = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model a call means; the version or alias named, else `production`, else the newest."""

    model: str
    version: int | None = None
    alias: str | None = None
    domain: str | None = None
    precision: Precision = FLOAT


@dataclass(frozen=True, slots=True)
class Found:
    """What answers a call.

    Args:
        model: the version's graphs.
        project: the version's.
        version: its number.
        version_id: under which it is counted.
        alignment: id of what the features pass through; None without a domain.
        canary: what answers a share of the calls instead.
        share: of the calls, from 0 to 1.
        shadow: what is asked too, and compared.
        log: what is written down of the call; None for nothing.
    """

    model: Served
    project: str
    version: int
    version_id: str
    alignment: str | None
    canary: "Found | None" = None
    share: float = 0.0
    shadow: "Found | None" = None
    log: Policy | None = None


@dataclass(slots=True)
class Opened:
    """Versions whose bundles have been looked up; versions and alignments never change, so nothing goes stale.

    Args:
        storage: where bundles are.
        device: that backbones run on.
    """

    storage: Storage
    device: Device = CPU
    _known: OrderedDict[str, Served] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def version(self, row: ModelVersion) -> Served:
        """A version's graphs; nothing is loaded yet."""
        return self._remembered(
            row.id, lambda: stored.version(self.storage, row.prefix, specs.of_row(row.spec), self.device)
        )

    def known(self, version_id: str) -> Served | None:
        """A version that has been looked up; None for another one."""
        with self._lock:
            return self._known.get(version_id)

    def second(self, row: ModelVersion, precision: Second) -> Served | None:
        """The version on its graph of that precision; None where it has none."""
        served = self.version(row)
        if precision not in served.spec.second:
            return None
        return self._remembered(
            f"{row.id}/{precision}", lambda: stored.second(self.storage, row.prefix, served, precision)
        )

    def through(self, row: ModelVersion, alignment: Alignment) -> Served:
        """The version with an alignment between backbone and head."""
        sha256 = alignment.files[artifact.GRAPH]["sha256"]
        place = stored.AlignmentPlace(str(alignment.prefix), sha256, alignment.moving_backbone)
        return self._remembered(
            f"{row.id}/{alignment.id}", lambda: stored.through(self.storage, self.version(row), place)
        )

    def ids(self) -> set[str]:
        """Of the versions that have been looked up."""
        with self._lock:
            return {key.partition("/")[0] for key in self._known}

    def forget(self, version_ids: Collection[str]) -> set[str]:
        """Drops versions, with and without alignments; the digests of graphs that none of the others needs."""
        with self._lock:
            gone = [key for key in self._known if key.partition("/")[0] in version_ids]
            unused = {graph.sha256 for key in gone for graph in self._known.pop(key).graphs}
            return unused - {graph.sha256 for served in self._known.values() for graph in served.graphs}

    def _remembered(self, key: str, make: Callable[[], Served]) -> Served:
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
                return found
        made = make()
        with self._lock:
            self._known[key] = made
            while len(self._known) > NUM_OPENED:
                self._known.popitem(last=False)
        return made


class Lookup:
    """What calls mean, remembered for as long as nobody commits anything: never older than the call.

    Args:
        database: that the registry is in.
        opened: versions that have been looked up.
    """

    def __init__(self, database: Database, opened: Opened) -> None:
        self._database = database
        self._opened = opened
        self._lock = threading.Lock()
        self._stamp = ""
        self._known: dict[tuple[str, Wanted], Found] = {}
        self._backbones: dict[tuple[str, str], frozenset[str]] = {}

    def backbones(self, project: str, name: str) -> Collection[str]:
        """Digests of all that have lately answered for a project's model of that name; none where that is unknown.

        Never waits, and may be older than the call: it is for a guess about the load, and not for an answer.
        """
        return self._backbones.get((project, name), ())

    def known(self, project: str, wanted: Wanted) -> Found | None:
        """The graphs that answer a call, if they are remembered; microseconds where the database is local."""
        return self._under(self._database.stamp(), project, wanted)

    def opened_ids(self) -> set[str]:
        """As `Opened.ids`."""
        return self._opened.ids()

    def forget(self, version_ids: Collection[str]) -> set[str]:
        """As `Opened.forget`: what is asked for again is looked up again."""
        with self._lock:
            self._known, self._backbones = {}, {}
        return self._opened.forget(version_ids)

    def find(self, project: str, wanted: Wanted) -> Found:
        """The graphs that answer a call.

        Raises:
            NotFound: no such model, version, alias or domain.
            Conflict: both a version and an alias were named, or the domain's alignment does not fit.
        """
        # Taken before the look, so that what changes meanwhile makes it old.
        stamp = self._database.stamp()
        known = self._under(stamp, project, wanted)
        if known is not None:
            return known
        with self._database.read() as session:
            found = _find(session, self._opened, project, wanted)
        with self._lock:
            if stamp != self._stamp or len(self._known) >= NUM_OPENED:
                self._stamp, self._known, self._backbones = stamp, {}, {}
            self._known[project, wanted] = found
            answering = {one.model.backbone.file for one in (found, found.canary) if one is not None}
            key = (project, wanted.model)
            self._backbones[key] = self._backbones.get(key, frozenset()) | answering
        return found

    def _under(self, stamp: str, project: str, wanted: Wanted) -> Found | None:
        with self._lock:
            return self._known.get((project, wanted)) if stamp == self._stamp else None


def _find(session: Session, opened: Opened, project: str, wanted: Wanted) -> Found:
    row = models.resolve(session, project, wanted.model, wanted.version, wanted.alias)
    log = logs.policy(session, row.model_id)
    if wanted.precision != FLOAT:
        return _second(opened, row, wanted, wanted.precision, log)
    if wanted.domain is not None:
        # What fits the version need not fit those that are tried beside it: a domain is answered by the version alone.
        alignment = domains.resolve(session, project, wanted.model, row, wanted.domain)
        return Found(opened.through(row, alignment), project, row.version, row.id, alignment.id, log=log)
    plain = _plain(opened, row, log)
    if wanted.version is not None:
        return plain
    beside = aliases.beside(session, row, wanted.alias)
    canary, shadow = (_plain(opened, other, log) if other else None for other in (beside.canary, beside.shadow))
    return replace(plain, canary=canary, share=beside.share, shadow=shadow)


def _second(opened: Opened, row: ModelVersion, wanted: Wanted, precision: Second, log: Policy | None) -> Found:
    """The version alone, on its graph of that precision: what is tried beside it need not have one.

    Raises:
        NotFound: code no_int8 or no_fp16.
        Conflict: code int8_with_domain or fp16_with_domain.
    """
    if wanted.domain is not None:
        raise Conflict(
            f"expected {precision} or a domain; found both; alignments are fitted to features in {FLOAT}; leave one "
            "out",
            code="int8_with_domain" if precision == INT8 else "fp16_with_domain",
        )
    model = opened.second(row, precision)
    if model is None:
        raise NotFound(
            f"expected a version with a graph in {WORDS[precision]}; found none in version {row.version} of "
            f"{wanted.model!r}; its report says why under {precision}, if its job asked for one "
            f'("{precision}": true); leave precision out',
            code="no_int8" if precision == INT8 else "no_fp16",
        )
    return Found(model, row.project_id, row.version, row.id, None, log=log)


def _plain(opened: Opened, row: ModelVersion, log: Policy | None) -> Found:
    return Found(opened.version(row), row.project_id, row.version, row.id, None, log=log)
