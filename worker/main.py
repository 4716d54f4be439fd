"""Celery's entry: `celery -A worker.main worker --pool threads`. One process, a thread for each slot, no torch.

A thread only waits for its child process; the children compute.
"""

import os
import socket
import threading
from typing import Any
from uuid import uuid4

from celery import signals

from app import log_lines, process
from app.db.session import Bounds, Database
from app.queue import CPU, GPU, Bell, make_celery
from app.settings import Settings
from app.storage import open_storage
from app.tracing import open_tracer
from worker.supervision import clean, collect, runner_process, sweep, tasks, webhooks
from worker.supervision.worker_context import WorkerContext

settings = Settings()
# Celery warns of things before it asks who sets the log up.
log_lines.setup(settings.log_level, settings.log_format)
app = make_celery(settings)


GPU_NAME = process.gpu_name(settings.device)
DEVICE = f"cuda: {GPU_NAME}" if GPU_NAME else "cpu"
QUEUES = settings.worker_queues or ((CPU, GPU) if GPU_NAME else (CPU,))

# Clean-ups may ask for much, and outcomes wait in line with collections: nothing is cut short that is being done. Where
# a connection leads nowhere any more, the thread that keeps a lease or sweeps does not wait for it for ever.
SILENCE_SECONDS = 600.0

context = WorkerContext(
    settings=settings,
    database=Database(settings.resolved_database_url, Bounds(silence_seconds=SILENCE_SECONDS)),
    storage=open_storage(settings.resolved_storage_url, settings.home_path / "cache"),
    bell=Bell(app),
    worker_id=f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}",
    queues=QUEUES,
    stopping=threading.Event(),
    slots=threading.Semaphore(settings.worker_slots),
    tracer=open_tracer(settings, "graft-worker"),
)
tasks.register(app, context)


@signals.worker_ready.connect
def _begin(**_: Any) -> None:
    process.end_with_parent()
    sweep.start(context, DEVICE)
    clean.start(context)
    collect.start(context)
    webhooks.start(context)
    runner_process.prepare(ahead=settings.standby, threads=settings.num_compute_threads)


@signals.worker_shutting_down.connect
def _stop(**_: Any) -> None:
    context.stopping.set()


@signals.worker_shutdown.connect
def _end(**_: Any) -> None:
    sweep.leave(context)
    context.database.dispose()
    if context.tracer is not None:
        context.tracer.close()


@signals.setup_logging.connect
def _logging(**_: Any) -> None:
    """It is set up; without a receiver Celery would do it in its own way."""
