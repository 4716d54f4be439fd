"""The API process: import, memory, and get/list as the table of jobs grows from 1,000 to 1,000,000 rows.

    python benchmarks/api.py [--rows 1000000]

Prints one JSON document. Requests go through a real uvicorn on loopback, on SQLite and on PostgreSQL; the two sizes are
measured in turns.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._databases import databases, fill, job_id, migrated

IMPORT_SECONDS, IMPORT_MB, GROWTH = 1.2, 250, 2.0
CODE = (
    "import time, sys, resource; t = time.perf_counter(); import app.main; "
    "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 'torch' in sys.modules)"
)


def imports(repeats: int = 7) -> dict[str, Any]:
    rows = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, check=True, capture_output=True, text=True)
        rows.append(done.stdout.split())
    seconds, memory = statistics.median(float(row[0]) for row in rows), max(float(row[1]) for row in rows)
    meets = seconds <= IMPORT_SECONDS and memory <= IMPORT_MB and rows[0][2] == "False"
    return {"seconds": round(seconds, 2), "peak_mb": round(memory), "torch": rows[0][2], "meets_goal": meets}


def growth(rows: int) -> dict[str, Any]:
    """By database."""
    found = {}
    with databases() as makers:
        for kind, make in makers.items():
            sizes = {"small": 1000, "large": rows}
            served = {name: serve(make(name), size) for name, size in sizes.items()}
            try:
                found[kind] = measure(
                    {name: (one.url, job_id(sizes[name] // 2)) for name, one in served.items()}, sizes
                )
            finally:
                for one in served.values():
                    one.stop()
    return found


@dataclass
class Served:
    """An API over a database."""

    child: "subprocess.Popen[bytes]"
    url: str
    home: str

    def stop(self) -> None:
        self.child.terminate()
        self.child.wait()
        shutil.rmtree(self.home)


def serve(database_url: str, rows: int) -> Served:
    """An API over that many finished jobs."""
    with migrated(database_url) as database:
        fill(database, rows)
    home = tempfile.mkdtemp()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ, "GRAFT_HOME": home, "GRAFT_PORT": str(port), "GRAFT_LOG_LEVEL": "WARNING",
        "GRAFT_DATABASE_URL": database_url,
    }  # fmt: skip
    child = subprocess.Popen([sys.executable, "-m", "app.cli", "api"], cwd=ROOT, env=environment)
    return Served(child, f"http://127.0.0.1:{port}/api/v1/jobs", home)


def measure(served: dict[str, tuple[str, str]], sizes: dict[str, int]) -> dict[str, Any]:
    calls = {
        "get": "/{middle}",
        "list": "?limit=50",
        "list_deep": "?limit=50&after={middle}",
        "list_state": "?state=failed",
        "list_state_deep": "?state=succeeded&limit=50&after={middle}",
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    with httpx.Client(trust_env=False, timeout=60) as client:
        for url, _ in served.values():
            wait(client, url)
        for _ in range(100):
            for name, (url, middle) in served.items():
                for call, path in calls.items():
                    began = time.perf_counter()
                    client.get(url + path.format(middle=middle)).raise_for_status()
                    seconds.setdefault((call, name), []).append(time.perf_counter() - began)
    found: dict[str, Any] = {"rows": list(sizes.values())}
    for call in calls:
        small, large = (1000 * statistics.median(seconds[call, name]) for name in sizes)
        found[call] = {"small_ms": round(small, 2), "large_ms": round(large, 2), "ratio": round(large / small, 2)}
        found[call]["meets_goal"] = large <= GROWTH * small
    return found


def wait(client: httpx.Client, url: str) -> None:
    for _ in range(200):
        try:
            client.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{url} does not answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    print(json.dumps({"import": imports(), "jobs": growth(given.rows)}, indent=1))


if __name__ == "__main__":
    main()
