"""Faults that are no place in the code: kills, freezes, outages, each beside running jobs."""

import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from typing import Any

from app.services import queues
from benchmarks.chaos import points, scenarios, verdict
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import Done, Lab
from benchmarks.chaos.stack import Stack, with_no_fuss

AWAY_SECONDS = 30.0
FROZEN_SECONDS = 4.0
FROZEN_AT = {
    "part_stored": scenarios.folds,
    "features_half": scenarios.cold,
    "bundle_file_stored": scenarios.transfer,
    "dataset_file_stored": scenarios.ingest,
}
VICTIMS = ("runner", "worker", "worker and runner", "api", "everything")


def workers(stack: Stack) -> list[str]:
    """Ids of workers that live."""
    with stack.database.read() as session:
        return [row.id for row in queues.live_workers(session, within_seconds=10.0)]


class Beside(threading.Thread):
    """A scenario that goes on in a thread while something is broken."""

    def __init__(self, lab: Lab, scenario: Callable[[Lab], Done]) -> None:
        super().__init__(daemon=True)
        self._lab, self._scenario = lab, scenario
        self._done: Done | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._done = self._scenario(self._lab)
        except BaseException as error:
            self._error = error

    def result(self) -> Done:
        self.join()
        if self._error is not None:
            raise self._error
        assert self._done is not None
        return self._done


def beside(
    lab: Lab, scenario: Callable[[Lab], Done], undisturbed: Done | None, what: str, fault: Callable[[Stack], Any]
) -> dict[str, Any]:
    """One fault while a scenario goes on, and what was wrong after it."""
    began = time.monotonic()
    row: dict[str, Any] = {"what": what, "stack": lab.stack.kind, "by": scenario.__name__}
    going = Beside(lab, scenario)
    try:
        if fault(lab.stack) is False:
            row["missed"] = True
        done = going.result()
        lab.stack.wait_ready()
        wrong = verdict.judge(lab.stack, done, undisturbed)
        if scenario.__name__ in points.STEPPED:
            row["steps"] = round(verdict.steps(lab.stack, done.jobs[0]), 3)
            if row["steps"] > verdict.MAX_STEPS and verdict.losses(lab.stack, done.jobs[0]) == 1:
                wrong.append(f"expected at most {verdict.MAX_STEPS} times the steps; found {row['steps']}")
    except AssertionError as error:
        wrong = [str(error)]
    return row | {"wrong": wrong, "seconds": round(time.monotonic() - began, 1)}


def kill(victim: str, after: Callable[[Stack], None]) -> Callable[[Stack], bool]:
    """Kill -9 of one of VICTIMS once `after` returns; whether it was there to be killed."""

    def fault(stack: Stack) -> bool:
        after(stack)
        if victim == "everything":
            stack.kill_all()
            return True
        runners = stack.runners() if "runner" in victim else []
        if victim.startswith("worker"):
            stack.kill("worker")
        if victim == "api":
            stack.kill("api")
        for runner in runners:
            with_no_fuss(runner.kill)
        return bool(runners) or "runner" not in victim

    return fault


def running_job(stack: Stack) -> None:
    """Until a job is computed."""
    wait_until(stack.runners, "a runner", 120)


def some_time(chance: random.Random, most: float) -> Callable[[Stack], None]:
    """A random moment."""
    seconds = chance.uniform(0.0, most)
    return lambda _: time.sleep(seconds)


def freeze(point: str, parts: tuple[str, ...], seconds: float = FROZEN_SECONDS) -> Callable[[Stack], None]:
    """The worker (and its runner) stands still past its lease, while another worker takes over; then it goes on.

    Args:
        point: where the runner is meanwhile, or waits a moment.
        parts: `worker`, and `runner` where it stands still as well.
        seconds: more than the lease.
    """

    def fault(stack: Stack) -> None:
        wait_until(lambda: stack.reached(point), f"{point} to be reached", 120)
        (runner,) = stack.runners()
        # Its parent is the process that runners are forked from, whose parent is the worker.
        stopped = [runner.parent().parent(), *([runner] if "runner" in parts else [])]
        for process in stopped:
            process.suspend()
        try:
            time.sleep(seconds)
        finally:
            for process in stopped:
                with_no_fuss(process.resume)

    return fault


def outage(server: str, mode: str, seconds: float = AWAY_SECONDS) -> Callable[[Stack], None]:
    """A server cannot be reached, answers with errors, or slowly, for a while."""

    def fault(stack: Stack) -> None:
        time.sleep(0.5)
        stack.servers.proxies[server].set(mode)
        try:
            time.sleep(seconds)
        finally:
            stack.servers.proxies[server].set("open")

    return fault


def locked(stack: Stack) -> None:
    """Somebody else writes to SQLite all the time."""
    time.sleep(0.5)
    with closing(sqlite3.connect(stack.home / "graft.db", isolation_level=None, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(AWAY_SECONDS)
        other.execute("ROLLBACK")


def restart_database(stack: Stack) -> None:
    time.sleep(0.5)
    stack.servers.restart_database()


def restart_broker(stack: Stack) -> None:
    assert stack.servers.redis is not None
    stack.servers.redis.stop()
    stack.servers.redis.start()


def wipe_broker(stack: Stack) -> None:
    """All messages are lost, before anybody has heard them."""
    stack.signal("worker", signal.SIGSTOP)
    time.sleep(1.0)
    if stack.servers.redis is not None:
        stack.servers.redis.wipe()
    else:
        for path in (stack.home / "broker" / "messages").iterdir():
            path.unlink()
    stack.signal("worker", signal.SIGCONT)


def remove_broker(stack: Stack) -> None:
    """The whole folder of the filesystem broker goes, while a worker listens."""
    shutil.rmtree(stack.home / "broker")


OUTAGES: dict[str, dict[str, Callable[[Stack], None]]] = {
    "local": {
        "the database is locked for 30 s": locked,
        "all messages of the broker are lost": wipe_broker,
        "the folder of the broker is removed": remove_broker,
    },
    "team": {
        "the database restarts": restart_database,
        "the database does not answer for 30 s": outage("database", "hang"),
        "the database refuses connections for 30 s": outage("database", "refuse"),
        "the broker restarts": restart_broker,
        "all messages of the broker are lost": wipe_broker,
        "the broker does not answer for 30 s": outage("broker", "hang"),
        "the broker refuses connections for 30 s": outage("broker", "refuse"),
        "the object store answers 503 for 30 s": outage("storage", "error"),
        "the object store does not answer for 30 s": outage("storage", "hang"),
        "the object store is slow for 30 s": outage("storage", "slow"),
    },
}
CANNOT = {
    "local": {
        "the database restarts": "SQLite is a file",
        "the database cannot be reached": "SQLite is a file; a lock that is held for 30 s stands for it",
        "the broker restarts": "the broker is a folder",
        "the broker cannot be reached": "the broker is a folder; its removal stands for it",
        "the object store errs or is slow": "storage is a folder; a full disk is a part of its own",
    },
    "team": {"the database is locked": "PostgreSQL locks rows"},
}


def mixed(lab: Lab) -> Done:
    """An upload, a transfer of it on fresh features, repeated folds: everything that a fault may meet."""
    first, second = scenarios.ingest(lab), scenarios.cold(lab)
    return Done(first.jobs + second.jobs, first.result | second.result, second.models)


def outages(lab: Lab) -> Iterator[dict[str, Any]]:
    """Each outage once."""
    undisturbed = mixed(lab)
    for what, fault in OUTAGES[lab.stack.kind].items():
        yield beside(lab, mixed, undisturbed, what, fault)
    for what, why in CANNOT[lab.stack.kind].items():
        yield {"what": what, "stack": lab.stack.kind, "wrong": [], "skipped": why}


def kills(lab: Lab, number: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Random kills at random moments of the cheapest job that checkpoints, and of one that publishes."""
    chance = random.Random(f"kills on {lab.stack.kind} from {first}")
    known = {one: one(lab) for one in (scenarios.folds, scenarios.transfer)}
    began = time.monotonic()
    for one in known:
        one(lab)
    typical = (time.monotonic() - began) / 2
    num_hit = first
    for place in count(first):
        if num_hit >= number:
            return
        victim = VICTIMS[place % len(VICTIMS)]
        one = scenarios.transfer if place % 3 == 2 else scenarios.folds
        row = beside(lab, one, known[one], victim, kill(victim, some_time(chance, typical)))
        num_hit += "missed" not in row
        yield row


def slow_kills(lab: Lab) -> Iterator[dict[str, Any]]:
    """Five kills for each kind that takes long, one of each victim."""
    chance = random.Random(f"slow kills on {lab.stack.kind}")
    for one in (scenarios.tune, scenarios.adapt, scenarios.own_backbone, scenarios.rank, scenarios.advise):
        began = time.monotonic()
        undisturbed = one(lab)
        typical = time.monotonic() - began
        for victim in VICTIMS:
            yield beside(lab, one, undisturbed, victim, kill(victim, some_time(chance, typical)))


def frozen(lab: Lab) -> Iterator[dict[str, Any]]:
    """A worker, alone and with its runner, past its lease; its late result is refused."""
    lab.stack.add_worker("worker 2")
    wait_until(lambda: len(workers(lab.stack)) == 2, "two workers", 120)
    for point, scenario in FROZEN_AT.items():
        undisturbed = scenario(lab)
        for parts in (("worker",), ("worker", "runner")):
            lab.stack.arm(point, "sleep 2")
            what = f"{' and '.join(parts)} frozen at {point}"
            yield beside(lab, scenario, undisturbed, what, freeze(point, parts))
