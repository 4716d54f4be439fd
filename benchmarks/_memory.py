"""Memory of all processes of a service over time: how much of it grows, and whether that is more than chance."""

import os
import threading
import time
from typing import Any

import numpy as np
import psutil

SAMPLE_SECONDS = 2.0
# Share of a process that may come on top while it works.
GROWTH = 0.02


class Memory:
    """What every process of the service holds, every two seconds."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._samples: dict[tuple[int, str], list[tuple[float, float, int, int]]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(SAMPLE_SECONDS):
            for process in psutil.process_iter():
                try:
                    if process.environ().get("GRAFT_HOME") != self._home or process.pid == os.getpid():
                        continue
                    sample = (
                        time.monotonic() - began,
                        process.memory_info().rss / 2**20,
                        process.num_fds(),
                        process.num_threads(),
                    )
                    self._samples.setdefault((process.pid, _role(process.cmdline())), []).append(sample)
                except psutil.Error:
                    continue

    def end(self) -> dict[str, Any]:
        """Growth of those that were there all the time, and how many came and went."""
        self._over.set()
        self._thread.join()
        most = max(len(samples) for samples in self._samples.values())
        found: dict[str, Any] = {"num_short_lived": 0, "processes": {}}
        for (_, role), samples in sorted(self._samples.items(), key=lambda one: one[0][1]):
            if len(samples) < 0.9 * most:
                found["num_short_lived"] += 1
            else:
                found["processes"][role] = _growth(samples)
        found["meets_goal"] = all(one["meets_goal"] for one in found["processes"].values())
        return found


def _role(command: list[str]) -> str:
    text = " ".join(command)
    for name, words in {
        "worker": "celery",
        "runner": "worker.runner",
        "api": "app.cli both",
        "manager": "app.cli up",
    }.items():
        if words in text:
            return name
    return "standby" if "forkserver" in text else "other"


def _growth(samples: list[tuple[float, float, int, int]]) -> dict[str, Any]:
    """Of the last two thirds: before that, caches fill."""
    rows = np.array(samples[len(samples) // 3 :])
    at, mb = rows[:, 0] - rows[:, 0].mean(), rows[:, 1]
    slope = float((at * mb).sum() / (at**2).sum())
    left = mb - mb.mean() - slope * at
    error = float(np.sqrt((left**2).sum() / max(1, len(mb) - 2) / (at**2).sum() * _alike(left)))
    length = float(rows[-1, 0] - rows[0, 0])
    beyond = slope * length - 2 * error * length
    return {
        "median_mb": round(float(np.median(mb)), 1),
        "slope_mb_per_minute": round(60 * slope, 3),
        "error_mb_per_minute": round(60 * error, 3),
        "growth_mb": round(slope * length, 2),
        "most_files": int(rows[:, 2].max()),
        "files_grown": int(np.median(rows[-20:, 2]) - np.median(rows[:20, 2])),
        "threads_grown": int(np.median(rows[-20:, 3]) - np.median(rows[:20, 3])),
        "meets_goal": bool(beyond <= 0 or slope * length <= GROWTH * float(np.median(mb))),
    }


def _alike(left: Any) -> float:
    """How many neighbouring samples count as one (by their first-order autocorrelation)."""
    if left.std() == 0:
        return 1.0
    alike = min(0.98, max(0.0, float(np.corrcoef(left[:-1], left[1:])[0, 1])))
    return (1 + alike) / (1 - alike)
