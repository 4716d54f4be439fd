"""Writes down what was asked and answered, where a model is set to: beside the answers, in files by day.

Whoever answers leaves a record in a bounded queue, and drops it where there is no room; a thread of its own makes
Parquet files of what lies there. Every file has a name of its own, so that any number of processes may write at once.
"""

import logging
import random
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from app import failpoints
from app.serving import log_records
from app.serving.call import Result
from app.serving.log_records import Asked, Policy, Record
from app.storage import Storage

# What may wait to be written: images, and their bytes where these are kept.
MAX_WAITING, MAX_WAITING_BYTES = 5000, 64 * 2**20
FLUSH_SECONDS, FLUSH_AT, FLUSH_BYTES = 5.0, 1000, 16 * 2**20

log = logging.getLogger(__name__)

Counted = Callable[[str, int], None]


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
        self._waiting: deque[Record] = deque()
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
            folders: dict[str, list[Record]] = {}
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
                self._waiting.append(Record(policy, asked, future.result().probabilities_NC, datetime.now(UTC)))
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
    def _failing(self, records: list[Record]) -> Iterator[None]:
        """Where what is done with these records fails, they are lost, and no others.

        Storage or database may be away for a while; a log is not worth more memory than is set.
        """
        try:
            yield
        except Exception:
            log.exception("%d predictions were not written down", _num_images(records))
            self._counted("failed", _num_images(records))

    def _by_folder(self, records: list[Record]) -> dict[str, list[Record]]:
        """Records by the folder that they go to, without those of models that keep no log any more."""
        wanted = self._ledger.wanted({record.policy.model_id for record in records})
        folders: dict[str, list[Record]] = {}
        for record in records:
            if record.policy.model_id in wanted:
                folders.setdefault(f"{record.policy.prefix}/{record.at:%Y-%m-%d}", []).append(record)
        return folders

    def _write(self, folder: str, records: list[Record]) -> bool:
        """Stores the records of a model and day as a file, if the project may store it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._scratch.mkdir(parents=True, exist_ok=True)
        rows = [row for record in records for row in log_records.rows(record)]
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="log-") as place:
            path = Path(place) / "part"
            pq.write_table(pa.Table.from_pylist(rows, schema=log_records.schema()), path, compression="zstd")
            key, size_bytes = f"{folder}/{records[0].at:%H%M%S}-{uuid4().hex}.parquet", path.stat().st_size
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


def _num_images(records: list[Record]) -> int:
    return sum(len(record.asked.images) for record in records)
