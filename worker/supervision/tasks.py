"""Celery's tasks: each looks at the database and returns when there is nothing to do."""

from collections.abc import Callable

from celery import Celery

from app.queue import RUN_NEXT
from worker.supervision.supervisor import run_next
from worker.supervision.worker_context import WorkerContext

TASKS = {RUN_NEXT: run_next}


def register(celery: Celery, context: WorkerContext) -> None:
    """Binds every task name of `app.queue` to its function."""
    for name, function in TASKS.items():
        celery.task(name=name)(_bind(function, context))


def _bind(function: Callable[[WorkerContext], None], context: WorkerContext) -> Callable[[str], None]:
    def task(queue: str) -> None:
        # The queue only says which bell rang; what deserves to run is decided in SQL.
        if queue in context.queues:
            function(context)

    return task
