"""No room: a disk that is really full (a small tmpfs), and memory that really ends."""

import errno
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import func, select

from app.db.models import Job, ModelVersion
from benchmarks.chaos import registry, scenarios, verdict
from benchmarks.chaos.clock import rest, wait_until
from benchmarks.chaos.faults import Beside
from benchmarks.chaos.lab import JOB_SECONDS, Lab, finish
from benchmarks.chaos.stack import Stack, running

DISK_BYTES = 64 * 2**20
# Where the disk fills up while a job of the scenario is under way.
FULL_AT = {
    "ingestion": ("ingest", "dataset_file_stored"),
    "features": ("cold", "features_half"),
    "a checkpoint": ("tune", "checkpoint_stored"),
    # All features are stored; a bundle is yet to be written. Once it is, storing it takes no room: it is linked.
    "the writing of a bundle": ("cold", "features_stored"),
}
# Where storage is a disk of its own a bundle is copied to it: one file is there, and the next one has no room.
FULL_STORAGE_AT = {"publication": ("transfer", "bundle_file_stored")}
# Where objects lie in a bucket a host still writes them to its own disk first, and copies those that it reads to it.
FULL_HOST_AT: dict[str, tuple[str, str | None]] = {
    **FULL_AT,
    # An archive is there, of which nothing is written yet: sending what is written takes no room.
    "ingestion": ("ingest", "object_fetched"),
    "the fetching of objects": ("cold", None),
}
# The other stack's, by why this one cannot have it.
CANNOT_HAPPEN = {
    "local": {"the fetching of objects": "objects are read where they lie, without a copy"},
    "team": {"publication": "objects go to a bucket, which has room; a store that refuses them is among the outages"},
}
PAUSE_SECONDS = 6
# Where there is but one disk for all: longer than a lease, so that a job is lost that could not be prolonged.
FULL_SECONDS = 10
# Stacks of threads go into it, a large array does not.
HEADROOM_BYTES = 256 * 2**20


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of its own; None where none may be mounted."""
    place = folder / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """Takes all that is left."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return ballast


def disk(folder: Path, kind: str) -> Iterator[dict[str, Any]]:
    """A disk is full: one of several, the database's is another; on one machine the only one as well."""
    with small_disk(folder) as place:
        for what, why in CANNOT_HAPPEN[kind].items():
            yield {"what": f"the disk is full during {what}", "stack": kind, "wrong": [], "skipped": why}
        if place is None:
            yield {"what": "the disk is full", "stack": kind, "wrong": [], "skipped": "nothing may be mounted here"}
        elif kind == "local":
            yield from _of_one_machine(folder, place)
        else:
            yield from _of_a_host(folder, place)


def _of_one_machine(folder: Path, place: Path) -> Iterator[dict[str, Any]]:
    """The disk of objects and working files, then that of objects alone, then the only one."""
    url, prepared = f"sqlite:///{folder / 'elsewhere.db'}", folder / "prepared"
    with running("local", place, database_url=url, prepared=prepared) as stack:
        lab = Lab(stack)
        for what, (scenario, point) in FULL_AT.items():
            yield full(lab, place, what, scenario, point)
        yield rejected(lab, place)
    with running("local", folder, storage_url=f"file://{place / 'storage'}", prepared=prepared) as stack:
        lab = Lab(stack)
        for what, (scenario, point) in FULL_STORAGE_AT.items():
            yield full(lab, place, what, scenario, point)
    with running("local", place, prepared=prepared) as stack:
        lab = Lab(stack)
        for what, (scenario, point) in FULL_AT.items():
            yield everywhere(lab, place, what, scenario, point)


def _of_a_host(folder: Path, place: Path) -> Iterator[dict[str, Any]]:
    """The disk of working files and of local copies of objects, which themselves lie in a bucket."""
    with running("team", place, prepared=folder / "prepared") as stack:
        lab = Lab(stack)
        for what, (scenario, point) in FULL_HOST_AT.items():
            yield full(lab, place, what, scenario, point)
        yield rejected(lab, place)


def full(lab: Lab, place: Path, what: str, scenario: str, point: str | None) -> dict[str, Any]:
    """A job meets a full disk: it fails and says so, leaves nothing, and the same succeeds when there is room.

    Args:
        lab: on that disk.
        place: where it is mounted.
        what: is under way then.
        scenario: the job's.
        point: where the job is when the disk fills up; None where it is full before, and no copy of an object is there.
    """
    stack, run = lab.stack, registry.SCENARIOS[scenario]
    undisturbed = run(lab)
    before = _num_versions(stack)
    if point is None:
        shutil.rmtree(stack.home / "cache")
        ballast, going = fill(place), Beside(lab, run)
    else:
        stack.arm(point, f"sleep {PAUSE_SECONDS}")
        going = Beside(lab, run)
        wait_until(lambda: stack.reached(point), f"{point} to be reached", JOB_SECONDS)
        ballast = fill(place)
    try:
        done = going.result()
        (job,) = finish(stack, done.jobs[-1:])
        wrong = _failed_in_words(stack, job, before)
    except AssertionError as error:
        wrong = [str(error)]
    finally:
        ballast.unlink()
    wrong += verdict.settle(stack)
    row = {"what": f"the disk is full during {what}", "stack": stack.kind, "by": scenario}
    told = verdict.told(stack, lambda: run(lab), undisturbed)
    return row | told | {"wrong": wrong + told["wrong"]}


def everywhere(lab: Lab, place: Path, what: str, scenario: str, point: str) -> dict[str, Any]:
    """There is one disk for all, the database too: nothing can be written down until there is room again.

    Meanwhile questions are answered and what writes is told why not; then the job ends as one that was never disturbed,
    or has failed and says so.
    """
    stack, run = lab.stack, registry.SCENARIOS[scenario]
    undisturbed, before = run(lab), _num_versions(stack)
    stack.arm(point, f"sleep {PAUSE_SECONDS}")
    going = Beside(lab, run)
    wait_until(lambda: stack.reached(point), f"{point} to be reached", JOB_SECONDS)
    ballast = fill(place)
    try:
        rest(FULL_SECONDS)
        wrong = _answers(stack)
    finally:
        ballast.unlink()
    row = {"what": f"the only disk is full during {what}", "stack": stack.kind, "by": scenario}
    (job,) = finish(stack, going.result().jobs[-1:])
    if job.state == "failed":
        wrong += _failed_in_words(stack, job, before)
        told = verdict.told(stack, lambda: run(lab), undisturbed)
    else:
        told = verdict.told(stack, going.result, undisturbed)
    return row | told | {"wrong": wrong + verdict.settle(stack) + told["wrong"], "ended": job.state}


def _failed_in_words(stack: Stack, job: Job, num_before: int) -> list[str]:
    """Whether a job says that the disk was full, and has published nothing."""
    wrong = []
    if job.state != "failed" or "disk is full" not in (job.failure_message or ""):
        wrong.append(f"expected a failure that tells of the disk; found {job.state}: {job.failure_message}")
    if _num_versions(stack) != num_before:
        wrong.append("expected no version; found one")
    return wrong


def _answers(stack: Stack) -> list[str]:
    """What the API says while there is no room: the database may have some left in a file of its own."""
    asked = stack.client._http.get("/api/v1/jobs").status_code
    answer = stack.client._http.post("/api/v1/webhooks", json={"url": stack.receiver.url})
    found = (asked, answer.status_code, answer.json().get("code"))
    expected = {(200, 201, None), (200, 507, "insufficient_storage")}
    return [] if found in expected else [f"expected one of {sorted(expected, key=str)}; found {found}"]


def rejected(lab: Lab, place: Path) -> dict[str, Any]:
    """An upload meets a full disk: 507, and nothing of it is left."""
    stack = lab.stack
    ballast = fill(place)
    try:
        form = {"files": {"file": ("a.zip", lab.archive.read_bytes() * 20)}, "data": {"name": "full"}}
        answer = stack.client._http.post("/api/v1/datasets", **form)
        found = (answer.status_code, answer.json().get("code"))
    finally:
        ballast.unlink()
    wrong = [] if found == (507, "insufficient_storage") else [f"expected 507 insufficient_storage; found {found}"]
    return {"what": "the disk is full during an upload", "stack": stack.kind, "wrong": wrong + verdict.settle(stack)}


def memory(lab: Lab) -> Iterator[dict[str, Any]]:
    """The runner may take no more memory than it has: it fails as out_of_memory, and its worker goes on."""
    stack = lab.stack
    undisturbed = scenarios.tune(lab)
    worker = stack.process("worker").pid
    stack.arm("checkpoint_stored", f"sleep {PAUSE_SECONDS}")
    going = Beside(lab, scenarios.tune)
    wait_until(lambda: stack.reached("checkpoint_stored"), "a checkpoint", JOB_SECONDS)
    (runner,) = stack.runners()
    with_limit(runner)
    stack.arm("checkpoint_stored", f"take {2 * HEADROOM_BYTES}")
    done = going.result()
    (job,) = finish(stack, done.jobs)
    wrong = []
    if (job.state, job.failure_code) != ("failed", "out_of_memory"):
        wrong.append(f"expected out_of_memory; found {job.state} {job.failure_code}: {job.failure_message}")
    if stack.process("worker").pid != worker:
        wrong.append("expected the same worker; found another one")
    wrong += verdict.judge(stack, scenarios.tune(lab), undisturbed)
    yield {"what": "no memory is left in the runner", "stack": stack.kind, "wrong": wrong}
    yield {"what": "no memory is left on the GPU", "stack": stack.kind, "wrong": [], "skipped": "no GPU here; "
           "tests/worker/training/test_loop.py halves batches on a device that pretends"}  # fmt: skip


def with_limit(process: psutil.Process) -> None:
    """Its address space ends a little beyond what it has: Python waits forever for a thread that it cannot start."""
    size = process.memory_info().vms + HEADROOM_BYTES
    resource.prlimit(process.pid, resource.RLIMIT_AS, (size, size))


def _num_versions(stack: Stack) -> int:
    with stack.database.read() as session:
        return int(session.scalar(select(func.count()).select_from(ModelVersion)) or 0)
