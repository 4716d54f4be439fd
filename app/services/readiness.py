"""Whether everything that a job needs is there, and figures for Prometheus."""

from math import nan

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from sqlalchemy.orm import Session

from app.db.base import now
from app.db.collections import Collection
from app.db.session import Database
from app.queue import Bell
from app.services import collections, forecasts, limits, queues, served, stored_bytes
from app.services.drift import Observation
from app.services.probes import Probes
from app.services.warm_up import WarmUp
from app.serving.statistics import Statistics
from app.serving.tally import Tally

# Metrics are made for each answer: the moment at which they were says nothing of what they count.
disable_created_metrics()  # type: ignore[no-untyped-call]

LOADING = "expected the versions that aliases mean to be loaded; found that some are not yet; ask again in a moment"


def check(probes: Probes, bell: Bell, warm_up: WarmUp) -> dict[str, str]:
    """Each part with `ok`, or what is wrong with it; models only while those that are served are being loaded."""
    found = {"database": probes.database.look()}
    found["broker"] = "ok" if bell.reachable() else "expected a broker; found none"
    found["storage"] = probes.storage.look()
    found["worker"] = probes.workers.look() if found["database"] == "ok" else "unknown without the database"
    if found["database"] == "ok" and warm_up.is_under_way:
        found["models"] = LOADING
    return found


def check_serving(probes: Probes, warm_up: WarmUp) -> dict[str, str]:
    """What a prediction needs, each part with `ok`, or what is wrong with it."""
    found = {"database": probes.database.look(), "storage": probes.storage.look()}
    return {**found, "models": LOADING} if found["database"] == "ok" and warm_up.is_under_way else found


def metrics(database: Database, statistics: Statistics, observation: Observation, project: str | None = None) -> str:
    """The present state, as Prometheus reads it; of one project, or of all.

    What is the service's as a whole (storage, memory, what waits) is told of all only: it would tell a project what
    others do.
    """
    registry = CollectorRegistry()
    waiting = Gauge("graft_jobs", "Unfinished jobs", ["queue", "state"], registry=registry)
    workers = Gauge("graft_workers", "Workers seen in the last minute", registry=registry)
    oldest = Gauge("graft_oldest_job_seconds", "For how long the oldest waiting job has waited", registry=registry)
    total = statistics.total()
    with database.read() as session:
        for (queue, state), number in queues.counts(session, project).items():
            waiting.labels(queue, state).set(number)
        workers.set(len(queues.live_workers(session)))
        oldest.set(queues.oldest_seconds(session, project))
        if project is None:
            _storage_seen(registry, collections.last(session))
            _memory(registry, total)
        _projects_seen(registry, session, project)
        _forecasts(registry, forecasts.errors(session, project))
        answered = served.metrics(session, total, observation, project)
    return generate_latest(registry).decode() + answered


def _memory(registry: CollectorRegistry, total: Tally) -> None:
    Gauge("graft_pool_bytes", "Memory of loaded models", registry=registry).set(total.present.pool_bytes)
    Gauge("graft_pool_graphs", "Loaded graphs", registry=registry).set(total.present.pool_graphs)
    Counter("graft_pool_loads", "Graphs that were read into memory", registry=registry).inc(total.loads)


def _storage_seen(registry: CollectorRegistry, last: Collection | None) -> None:
    """What the last collection has found, of all projects together; not a number as long as there was none."""
    gauges = {
        name: Gauge(f"graft_{name}", what, registry=registry)
        for name, what in (
            ("storage_bytes", "Bytes in storage, at the last collection"),
            ("storage_objects", "Objects in storage, at the last collection"),
            ("storage_removed_bytes", "Bytes that nothing referred to, removed by the last collection"),
            ("collection_age_seconds", "Time since the last collection that saw all of storage"),
        )
    }
    found = last.report if last is not None else None
    values = (
        found["seen"]["size_bytes"] if found else nan,
        found["seen"]["objects"] if found else nan,
        found["freed_bytes"] if found else nan,
        (now() - last.started_at).total_seconds() if last is not None else nan,
    )
    for gauge, value in zip(gauges.values(), values, strict=True):
        gauge.set(value)


def _projects_seen(registry: CollectorRegistry, session: Session, project: str | None) -> None:
    """What projects store, and may store; of features, logs and results as the last collection has found them."""
    stored = Gauge("graft_project_bytes", "Bytes that a project stores", ["project", "of"], registry=registry)
    most = Gauge("graft_project_bytes_limit", "Bytes that it may store", ["project"], registry=registry)
    what = "Requests a second that a project may send to each process that answers; this one counts its own"
    requests = Gauge("graft_project_requests_limit", what, ["project"], registry=registry)
    for name, sizes in stored_bytes.every(session, project).items():
        for of, size in sizes.items():
            stored.labels(name, of).set(size)
    for name, given in limits.every(session):
        if project not in (None, name):
            continue
        if given.max_bytes is not None:
            most.labels(name).set(given.max_bytes)
        if given.max_requests is not None:
            requests.labels(name).set(given.max_requests)


def _forecasts(registry: CollectorRegistry, found: forecasts.Errors) -> None:
    """How far forecasts were off; means are left out, not zero, as long as there is none."""
    Counter("graft_forecasts", "Transfers whose accuracy was foretold", registry=registry).inc(found.num_total)
    last = f"of the last {forecasts.WINDOW} finished transfers"
    for name, what, value in (
        ("graft_forecast_absolute_error", f"Mean absolute error of foretold accuracy, {last}", found.absolute),
        ("graft_forecast_bias", f"Mean of found minus foretold accuracy, {last}", found.bias),
        ("graft_forecast_inside", f"Share of found accuracies inside the 95 % interval, {last}", found.inside),
    ):
        if value is not None:
            Gauge(name, what, registry=registry).set(value)
