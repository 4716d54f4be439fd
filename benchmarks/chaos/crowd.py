"""Several workers: a rolling update, and many jobs while workers and runners are killed at random."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
from sqlalchemy import func, select

from app.db.models import Job, JobEvent
from app.states import FINAL
from benchmarks.chaos import clock, scenarios, verdict
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.faults import Beside, workers
from benchmarks.chaos.lab import JOB_SECONDS, PROBE, Lab, difference, finish, table
from benchmarks.chaos.prepare import TINY
from benchmarks.chaos.stack import Stack, with_no_fuss

HAND_OVER_SECONDS = 5.0
KILL_SECONDS = (2.0, 6.0)
# That end between two kills at random: where others have the machine too, jobs take longer, and are not to be killed
# the more often for that. One that is lost as often as its attempts last is taken for poison, as it should be.
JOBS_BETWEEN_KILLS = 3
CROWD_SECONDS = 3000.0
# Of the jobs that were begun again, those that are computed once more, undisturbed.
NUM_COMPARED = 20


def rolling(lab: Lab, times: int = 5) -> Iterator[dict[str, Any]]:
    """SIGTERM of the worker that trains: the other one goes on from its checkpoint within five seconds."""
    stack = lab.stack
    undisturbed = scenarios.tune(lab)
    stack.add_worker("worker 2")
    wait_until(lambda: len(workers(stack)) == 2, "two workers", 120)
    for _ in range(times):
        going = Beside(lab, scenarios.tune)
        wait_until(lambda: _trains(stack), "a runner that has told a metric", JOB_SECONDS)
        (runner,) = stack.runners()
        # Its parent is the process that runners are forked from, whose parent is the worker.
        name = next(one for one in ("worker", "worker 2") if stack.process(one).pid == runner.parent().parent().pid)
        told_at, still = time.time(), clock.stood_still()
        stack.signal(name, signal.SIGTERM)
        done = going.result()
        # Others may have had the machine meanwhile.
        seconds = _second_start(stack, done.jobs[0]) - told_at - (clock.stood_still() - still)
        row = verdict.told(stack, going.result, undisturbed, stepped=True)
        if not seconds <= HAND_OVER_SECONDS:
            row["wrong"].append(f"expected another worker to go on within {HAND_OVER_SECONDS} s; found {seconds:.1f} s")
        if row.get("losses"):
            row["wrong"].append("expected a job that was handed back not to count as lost; found that it does")
        wait_until(lambda: len(workers(stack)) == 2, "two workers", 120)
        yield {"what": "SIGTERM of a worker", "stack": stack.kind, "by": "tune", **row,
               "hand_over_seconds": round(seconds, 2)}  # fmt: skip


def many(lab: Lab, max_attempts: int, number: int = 200) -> Iterator[dict[str, Any]]:
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
    if ended.losses != max_attempts:
        wrong.append(f"expected the poison job to end after {max_attempts} lost attempts; found {ended.losses}")
    versions = stack.client.call("GET", "/models/crowd")["versions"]
    wrong += judge_ends(jobs, [(one["version"], one["job_id"]) for one in versions], poison)
    wrong += verdict.doubled(stack) + verdict.settle(stack)
    disturbed = [job for job in jobs if job.attempt > 1 and job.id != poison][:NUM_COMPARED]
    if not disturbed:
        wrong.append("expected kills to meet jobs; found none that was begun again")
    numbers = {one["job_id"]: one["version"] for one in versions}
    for job in disturbed:
        alone = scenarios.transfer(lab, seed=job.seed)
        found = scenarios.learned(stack, job, "crowd", numbers.get(job.id, 0))
        if other := difference(alone.result, found):
            wrong.append(f"{job.id}: expected what it learns undisturbed; found {'; '.join(other)}")
    yield {
        "what": f"{number} jobs, 3 workers, random kills, a poison job",
        "stack": stack.kind,
        "wrong": wrong,
        "num_jobs": number,
        "num_kills": sum(counts.values()),
        "num_compared": len(disturbed),
        "num_attempts_of_poison": ended.attempt,
        "seconds": round(time.monotonic() - began),
    }


def judge_ends(jobs: Sequence[Job], versions: Sequence[tuple[int, str]], poison: str) -> list[str]:
    """Whether each job has ended with one version, and the poison job without: a table of those that have not.

    Args:
        jobs: all that have ended.
        versions: the number of each, and the id of the job that has made it.
        poison: id of the job that cannot succeed.
    """
    num_made = Counter(job_id for _, job_id in versions)
    wanted = {job.id: ("failed", "worker_lost", 0) if job.id == poison else ("succeeded", None, 1) for job in jobs}
    others = [job for job in jobs if (job.state, job.failure_code, num_made[job.id]) != wanted[job.id]]
    wrong = []
    if others:
        wrong = [
            f"expected one version of each job, and worker_lost of {poison}; found {len(others)} others:",
            *table(others, versions=num_made),
        ]
    strangers = sorted(num_made.keys() - wanted.keys())
    if strangers:
        wrong.append(f"expected versions of these jobs alone; found some of {', '.join(strangers)}")
    numbers = Counter(number for number, _ in versions)
    due = Counter(range(1, len(versions) + 1))
    odd = sorted(number for number in due | numbers if due[number] != numbers[number])
    if odd:
        wrong.append(f"expected versions 1 to {len(versions)}, each once; found other of {', '.join(map(str, odd))}")
    return wrong


def _post(lab: Lab, place: int) -> str:
    body = {"kind": "transfer", "dataset": lab.dataset, "backbone": TINY, "recipe": PROBE, "model": "crowd",
            "seed": place}  # fmt: skip
    return str(lab.stack.post("/jobs", f"crowd-{place}", json=body)["id"])


def _kill(stack: Stack, poison: str, ending: threading.Event, counts: dict[str, int]) -> None:
    """Every runner of the poison job as soon as it is seen; now and then a worker or a runner of another."""
    chance, num_random = random.Random("a crowd"), 0
    while True:
        due = time.monotonic() + chance.uniform(*KILL_SECONDS)
        while time.monotonic() < due or _num_ended(stack) < num_random * JOBS_BETWEEN_KILLS:
            for runner in stack.runners():
                if _computes(runner, poison):
                    with_no_fuss(runner.kill)
                    counts["poison"] = counts.get("poison", 0) + 1
            if ending.wait(0.05):
                return
        others = [one for one in stack.runners() if not _computes(one, poison)]
        if num_random % 3 == 0:
            stack.kill(chance.choice(("worker", "worker 2", "worker 3")))
        elif others:
            with_no_fuss(chance.choice(others).kill)
        num_random += 1
        counts["random"] = num_random


def _num_ended(stack: Stack) -> int:
    with stack.database.read() as session:
        return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(FINAL))) or 0


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
