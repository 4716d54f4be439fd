"""Writes down what was asked and answered, where a model is set to: beside the answers, in files by day.

Whoever answers leaves a record in a bounded queue, and drops it where there is no room; a thread of its own makes
Parquet files of what lies there. Every file has a name of its own, so that any number of processes may write at once.

Shape legend: N images of a request, C classes.
"""

import hashlib
import logging
import random
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from app import failpoints
from app.artifact.precisions import FLOAT, Precision
from app.db.base import new_id
from app.serving.call import Images, Result
from app.storage import Storage

ROOT = "predictions"
SUFFIX = ".parquet"
# Classes of an image that are written, best first.
TOP = 5
# What may wait to be written: images, and their bytes where these are kept.
MAX_WAITING, MAX_WAITING_BYTES = 5000, 64 * 2**20
FLUSH_SECONDS, FLUSH_AT, FLUSH_BYTES = 5.0, 1000, 16 * 2**20

log = logging.getLogger(__name__)

Counted = Callable[[str, int], None]
Files = Sequence[bytes] | Sequence[None]


@dataclass(frozen=True, slots=True)
class Policy:
    """What of a model's predictions is written down.

    Args:
        project: the model's.
        model_id: likewise.
        model: its name.
        share: of the requests.
        images: whether their bytes are kept too.
    """

    project: str
    model_id: str
    model: str
    share: float
    images: bool

    @property
    def prefix(self) -> str:
        """Where the model's files lie."""
        return prefix(self.project, self.model_id)


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A request that may be written down.

    Args:
        images: as `files` has them.
        version: that answers.
        labels: of its classes.
        alias: by which it was asked; None for the default, or a version.
        domain: likewise.
        alignment: what the features passed through.
        request_id: of the request.
        precision: of the graph that answers.
        first: place that the first of the images has in its request.
    """

    images: Files
    version: int
    labels: tuple[str, ...]
    alias: str | None
    domain: str | None
    alignment: str | None
    request_id: str | None
    precision: Precision = FLOAT
    first: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Record:
    policy: Policy
    asked: Asked
    probabilities_NC: NDArray[np.float32]
    at: datetime


class Ledger(Protocol):
    """Which models keep a log, and what their projects may store."""

    def wanted(self, model_ids: Iterable[str]) -> set[str]:
        """Those of the models that still want to be written down, by id."""

    def reserve(self, key: str, size_bytes: int) -> bool:
        """Counts a file that is to be stored with what the project stores; False where it may store no more."""

    def keep(self, key: str, model_id: str, size_bytes: int) -> None:
        """The file is there, and counts with its log from now on."""

    def give_back(self, key: str) -> None:
        """The file was not stored, or cannot be counted."""


class Logbook:
    """The log of one process. Safe to call from any thread.

    Args:
        storage: where files go.
        scratch: folder for a file that is being made.
        ledger: who wants what, and how much.
        counted: told how many images were `written`, `dropped` (no room here), `refused` (the project may store no
            more) or `failed` (storage).
    """

    def __init__(self, storage: Storage, scratch: Path, ledger: Ledger, counted: Counted) -> None:
        self._storage, self._scratch, self._ledger, self._counted = storage, scratch, ledger, counted
        self._waiting: deque[_Record] = deque()
        self._num_waiting = self._size_bytes = 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def watch(self, policy: Policy, asked: Asked, future: Future[Result]) -> None:
        """Writes a request down when it ends well, by the policy's share."""
        # Not for secrets: any even draw will do.
        if policy.share < 1 and random.random() >= policy.share:
            return
        future.add_done_callback(lambda ended: self._ended(policy, asked, ended))

    def flush(self) -> None:
        """Writes what waits, one file for each model and day."""
        with self._writing:
            with self._lock:
                records, self._waiting = list(self._waiting), deque()
                self._num_waiting = self._size_bytes = 0
            if not records:
                return
            folders: dict[str, list[_Record]] = {}
            with self._failing(records):
                folders = self._by_folder(records)
            for folder, found in folders.items():
                with self._failing(found):
                    self._counted("written" if self._write(folder, found) else "refused", _num_images(found))

    def close(self) -> None:
        """Writes what waits, and ends the thread."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _ended(self, policy: Policy, asked: Asked, future: Future[Result]) -> None:
        """Runs under the engine's lock: nothing is written or hashed here."""
        if future.cancelled() or future.exception() is not None:
            return
        number = len(asked.images)
        # Without their bytes images are held until they are hashed.
        size_bytes = sum(len(image) for image in asked.images if image is not None)
        with self._lock:
            room = self._num_waiting + number <= MAX_WAITING and self._size_bytes + size_bytes <= MAX_WAITING_BYTES
            if room:
                self._waiting.append(_Record(policy, asked, future.result().probabilities_NC, datetime.now(UTC)))
                self._num_waiting += number
                self._size_bytes += size_bytes
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._work, name="logbook", daemon=True)
                self._thread.start()
            full = self._num_waiting >= FLUSH_AT or self._size_bytes >= FLUSH_BYTES
        if not room:
            self._counted("dropped", number)
        if full:
            self._wake.set()

    def _work(self) -> None:
        while not self._closed:
            self._wake.wait(FLUSH_SECONDS)
            self._wake.clear()
            self.flush()

    @contextmanager
    def _failing(self, records: list[_Record]) -> Iterator[None]:
        """Where what is done with these records fails, they are lost, and no others.

        Storage or database may be away for a while; a log is not worth more memory than is set.
        """
        try:
            yield
        except Exception:
            log.exception("%d predictions were not written down", _num_images(records))
            self._counted("failed", _num_images(records))

    def _by_folder(self, records: list[_Record]) -> dict[str, list[_Record]]:
        """Records by the folder that they go to, without those of models that keep no log any more."""
        wanted = self._ledger.wanted({record.policy.model_id for record in records})
        folders: dict[str, list[_Record]] = {}
        for record in records:
            if record.policy.model_id in wanted:
                folders.setdefault(f"{record.policy.prefix}/{record.at:%Y-%m-%d}", []).append(record)
        return folders

    def _write(self, folder: str, records: list[_Record]) -> bool:
        """Stores the records of a model and day as a file, if the project may store it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._scratch.mkdir(parents=True, exist_ok=True)
        rows = [row for record in records for row in _rows(record)]
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="log-") as place:
            path = Path(place) / "part"
            pq.write_table(pa.Table.from_pylist(rows, schema=schema()), path, compression="zstd")
            key, size_bytes = f"{folder}/{records[0].at:%H%M%S}-{uuid4().hex}{SUFFIX}", path.stat().st_size
            if not self._ledger.reserve(key, size_bytes):
                return False
            try:
                self._storage.put(key, path)
                failpoints.reach("log_stored")
                self._ledger.keep(key, records[0].policy.model_id, size_bytes)
            except Exception:
                self._ledger.give_back(key)
                raise
        return True


def files(images: Images) -> Files:
    """What of a request's images can be hashed and kept: files as they came; None for each that came as pixels."""
    return [None] * len(images) if isinstance(images, np.ndarray) else images


def schema() -> Any:
    """Columns of a file, one row for each image; those that a dataset of images needs are named as there."""
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        [
            ("id", text),
            ("at", pa.timestamp("us", "UTC")),
            ("request_id", text),
            ("index", pa.int32()),
            ("model", text),
            ("version", pa.int32()),
            ("alias", text),
            ("domain", text),
            ("alignment", text),
            ("precision", text),
            ("predicted", text),
            ("score", pa.float32()),
            ("scores", pa.list_(pa.struct([("label", text), ("score", pa.float32())]))),
            ("sha256", text),
            ("image", pa.struct([("bytes", pa.binary()), ("path", text)])),
        ]
    )


def prefix(project: str, model_id: str) -> str:
    """Where a model's files lie, in a folder for each day."""
    return f"{ROOT}/{project}/{model_id}"


def _num_images(records: list[_Record]) -> int:
    return sum(len(record.asked.images) for record in records)


def _rows(record: _Record) -> list[dict[str, Any]]:
    policy, asked = record.policy, record.asked
    shared = {
        "at": record.at,
        "request_id": asked.request_id,
        "model": policy.model,
        "version": asked.version,
        "alias": asked.alias,
        "domain": asked.domain,
        "alignment": asked.alignment,
        "precision": asked.precision,
    }
    found = []
    for index, (data, row_C) in enumerate(zip(asked.images, record.probabilities_NC, strict=True), asked.first):
        sha256 = None if data is None else hashlib.sha256(data).hexdigest()
        order = np.argsort(-row_C, kind="stable")[:TOP].tolist()
        scores = [{"label": asked.labels[place], "score": float(row_C[place])} for place in order]
        found.append(
            {
                **shared,
                "id": new_id("prd"),
                "index": index,
                "predicted": scores[0]["label"],
                "score": scores[0]["score"],
                "scores": scores,
                "sha256": sha256,
                "image": {"bytes": data, "path": sha256} if policy.images and data is not None else None,
            }
        )
    return found
