"""How many cores a process may use: what it is bound to, and what its containers are given of the time.

`docker run --cpus 2` leaves all of the host's cores in sight and takes the time away: a thread for each of them then
waits more than it computes.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable() -> int:
    """Cores, at least one. `taskset` and cpusets narrow them, and quotas of control groups, rounded up."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(bound, quota())))


def quota(groups: Path = _GROUPS, own: Path = _OWN) -> float:
    """Cores' worth of time that the process's control groups leave it, of both versions; infinite for all.

    Args:
        groups: where they are mounted.
        own: which of them are the process's, as the system lists them (cgroups(7)).
    """
    if sys.platform != "linux" or not own.exists():
        return math.inf
    return min(_quotas(groups, own.read_text()), default=math.inf)


def _quotas(groups: Path, own: str) -> Iterator[float]:
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounted, read = groups, _of_version_2
        elif "cpu" in controllers.split(","):
            mounted, read = groups / "cpu", _of_version_1
        else:
            continue
        # Where the host's path is told in a container, the container's own group is what is mounted.
        group = mounted / path.lstrip("/")
        while True:
            yield read(group)
            if group == mounted:
                break
            group = group.parent


def _of_version_2(group: Path) -> float:
    try:
        limit, period = (group / "cpu.max").read_text().split()
    except FileNotFoundError:
        return math.inf
    return math.inf if limit == "max" else int(limit) / int(period)


def _of_version_1(group: Path) -> float:
    try:
        limit, period = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
    except FileNotFoundError:
        return math.inf
    return math.inf if limit <= 0 else limit / period
