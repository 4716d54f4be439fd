"""Something that a worker does again and again, in a thread of its own, whatever goes wrong in a round of it."""

import logging
import threading
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from worker.supervision.worker_context import WorkerContext

ROUND_SECONDS = 5.0

log = logging.getLogger(__name__)


def start(context: WorkerContext, name: str, step: Callable[[], None]) -> threading.Thread:
    """Takes a step now, and again a moment after its end, until the worker shuts down.

    The thread does not keep the process: a step may be waiting for what never answers.
    """
    thread = threading.Thread(target=_loop, args=(context, name, step), daemon=True, name=name)
    thread.start()
    return thread


def _loop(context: WorkerContext, name: str, step: Callable[[], None]) -> None:
    interval = min(ROUND_SECONDS, context.settings.lease_seconds / 2)
    while True:
        try:
            step()
        except SQLAlchemyError as error:
            # The database may be restarting; the next round tries again.
            log.warning("%s failed, trying again in %.1f s: %s", name, interval, error)
        except Exception:
            # Storage may be away, or full. Without this thread nobody would do it any more.
            log.exception("%s failed, trying again in %.1f s", name, interval)
        if context.stopping.wait(interval):
            return
