"""What a worker does between jobs: shows that it lives, takes lost jobs back, rings for those that wait.

Nothing here touches storage, which may accept a request and never answer: what it frees is left to `clean`.
"""

import logging
import threading
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app import failpoints, log_lines
from app.db.base import now
from app.db.models import Job, WorkerProcess
from app.errors import GraftError
from app.services import attempts, outcomes, queues, waste
from worker.backbones import weights
from worker.supervision import rounds
from worker.supervision.worker_context import WorkerContext

FORGOTTEN = timedelta(hours=1)

log = logging.getLogger(__name__)


def start(context: WorkerContext, device: str) -> threading.Thread:
    """Sweeps in a thread until the worker shuts down."""
    swept: datetime | None = None

    def step() -> None:
        nonlocal swept
        show(context, device)
        sweep(context, swept)
        # After one that was late none is: where all of them are, every other one takes jobs back all the same.
        swept = None if swept is not None and _is_late(context, swept) else now()

    return rounds.start(context, "sweep", step)


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


def sweep(context: WorkerContext, swept: datetime | None = None) -> None:
    """Hands back jobs whose lease ran out, moves those that nobody serves, rings for queues in which a job waits.

    What no other attempt needs is noted as waste, which `clean` deletes.

    Args:
        context: of the worker.
        swept: when it has last done so; None for the first time.
    """
    gone: list[str] = []
    with context.database.write() as session:
        # Who could not reach the database for a lease, or slept, has company: all leases have run out, and their owners
        # are about to renew them.
        if swept is None or not _is_late(context, swept):
            for job in attempts.expired(session):
                gone += _hand_back(session, job, context.settings.max_attempts)
        waste.note(session, gone)
        attempts.reroute(session)
        bells = queues.take_bells(session) | attempts.waiting_queues(session)
        failpoints.reach("sweep_commit")
    failpoints.reach("sweep_committed")
    # A worker whose slots are all taken would only pile messages up; it looks for work itself when one ends.
    if context.slots.acquire(blocking=False):
        context.slots.release()
        for queue in bells & set(context.queues):
            context.bell.ring(queue)


def _is_late(context: WorkerContext, swept: datetime) -> bool:
    """Whether leases may have run out since then though their owners live."""
    return now() - swept >= timedelta(seconds=context.settings.lease_seconds)


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
