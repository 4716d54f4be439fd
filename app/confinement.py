"""What a process does to itself before it opens a stranger's file: bounds on memory, processor time and files.

Apart from `limited`, its parent's side, which takes imports that such a child has no use for and would wait for.
"""

import resource
from pathlib import Path


def confine(memory_bytes: int, seconds: int, file_bytes: int = 0) -> None:
    """Bounds this process, once and for all; a bound that is lower already stays.

    Args:
        memory_bytes: on top of what the imports took.
        seconds: of processor time.
        file_bytes: largest file that may be written.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    space = pages * resource.getpagesize() + memory_bytes
    for what, limit in (
        (resource.RLIMIT_AS, space),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_CORE, 0),
    ):
        lowest = min([limit, *(one for one in resource.getrlimit(what) if one != resource.RLIM_INFINITY)])
        resource.setrlimit(what, (lowest, lowest))
