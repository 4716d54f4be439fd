"""Who gets the next slot: three projects share one or two, one of them floods; and what a claim costs among many jobs.

    python benchmarks/fairness.py [--rows 1000000] [--queued 100000]

Claims are those of `app.services.attempts`, on SQLite and on PostgreSQL, with the tables that the migrations make. Jobs
do not compute: a clock of the benchmark's own says when each ends, so that the same happens every time. `flood` asks
for 200 jobs of 10 s at once, with the priority that uploads have; `calm` asks for a job of 10 s every 40 s; `burst`
comes in the middle with ten, of which the last three are urgent. Waiting times are seconds of that clock. Prints one
JSON document.
"""

import argparse
import heapq
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.db.models import Job, Project
from app.db.session import Database
from app.services import attempts, jobs
from benchmarks._databases import databases, fill, migrated

SECONDS, FLOOD, URGENT = 10.0, 200, 10
CALM_EVERY, NUM_CALM = 40.0, 20
BURST_AT, BURST = 200.0, (*[0] * 7, *[URGENT] * 3)
GROWTH = 2.0


def arrivals() -> list[tuple[float, str, int]]:
    """(moment, project, priority) of every job."""
    flood = [(0.0, "flood", URGENT)] * FLOOD
    calm = [(1.0 + CALM_EVERY * number, "calm", 0) for number in range(NUM_CALM)]
    burst = [(BURST_AT + 1.0, "burst", priority) for priority in BURST]
    return sorted([*flood, *calm, *burst], key=lambda one: one[0])


def share(database: Database, slots: int) -> dict[str, Any]:
    """Lets all of them arrive, start and end."""
    with database.write() as session:
        session.add_all(Project(id=name) for name in ("flood", "calm", "burst"))
    coming = arrivals()
    came: dict[str, float] = {}
    ends: list[tuple[float, str]] = []
    starts: list[tuple[float, str, int, float]] = []
    clock = 0.0
    while coming or ends:
        while coming and coming[0][0] <= clock:
            at, project, priority = coming.pop(0)
            with database.write() as session:
                came[jobs.create(session, project, jobs.NewJob(kind="ingest", priority=priority)).id] = at
        while ends and ends[0][0] <= clock:
            with database.write() as session:
                jobs.move(session, session.get_one(Job, heapq.heappop(ends)[1]), jobs.JobState.SUCCEEDED)
        while len(ends) < slots:
            with database.write() as session:
                job = attempts.claim(session, ("cpu",), f"w{len(starts)}", 1e6)
                if job is None:
                    break
                starts.append((clock, job.project_id, job.priority, clock - came[job.id]))
            heapq.heappush(ends, (clock + SECONDS, job.id))
        clock = min([one[0] for one in ends[:1]] + [one[0] for one in coming[:1]], default=clock)
    return told(starts)


def told(starts: list[tuple[float, str, int, float]]) -> dict[str, Any]:
    """Shares while all three wait, waiting times, and the order of priorities."""
    burst = [start for start in starts if start[1] == "burst"]
    began, ended = BURST_AT, burst[-1][0]
    meanwhile = [start for start in starts if began < start[0] <= ended]
    found: dict[str, Any] = {
        "starts_while_burst_waits": {
            name: sum(one[1] == name for one in meanwhile) for name in ("flood", "calm", "burst")
        },
        "burst_priorities_in_order": [one[2] for one in burst],
    }
    for name in ("flood", "calm", "burst"):
        waits = [one[3] for one in starts if one[1] == name]
        found[name] = {"num_jobs": len(waits), "median_wait": statistics.median(waits), "longest_wait": max(waits)}
    order = found["burst_priorities_in_order"]
    # The job that runs, and one of each other project before its turn.
    found["meets_goal"] = found["calm"]["longest_wait"] <= 3 * SECONDS and order == sorted(order, reverse=True)
    return found


def cost(database: Database, num_claims: int = 30) -> dict[str, float]:
    """Milliseconds of a claim, with its commit; and of this process's processor, which other work does not lengthen."""
    taken: list[float] = []
    used = time.process_time()
    for number in range(num_claims):
        began = time.perf_counter()
        with database.write() as session:
            job = attempts.claim(session, ("cpu", "gpu"), f"w{number}", 1e6)
            assert job is not None
        taken.append(1000 * (time.perf_counter() - began))
    processor_ms = 1000 * (time.process_time() - used) / num_claims
    return {
        "median_ms": round(statistics.median(taken), 2), "longest_ms": round(max(taken), 2),
        "processor_ms": round(processor_ms, 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=100_000)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    with databases() as makers:
        for kind, make in makers.items():
            found[kind] = {"sharing": {}}
            for slots in (1, 2):
                with migrated(make(f"share_{slots}")) as database:
                    found[kind]["sharing"][f"slots_{slots}"] = share(database, slots)
            costs: dict[str, Any] = {"finished": given.rows, "queued": given.queued}
            for name, rows, queued in (("small", 1000, 100), ("large", given.rows, given.queued)):
                with migrated(make(name)) as database:
                    fill(database, rows, queued, ("p0", "p1", "p2", "p3"))
                    costs[name] = cost(database)
            costs["meets_goal"] = costs["large"]["median_ms"] <= GROWTH * costs["small"]["median_ms"]
            found[kind]["claim"] = costs
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
