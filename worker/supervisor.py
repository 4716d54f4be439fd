"""One attempt at one job, from the claim to its end: lease, heartbeat, child process. No torch here.

The child computes and speaks through a pipe; this side owns the row. Whatever dies, the row says what is true:
the child dies -> handed back at once; this process dies -> the child sees the pipe close and ends, the lease runs out.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from app.db.models import Dataset, Job, UserBackbone
from app.db.session import Database
from app.errors import GraftError
from app.queue import Bell
from app.services import attempts, datasets, jobs, outcomes
from app.settings import Settings
from app.storage import Storage
from worker.document import DatasetDocument, JobDocument

TICK_SECONDS = 0.1
REQUEST_SECONDS = 0.5
YIELD_SECONDS = 4.0
EXIT_SECONDS = 5.0
MAX_BATCH = 500
UNSTORABLE = (
    "expected names and labels that the database can hold; found a NUL character or half a surrogate pair; "
    "rename what has it"
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Context:
    """What every attempt of one worker process shares."""

    settings: Settings
    database: Database
    storage: Storage
    bell: Bell
    worker_id: str
    queues: tuple[str, ...]
    stopping: threading.Event
    slots: threading.Semaphore


class RunnerProcess:
    """The child: `python -m worker.runner JOB` in a session of its own."""

    def __init__(self, document: JobDocument) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.runner", document.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            # Threads that spin while they wait would starve the other jobs of a small machine (113 s instead of 22 s).
            env={"OMP_WAIT_POLICY": "PASSIVE", **os.environ},
            text=True,
            encoding="utf-8",
        )
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=10_000)
        threading.Thread(target=self._read, daemon=True, name=f"read-{document.id}").start()
        self._write(document.model_dump_json())

    def receive(self, timeout_seconds: float) -> tuple[list[dict[str, Any]], bool]:
        """Messages that came, waiting for the first one; and whether the child has said its last."""
        batch: list[dict[str, Any]] = []
        try:
            message = self._messages.get(timeout=timeout_seconds)
            while message is not None:
                batch.append(message)
                if len(batch) >= MAX_BATCH:
                    return batch, False
                message = self._messages.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def ask(self, request: str) -> None:
        """Sends a request; a child that has just ended no longer hears it."""
        self._write(json.dumps({"request": request}))

    def end(self, grace_seconds: float) -> int:
        """Waits for the child, kills it and all below it after the grace time; returns its exit status."""
        try:
            status = self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            status = None
        # Its own children (decoders) share its session and must not outlive it.
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("runner %s left no process behind", self._process.pid)
        status = self._process.wait() if status is None else status
        for pipe in (self._process.stdin, self._process.stdout):
            _close(pipe)
        return status

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                self._messages.put(json.loads(line))
        except ValueError:
            log.warning("runner %s was cut off in mid-line", self._process.pid)
        self._messages.put(None)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            log.info("runner %s has already ended", self._process.pid)


def run_next(context: Context) -> None:
    """Claims and supervises jobs until none waits or the worker shuts down."""
    with context.slots:
        _drain(context)


def _drain(context: Context) -> None:
    while not context.stopping.is_set():
        owner = f"{context.worker_id}/{time.monotonic_ns()}"
        with context.database.write() as session:
            job = attempts.claim(session, context.queues, owner, context.settings.lease_seconds)
            document = describe(session, job) if job else None
        if document is None:
            return
        _Attempt(context, document, owner).run()


def describe(session: Session, job: Job) -> JobDocument:
    """Everything the runner needs to know."""
    dataset = session.get(Dataset, job.dataset_id) if job.dataset_id else None
    own = session.query(UserBackbone).filter_by(project_id=job.project_id, state="ready").all()
    return JobDocument(
        id=job.id,
        project=job.project_id,
        attempt=job.attempt,
        kind=job.kind,
        recipe=job.recipe,
        seed=job.seed,
        report_mode=job.report_mode,
        model_name=job.model_name,
        backbone=job.backbone,
        user_backbones=[row.document for row in own],
        dataset=dataset
        and DatasetDocument(
            id=dataset.id,
            prefix=datasets.prefix(job.project_id, dataset.id),
            task=dataset.task,
            digest=dataset.digest,
            seed=dataset.seed,
            classes=dataset.classes,
            splits=dataset.splits,
            base_prefix=datasets.prefix(job.project_id, dataset.base_id) if dataset.base_id else None,
        ),
        inputs=job.inputs,
    )


class _Attempt:
    """The supervision of one child."""

    def __init__(self, context: Context, document: JobDocument, owner: str) -> None:
        self._context, self._document, self._owner = context, document, owner
        self._settings, self._database = context.settings, context.database
        self._ended: dict[str, Any] | None = None
        self._request: str | None = None
        self._waste: list[str] = []
        self._bells: set[str] = set()
        self._grace_seconds = 0.0

    def run(self) -> None:
        """Supervises the child to its end and writes the outcome."""
        runner = RunnerProcess(self._document)
        log.info("job %s attempt %d started", self._document.id, self._document.attempt)
        reason = "the worker could not supervise it"
        try:
            reason = self._follow(runner)
            # A result is final as soon as it is said; how the process then ends matters to nobody.
            status = 0 if self._ended else runner.end(self._grace_seconds)
            self._conclude(reason, status)
            runner.end(EXIT_SECONDS)
        except attempts.LeaseLost as lost:
            log.warning("%s; its work is dropped", lost)
            self._waste = [self._document.bundle_prefix]
        finally:
            runner.end(0.0)
        for prefix in self._waste:
            self._context.storage.delete(prefix)
        for name in self._bells:
            self._context.bell.ring(name)

    def _follow(self, runner: RunnerProcess) -> str:
        """Stores what the child says, keeps the lease, passes requests on; returns why it ended."""
        started = renewed = asked = time.monotonic()
        yielding: float | None = None
        while True:
            batch, closed = runner.receive(TICK_SECONDS)
            self._store(batch)
            moment = time.monotonic()
            if closed or self._ended:
                self._grace_seconds = 1.0
                return "its process ended"
            if moment - started > self._settings.job_timeout_seconds:
                self._ended = {"failure": {"code": "timed_out", "message": self._timeout_message()}}
                return "timed out"
            if moment - renewed > self._settings.lease_seconds / 3 or moment - asked > REQUEST_SECONDS:
                renewed = asked = moment
                self._heed(runner)
                if self._request == "cancel":
                    return "cancelled"
            if self._context.stopping.is_set() and yielding is None:
                yielding = moment
                runner.ask("yield")
            if yielding is not None and moment - yielding > YIELD_SECONDS:
                return "the worker shuts down"

    def _heed(self, runner: RunnerProcess) -> None:
        with self._database.write() as session:
            request = attempts.renew(session, self._document.id, self._owner, self._settings.lease_seconds)
        if request != self._request:
            self._request = request
            if request == "stop":
                runner.ask("stop")

    def _store(self, batch: list[dict[str, Any]]) -> None:
        entries = [message["event"] for message in batch if "event" in message]
        progress = next((message["progress"] for message in reversed(batch) if "progress" in message), None)
        self._ended = next((message for message in batch if message.keys() & {"result", "failure"}), self._ended)
        if entries or progress:
            with self._database.write() as session:
                attempts.record(session, self._document.id, self._owner, entries, progress)

    def _conclude(self, reason: str, status: int) -> None:
        """One transaction: the outcome and, with it, whatever the job has made."""
        job_id = self._document.id
        with self._database.write() as session:
            if self._request == "cancel" or self._ended is None:
                job = attempts.owned(session, job_id, self._owner)
                on_purpose = self._context.stopping.is_set() or self._request == "cancel"
                if not on_purpose:
                    reason = f"{reason} ({_explain(status)})"
                waits = attempts.hand_back(session, job, reason, self._settings.max_attempts, counts=not on_purpose)
                if not waits:
                    self._waste = outcomes.clear(
                        session, job, job.failure_code or "cancelled", job.failure_message or reason
                    )
                    self._waste.append(f"bundles/{job.project_id}/{job_id}")
            elif "failure" in self._ended:
                failure = self._ended["failure"]
                self._waste = outcomes.fail(session, job_id, self._owner, failure["code"], failure["message"])
                self._waste.append(self._document.bundle_prefix)
            else:
                self._waste = self._publish(session, self._ended["result"])
            self._bells = jobs.take_bells(session)
        log.info("job %s attempt %d: %s", job_id, self._document.attempt, reason)

    def _publish(self, session: Session, result: dict[str, Any]) -> list[str]:
        """The result becomes rows. One that is refused fails the job, since another attempt would be refused as well.

        That is one for a model that has got other labels meanwhile, or with text that PostgreSQL does not hold.
        """
        try:
            with session.begin_nested():
                return outcomes.succeed(session, self._document.id, self._owner, result)
        except (GraftError, DataError) as error:
            detail = error.detail if isinstance(error, GraftError) else UNSTORABLE
            waste = outcomes.fail(session, self._document.id, self._owner, "internal", detail)
            return [*waste, self._document.bundle_prefix]

    def _timeout_message(self) -> str:
        limit = self._settings.job_timeout_seconds
        return (
            f"expected an end within {limit:.0f} s; found it still running; "
            "raise GRAFT_JOB_TIMEOUT_SECONDS or ask for less"
        )


def _explain(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def _close(pipe: Any) -> None:
    try:
        pipe.close()
    except BrokenPipeError:
        log.debug("the pipe had been closed on the other side")
