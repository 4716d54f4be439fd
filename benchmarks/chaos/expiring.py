"""What is only done when its time has come: it is brought about, and what a worker does then is waited for."""

import signal
from datetime import timedelta

from sqlalchemy import delete, select, update

from app.db.base import new_id, now
from app.db.collections import Collection
from app.db.models import Dataset
from app.db.uploads import Upload
from app.db.waste import Waste
from app.services import collections, queues, waste
from app.settings import DEFAULT_PROJECT
from benchmarks.chaos.clock import wait_until
from benchmarks.chaos.lab import Done, Lab, numbers
from benchmarks.chaos.stack import Stack

# No collection takes so long here.
CUT_SHORT = timedelta(seconds=10)


def overdue(lab: Lab) -> Done:
    """Something that was given up by a process that could not delete it any more; that it goes is seen afterwards."""
    prefix = f"bundles/{DEFAULT_PROJECT}/ver_overdue{next(numbers)}/imported"
    _put(lab, f"{prefix}/spec.json")
    with lab.stack.database.write() as session:
        waste.note(session, [prefix])
        session.execute(update(Waste).where(Waste.prefix == prefix).values(due_at=now()))
    return Done()


def expired(lab: Lab) -> Done:
    """What a worker takes away at its start.

    An upload that nobody goes on with, bytes that no row knows, checkpoints of an ended job, days of what is gone.
    """
    stack = lab.stack
    sent = stack.persist(lambda: stack.client.upload(lab.archive))
    # By ids as the service makes them: what has another name is nobody's to remove.
    stray = f"uploads/{DEFAULT_PROJECT}/{new_id('up')}"
    model, version = (f"{DEFAULT_PROJECT}/{new_id(kind)}" for kind in ("mdl", "ver"))
    _put(lab, stray)
    with stack.database.write() as session:
        session.execute(update(Upload).where(Upload.id == sent["id"]).values(expires_at=now() - CUT_SHORT))
        ended = session.get_one(Dataset, lab.dataset).job_id
    checkpoint = f"checkpoints/{DEFAULT_PROJECT}/{ended}/000000001.safetensors"
    _put(lab, checkpoint)
    rooms = (f"predictions/{model}", f"observed/{version}/plain")
    days = [f"{room}/2020-01-0{day}/nobodys" for room in rooms for day in (1, 2)]
    for key in days:
        _put(lab, key)
    stack.kill("worker")
    places = (stray, checkpoint, f"incoming/{DEFAULT_PROJECT}/{sent['id']}", *days)

    def gone() -> bool:
        with stack.database.read() as session:
            row = session.get(Upload, sent["id"])
        return row is None and all(stack.storage.stat(key) is None for key in places)

    wait_until(gone, "the end of what has expired", 120)
    return Done()


def left(lab: Lab) -> Done:
    """A worker that is told to end shows at once that it is gone."""
    stack = lab.stack
    # A worker's id has its process's; one that has just been started has not shown itself yet.
    mark = f":{stack.process('worker').pid}:"
    wait_until(lambda: any(mark in one for one in _workers(stack)), "a worker", 120)
    before = _workers(stack)
    stack.signal("worker", signal.SIGTERM)
    wait_until(lambda: not any(mark in one for one in _workers(stack)), "a worker to go", 120)
    wait_until(lambda: bool(_workers(stack) - before), "a worker in its place", 120)
    return Done()


def due(lab: Lab) -> Done:
    """The collection that a worker makes when there was none for long, after one that was cut short too."""
    stack = lab.stack
    with stack.database.write() as session:
        session.execute(delete(Collection))
    stack.kill("worker")

    def ended() -> bool:
        # One that was killed is known as such minutes later, and the next one is due hours later: both are now.
        long_ago = now() - timedelta(days=1)
        with stack.database.write() as session:
            cut = update(Collection).where(Collection.finished_at.is_(None), Collection.started_at < now() - CUT_SHORT)
            session.execute(cut.values(seen_at=now() - collections.SILENT, started_at=long_ago))
            whole = select(Collection.id).where(Collection.finished_at.is_not(None), Collection.report.is_not(None))
            return session.scalars(whole).first() is not None

    wait_until(ended, "a collection that comes to its end", 180)
    return Done()


def _put(lab: Lab, key: str) -> None:
    file = lab.folder / "nobody's"
    file.write_bytes(b"nobody's")
    lab.stack.storage.put(key, file)


def _workers(stack: Stack) -> set[str]:
    with stack.database.read() as session:
        return {row.id for row in queues.live_workers(session)}
