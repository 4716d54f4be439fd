"""Files that a process was writing when it was killed: under a temporary name, where nobody looks for them again."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from app.settings import Settings
from app.storage import DRAFTS, folder_of

# Nobody takes so long between two looks at a file that is being made.
SECONDS = 3600.0
# Of API processes; those of jobs have the job's name, and go as soon as it has ended.
WORKING = ("upload-*", "bundle-*", "class-*", "log-*", "sums-*")


def remove(settings: Settings, seconds: float = SECONDS) -> int:
    """Removes what nobody has touched for so long; says how much that was."""
    return sum(_remove(path, seconds) for path in _candidates(settings))


def _candidates(settings: Settings) -> Iterator[Path]:
    for pattern in WORKING:
        yield from settings.scratch.glob(pattern)
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
