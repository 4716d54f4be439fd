"""What an ingestion frees goes back to the system at once, so that its memory does not grow with its data.

What Arrow frees goes back with `limited.ARROW`, with which a process has to start.
"""

import ctypes
import sys

# glibc's number of the setting, and its value at the start of a process: with every large block that is freed, glibc
# would raise it, and keep what is smaller (mallopt(3)).
_MMAP_THRESHOLD, _BYTES = -3, 2**17


def give_back() -> None:
    """Sets this process's allocator so; of no effect where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BYTES)
