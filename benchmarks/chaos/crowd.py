"""Several workers: a rolling update, and many jobs while workers and runners are killed at random."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import psutil
from sqlalchemy import select

from app.db.models import Job, JobEvent
from app.states import FINAL
from benchmarks.chaos import clock, scenarios, verdict
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.faults import Beside, workers
from benchmarks.chaos.lab import PROBE, Lab, finish
from benchmarks.chaos.prepare import TINY
from benchmarks.chaos.stack import Stack, with_no_fuss

HAND_OVER_SECONDS = 5.0
KILL_SECONDS = (2.0, 6.0)
CROWD_SECONDS = 3000.0


def rolling(lab: Lab, times: int = 5) -> Iterator[dict[str, Any]]:
    """SIGTERM of the worker that trains: the other one goes on from its checkpoint within five seconds."""
    stack = lab.stack
    undisturbed = scenarios.tune(lab)
    stack.add_worker("worker 2")
    wait_until(lambda: len(workers(stack)) == 2, "two workers", 120)
    for _ in range(times):
        going = Beside(lab, scenarios.tune)
        wait_until(lambda: _trains(stack), "a runner that has told a metric", 120)
        (runner,) = stack.runners()
        # Its parent is the process that runners are forked from, whose parent is the worker.
        name = next(one for one in ("worker", "worker 2") if stack.process(one).pid == runner.parent().parent().pid)
        told_at, still = time.time(), clock.stood_still()
        stack.signal(name, signal.SIGTERM)
        done = going.result()
        # Others may have had the machine meanwhile.
        seconds = _second_start(stack, done.jobs[0]) - told_at - (clock.stood_still() - still)
        wrong = verdict.judge(stack, done, undisturbed)
        if not seconds <= HAND_OVER_SECONDS:
            wrong.append(f"expected another worker to go on within {HAND_OVER_SECONDS} s; found {seconds:.1f} s")
        if verdict.losses(stack, done.jobs[0]):
            wrong.append("expected a job that was handed back not to count as lost; found that it does")
        stack.wait_ready()
        wait_until(lambda: len(workers(stack)) == 2, "two workers", 120)
        row = {"what": "SIGTERM of a worker", "stack": stack.kind, "wrong": wrong, "by": "tune"}
        yield row | {"hand_over_seconds": round(seconds, 2), "steps": round(verdict.steps(stack, done.jobs[0]), 3)}


def many(lab: Lab, number: int = 200) -> Iterator[dict[str, Any]]:
    """Many jobs, three workers, kills at random, and a job that kills whoever computes it."""
    stack = lab.stack
    for name in ("worker 2", "worker 3"):
        stack.add_worker(name)
    ids = [_post(lab, place) for place in range(number)]
    poison = ids[number // 2]
    ending = threading.Event()
    counts: dict[str, int] = {}
    began = time.monotonic()
    with ThreadPoolExecutor(1) as threads:
        killer = threads.submit(_kill, stack, poison, ending, counts)
        try:
            jobs = finish(stack, ids, CROWD_SECONDS)
        finally:
            ending.set()
        killer.result()
    stack.wait_ready()
    wrong = [line for job in jobs if job.id != poison for line in verdict.judge_job(stack, job.id)]
    (ended,) = (job for job in jobs if job.id == poison)
    if (ended.state, ended.failure_code) != ("failed", "worker_lost"):
        wrong.append(f"expected worker_lost of the poison job; found {ended.state} {ended.failure_code}")
    versions = len(stack.client.call("GET", "/models/crowd")["versions"])
    if versions != number - 1:
        wrong.append(f"expected {number - 1} versions; found {versions}")
    wrong += verdict.settle(stack)
    yield {
        "what": f"{number} jobs, 3 workers, random kills, a poison job",
        "stack": stack.kind,
        "wrong": wrong,
        "num_jobs": number,
        "num_kills": sum(counts.values()),
        "num_attempts_of_poison": ended.attempt,
        "seconds": round(time.monotonic() - began),
    }


def _post(lab: Lab, place: int) -> str:
    body = {"kind": "transfer", "dataset": lab.dataset, "backbone": TINY, "recipe": PROBE, "model": "crowd",
            "seed": place}  # fmt: skip
    return str(lab.stack.post("/jobs", f"crowd-{place}", json=body)["id"])


def _kill(stack: Stack, poison: str, ending: threading.Event, counts: dict[str, int]) -> None:
    """Every runner of the poison job as soon as it is seen; now and then a worker or a runner of another."""
    chance = random.Random("a crowd")
    for turn in count():
        due = time.monotonic() + chance.uniform(*KILL_SECONDS)
        while time.monotonic() < due:
            for runner in stack.runners():
                if _computes(runner, poison):
                    with_no_fuss(runner.kill)
                    counts["poison"] = counts.get("poison", 0) + 1
            if ending.wait(0.05):
                return
        others = [one for one in stack.runners() if not _computes(one, poison)]
        if turn % 3 == 0:
            name = chance.choice(("worker", "worker 2", "worker 3"))
            stack.kill(name)
        elif others:
            with_no_fuss(chance.choice(others).kill)
        counts["random"] = counts.get("random", 0) + 1


def _computes(runner: psutil.Process, job_id: str) -> bool:
    try:
        return any(job_id in part for part in runner.cmdline())
    except psutil.NoSuchProcess:
        return False


def _trains(stack: Stack) -> bool:
    """Whether the job that runs has told of an epoch, and so has a checkpoint."""
    with stack.database.read() as session:
        running = select(Job.id).where(Job.state.not_in(FINAL))
        query = select(JobEvent.seq).where(JobEvent.job_id.in_(running), JobEvent.message.startswith("epoch"))
        return bool(session.scalars(query).all())


def _second_start(stack: Stack, job_id: str) -> float:
    """When the second attempt began, in seconds of the clock."""
    with stack.database.read() as session:
        query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.type == "state").order_by(JobEvent.seq)
        starts = [event.at for event in session.scalars(query) if event.data.get("state") == "running"]
    return starts[1].timestamp() if len(starts) > 1 else float("inf")
