"""Faults that are no place in the code: kills and freezes, each beside running jobs."""

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from itertools import count
from typing import Any

from app.services import queues
from benchmarks.chaos import points, scenarios, verdict
from benchmarks.chaos.clock import rest, wait_until
from benchmarks.chaos.lab import JOB_SECONDS, Done, Lab
from benchmarks.chaos.stack import Stack, with_no_fuss

FROZEN_SECONDS = 4.0
FROZEN_AT = {
    "part_stored": scenarios.folds,
    "features_half": scenarios.cold,
    "bundle_file_stored": scenarios.transfer,
    "dataset_file_stored": scenarios.ingest,
}
# A minute each on two cores, or graphs of their own; and two that are not slow, but publish, and write a file.
SLOW_KINDS = (
    scenarios.tune, scenarios.adapt, scenarios.auto, scenarios.own_backbone, scenarios.rank, scenarios.advise,
    scenarios.transfer, scenarios.extract,
)  # fmt: skip
VICTIMS = ("runner", "worker", "worker and runner", "api", "everything")


def workers(stack: Stack) -> list[str]:
    """Ids of workers that live."""
    with stack.database.read() as session:
        return [row.id for row in queues.live_workers(session, timedelta(seconds=10))]


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

    def done() -> Done:
        try:
            if fault(lab.stack) is False:
                row["missed"] = True
        finally:
            # Whatever came of the fault, the next one begins when this is over.
            going.join()
        return going.result()

    told = verdict.told(lab.stack, done, undisturbed, stepped=scenario.__name__ in points.STEPPED)
    return row | told | {"seconds": round(time.monotonic() - began, 1)}


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


def some_time(chance: random.Random, most: float) -> Callable[[Stack], None]:
    """A random moment."""
    seconds = chance.uniform(0.0, most)
    return lambda _: rest(seconds)


def freeze(point: str, parts: tuple[str, ...], seconds: float = FROZEN_SECONDS) -> Callable[[Stack], None]:
    """The worker (and its runner) stands still past its lease, while another worker takes over; then it goes on.

    Args:
        point: where the runner is meanwhile, or waits a moment.
        parts: `worker`, and `runner` where it stands still as well.
        seconds: more than the lease.
    """

    def fault(stack: Stack) -> None:
        wait_until(lambda: stack.reached(point), f"{point} to be reached", JOB_SECONDS)
        (runner,) = stack.runners()
        # Its parent is the process that runners are forked from, whose parent is the worker.
        stopped = [runner.parent().parent(), *([runner] if "runner" in parts else [])]
        for process in stopped:
            process.suspend()
        try:
            rest(seconds)
        finally:
            for process in stopped:
                with_no_fuss(process.resume)

    return fault


def kills(lab: Lab, number: int, first: int = 0) -> Iterator[dict[str, Any]]:
    """Random kills at random moments of the cheapest job that checkpoints."""
    chance = random.Random(f"kills on {lab.stack.kind} from {first}")
    undisturbed = scenarios.folds(lab)
    began = time.monotonic()
    scenarios.folds(lab)
    typical = time.monotonic() - began
    num_hit = first
    for place in count(first):
        if num_hit >= number:
            return
        victim = VICTIMS[place % len(VICTIMS)]
        row = beside(lab, scenarios.folds, undisturbed, victim, kill(victim, some_time(chance, typical)))
        num_hit += "missed" not in row
        yield row


def slow_kills(lab: Lab, before: Collection[str]) -> Iterator[dict[str, Any]]:
    """Five kills for each kind that takes long, one of each victim.

    Args:
        lab: what they begin with.
        before: `what` of rows that were measured before.
    """
    chance = random.Random(f"slow kills on {lab.stack.kind} from {len(before)}")
    for one in SLOW_KINDS:
        left = [victim for victim in VICTIMS if f"{one.__name__}: {victim}" not in before]
        if not left:
            continue
        undisturbed = one(lab)
        # Of the job: what it needs is prepared before the first one, which may take longer.
        typical = verdict.took_seconds(lab.stack, undisturbed.jobs[0])
        for victim in left:
            missed = True
            while missed:
                row = beside(
                    lab, one, undisturbed, f"{one.__name__}: {victim}", kill(victim, some_time(chance, typical))
                )
                missed = "missed" in row
                yield row


def frozen(lab: Lab) -> Iterator[dict[str, Any]]:
    """A worker, alone and with its runner, past its lease; its late result is refused."""
    lab.stack.add_worker("worker 2")
    wait_until(lambda: len(workers(lab.stack)) == 2, "two workers", 120)
    for point, scenario in FROZEN_AT.items():
        undisturbed = scenario(lab)
        for parts in (("worker",), ("worker", "runner")):
            lab.stack.arm(point, "sleep 2")
            what = f"{' and '.join(parts)} frozen at {point}"
            row = beside(lab, scenario, undisturbed, what, freeze(point, parts))
            if row.get("losses") == 0:
                row["wrong"].append("expected another worker to have taken over; found that none did")
            yield row
