"""What all that goes on in one worker process shares. No torch here."""

import threading
from dataclasses import dataclass

from app.db.session import Database
from app.queue import Bell
from app.settings import Settings
from app.storage import Storage
from app.tracing import Tracer


@dataclass(frozen=True)
class WorkerContext:
    """One worker process.

    Args:
        settings: of the process.
        database: its connections.
        storage: where objects lie.
        bell: rings for others.
        worker_id: under which it claims jobs and shows itself.
        queues: that it serves.
        stopping: set when it shuts down.
        slots: attempts that it may supervise at once.
        tracer: None where nobody traces.
    """

    settings: Settings
    database: Database
    storage: Storage
    bell: Bell
    worker_id: str
    queues: tuple[str, ...]
    stopping: threading.Event
    slots: threading.Semaphore
    tracer: Tracer | None = None
