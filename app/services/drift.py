"""Drift of a version in service: what is observed, held against the reference of its bundle."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.artifact import bundle
from app.artifact.precisions import FLOAT
from app.artifact.reference import Reference
from app.artifact.spec import Spec
from app.db.many import among
from app.db.models import ModelVersion
from app.services.predictions import Found
from app.serving import drift, log_records, stored
from app.serving.call import Images, Result
from app.serving.drift import Drift
from app.serving.log_records import Asked
from app.serving.logbook import Logbook
from app.serving.moments import Moments, total
from app.serving.observer import Observer
from app.serving.parts import Parts
from app.serving.saver import Saver
from app.serving.slots import DAY, WINDOW_SECONDS, Key, Window, chosen
from app.storage import Storage

NUM_KEPT = 200
MAX_REQUEST_ID = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A version in a window of time.

    Args:
        num_images: answered.
        num_sampled: of them, looked at.
        num_reference: items behind the reference; None without one.
        drift: what is to be said.
        since: when the oldest slot with an image in it began.
        is_whole: whether what has been stored could be read.
    """

    num_images: int
    num_sampled: int
    num_reference: int | None
    drift: Drift
    since: datetime | None = None
    is_whole: bool = True


class Call(NamedTuple):
    """A call that the engine answers, and how it was asked.

    Args:
        found: who answers.
        images: as they came.
        alias: None for the default, or a version.
        domain: likewise.
        request_id: that of the answer, or what an inference request calls itself, however long that is.
        first: place that the first of the images has in its request.
    """

    found: Found
    images: Images
    alias: str | None
    domain: str | None
    request_id: str | None
    first: int = 0


@dataclass(slots=True)
class Observation:
    """What has been observed, and the references that it is held against.

    Args:
        observer: of the answers.
        parts: what was stored of them, by whatever process.
        saver: that stores them.
        logbook: of what is written down.
        storage: where bundles are.
        keep_days: for which it is kept.
    """

    observer: Observer
    parts: Parts
    saver: Saver
    logbook: Logbook
    storage: Storage
    keep_days: int
    # The reference, or why there is none; versions never change, so nothing goes stale.
    _known: OrderedDict[str, Reference | str] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, call: Call, future: Future[Result]) -> Future[Result]:
        """As `Observer.watch`, for a call that was found; it is written down where its model is set to."""
        found = call.found
        if found.log is not None:
            asked = Asked(
                images=log_records.files(call.images),
                version=found.version,
                labels=found.model.spec.labels,
                alias=call.alias,
                domain=call.domain,
                alignment=found.alignment,
                request_id=call.request_id and call.request_id[:MAX_REQUEST_ID],
                precision=found.model.precision,
                first=call.first,
            )
            self.logbook.watch(found.log, asked, future)
        if found.model.precision != FLOAT:
            # Rounding moves features as a drift would, and the reference is of the other graph.
            return future
        return self.observer.watch(Key(found.project, found.version_id, found.alignment), future)

    def close(self) -> None:
        """Ends the threads; what waits to be stored or written down is."""
        self.observer.close()
        self.saver.close()
        self.logbook.close()

    def of(self, row: ModelVersion, alignment: str | None, window: Window) -> Seen:
        """A version, with or without an alignment before its head: either is held against the same reference.

        All that was asked of it, of whatever service. Where storage cannot be read it is what this one holds.
        """
        key, is_whole = Key(row.project_id, row.id, alignment), True
        oldest = time.time() - min(WINDOW_SECONDS[window], self.keep_days * DAY)
        states = self.observer.states(key)
        try:
            states = self.parts.read(key, oldest, states)
        except Exception:
            # Storage has errors of its own kinds; the answer says that something is missing.
            log.exception("stored sums of %s cannot be read", row.id)
            is_whole = False
        spans = chosen(states, oldest)
        since = datetime.fromtimestamp(spans[0].start, UTC) if spans else None
        return replace(self.judge(row, total(map(states.__getitem__, spans))), since=since, is_whole=is_whole)

    def judge(self, row: ModelVersion, moments: Moments | None) -> Seen:
        """What was seen of a version, held against its reference."""
        spec = Spec.model_validate(row.spec)
        known = self._reference(row, spec)
        if moments is None:
            moments = Moments.empty(spec.backbone.feature_dim, len(spec.labels))
        number = moments.num_answered
        if isinstance(known, str):
            return Seen(number, moments.num_images, None, Drift("no_reference", (known,), {}))
        return Seen(number, moments.num_images, known.num_items, drift.compare(known, moments, spec.labels))

    def _reference(self, row: ModelVersion, spec: Spec) -> Reference | str:
        with self._lock:
            if row.id in self._known:
                self._known.move_to_end(row.id)
                return self._known[row.id]
        found = stored.reference(self.storage, row.prefix, spec)
        if isinstance(found, str) and bundle.REFERENCE in spec.files:
            # It may be restored.
            return found
        with self._lock:
            self._known[row.id] = found
            while len(self._known) > NUM_KEPT:
                self._known.popitem(last=False)
        return found


def families(session: Session, observation: Observation, names: Mapping[str, tuple[str, str]]) -> Iterator[Metric]:
    """Gauges for Prometheus, of this service's last hour; of what was observed, and of versions that have a name there.

    Nothing observed is read from storage: a scrape must not wait for it, and Prometheus asks the other services itself.
    A reference is, once; where that fails the version is left out.
    """
    labels = ["model", "version", "alignment"]
    images = GaugeMetricFamily("graft_drift_images", "Images looked at in the last hour", labels=labels)
    detected = GaugeMetricFamily("graft_drift_detected", "1 where the last hour differs, else 0", labels=labels)
    distances = GaugeMetricFamily(
        "graft_drift_distance", "Distance to the reference beyond chance", labels=[*labels, "of"]
    )
    observed = observation.observer.recent()
    named = {one.version_id for one in observed} & names.keys()
    rows = {row.id: row for row in among(session, select(ModelVersion), ModelVersion.id, named)}
    for one, moments in observed.items():
        if one.version_id not in rows:
            continue
        row = rows[one.version_id]
        try:
            seen = observation.judge(row, moments)
        except Exception:
            # Storage has errors of its own kinds; no other figure is missing because of them.
            log.exception("the reference of %s cannot be read", row.id)
            continue
        values = [*names[row.id], one.alignment or ""]
        images.add_metric(values, seen.num_sampled)
        if seen.drift.verdict in ("stable", "drift"):
            detected.add_metric(values, float(seen.drift.verdict == "drift"))
        for of, distance in seen.drift.distances.items():
            distances.add_metric([*values, of], distance.excess)
    yield from (images, detected, distances)
