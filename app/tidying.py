"""What nobody needs on the disk of a process that answers goes, for as long as the process lives.

Local copies of remote objects that nobody has asked for in a while, and what a process of this home had when it was
killed. Workers do both as they clean; the home of an API on a host of its own has no other process.
"""

import logging
import threading

from app import abandoned
from app.settings import Settings
from app.storage import remove_old_copies

PERIOD_SECONDS = 3600.0

log = logging.getLogger(__name__)


class Tidying:
    """Looks now and again; nothing happens before `start`.

    Args:
        settings: of the process.
        period_seconds: between two looks.
    """

    def __init__(self, settings: Settings, period_seconds: float = PERIOD_SECONDS) -> None:
        self._settings, self._period_seconds = settings, period_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="tidying", daemon=True)

    def start(self) -> None:
        """Begins, with a first look."""
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while True:
            self._look()
            if self._ended.wait(self._period_seconds):
                return

    def _look(self) -> None:
        try:
            remove_old_copies(self._settings.home_path / "cache")
            abandoned.remove(self._settings)
        except OSError:
            # Of somebody else's file, say: there is another look, and it is no reason not to answer.
            log.exception("what nobody needs could not be removed, trying again in %.0f s", self._period_seconds)
