"""What must be true after every fault: each check that fails is one line of text."""

from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from app import abandoned
from app.db.base import now
from app.db.models import Alignment, Dataset, Job, JobEvent, Model, ModelVersion, UserBackbone
from app.db.studies import Advice
from app.db.uploads import Upload
from app.db.waste import Waste
from app.serving import parts
from app.states import FINAL
from app.storage import FolderStorage
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import Done
from benchmarks.chaos.stack import Stack

SETTLE_SECONDS = 60.0
MAX_STEPS = 1.3


def judge(stack: Stack, done: Done, undisturbed: Done | None) -> list[str]:
    """What is wrong with what a scenario has made, and with what it left behind."""
    found: list[str] = []
    for job_id in filter(None, done.jobs):
        found += judge_job(stack, job_id)
    with stack.database.read() as session:
        for name, number in done.models.items():
            query = select(ModelVersion.version).join(Model, Model.id == ModelVersion.model_id)
            versions = sorted(session.scalars(query.where(Model.name == name)))
            if versions != list(range(1, number + 1)):
                found.append(f"model {name}: expected versions 1 to {number}; found {versions}")
    if undisturbed is not None and done.result != undisturbed.result:
        found.append(f"expected the result of an undisturbed run, {undisturbed.result}; found {done.result}")
    return found + settle(stack)


def judge_job(stack: Stack, job_id: str) -> list[str]:
    """Whether a job succeeded, once, with a log that has no holes."""
    with stack.database.read() as session:
        job = session.get(Job, job_id)
        if job is None:
            return [f"{job_id}: expected a job; found none"]
        query = select(JobEvent.seq, JobEvent.type, JobEvent.data).where(JobEvent.job_id == job_id)
        events = session.execute(query.order_by(JobEvent.seq)).all()
    found = []
    if job.state != "succeeded":
        found.append(f"{job_id} ({job.kind}): expected succeeded; found {job.state}: {job.failure_message}")
    states = [row.data["state"] for row in events if row.type == "state" and row.data.get("state")]
    if sum(state in FINAL for state in states) != 1 or (states and states[-1] != job.state):
        found.append(f"{job_id}: expected one end; found {states}")
    if states.count("running") != job.attempt:
        found.append(f"{job_id}: expected a start for each of {job.attempt} attempts; found {states}")
    numbers = [row.seq for row in events]
    if numbers != list(range(1, job.last_seq + 1)):
        found.append(f"{job_id}: expected events 1 to {job.last_seq}; found {numbers}")
    return found


def losses(stack: Stack, job_id: str) -> int:
    """Attempts of a job that were lost."""
    with stack.database.read() as session:
        return session.get_one(Job, job_id).losses


def steps(stack: Stack, job_id: str) -> float:
    """Parts that were computed over parts that there are, of a job that tells each by a metric.

    Conservative: a lost attempt is thought to have nearly finished the part that it was at.
    """
    with stack.database.read() as session:
        job = session.get_one(Job, job_id)
        query = select(JobEvent.message).where(JobEvent.job_id == job_id, JobEvent.type == "metric")
        told = [message for message in session.scalars(query) if message.startswith(("repeat", "epoch"))]
    distinct = len({message.partition(":")[0] for message in told})
    return (len(told) + job.losses) / max(1, distinct)


def await_point(stack: Stack, name: str) -> bool:
    """Whether an armed point is reached within a while."""
    try:
        wait_until(lambda: stack.reached(name), f"{name} to be reached", SETTLE_SECONDS)
    except AssertionError:
        stack.disarm()
        return False
    return True


def settle(stack: Stack) -> list[str]:
    """What is still there of ended work after a while that is long enough to clear up."""
    found: list[str] = []
    # What a killed process had reserved is given up an hour later: that it is known is asked of the sweep now.
    with stack.database.write() as session:
        session.execute(update(Waste).values(due_at=now()))

    def clear() -> bool:
        found[:] = leftovers(stack)
        return not found

    try:
        wait_until(clear, "nothing to be left", SETTLE_SECONDS)
    except AssertionError:
        return found
    return []


def leftovers(stack: Stack) -> list[str]:
    """Processes, files and rows that nothing needs."""
    found = [f"a process is left: {process.pid}" for process in stack.runners()]
    # What a killed process was writing is taken away an hour later: that it is found by then is asked of the sweep now.
    abandoned.remove(stack.settings, 0.0)
    with stack.database.read() as session:
        owned = _owned(session)
        found += [f"waste is left: {row.prefix}" for row in session.scalars(select(Waste))]
    for key in _keys(stack):
        if not key.startswith(owned) and not (key.startswith("features/") and _is_whole(stack, key)):
            found.append(f"a file is left: {key}")
    scratch = stack.home / "scratch"
    found += [f"a working file is left: {path.name}" for path in scratch.glob("*")]
    if stack.kind == "local":
        found += [f"a message is left: {path.name}" for path in (stack.home / "broker" / "messages").iterdir()]
    return found


def _owned(session: Any) -> tuple[str, ...]:
    """Prefixes that a row speaks of."""
    owned = {"graphs/", "health/"}
    ready = select(Dataset.project_id, Dataset.id).where(Dataset.state == "ready")
    owned |= {f"datasets/{project}/{dataset}/" for project, dataset in session.execute(ready)}
    owned |= {f"{prefix}/" for prefix in session.scalars(select(ModelVersion.prefix))}
    versions = session.execute(select(ModelVersion.project_id, ModelVersion.id))
    owned |= {f"{parts.prefix(project, version_id)}/" for project, version_id in versions}
    owned |= {f"{prefix}/" for prefix in session.scalars(select(Alignment.prefix)) if prefix}
    owned |= {f"studies/{row.project_id}/{row.id}/" for row in session.scalars(select(Advice)) if row.state == "ready"}
    for row in session.scalars(select(UserBackbone)):
        owned |= {f"{row.document['prefix']}/"} if row.state == "ready" else set()
    for job in session.scalars(select(Job).where(Job.kind.in_(("predict", "extract")), Job.state == "succeeded")):
        owned.add(job.inputs["file"])
    for row in session.scalars(select(Upload).where(Upload.state != "used")):
        owned |= {f"{top}/{row.project_id}/{row.id}" for top in ("incoming", "uploads")}
    # A failed transfer may be retried, and goes on from there.
    for job in session.scalars(select(Job).where(Job.kind == "transfer", Job.state == "failed")):
        owned.add(f"checkpoints/{job.project_id}/{job.id}/")
    return tuple(owned)


def _keys(stack: Stack) -> list[str]:
    if isinstance(stack.storage, FolderStorage):
        root = Path(stack.settings.home_path / "storage")
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    tops = ("datasets", "bundles", "features", "graphs", "checkpoints", "incoming", "backbones", "uploads", "studies",
            "predictions", "health")  # fmt: skip
    return sorted(key for top in tops for key in stack.storage.list(top))


def _is_whole(stack: Stack, key: str) -> bool:
    name = key.rpartition(".")[0]
    there = set(stack.storage.list(key.rpartition("/")[0]))
    return {f"{name}.npy", f"{name}.keys"} <= there
