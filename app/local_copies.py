"""Local copies of remote objects go when nobody has asked for them in a while, for as long as the process lives."""

import threading
from pathlib import Path

from app.storage import remove_old_copies

PERIOD_SECONDS = 3600.0


class LocalCopies:
    """Looks now and again; nothing happens before `start`.

    Args:
        cache: folder of the copies.
        period_seconds: between two looks.
    """

    def __init__(self, cache: Path, period_seconds: float = PERIOD_SECONDS) -> None:
        self._cache, self._period_seconds = cache, period_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="local-copies", daemon=True)

    def start(self) -> None:
        """Begins, with a first look."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            remove_old_copies(self._cache)
            if self._ended.wait(self._period_seconds):
                return
