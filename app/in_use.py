"""Folders of temporary files that are a living process's: a file in each is locked as long as that process is there.

How long ago they changed says nothing: a process that was frozen, or whose machine slept, still needs its own.
"""

import fcntl
import os
from functools import cache
from pathlib import Path

MARK = ".in-use"


@cache
def mark(folder: Path) -> None:
    """The folder is this process's until it ends, however that is; marking it again changes nothing."""
    # Never closed: the lock goes with the process. What it starts does not inherit it.
    handle = os.open(folder / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_left(folder: Path) -> bool:
    """Whether the folder was marked by a process that has gone."""
    try:
        with (folder / MARK).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # In use; or not marked, not ours to open, gone meanwhile.
        return False
    return True
