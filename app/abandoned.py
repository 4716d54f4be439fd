"""Files that a process had when it was killed: under a temporary name, where nobody looks for them again."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app import in_use
from app.settings import Settings
from app.storage import DRAFTS, folder_of

# Nobody takes so long between two looks at a file that is being made.
SECONDS = 3600.0
# Of API processes and collections; those of jobs have the job's name, and go as soon as it has ended.
WORKING = ("upload-*", "bundle-*", "class-*", "composed-*", "log-*", "sums-*", "rows-*")
# Of processes, for as long as each lives: what those that answer tell each other, and the socket of the process that
# runners are forked from, which `multiprocessing` puts where temporary files are, since its path must be short.
BOARD, SOCKET = "board-", "pymp-"
# Of a user's own weights, while a job copies them to where it opens them.
OWN = ".own-"


def remove(settings: Settings, seconds: float = SECONDS, temporary: Path | None = None) -> int:
    """Removes what nobody has touched for so long; says how much that was.

    Args:
        settings: of the service.
        seconds: since the last touch.
        temporary: folder of temporary files of the system; where this process has its own by default.
    """
    temporary = temporary or Path(tempfile.gettempdir())
    return sum(_remove(path, seconds) for path in _candidates(settings, temporary))


def _candidates(settings: Settings, temporary: Path) -> Iterator[Path]:
    yield from filter(in_use.is_left, settings.scratch.glob(f"{BOARD}*"))
    yield from filter(in_use.is_left, temporary.glob(f"{SOCKET}*"))
    for pattern in WORKING:
        yield from settings.scratch.glob(pattern)
    yield from (settings.home_path / "backbones").glob(f"{OWN}*")
    yield from (settings.home_path / "cache" / DRAFTS).glob("*")
    storage = folder_of(settings.resolved_storage_url)
    if storage is not None:
        yield from (storage / DRAFTS).glob("*")
    yield from (settings.broker_folder / "messages").glob(".*.part")


def _remove(path: Path, seconds: float) -> bool:
    try:
        found = path.stat()
        # A link has its time of writing from the file that it was made of.
        touched = found.st_ctime if path.parent.name == DRAFTS else found.st_mtime
        if time.time() - touched < seconds:
            return False
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        # Its process has just ended, or another one removes it as well.
        return False
    return True
