"""What a worker does between jobs: shows that it lives, takes lost jobs back, rings for those that wait."""

import logging
import shutil
import threading
import time
from datetime import timedelta
from functools import cache
from itertools import islice

from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import abandoned, failpoints, log_lines
from app.db.base import now
from app.db.models import Job, UserBackbone, WorkerProcess
from app.errors import GraftError
from app.inbox import open_inbox
from app.services import attempts, audit, deliveries, gpu_use, logs, models, outcomes, queues, upload_sweep, waste
from app.serving.parts import Parts
from app.serving.slots import DAY
from app.states import JobState
from app.storage import remove_old_copies
from worker.backbones import weights
from worker.supervision.worker_context import WorkerContext

BELL_SECONDS = 5.0
# Days of prediction logs are listed in storage, which may be far away.
EXPIRY_SECONDS = 3600.0
FORGOTTEN = timedelta(hours=1)
PAGE = 1000

log = logging.getLogger(__name__)


def start(context: WorkerContext, device: str) -> threading.Thread:
    """Sweeps in a thread until the worker shuts down."""
    thread = threading.Thread(target=_loop, args=(context, device), daemon=True, name="sweep")
    thread.start()
    return thread


def _loop(context: WorkerContext, device: str) -> None:
    next_expiry = time.monotonic()
    interval = min(BELL_SECONDS, context.settings.lease_seconds / 2)
    while True:
        try:
            show(context, device)
            sweep(context)
            if time.monotonic() >= next_expiry:
                next_expiry = time.monotonic() + EXPIRY_SECONDS
                expire(context)
        except SQLAlchemyError as error:
            # The database may be restarting; the next round tries again.
            log.warning("sweep failed, trying again in %.1f s: %s", interval, error)
        except Exception:
            # Storage may be away, or full. Without this thread nobody would take jobs back any more.
            log.exception("sweep failed, trying again in %.1f s", interval)
        if context.stopping.wait(interval):
            return


def show(context: WorkerContext, device: str) -> None:
    """Writes the worker's row: readiness, the choice of queue and `available` of backbones look at it."""
    names = weights.available(context.settings.home_path)
    with context.database.write() as session:
        row = session.get(WorkerProcess, context.worker_id)
        if row is None:
            row = WorkerProcess(id=context.worker_id, queues=list(context.queues), device=device)
            session.add(row)
        row.seen_at, row.backbones = now(), names
        # One that was killed could not take its row away.
        session.execute(delete(WorkerProcess).where(WorkerProcess.seen_at < now() - FORGOTTEN))
    failpoints.reach("worker_shown")


def leave(context: WorkerContext) -> None:
    """Shows an orderly end at once. The row stays a while: what waits for such a worker waits for the next one."""
    with context.database.write() as session:
        row = session.get(WorkerProcess, context.worker_id)
        if row is not None:
            row.seen_at = now() - queues.LIVE
    failpoints.reach("worker_left")


def sweep(context: WorkerContext) -> None:
    """Hands back jobs whose lease ran out, moves those that nobody serves, rings for queues in which a job waits."""
    gone: list[str] = []
    with context.database.write() as session:
        for job in attempts.expired(session):
            gone += _hand_back(session, job, context.settings.max_attempts)
        waste.note(session, gone)
        attempts.reroute(session)
        bells = queues.take_bells(session) | attempts.waiting_queues(session)
        failpoints.reach("sweep_commit")
    failpoints.reach("sweep_committed")
    waste.clear(context.database, context.storage, gone)
    waste.sweep(context.database, context.storage)
    tidy(context)
    # A worker whose slots are all taken would only pile messages up; it looks for work itself when one ends.
    if context.slots.acquire(blocking=False):
        context.slots.release()
        for queue in bells & set(context.queues):
            context.bell.ring(queue)


def _hand_back(session: Session, job: Job, max_attempts: int) -> list[str]:
    """What is to be deleted where no other attempt follows. One that cannot be moved keeps no other waiting."""
    with log_lines.bound(project=job.project_id, job_id=job.id, attempt=job.attempt):
        log.warning("job %s: its worker fell silent", job.id)
        try:
            with session.begin_nested():
                if attempts.hand_back(session, job, "its worker fell silent", max_attempts):
                    return []
                given_up = outcomes.clear(session, job, "worker_lost", job.failure_message or "")
                return [*given_up, *outcomes.bundles(job)]
        except (GraftError, SQLAlchemyError):
            log.exception("job %s cannot be handed back", job.id)
            return []


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
    """Of deliveries, of times on GPUs and of what was done."""
    with context.database.write() as session:
        deliveries.expire(session, context.settings.webhook_keep_days)
        gpu_use.expire(session)
        audit.expire(session)
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
