"""The parts of `make chaos`, by name: each yields one row for each fault, with what was wrong after it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import crowd, faults, points, room
from benchmarks.chaos.scenarios import Lab
from benchmarks.chaos.stack import running

Row = dict[str, Any]
NUM_KILLS = 300


@dataclass
class Counted:
    """How many faults there were, and after how many something was wrong."""

    rows: list[Row] = field(default_factory=list)

    @property
    def num_wrong(self) -> int:
        return sum(bool(row["wrong"]) for row in self.rows)

    def add(self, row: Row) -> None:
        self.rows.append(row)

    def document(self) -> dict[str, Any]:
        steps = [row["steps"] for row in self.rows if "steps" in row]
        notes = {name: row[name] for row in self.rows for name in row if name.startswith("num_")}
        return {
            "num_faults": sum("skipped" not in row for row in self.rows),
            "num_wrong": self.num_wrong,
            "wrong": [row for row in self.rows if row["wrong"]],
            "cannot_happen": {row["what"]: row["skipped"] for row in self.rows if "skipped" in row},
            "what": sorted({row["what"] for row in self.rows if "skipped" not in row}),
            **({"max_steps": max(steps)} if steps else {}),
            **notes,
        }


def failpoints(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """Each failpoint, once."""
    with running(stack, folder) as service:
        service.add_worker("worker 2")
        yield from points.run(Lab(service), points.on(stack))
    for name, kind in points.ONLY.items():
        if kind != stack:
            yield {"what": name, "stack": stack, "wrong": [], "skipped": f"only the stack {kind} writes there"}


def kills(folder: Path, stack: str, deadline: float) -> Iterator[Row]:
    """150 random kills on each stack."""
    with running(stack, folder) as service:
        yield from faults.kills(Lab(service), NUM_KILLS // 2, deadline)


def slow_kills(folder: Path, stack: str, deadline: float) -> Iterator[Row]:
    """Five kills of each slow kind."""
    with running(stack, folder) as service:
        yield from faults.slow_kills(Lab(service), deadline)


def frozen(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """SIGSTOP past the lease."""
    with running(stack, folder, worker_slots=1) as service:
        yield from faults.frozen(Lab(service))


def outages(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """Database, broker, object store: away, restarted, wiped, slow."""
    with running(stack, folder) as service:
        yield from faults.outages(Lab(service))


def disk(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """A full disk, where there is one."""
    if stack == "local":
        yield from room.disk(folder)
    else:
        yield {"what": "the disk is full", "stack": stack, "wrong": [], "skipped": "objects lie in a bucket"}


def memory(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """No memory left."""
    with running(stack, folder) as service:
        yield from room.memory(Lab(service))


def rolling(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """SIGTERM of a worker, five times."""
    with running(stack, folder, worker_slots=1) as service:
        yield from crowd.rolling(Lab(service))


def many(folder: Path, stack: str, _deadline: float) -> Iterator[Row]:
    """200 jobs, three workers."""
    with running(stack, folder, max_attempts=8) as service:
        yield from crowd.many(Lab(service))


PARTS: dict[str, Callable[[Path, str, float], Iterator[Row]]] = {
    one.__name__: one for one in (failpoints, kills, slow_kills, frozen, outages, disk, memory, rolling, many)
}
