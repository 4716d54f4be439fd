"""One attempt at one job, from the claim to its end: lease, heartbeat, child process. No torch here.

The child computes and speaks through a pipe; this side owns the row. Whatever dies, the row says what is true:
the child dies -> handed back at once; this process dies -> the child sees the pipe close and ends, the lease runs out.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from sqlalchemy.exc import DataError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app import failpoints, log_lines, tracing
from app.db.models import Job
from app.errors import Collected, GraftError, Unavailable
from app.services import attempts, gpu_use, outcomes, queues, shared, waste
from app.states import Request
from worker.attempt.document import JobDocument
from worker.supervision.attempt_trace import AttemptTrace
from worker.supervision.described import describe
from worker.supervision.runner_process import RunnerProcess
from worker.supervision.said import Said
from worker.supervision.worker_context import WorkerContext

TICK_SECONDS = 0.1
REQUEST_SECONDS = 0.5
EXIT_SECONDS = 5.0
CONCLUDE_SECONDS = 60.0
RETRY_SECONDS = 0.5
# A database that is locked, restarting or cut off: what was to be written is kept and written later.
UNREACHABLE = (OperationalError, InterfaceError)
UNSTORABLE = (
    "expected names and labels that the database can hold; found a NUL character or half a surrogate pair; "
    "rename what has it"
)

T = TypeVar("T")

log = logging.getLogger(__name__)


def run_next(context: WorkerContext) -> None:
    """Claims and supervises jobs until none waits or the worker shuts down."""
    with context.slots:
        _drain(context)


def _drain(context: WorkerContext) -> None:
    while not context.stopping.is_set():
        owner, began = f"{context.worker_id}/{time.monotonic_ns()}", time.time_ns()
        try:
            with context.database.write() as session:
                job = attempts.claim(session, context.queues, owner, context.settings.lease_seconds)
                document = describe(session, job) if job else None
                if job is not None:
                    failpoints.reach("claim_commit")
        except UNREACHABLE as error:
            log.warning("no job could be claimed, the sweep will ring again: %s", error)
            return
        if document is None:
            return
        failpoints.reach("claim_committed")
        trace = AttemptTrace(context.tracer, document, began)
        with tracing.within(trace.trace_parent), log_lines.bound(**document.ids()):
            _Attempt(context, document, owner, trace).run()


class _Attempt:
    """The supervision of one child."""

    def __init__(self, context: WorkerContext, document: JobDocument, owner: str, trace: AttemptTrace) -> None:
        self._context, self._document, self._owner = context, document, owner
        self._trace = trace
        self._settings, self._database = context.settings, context.database
        self._said = Said()
        self._reached = True
        self._request: str | None = None
        self._waste: list[str] = []
        self._bells: set[str] = set()
        self._grace_seconds = 0.0
        self._counted = time.monotonic()

    def run(self) -> None:
        """Supervises the child to its end and writes the outcome."""
        runner = self._start()
        log.info("job %s attempt %d started in process %d", self._document.id, self._document.attempt, runner.pid)
        reason = "the worker could not supervise it"
        try:
            reason = self._follow(runner)
            # A result is final as soon as it is said; how the process then ends matters to nobody.
            status = 0 if self._said.end else runner.end(self._grace_seconds)
            with self._trace.concluding():
                self._conclude(reason, status)
            runner.end(EXIT_SECONDS)
        except attempts.LeaseLost as lost:
            log.warning("%s; its work is dropped", lost)
            reason = "its lease was lost"
            # The child first: it may be storing something at this very moment.
            runner.end(0.0)
            self._waste = self._unpublished()
        finally:
            runner.end(0.0)
            succeeded = self._said.result is not None
            self._trace.end("succeeded" if succeeded else reason, failed=not succeeded)
        waste.clear(self._database, self._context.storage, self._waste)
        failpoints.reach("outcome_tidied")
        for name in self._bells:
            self._context.bell.ring(name)

    def _start(self) -> RunnerProcess:
        """The child; what it is forked from may have to be started first."""
        told = self._document.model_copy(update={"trace_parent": self._trace.trace_parent})
        return self._meanwhile(lambda: RunnerProcess(told))

    def _meanwhile(self, action: Callable[[], T]) -> T:
        """What an action gives that may take longer than a lease; it is kept meanwhile."""
        with ThreadPoolExecutor(1) as thread:
            doing = thread.submit(action)
            while not wait([doing], self._settings.lease_seconds / 3).done:
                try:
                    self._try(self._keep)
                except attempts.LeaseLost:
                    # The next look at the lease finds it again, when there is a child to end.
                    break
            return doing.result()

    def _keep(self) -> None:
        with self._database.write() as session:
            attempts.renew(session, self._document.id, self._owner, self._settings.lease_seconds)

    def _follow(self, runner: RunnerProcess) -> str:
        """Stores what the child says, keeps the lease, passes requests on; returns why it ended."""
        started = renewed = asked = time.monotonic()
        yielding: float | None = None
        while True:
            batch, closed = self._receive(runner)
            self._said.note(batch)
            self._trace.stages(batch, runner.pid)
            self._try(self._store)
            moment = time.monotonic()
            if closed or self._said.end:
                self._grace_seconds = 1.0
                return "its process ended"
            if moment - started > self._settings.job_timeout_seconds:
                self._said.end = {"failure": {"code": "timed_out", "message": self._timeout_message()}}
                return "timed out"
            if moment - renewed > self._settings.lease_seconds / 3 or moment - asked > REQUEST_SECONDS:
                if self._try(lambda: self._heed(runner)):
                    renewed = asked = moment
                if self._request == "cancel":
                    return "cancelled"
            if self._context.stopping.is_set() and yielding is None:
                yielding = moment
                runner.ask("yield")
            if yielding is not None and moment - yielding > self._settings.stop_grace_seconds:
                return "the worker shuts down"

    def _receive(self, runner: RunnerProcess) -> tuple[list[dict[str, Any]], bool]:
        """What the child says. While much waits to be stored nothing is taken: the pipe fills, and the child waits."""
        if self._said.is_full:
            time.sleep(TICK_SECONDS)
            return [], False
        return runner.receive(TICK_SECONDS)

    def _try(self, action: Callable[[], None]) -> bool:
        """Whether database and storage took it; if not, the next tick tries again, and the fence has the last word."""
        try:
            action()
        except (*UNREACHABLE, Unavailable) as error:
            if self._reached:
                log.warning("job %s cannot be written to for now: %s", self._document.id, error)
            self._reached = False
        else:
            self._reached = True
        return self._reached

    def _heed(self, runner: RunnerProcess) -> None:
        moment = time.monotonic()
        worked = moment - self._counted
        with self._database.write() as session:
            request = attempts.renew(session, self._document.id, self._owner, self._settings.lease_seconds, worked)
        failpoints.reach("lease_renewed")
        self._counted = moment
        if request != self._request:
            self._request = request
            if request == "stop":
                runner.ask("stop")

    def _store(self) -> None:
        if self._said.waits:
            with self._database.write() as session:
                self._record(session)
                failpoints.reach("events_commit")
            failpoints.reach("events_committed")
            self._said.stored()

    def _record(self, session: Session) -> None:
        attempts.record(session, self._document.id, self._owner, self._said.events, self._said.progress)

    def _conclude(self, reason: str, status: int) -> None:
        """Writes the outcome; gives up after a while without database or storage: another attempt follows."""
        ended = time.monotonic()
        deadline = ended + CONCLUDE_SECONDS
        while not self._try(lambda: self._write_outcome(reason, status, ended - self._counted)):
            self._waste = []
            if time.monotonic() > deadline:
                log.error("job %s: its outcome could not be written; another attempt follows", self._document.id)
                return
            # At once, since storage may have kept the transaction waiting for longer than a lease.
            self._try(self._keep)
            time.sleep(RETRY_SECONDS)

    def _write_outcome(self, reason: str, status: int, worked_seconds: float) -> None:
        """One transaction: the outcome and, with it, whatever the job has made.

        What counts is the request on the locked row: a cancel that was accepted meanwhile is kept.
        """
        job_id = self._document.id
        self._meanwhile(self._reach_storage)
        with self._database.write() as session:
            job = attempts.owned(session, job_id, self._owner)
            gpu_use.add(session, job, worked_seconds)
            cancelled = job.request == Request.CANCEL
            if self._said.waits:
                self._record(session)
            if cancelled or self._said.end is None:
                on_purpose = self._context.stopping.is_set() or cancelled
                if not on_purpose:
                    reason = f"{reason} ({_explain(status)})"
                self._waste = self._hand_back(session, job, reason, counts=not on_purpose)
            elif "failure" in self._said.end:
                failure = self._said.end["failure"]
                self._waste = outcomes.fail(session, job_id, self._owner, failure["code"], failure["message"])
                self._waste += outcomes.bundles(job)
            else:
                self._waste = self._publish(session, job, self._said.end["result"])
            waste.note(session, self._waste)
            bells = queues.take_bells(session)
            failpoints.reach("outcome_commit")
        failpoints.reach("outcome_committed")
        self._bells = bells
        log.info("job %s attempt %d: %s", job_id, self._document.attempt, reason)

    def _reach_storage(self) -> None:
        """Asks storage, outside of the transaction, for what is asked for within: while it hangs, nothing is locked."""
        for key in shared.of_result(self._said.result or {}):
            self._context.storage.stat(key)

    def _hand_back(self, session: Session, job: Job, reason: str, *, counts: bool = True) -> list[str]:
        """Leaves it to another attempt; returns what is to be deleted where there were enough of them."""
        if attempts.hand_back(session, job, reason, self._settings.max_attempts, counts=counts):
            return []
        given_up = outcomes.clear(session, job, job.failure_code or "cancelled", job.failure_message or reason)
        return [*given_up, *outcomes.bundles(job)]

    def _publish(self, session: Session, job: Job, result: dict[str, Any]) -> list[str]:
        """The result becomes rows. One that is refused fails the job, since another attempt would be refused as well.

        That is one for a model that has got other labels meanwhile, or with text that the database does not hold. Where
        a shared graph was removed since the runner has seen it, another attempt stores it again.
        """
        try:
            with session.begin_nested():
                shared.keep(session, self._context.storage, shared.of_result(result))
                return outcomes.succeed(session, self._document.id, self._owner, result)
        except Collected as error:
            return self._hand_back(session, job, error.detail)
        except Unavailable:
            raise
        except (GraftError, DataError, UnicodeEncodeError) as error:
            detail = error.detail if isinstance(error, GraftError) else UNSTORABLE
            given_up = outcomes.fail(session, self._document.id, self._owner, "internal", detail)
            return [*given_up, *outcomes.bundles(session.get_one(Job, self._document.id))]

    def _unpublished(self) -> list[str]:
        """What the attempt has stored in vain; a commit that seemed to fail may have published it after all."""
        document = self._document
        try:
            with self._database.write() as session:
                late = outcomes.late(session, document.id, document.attempt, document.bundle_prefix)
                waste.note(session, late)
        except UNREACHABLE as error:
            log.warning("what %s attempt %d has stored stays for now: %s", document.id, document.attempt, error)
            return []
        failpoints.reach("late_noted")
        return late

    def _timeout_message(self) -> str:
        limit = self._settings.job_timeout_seconds
        return (
            f"expected an end within {limit:.0f} s; found it still running; "
            "raise GRAFT_JOB_TIMEOUT_SECONDS or ask for less"
        )


def _explain(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"
