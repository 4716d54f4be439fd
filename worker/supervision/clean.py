"""What a worker removes between jobs: objects that were given up, working folders of killed attempts, what is over.

In a thread of its own: storage and disk may hang, and meanwhile the worker lives and lost jobs are taken back.
"""

import logging
import shutil
import threading
import time
from functools import cache
from itertools import islice

from sqlalchemy import select

from app import abandoned, failpoints, log_lines
from app.db.base import now
from app.db.models import Job, UserBackbone
from app.inbox import open_inbox
from app.services import audit, deliveries, gpu_use, idempotency, logs, models, outcomes, upload_sweep, waste
from app.serving.parts import Parts
from app.serving.slots import DAY
from app.states import JobState
from app.storage import remove_old_copies
from worker.supervision import rounds
from worker.supervision.worker_context import WorkerContext

# Days of prediction logs are listed in storage, which may be far away.
EXPIRY_SECONDS = 3600.0
PAGE = 1000

log = logging.getLogger(__name__)


def start(context: WorkerContext) -> threading.Thread:
    """Cleans in a thread until the worker shuts down."""
    next_expiry = time.monotonic()

    def step() -> None:
        nonlocal next_expiry
        clean(context)
        if time.monotonic() >= next_expiry:
            next_expiry = time.monotonic() + EXPIRY_SECONDS
            expire(context)

    return rounds.start(context, "clean", step)


def clean(context: WorkerContext) -> None:
    """Deletes what was given up and what killed attempts have left."""
    waste.sweep(context.database, context.storage)
    tidy(context)


def tidy(context: WorkerContext) -> None:
    """Removes working folders of attempts that are over: a process that was killed leaves its own behind."""
    abandoned.remove(context.settings)
    folders = {path: path.name.split("-") for path in context.settings.scratch.glob("job_*-*-*")}
    if not folders:
        return
    with context.database.read() as session:
        query = select(Job.id, Job.attempt).where(Job.state == JobState.RUNNING)
        running = {(job_id, str(attempt)) for job_id, attempt in session.execute(query)}
    for path, (job_id, attempt, *_) in folders.items():
        if (job_id, attempt) not in running:
            with log_lines.bound(job_id=job_id):
                log.info("removing %s, which a killed attempt left behind", path.name)
            shutil.rmtree(path, ignore_errors=True)


def expire(context: WorkerContext) -> None:
    """Removes what is over, each kind by itself: one that cannot be removed keeps no other from it."""
    for step in (_expire_copies, _expire_logs, _expire_sums, _expire_rows, _expire_checkpoints, _expire_uploads):
        try:
            step(context)
        except Exception:
            log.exception("%s failed, trying again in %.0f s", step.__name__.lstrip("_"), EXPIRY_SECONDS)


def _expire_copies(context: WorkerContext) -> None:
    remove_old_copies(context.settings.home_path / "cache")
    own = {path.name: path for path in (context.settings.home_path / "backbones").glob("bb_*")}
    with context.database.read() as session:
        kept = set(session.scalars(select(UserBackbone.id).where(UserBackbone.id.in_(own))))
    for name in own.keys() - kept:
        # A user's weights, which have been deleted; no job opens what has no row.
        shutil.rmtree(own[name])


def _expire_logs(context: WorkerContext) -> None:
    logs.expire(context.database, context.storage, now().date())


def _expire_sums(context: WorkerContext) -> None:
    # A process may have stored what it still held when the version was deleted.
    is_published = cache(lambda version_id: bool(models.published(context.database, [version_id])))
    observed = Parts(context.storage, context.settings.scratch)
    observed.tidy(is_published, context.settings.observed_keep_days * DAY, time.time())


def _expire_rows(context: WorkerContext) -> None:
    """Of deliveries, of times on GPUs, of what was done and of answers that are given no more."""
    with context.database.write() as session:
        deliveries.expire(session, context.settings.webhook_keep_days)
        gpu_use.expire(session)
        audit.expire(session)
        idempotency.expire(session)
    failpoints.reach("rows_expired")


def _expire_checkpoints(context: WorkerContext) -> None:
    """Of jobs that have ended, which late attempts have left."""
    listing = context.storage.list("checkpoints")
    # By pages: one question names so many jobs, and no more are in memory.
    while keys := list(islice(listing, PAGE)):
        with context.database.write() as session:
            waste.note(session, outcomes.strays(session, keys))
        failpoints.reach("checkpoints_noted")


def _expire_uploads(context: WorkerContext) -> None:
    upload_sweep.run(context.database, context.storage, open_inbox(context.storage))
