"""What must be true after every fault: each check that fails is one line of text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import or_, select, update

from app import abandoned, in_use
from app.db.alignments import Alignment
from app.db.base import now
from app.db.models import Dataset, Job, JobEvent, Model, ModelVersion, UserBackbone
from app.db.studies import Advice
from app.db.uploads import Upload
from app.db.waste import Waste
from app.serving import parts
from app.states import FINAL
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import Done
from benchmarks.chaos.stack import Stack

SETTLE_SECONDS = 60.0
MAX_STEPS = 1.3
# Told by a job when it has computed it.
_IS_PART = (JobEvent.type == "metric") & or_(*map(JobEvent.message.startswith, ("repeat", "epoch")))
# What onnxruntime and torch keep where temporary files are, for all processes of a user under one name.
CACHES = (".ses", "torchinductor_")


def told(
    stack: Stack, done_of: Callable[[], Done], undisturbed: Done | None, *, stepped: bool = False
) -> dict[str, Any]:
    """What a row says of how a scenario has ended: `wrong`, `losses`, and `steps` where its job tells them.

    Whatever a client meets that does not give up is wrong, an answer that it cannot understand too.
    """
    try:
        done = done_of()
        stack.wait_ready()
        wrong = judge(stack, done, undisturbed)
    except Exception as error:
        stack.disarm()
        stack.asked |= _job_ids(stack)
        return {"wrong": [str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"]}
    row: dict[str, Any] = {"wrong": wrong}
    if done.jobs:
        row["losses"] = losses(stack, done.jobs[0])
    if stepped:
        row["steps"] = round(steps(stack, done.jobs[0]), 3)
        wrong += judge_steps(stack, done.jobs[0])
    return row


def judge(stack: Stack, done: Done, undisturbed: Done | None) -> list[str]:
    """What is wrong with what a scenario has made, and with what it left behind."""
    found: list[str] = []
    for job_id in done.jobs:
        found += judge_job(stack, job_id)
    with stack.database.read() as session:
        for name, number in done.models.items():
            query = select(ModelVersion.version).join(Model, Model.id == ModelVersion.model_id)
            versions = sorted(session.scalars(query.where(Model.name == name)))
            if versions != list(range(1, number + 1)):
                found.append(f"model {name}: expected versions 1 to {number}; found {versions}")
    if undisturbed is not None and done.result != undisturbed.result:
        found.append(f"expected the result of an undisturbed run, {undisturbed.result}; found {done.result}")
    return found + doubled(stack) + settle(stack)


def doubled(stack: Stack) -> list[str]:
    """Jobs beside those that were asked for: a request that was repeated, and taken for another one."""
    found = _job_ids(stack)
    extra, stack.asked = found - stack.asked, stack.asked | found
    return [f"expected no job that nobody has asked for; found {job_id}" for job_id in sorted(extra)]


def _job_ids(stack: Stack) -> set[str]:
    with stack.database.read() as session:
        return set(session.scalars(select(Job.id)))


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


def took_seconds(stack: Stack, job_id: str) -> float:
    """From the request for a job to its end."""
    with stack.database.read() as session:
        job = session.get_one(Job, job_id)
        assert job.finished_at is not None
        return (job.finished_at - job.created_at).total_seconds()


def judge_steps(stack: Stack, job_id: str) -> list[str]:
    """Whether a job has computed little more than once; each attempt that was lost may have cost as much."""
    most = 1 + (MAX_STEPS - 1) * max(1, losses(stack, job_id))
    found = steps(stack, job_id)
    return [] if found <= most else [f"{job_id}: expected at most {most:g} times the steps; found {found:g}"]


def steps(stack: Stack, job_id: str) -> float:
    """Steps that were computed over steps that there are, of a job that tells of its parts by metrics; else infinite.

    Where a job does not number its steps, a part is one. Conservative: a lost attempt is thought to have nearly
    finished the part that it was at.
    """
    with stack.database.read() as session:
        job = session.get_one(Job, job_id)
        query = select(JobEvent.message, JobEvent.data).where(JobEvent.job_id == job_id).order_by(JobEvent.seq)
        told = session.execute(query.where(JobEvent.message.startswith("resumed from step") | _IS_PART)).all()
    ends: dict[str, int] = {}
    computed = at = 0
    goes_on = False
    for message, data in told:
        if message.startswith("resumed"):
            computed, at, goes_on = computed + max(0, data["step"] - at), data["step"], True
            continue
        part = message.partition(":")[0]
        end = ends.setdefault(part, data.get("step", len(ends) + 1))
        # An attempt that found nothing to go on from begins anew; one that goes on from a part's last step only tells
        # of that part.
        computed, at, goes_on = computed + end - (at if at < end or goes_on else 0), end, False
    if not ends:
        return float("inf")
    total = max(ends.values())
    return (computed + job.losses * total / len(ends)) / total


def await_point(stack: Stack, name: str) -> None:
    """Returns when an armed point was reached.

    Raises:
        AssertionError: it is not within a while.
    """
    wait_until(lambda: stack.reached(name), f"{name} to be reached", SETTLE_SECONDS)


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
    found = [f"a process is left: {process.pid}" for process in (*stack.runners(), *stack.orphans())]
    # What a killed process was writing is taken away an hour later: that it is found by then is asked of the sweep now.
    abandoned.remove(stack.settings, 0.0, stack.temporary)
    with stack.database.read() as session:
        owned = _owned(session)
        found += [f"waste is left: {row.prefix}" for row in session.scalars(select(Waste))]
    # Drafts and parts of unfinished uploads too.
    for key in sorted(stored.key for stored in stack.storage.walk()):
        if not key.startswith(owned) and not (key.startswith("features/") and _is_whole(stack, key)):
            found.append(f"a file is left: {key}")
    temporary = (path for path in stack.temporary.glob("*") if not path.name.startswith(CACHES))
    working = [*stack.settings.scratch.glob("*"), *temporary]
    found += [f"a working file is left: {path}" for path in working if not _is_in_use(path)]
    if stack.kind == "local":
        found += [f"a message is left: {path.name}" for path in (stack.home / "broker" / "messages").iterdir()]
    return found


def _is_in_use(path: Path) -> bool:
    """Whether it is a folder that a living process has marked."""
    return (path / in_use.MARK).exists() and not in_use.is_left(path)


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


def _is_whole(stack: Stack, key: str) -> bool:
    name = key.rpartition(".")[0]
    there = set(stack.storage.list(key.rpartition("/")[0]))
    return {f"{name}.npy", f"{name}.keys"} <= there
