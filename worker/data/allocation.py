"""What an ingestion frees goes back to the system at once, so that its memory does not grow with its data.

Arrow reads `ENVIRONMENT` when it is loaded, so a process has to start with it. Arrow's own allocator would reserve a
gigabyte, which counts where address space is bounded, and keep ten megabytes or twenty of what it had.
"""

import ctypes
import sys

# glibc's number of the setting, and its value at the start of a process: with every large block that is freed, glibc
# would raise it, and keep what is smaller (mallopt(3)).
_MMAP_THRESHOLD, _BYTES = -3, 2**17
ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}


def give_back() -> None:
    """Sets this process's allocator so; of no effect where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _BYTES)
