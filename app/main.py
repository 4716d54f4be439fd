"""The application: lifespan, the routers of the roles asked for, handlers; nothing else."""

import gc

# The imports make objects by the hundred thousand, and all of them stay: looking for garbage among them would cost an
# eighth of the start, and a pause in each later look at everything.
gc.disable()

import math
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from anyio import CapacityLimiter
from fastapi import APIRouter, Depends, FastAPI

from app import VERSION
from app.api import (
    advice,
    alignments,
    backbones,
    bundles,
    callers,
    classes,
    datasets,
    description,
    direct,
    domains,
    drift,
    embeddings,
    evaluations,
    health,
    job_events,
    job_files,
    jobs,
    keys,
    large,
    lineage,
    logs,
    models,
    new_datasets,
    own_backbones,
    predictions,
    problems,
    queries,
    rankings,
    recipes,
    schema,
    tus,
    uploads,
    v2,
    webhooks,
)
from app.api.auditing import Auditing
from app.api.crowded import Crowded
from app.api.deps import State
from app.api.followers import Followers
from app.api.guard import Guard, allow_origins
from app.api.head import Head
from app.api.held import Held
from app.api.keyring import Keyring
from app.api.remote import Remote
from app.api.requests import Requests
from app.api.room import Room
from app.api.safety import Safety
from app.api.slow_bodies import SlowBodies
from app.api.traced import Traced
from app.api.under_way import UnderWay
from app.api.unforeseen import Unforeseen
from app.db.session import Bounds, Database
from app.inbox import open_inbox
from app.queue import Bell, make_celery
from app.services import logs as logs_of
from app.services import models as models_of
from app.services.drift import Observation
from app.services.predictions import Lookup, Opened
from app.services.probes import probes
from app.services.warm_up import WarmUp
from app.serving import providers
from app.serving.board import Board
from app.serving.engine import Engine
from app.serving.logbook import Logbook
from app.serving.observer import PAGE_SECONDS, Observer
from app.serving.parts import Parts
from app.serving.room import Limits
from app.serving.saver import Saver
from app.serving.sessions import NUM_LOADERS
from app.serving.statistics import Statistics
from app.serving.tally import Present
from app.settings import Settings
from app.storage import failures, open_storage
from app.tidying import Tidying
from app.tracing import open_tracer

gc.freeze()
gc.enable()
# Requests leave no cycles behind (decision 0046). Looking for some after every 700 new objects took 4 % of the event
# loop's time.
gc.set_threshold(5_000, 20, 20)
# Seconds that a thread keeps the interpreter from others. A request goes from thread to thread several times, and
# waits as long each time while another one computes: with Python's 5 ms for 30 ms in all, with this for 10.
sys.setswitchinterval(0.0005)

ROLES: dict[str, tuple[APIRouter, ...]] = {
    "api": (
        new_datasets.router,
        datasets.router,
        uploads.router,
        own_backbones.router,  # before the catalogue, whose `/{provider}/{name}` would take `/own/{name}`
        backbones.router,
        recipes.router,
        jobs.router,
        job_events.router,
        job_files.router,
        models.router,
        bundles.router,
        alignments.router,
        advice.router,
        domains.router,
        rankings.router,
        evaluations.router,
        evaluations.of_jobs,
        lineage.router,
        webhooks.router,
        keys.router,
    ),
    "serve": (predictions.router, embeddings.router, classes.router, drift.router, logs.router),
}
# Other people's interfaces, at the paths that their clients know.
PROTOCOLS: dict[str, tuple[APIRouter, ...]] = {"serve": (v2.router,)}


def create_app(settings: Settings, roles: Sequence[str] = ("api", "serve"), board: Path | None = None) -> FastAPI:
    """One application for both roles: a team runs them apart, a laptop together.

    Args:
        settings: of the process.
        roles: whose routes it answers.
        board: folder that the processes of the service share; none where this is the only one.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.graft = state = make_state(settings, board, roles)
        state.tidying.start()
        if "serve" in roles:
            state.warm_up.start()
        async with grpc(settings, state, roles):
            yield
        await state.under_way.wait()
        await state.keyring.close()
        state.warm_up.close()
        state.tidying.close()
        await state.remote.close()
        state.engine.close()
        state.observation.close()
        state.statistics.close()
        state.database.dispose()
        if state.tracer is not None:
            state.tracer.close()

    app = FastAPI(
        title="Graft",
        version=VERSION,
        summary="Moves knowledge from pretrained models into your own task.",
        lifespan=lifespan,
        # Traces are our own (`Traced`): the framework would look for somebody else's at each request, for 12 us.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        # They would load scripts from elsewhere: `description` has a page of our own.
        docs_url=None,
        redoc_url=None,
    )
    # The last one is the first that a request meets.
    app.add_middleware(Crowded, most=settings.max_json_values)
    app.add_middleware(large.Large, limit=large.of_json(settings))
    if "serve" in roles:
        app.add_middleware(direct.Known, prefix="/api/v1", routers=ROLES["serve"], handlers=app.exception_handlers)
    if settings.require_keys:
        app.add_middleware(Auditing)
    app.add_middleware(callers.Callers, open_paths=callers.open_paths(*["/metrics"] * settings.open_metrics))
    app.add_middleware(Head)
    hosts = frozenset((settings.host.lower(), *settings.allowed_hosts))
    app.add_middleware(Guard, hosts=hosts, origins=frozenset(settings.cors_origins))
    app.add_middleware(SlowBodies, seconds=settings.body_idle_seconds)
    app.add_middleware(tus.Tus)
    if settings.otlp_endpoint:
        app.add_middleware(Traced)
    if "serve" in roles:
        app.add_middleware(Room)
    app.add_middleware(Unforeseen)
    app.add_middleware(Safety)
    if settings.cors_origins:
        allow_origins(app, settings.cors_origins)
    app.add_middleware(Requests)
    problems.install(app, failures(settings.resolved_storage_url))
    allowed = [Depends(callers.check_scope)]
    native = [*allowed, Depends(queries.check)]
    # Of each route, and not of the whole: whoever refuses before a route is reached has a word of its own.
    most = settings.max_json_bytes
    # Routes are tried in their order, all of them before one that stands last: predictions come first.
    for role in sorted(roles, reverse=True):
        for router in ROLES[role]:
            app.include_router(router, prefix="/api/v1", dependencies=native, max_body_size=most)
        for router in PROTOCOLS.get(role, ()):
            app.include_router(router, dependencies=allowed, max_body_size=most)
    app.include_router(health.router, dependencies=allowed, max_body_size=most)
    app.include_router(description.router, max_body_size=most)
    schema.install(app)
    return app


@asynccontextmanager
async def grpc(settings: Settings, state: State, roles: Sequence[str]) -> AsyncIterator[None]:
    """Listens for gRPC too, where predictions are served and a port is set."""
    if not settings.grpc_port or "serve" not in roles:
        yield
        return
    from app.api.oip import grpc_server

    async with grpc_server.serving(state):
        yield


def make_state(settings: Settings, board: Path | None = None, roles: Sequence[str] = tuple(ROLES)) -> State:
    """Opens what the process needs; nothing is opened at import."""
    settings.home_path.mkdir(parents=True, exist_ok=True)
    storage = open_storage(settings.resolved_storage_url, settings.home_path / "cache")
    limits = Limits(settings.max_queued_images, settings.max_queue_seconds, settings.max_predict_pixels)
    database = Database(settings.resolved_database_url, _bounds(settings))
    opened = Opened(storage, providers.chosen(settings.serve_device))
    engine = Engine(settings.pool_bytes // settings.serve_processes, settings.num_serve_threads, limits)
    shared = Board(board) if board else None
    statistics = Statistics(lambda: _present(engine), shared, lambda: engine.pool.stats().num_loads)
    logbook = Logbook(storage, settings.scratch, logs_of.Ledger(database, storage), statistics.logged)
    lookup = Lookup(database, opened)
    observer = Observer(settings.observed_share, Board(board / "observed", PAGE_SECONDS) if board else None)
    parts = Parts(storage, settings.scratch)
    saver = Saver(observer, parts, partial(models_of.published, database))
    return State(
        settings=settings,
        takes_jobs="api" in roles,
        database=database,
        storage=storage,
        probes=probes(database, storage, settings.scratch),
        inbox=open_inbox(storage, settings.objects_url or None),
        bell=Bell(make_celery(settings)),
        engine=engine,
        loaders=CapacityLimiter(NUM_LOADERS),
        opened=opened,
        lookup=lookup,
        statistics=statistics,
        held=Held(
            settings.max_held_bytes // settings.serve_processes,
            settings.max_predict_bytes,
            has_projects=settings.require_keys,
        ),
        remote=Remote(settings.image_hosts, settings.max_predict_bytes),
        observation=Observation(observer, parts, saver, logbook, storage, settings.observed_keep_days),
        keyring=Keyring(database, settings.require_keys),
        warm_up=WarmUp(database, lookup, engine, statistics),
        tidying=Tidying(settings),
        followers=Followers(settings.max_event_streams),
        under_way=UnderWay(),
        tracer=open_tracer(settings, "graft-api"),
    )


def _bounds(settings: Settings) -> Bounds:
    """Somebody waits for each answer of the database."""
    return Bounds(
        settings.database_statement_seconds or math.inf,
        settings.database_lock_seconds or math.inf,
        settings.database_silence_seconds or math.inf,
    )


def _present(engine: Engine) -> Present:
    pool = engine.pool.stats()
    return Present(engine.num_images, pool.size_bytes, pool.num_entries)
