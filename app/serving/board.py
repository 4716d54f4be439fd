"""What the processes of one service tell each other: each keeps a page of its own up to date, all read all pages.

A page stays when its process has ended, so that what was counted does not count down; the folder goes with the service.
"""

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

PERIOD_SECONDS = 1.0
# A page that is older than so many periods has no process behind it.
STALE_PERIODS = 5

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """Of another process.

    Args:
        data: as it was written.
        is_fresh: whether the process still writes.
    """

    data: bytes
    is_fresh: bool


class Board:
    """One process's view of the folder.

    Args:
        folder: shared by the processes of one service, and by nothing else; made when it is missing.
        period_seconds: after which the own page is written again.
    """

    def __init__(self, folder: Path, period_seconds: float = PERIOD_SECONDS) -> None:
        folder.mkdir(exist_ok=True)
        self._period_seconds = period_seconds
        self._folder, self._own = folder, folder / f"{uuid4().hex}.json"
        self._ended = threading.Event()
        self._is_written = True
        self._writer: threading.Thread | None = None

    def keep(self, page: Callable[[], bytes]) -> None:
        """Writes the page now, and again every period until `close`; where it cannot be written, the next time."""
        self._try(page())
        self._writer = threading.Thread(target=self._keep, args=(page,), name="board", daemon=True)
        self._writer.start()

    def others(self) -> list[Page]:
        """The pages of all other processes, those that have ended included."""
        oldest = time.time() - STALE_PERIODS * self._period_seconds
        paths = (path for path in sorted(self._folder.glob("*.json")) if path != self._own)
        return [Page(path.read_bytes(), path.stat().st_mtime > oldest) for path in paths]

    def close(self) -> None:
        """Writes the page for the last time."""
        self._ended.set()
        if self._writer is not None:
            self._writer.join()

    def _keep(self, page: Callable[[], bytes]) -> None:
        while not self._ended.wait(self._period_seconds):
            self._try(page())
        self._try(page())

    def _try(self, data: bytes) -> None:
        try:
            self._write(data)
            self._is_written = True
        except OSError as error:
            if self._is_written:
                log.warning("no page could be written, the last one counts; trying again: %s", error)
            self._is_written = False

    def _write(self, data: bytes) -> None:
        # Readers see the old page or the new one, never half of one.
        handle, name = tempfile.mkstemp(dir=self._folder, prefix="page-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).replace(self._own)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
