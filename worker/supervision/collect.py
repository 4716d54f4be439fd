"""Looks through all of storage from time to time, in a thread of its own: one worker of all, and none too early."""

import logging
import threading
from datetime import timedelta

from app import failpoints
from app.db.base import now
from app.inbox import open_inbox
from app.services import collections
from app.services.collector import Collector, Report, carry_out
from worker.supervision.worker_context import WorkerContext

LOOK_SECONDS = 60.0

log = logging.getLogger(__name__)


def start(context: WorkerContext) -> None:
    """Looks whether it is time, until the worker shuts down."""
    threading.Thread(target=_loop, args=(context,), daemon=True, name="collect").start()


def _loop(context: WorkerContext) -> None:
    while True:
        try:
            collect(context)
        except Exception:
            # Database or object store may be away, each with errors of its own; nothing is lost but a pass.
            log.exception("storage could not be looked through; the next pass tries again")
        if context.stopping.wait(LOOK_SECONDS):
            return


def collect(context: WorkerContext) -> Report | None:
    """Makes a pass if it is time for one, and nobody else makes it."""
    settings = context.settings
    if not settings.collect_seconds:
        return None
    with context.database.write() as session:
        collection_id = collections.begin_if_due(session, settings.collect_seconds)
    if collection_id is None:
        return None
    failpoints.reach("collection_begun")
    before = now() - timedelta(seconds=settings.collect_grace_seconds)
    collector = Collector(
        context.database, context.storage, open_inbox(context.storage), context.settings.scratch, before, removes=True
    )
    report = carry_out(context.database, collector, collection_id, context.stopping)
    if report.freed_bytes:
        log.info(
            "removed %d objects that nothing refers to, and %d bytes with them; looked at %d objects of %d bytes",
            report.removed.objects, report.freed_bytes, report.seen.objects, report.seen.size_bytes,
        )  # fmt: skip
    return report
