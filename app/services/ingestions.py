"""What becomes of a dataset when its ingest job ends: it is ready or invalid, once and for all."""

from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from app.db.models import Dataset, Problem
from app.errors import TooMany
from app.services import limits, outbox
from app.states import DatasetState

# Of a dataset that there is no room for.
_NOTHING = {
    "num_samples": 0,
    "classes": [],
    "splits": {"train": 0, "val": 0, "test": 0},
    "digest": None,
    "size_bytes": 0,
}


def complete(session: Session, dataset: Dataset, result: dict[str, Any]) -> dict[str, str] | None:
    """Writes what ingestion found; the dataset is ready or invalid from now on.

    Returns:
        why it is invalid, `code` and `message`.
    """
    if result["failure"] is None and (full := _full(session, dataset, result["size_bytes"])):
        result = {**result, "failure": full, **_NOTHING}
    failure: dict[str, str] | None = result["failure"]
    dataset.state = DatasetState.INVALID if failure else DatasetState.READY
    dataset.failure_code, dataset.failure_message = (failure["code"], failure["message"]) if failure else (None, None)
    dataset.task = result["task"]
    dataset.num_samples, dataset.classes, dataset.splits = result["num_samples"], result["classes"], result["splits"]
    dataset.digest, dataset.size_bytes = result["digest"], result["size_bytes"]
    dataset.num_problems = len(result["problems"])
    rows = [
        {"dataset_id": dataset.id, "seq": seq, "project_id": dataset.project_id, **problem}
        for seq, problem in enumerate(result["problems"], start=1)
    ]
    if rows:
        # Not as objects: there may be a hundred thousand, and nobody else writes to SQLite meanwhile.
        session.execute(insert(Problem), rows)
    outbox.dataset_judged(session, dataset)
    return failure


def _full(session: Session, dataset: Dataset, size_bytes: int) -> dict[str, str] | None:
    """Why the project cannot have what was made of the archive: images may be larger than they came."""
    more = size_bytes - dataset.size_bytes
    # Not alone: who makes a job that waits for this one holds the project, and then wants this row, which is held.
    room = limits.room(session, dataset.project_id, alone=False) if more > 0 else None
    try:
        if room is not None:
            room.check(more)
    except TooMany as full:
        return {"code": full.code, "message": full.detail}
    return None


def invalidate(session: Session, dataset_id: str, code: str, message: str) -> None:
    """Marks a dataset whose ingest job ended without a result: nothing of it stays, of what was sent neither."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is not None and dataset.state == DatasetState.INGESTING:
        dataset.state, dataset.size_bytes = DatasetState.INVALID, 0
        dataset.failure_code, dataset.failure_message = code, message
        outbox.dataset_judged(session, dataset)
