"""Prediction logs of models: who keeps one, what is in it, and when it goes. Off unless somebody turns it on."""

import io
import json
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from datetime import date, timedelta
from typing import Any

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from app import failpoints
from app.db.base import now
from app.db.logs import PredictionLog
from app.db.many import among
from app.db.models import Model
from app.db.session import Database
from app.errors import NotFound, TooMany
from app.services import models, references, waste
from app.serving import log_records
from app.serving.log_records import Policy
from app.storage import Storage

log = logging.getLogger(__name__)


def keep(session: Session, project: str, name: str, share: float, keep_days: int, images: bool) -> PredictionLog:
    """Turns a model's log on, or changes it; what is there is kept.

    Raises:
        NotFound: no such model.
    """
    model = models.get(session, project, name)
    row = session.get(PredictionLog, model.id)
    if row is None:
        row = PredictionLog(model_id=model.id, project_id=project)
        session.add(row)
    row.share, row.keep_days, row.images, row.updated_at = share, keep_days, images, now()
    session.flush()
    return row


def get(session: Session, project: str, name: str) -> PredictionLog:
    """A model's log.

    Raises:
        NotFound: no such model, or it keeps none.
    """
    model = models.get(session, project, name)
    row = session.get(PredictionLog, model.id)
    if row is None:
        raise NotFound(
            f"expected a model whose predictions are logged; found that {name!r} keeps none; turn it on with "
            f"PUT /api/v1/models/{name}/log"
        )
    return row


def remove(session: Session, project: str, name: str) -> str:
    """Turns a model's log off.

    Returns:
        the storage prefix of all that was written, to delete after the commit.

    Raises:
        NotFound: no such model, or it keeps none.
    """
    row = get(session, project, name)
    session.delete(row)
    return log_records.prefix(row.project_id, row.model_id)


def policy(session: Session, model_id: str) -> Policy | None:
    """What is to be written down of a model; None for nothing."""
    row = session.get(PredictionLog, model_id)
    if row is None or row.share <= 0:
        return None
    return Policy(row.project_id, model_id, session.get_one(Model, model_id).name, row.share, row.images)


class Ledger:
    """What a process that writes logs asks the database: a `logbook.Ledger`.

    Args:
        database: the rows of logs.
        storage: their files.
    """

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database, self._storage = database, storage

    def wanted(self, model_ids: Iterable[str]) -> set[str]:
        """Those of the models that keep a log, now."""
        with self._database.read() as session:
            return set(among(session, select(PredictionLog.model_id), PredictionLog.model_id, model_ids))

    def reserve(self, key: str, size_bytes: int) -> bool:
        """Counts a file that is to be stored; False where the project may store no more."""
        try:
            waste.reserve(self._database, key, size_bytes)
        except TooMany as full:
            log.warning("%s is not written down: %s", key, full.detail)
            return False
        return True

    def keep(self, key: str, model_id: str, size_bytes: int) -> None:
        """Counts the file, which is there, with its log."""
        with self._database.write() as session:
            waste.keep(session, key)
            _grow(session, model_id, size_bytes)

    def give_back(self, key: str) -> None:
        """Takes a file off again that was not stored, or cannot be counted."""
        waste.give_back(self._database, self._storage, key)


def _grow(session: Session, model_id: str, size_bytes: int) -> None:
    """A log has so many bytes more, or less; what it had before they were counted may be taken off as well."""
    grown = PredictionLog.size_bytes + size_bytes
    size = update(PredictionLog).where(PredictionLog.model_id == model_id)
    session.execute(size.values(size_bytes=case((grown < 0, 0), else_=grown)))


def days(storage: Storage, row: PredictionLog) -> list[str]:
    """Days of which something is written, oldest first."""
    top = log_records.prefix(row.project_id, row.model_id)
    return sorted({key.removeprefix(f"{top}/").partition("/")[0] for key in storage.list(top)})


def files(storage: Storage, row: PredictionLog, day: date) -> Sequence[str]:
    """Keys of a day's files, in the order of their times.

    Raises:
        NotFound: nothing is written of that day.
    """
    found = list(storage.list(f"{log_records.prefix(row.project_id, row.model_id)}/{day}"))
    if not found:
        listed = ", ".join(days(storage, row)) or "none yet"
        raise NotFound(
            f"expected a day (UTC) of which predictions are logged; found nothing of {day}; there are: {listed}"
        )
    return found


def lines(storage: Storage, keys: Sequence[str]) -> Generator[bytes]:
    """The records as NDJSON, without the images' bytes."""
    for record in _batches(storage, keys, {name for name in log_records.schema().names if name != "image"}):
        for row in record.to_pylist():
            row["at"] = row["at"].isoformat()
            yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def parquet(storage: Storage, keys: Sequence[str]) -> Generator[bytes]:
    """The records as one Parquet file, as `datasets` reads it, in pieces; `image` has the bytes that were kept."""
    import pyarrow.parquet as pq

    pieces = _Pieces()
    with pq.ParquetWriter(pieces, log_records.schema(), compression="zstd") as writer:
        for record in _batches(storage, keys, set(log_records.schema().names)):
            writer.write_batch(record)
            yield pieces.take()
    yield pieces.take()


class _Pieces(io.RawIOBase):
    """A file of which what was written is taken away: for a client that reads slowly nothing waits on the disk."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """What was written since."""
        taken = bytes(self._written)
        self._written.clear()
        return taken


def expire(database: Database, storage: Storage, today: date) -> int:
    """Removes the days that are over, and what belongs to no model that keeps a log; how many days that were.

    A process may have written what it still held when the log, or the model, was deleted.
    """
    with database.read() as session:
        kept_days = {row.model_id: row.keep_days for row in session.scalars(select(PredictionLog))}
    num_removed = 0
    for folder in sorted({key.rpartition("/")[0] for key in storage.list(log_records.ROOT)}):
        found = _day(folder)
        if found is None:
            continue
        model_id, day = found
        number = kept_days.get(model_id)
        if number is None or day < today - timedelta(days=number):
            # Before it is gone: a collection finds out what is counted too little, and not what is counted too much.
            with database.write() as session:
                _grow(session, model_id, -_size(storage, folder))
            storage.delete(folder)
            failpoints.reach("log_expired")
            num_removed += 1
    if num_removed:
        log.info("removed %d days of prediction logs", num_removed)
    return num_removed


def _size(storage: Storage, folder: str) -> int:
    return sum(stored.size_bytes for key in storage.list(folder) if (stored := storage.stat(key)) is not None)


def _day(folder: str) -> tuple[str, date] | None:
    """The model and the day that a folder of logs is of; None for one that is not Graft's."""
    place = references.place(folder)
    if place is None or folder.count("/") != len(place):
        return None
    try:
        return place[2], date.fromisoformat(folder.rpartition("/")[2])
    except ValueError:
        return None


def _batches(storage: Storage, keys: Sequence[str], columns: Set[str]) -> Iterator[Any]:
    """Those columns of each file, in the order of the schema; empty where the file was written before there was one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = pa.schema([field for field in log_records.schema() if field.name in columns])

    for key in keys:
        with pq.ParquetFile(storage.fetch(key)) as file:
            there = set(file.schema_arrow.names)
            for record in file.iter_batches(batch_size=256, columns=[name for name in wanted.names if name in there]):
                yield pa.record_batch(
                    [
                        record.column(field.name) if field.name in there else pa.nulls(len(record), field.type)
                        for field in wanted
                    ],
                    schema=wanted,
                )
