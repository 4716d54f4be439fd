"""Sends what waits in the outbox: a thread that claims, and one for each attempt. No torch here.

An attempt waits for somebody else's machine. So a receiver has few of the attempts at once, a project half of them, and
those that have failed lately a quarter together: they can delay each other, but nobody else.
"""

import logging
import ssl
import threading
import time
from collections import Counter
from uuid import uuid4

import httpx
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from app import VERSION, failpoints, log_lines, webhooks
from app.db.base import now
from app.outbound import Guard
from app.services import deliveries
from app.services.deliveries import Answer, Claimed
from worker.supervision.post import post
from worker.supervision.worker_context import WorkerContext

POLL_SECONDS = 1.0
SLOTS = 32
PROJECT_SLOTS, FAILING_SLOTS = SLOTS // 2, SLOTS // 4
SLOTS_EACH = 2
ALL, FAILING = "all", "failing"
# A claim outlives an attempt by the time that its name server, and then the database, may take.
SPARE_SECONDS = 15.0
RETRY_SECONDS = 0.5
END_SECONDS = 2.0

log = logging.getLogger(__name__)


class Courier:
    """Claims and sends until the worker shuts down.

    Args:
        context: of the worker.
    """

    def __init__(self, context: WorkerContext) -> None:
        settings = context.settings
        self._context, self._timeout = context, settings.webhook_timeout_seconds
        self._guard = Guard(settings.webhook_allowed)
        # As httpx does it: the usual authorities, and those of SSL_CERT_FILE.
        self._tls: ssl.SSLContext = httpx.create_ssl_context()
        self._changed, self._freed = threading.Condition(), threading.Event()
        # Attempts under way, in each line that they stand in (see `_bounds`).
        self._busy: Counter[str] = Counter()

    @property
    def lease_seconds(self) -> float:
        """How long a claim lasts."""
        return self._timeout + SPARE_SECONDS

    def run(self) -> None:
        """Looks again every second, and at once when an attempt has ended."""
        reached = True
        while not self._context.stopping.is_set():
            try:
                started = self.turn()
                reached = True
            except SQLAlchemyError as error:
                if reached:
                    log.warning("no delivery could be claimed, trying again: %s", error)
                reached, started = False, 0
            if not started and self._freed.wait(POLL_SECONDS):
                self._freed.clear()
        self.wait(END_SECONDS)

    def turn(self) -> int:
        """Starts as many attempts as there is room for; how many those were."""
        with self._context.database.read() as session:
            found = deliveries.due(session)
        wanted = self._room(found)
        if not wanted:
            return 0
        owner = f"{self._context.worker_id}/{uuid4().hex[:8]}"
        with self._context.database.write() as session:
            claimed = deliveries.claim(session, owner, wanted, self.lease_seconds)
        failpoints.reach("delivery_claimed")
        lines = {one.webhook_id: tuple(_bounds(one)) for one in found}
        for one in claimed:
            arguments = (one, owner, lines[one.webhook_id])
            with self._changed:
                self._busy.update(lines[one.webhook_id])
            threading.Thread(target=self._attempt, args=arguments, daemon=True, name=f"send {one.id}").start()
        return len(claimed)

    def wait(self, seconds: float) -> bool:
        """Whether all attempts ended within a time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy[ALL], seconds)

    def _room(self, found: list[deliveries.Due]) -> dict[str, int]:
        """How many deliveries each receiver may have now."""
        wanted: dict[str, int] = {}
        with self._changed:
            taken = self._busy.copy()
        for one in found:
            bounds = _bounds(one)
            number = min(bound - taken[line] for line, bound in bounds.items())
            if number > 0:
                wanted[one.webhook_id] = number
                taken.update(dict.fromkeys(bounds, number))
        return wanted

    def _attempt(self, claimed: Claimed, owner: str, lines: tuple[str, ...]) -> None:
        log_lines.bind(project=claimed.project)
        try:
            answer = self._send(claimed)
            failpoints.reach("delivery_sent")
            self._conclude(claimed, owner, answer)
        except Exception:
            # Nobody waits for this thread: what is said here is all that is said. Another attempt follows the claim.
            log.exception("delivery %s", claimed.id)
        finally:
            with self._changed:
                self._busy.subtract(lines)
                # Receivers come and go; what is 0 need not be kept.
                self._busy = +self._busy
                self._changed.notify_all()
            self._freed.set()

    def _send(self, claimed: Claimed) -> Answer:
        """Whatever happens is an answer: an attempt that were not concluded would not count, and be made for ever."""
        began = time.monotonic()
        try:
            headers = {
                "content-type": "application/json",
                "user-agent": f"Graft/{VERSION}",
                **webhooks.headers(claimed.event_id, now(), claimed.body, claimed.keys),
            }
            return post(claimed.url, claimed.body, headers, self._guard, self._tls, self._timeout)
        except Exception as found:
            log.exception("delivery %s failed in a way that nobody expected", claimed.id)
            return Answer(time.monotonic() - began, error=f"expected an answer; found {type(found).__name__}")

    def _conclude(self, claimed: Claimed, owner: str, answer: Answer) -> None:
        """Writes it down, for as long as the claim lasts: later it is sent once more, and that is written down."""
        deadline = time.monotonic() + SPARE_SECONDS / 2
        days = self._context.settings.webhook_disable_days
        while True:
            try:
                with self._context.database.write() as session:
                    state = deliveries.conclude(session, claimed, owner, answer, days)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() > deadline:
                    log.warning(
                        "delivery %s: its end could not be written, it will be sent again: %s", claimed.id, error
                    )
                    return
                time.sleep(RETRY_SECONDS)
            else:
                failpoints.reach("delivery_concluded")
                told = answer.error or f"status {answer.status}"
                log.info("delivery %s of %s: %s (%s)", claimed.id, claimed.event_id, state or "no longer ours", told)
                return


def _bounds(one: deliveries.Due) -> dict[str, int]:
    """The lines that an attempt stands in, and how many may be under way in each."""
    bounds = {ALL: SLOTS, f"project {one.project}": PROJECT_SLOTS, f"webhook {one.webhook_id}": SLOTS_EACH}
    return bounds | ({FAILING: FAILING_SLOTS} if one.failing else {})


def start(context: WorkerContext) -> threading.Thread:
    """Sends in a thread until the worker shuts down."""
    thread = threading.Thread(target=Courier(context).run, daemon=True, name="webhooks")
    thread.start()
    return thread
