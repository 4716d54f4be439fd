"""Whether storage takes a file: tried out, and not more often than every few seconds, however often somebody asks."""

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from app.storage import Storage

PROBE = "health/probe"
# An operator hears of a full disk a few seconds later; an object store is paid for each write.
FRESH_SECONDS = 5.0


class StorageProbe:
    """Of one process. Safe to call from any thread: one tries, and the others have what was found before.

    Args:
        storage: that is tried.
        scratch: folder of the file that is put there.
        clock: seconds that never go back.
    """

    def __init__(self, storage: Storage, scratch: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage, self._scratch, self._clock = storage, scratch, clock
        self._trying = threading.Lock()
        self._found: str | None = None
        self._at = 0.0

    def look(self) -> str:
        """`ok`, or what is wrong."""
        before = self._found
        if not self._trying.acquire(blocking=before is None):
            assert before is not None
            return before
        try:
            if self._found is None or self._clock() - self._at >= FRESH_SECONDS:
                self._found = self._try()
                self._at = self._clock()
            return self._found
        finally:
            self._trying.release()

    def _try(self) -> str:
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._scratch) as probe:
                self._storage.put(PROBE, Path(probe.name))
            self._storage.delete(PROBE)
        except Exception as error:
            return f"expected storage that takes a file; found {type(error).__name__}: {error}"
        return "ok"
