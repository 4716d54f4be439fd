"""The bell: a Celery message that says only "there is work in this queue". The job's row is the truth.

Losing a message costs a moment, never a job: every worker sweeps for rows that wait, and rings again.
"""

import logging
from typing import TYPE_CHECKING, Any

from app.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

CPU, GPU = "cpu", "gpu"
QUEUES = (CPU, GPU)
RUN_NEXT = "worker.run_next"
TASK_NAMES = (RUN_NEXT,)
POLLING_SECONDS = 0.05
# Our name for Celery's filesystem broker, see `folder_broker`.
FOLDER = "graft-folder"

log = logging.getLogger(__name__)


def make_celery(settings: Settings) -> "Celery":
    """The Celery application that both sides use.

    Late acknowledgement and prefetching are off, because a message carries nothing that could be lost;
    events and remote control are off on the filesystem broker, which would keep their messages for ever.
    """
    # Here, because loading Celery takes a tenth of the application's start, and reading its routes needs none.
    from celery import Celery
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES[FOLDER] = "app.folder_broker:Transport"
    celery = Celery("graft", broker=settings.broker_url or f"{FOLDER}://localhost", set_as_current=False)
    celery.conf.update(
        task_acks_late=False,
        task_ignore_result=True,
        task_default_queue=CPU,
        worker_prefetch_multiplier=1,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport(settings),
        timezone="UTC",
    )
    return celery


def _transport(settings: Settings) -> dict[str, Any]:
    if settings.broker_url:
        # By default a ring that nobody hears holds its request for 6 s; the sweep rings again anyway.
        patience = {"max_retries": 1, "interval_start": 0.0, "interval_step": 0.1}
        limits = {"socket_timeout": 5, "socket_connect_timeout": 2} if settings.broker_url.startswith("redis") else {}
        return patience | limits
    folder = settings.broker_folder
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "store_processed": False,
        "polling_interval": POLLING_SECONDS,
    }


class Bell:
    """Rings for a queue."""

    def __init__(self, celery: "Celery") -> None:
        from kombu.exceptions import OperationalError

        self._celery = celery
        self._unreachable = (OperationalError, OSError)

    def ring(self, queue: str) -> bool:
        """Sends the message. A broker that cannot be reached is logged, not raised: the row waits and is swept.

        Returns:
            whether the broker took it.
        """
        try:
            self._celery.send_task(RUN_NEXT, args=[queue], queue=queue, retry=False)
        except self._unreachable as error:
            log.warning("broker unreachable, the sweep will ring again: %s", error)
            return False
        return True

    def reachable(self) -> bool:
        """Whether the broker answers."""
        try:
            with self._celery.connection_for_write() as connection:
                connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=1)
        except self._unreachable:
            return False
        return True
