"""A collection, and what it must leave: as many bytes as there were before anything that it takes away was made."""

import signal
from pathlib import Path

from sqlalchemy import update

from app.db.base import now
from app.db.collections import Collection
from app.db.models import Job
from app.services import collections
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import PROBE, Done, Lab, finish, numbers, plain
from benchmarks.chaos.prepare import TINY
from benchmarks.chaos.stack import Stack
from tests import factories

# Written from time to time by whoever has answered for a model, and by whoever asks whether storage can be written to.
BESIDE = ("observed/", "predictions/", "health/")


def collect(lab: Lab) -> Done:
    """Features of two datasets that share pictures: one goes, what the other needs is rewritten; then it goes as well.

    Raises:
        AssertionError: other bytes are there than before.
    """
    stack, number = lab.stack, next(numbers)
    collected(stack)
    before = stored(stack)
    shared, own = factories.pictures(8, first=200), factories.pictures(4, first=300)
    first = _ingest(lab, f"c{number}", shared | own)
    done = [_transfer(lab, first, f"c{number}")]
    second = _ingest(lab, f"d{number}", shared)
    _delete(lab, f"/models/c{number}", f"/datasets/{first}")
    orphan = lab.folder / "orphan"
    orphan.write_bytes(b"nobody's")
    stack.storage.put(f"checkpoints/default/{done[0].id}/000000001.safetensors", orphan)
    collected(stack)
    # On the rows that were rewritten.
    done.append(_transfer(lab, second, f"d{number}"))
    learned = plain(done[1].metrics)
    _delete(lab, f"/models/d{number}", f"/datasets/{second}")
    collected(stack)
    after = stored(stack)
    assert after == before, (
        f"expected the bytes of before; found {sorted(after.items() - before.items())} beside them, and "
        f"{sorted(before.items() - after.items())} gone"
    )
    return Done([job.id for job in done], {"metrics": learned})


def collected(stack: Stack) -> None:
    """`graft collect --remove`, until one has come to its end."""

    def ended() -> bool:
        status = stack.command("collect", "--remove", "--quiet", "--older-than", "0")
        if status == -signal.SIGKILL:
            # Ten minutes later another one may begin: that it is known is told to the next one now.
            with stack.database.write() as session:
                running = update(Collection).where(Collection.finished_at.is_(None))
                session.execute(running.values(seen_at=now() - collections.SILENT))
        return status == 0

    wait_until(ended, "a collection that comes to its end", 120)


def stored(stack: Stack) -> dict[str, int]:
    """Sizes of all that lies in storage, by key."""
    return {one.key: one.size_bytes for one in stack.storage.walk() if not one.key.startswith(BESIDE)}


def _ingest(lab: Lab, name: str, pictures: dict[str, bytes]) -> str:
    archive: Path = lab.folder / f"{name}.zip"
    archive.write_bytes(factories.pack(pictures))
    return str(lab.ingest(name, archive)["id"])


def _transfer(lab: Lab, dataset: str, name: str) -> Job:
    body = {"kind": "transfer", "dataset": dataset, "backbone": TINY, "recipe": PROBE, "model": name, "seed": 7}
    made = lab.stack.post("/jobs", f"collect-{name}", json=body)
    (job,) = finish(lab.stack, [made["id"]])
    return job


def _delete(lab: Lab, *paths: str) -> None:
    for path in paths:
        lab.stack.persist(lambda path=path: lab.stack.client.call("DELETE", path) or True)
