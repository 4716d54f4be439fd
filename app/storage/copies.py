"""Local copies of remote objects: which are in use, and which may go."""

import os
import time
from pathlib import Path

# Those that nobody has asked for in so long go; the note of it is exact to an hour.
UNUSED_SECONDS, USE_NOTED_SECONDS = 7 * 86_400.0, 3600.0


def remove_old_copies(cache: Path) -> int:
    """Removes local copies of remote objects that nobody has asked for lately; says how many.

    Whoever needs one of them again fetches it again; what is open stays readable.
    """
    number = 0
    for path in cache.glob("??/*"):
        try:
            if path.is_file() and time.time() - path.stat().st_mtime > UNUSED_SECONDS:
                path.unlink()
                number += 1
        except FileNotFoundError:
            # Another process of this host removes it as well.
            continue
    return number


def is_there(local: Path) -> bool:
    """Whether there is a copy; what is used is noted, so that it stays (see `remove_old_copies`)."""
    try:
        if time.time() - local.stat().st_mtime > USE_NOTED_SECONDS:
            os.utime(local)
    except FileNotFoundError:
        return False
    return True
