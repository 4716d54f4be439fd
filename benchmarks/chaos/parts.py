"""The parts of `make chaos`, by name: each yields one row for each fault, with what was wrong after it."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from benchmarks.chaos import code, crowd, faults, outage, points, room
from benchmarks.chaos.lab import Lab
from benchmarks.chaos.stack import running

Row = dict[str, Any]
NUM_KILLS = 300
# Enough for jobs that are killed by chance, few enough for one that is killed each time.
CROWD_ATTEMPTS = 8


def document(before: Row, rows: list[Row]) -> Row:
    """Counts of what was measured before, and of some rows more."""
    measured = [row for row in rows if "skipped" not in row and "missed" not in row]
    steps = [row["steps"] for row in rows if "steps" in row]
    notes = {name: row[name] for row in rows for name in row if name.startswith("num_")}
    told = {**before, **notes}
    told["num_faults"] = before.get("num_faults", 0) + len(measured)
    told["measured_at"] = _of_code(before.get("measured_at", {}), len(measured))
    told["wrong"] = before.get("wrong", []) + [row | {"commit": code.commit()} for row in rows if row["wrong"]]
    # Of what came of a kill that met nothing, too.
    told["num_wrong"] = len(told["wrong"])
    told["what"] = sorted({*before.get("what", []), *(row["what"] for row in measured)})
    # Nothing was there to be killed at that moment: no fault, whatever came of it.
    told["num_missed"] = before.get("num_missed", 0) + sum("missed" in row for row in rows)
    told["cannot_happen"] = before.get("cannot_happen", {}) | {
        row["what"]: row["skipped"] for row in rows if "skipped" in row
    }
    # Attempts that were lost to a fault: what breaks beside a job that has just ended meets none.
    told["num_losses"] = before.get("num_losses", 0) + sum(row.get("losses", 0) for row in rows)
    told["seconds"] = round(before.get("seconds", 0.0) + sum(row.get("seconds", 0.0) for row in rows), 1)
    if steps:
        told["max_steps"] = max(before.get("max_steps", 0.0), *steps)
    return told


def _of_code(before: Row, number: int) -> Row:
    """How many faults met which code, by its digest."""
    so_far = before.get(code.digest(), {}).get("num_faults", 0)
    if so_far + number == 0:
        return before
    return before | {code.digest(): {"commit": code.commit(), "num_faults": so_far + number}}


def num_of_other_code(found: Row) -> int:
    """Faults that were measured of code that is not today's, or of which nobody wrote down which it was."""
    number: int = found["num_faults"] - found.get("measured_at", {}).get(code.digest(), {}).get("num_faults", 0)
    return number


def so_far(results: Row, part: str, stack: str) -> Row:
    """What was measured of a part with today's code; nothing where any of it met another one."""
    found: Row = results["parts"].get(part, {}).get(stack, {})
    return {} if found and num_of_other_code(found) else found


def is_done(part: str, stack: str, before: Row) -> bool:
    """Whether there is nothing left to measure; failpoints that the code has got since then are."""
    added = set(points.on(stack)) - set(before.get("what", [])) if part == failpoints.__name__ else set()
    return bool(before.get("complete")) and not added


def failpoints(folder: Path, stack: str, before: Row) -> Iterator[Row]:
    """Each failpoint, once; those that were reached before are left out."""
    for name, kind in points.ONLY.items():
        if kind != stack:
            yield {"what": name, "stack": stack, "wrong": [], "skipped": f"only the stack {kind} writes there"}
    with running(stack, folder) as service:
        service.add_worker("worker 2")
        yield from points.run(Lab(service), [name for name in points.on(stack) if name not in before.get("what", [])])


def kills(folder: Path, stack: str, before: Row) -> Iterator[Row]:
    """150 random kills on each stack."""
    with running(stack, folder) as service:
        yield from faults.kills(Lab(service), NUM_KILLS // 2, before.get("num_faults", 0))


def slow_kills(folder: Path, stack: str, before: Row) -> Iterator[Row]:
    """Five kills of each slow kind; those that were measured before are left out."""
    with running(stack, folder) as service:
        yield from faults.slow_kills(Lab(service), before.get("what", []))


def frozen(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """SIGSTOP past the lease."""
    with running(stack, folder, worker_slots=1) as service:
        yield from faults.frozen(Lab(service))


def outages(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """Database, broker, object store: away, restarted, wiped, slow."""
    with running(stack, folder) as service:
        yield from outage.outages(Lab(service))


def disk(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """A full disk."""
    yield from room.disk(folder, stack)


def memory(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """No memory left."""
    with running(stack, folder) as service:
        yield from room.memory(Lab(service))


def rolling(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """SIGTERM of a worker, five times."""
    with running(stack, folder, worker_slots=1) as service:
        yield from crowd.rolling(Lab(service))


def many(folder: Path, stack: str, _before: Row) -> Iterator[Row]:
    """200 jobs, three workers."""
    with running(stack, folder, max_attempts=CROWD_ATTEMPTS) as service:
        yield from crowd.many(Lab(service), CROWD_ATTEMPTS)


PARTS: dict[str, Callable[[Path, str, Row], Iterator[Row]]] = {
    one.__name__: one for one in (failpoints, kills, slow_kills, frozen, outages, disk, memory, rolling, many)
}
# About half of the time each.
FIRST = ("failpoints", "slow_kills")
LANES = (FIRST, tuple(name for name in PARTS if name not in FIRST))
# Of the others each run measures all.
GONE_ON_WITH = frozenset({"failpoints", "kills", "slow_kills"})


def lanes(names: Collection[str]) -> list[tuple[str, ...]]:
    """The parts of those names, or all, as lanes that can be run side by side."""
    found = (tuple(name for name in lane if name in (names or PARTS)) for lane in LANES)
    return [lane for lane in found if lane]
