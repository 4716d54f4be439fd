"""The API process: import, memory, and get/list as the table of jobs grows from 1,000 to 1,000,000 rows.

    python benchmarks/api.py [--rows 1000000]

Prints one JSON document. Requests go through a real uvicorn on loopback; the two sizes are measured in turns.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

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


def fill(home: Path, rows: int) -> str:
    """A migrated SQLite database with that many finished jobs; returns the id of one in the middle."""
    from sqlalchemy import insert

    from app.db import migration
    from app.db.base import new_id, now
    from app.db.models import Job
    from app.db.session import Database

    url = f"sqlite:///{home / 'graft.db'}"
    migration.upgrade(url)
    database = Database(url)
    middle = ""
    for start in range(0, rows, 20_000):
        batch = [
            {
                "id": new_id("job"), "project_id": "default", "kind": "transfer", "state": "succeeded", "queue": "cpu",
                "recipe": {"method": "linear_probe"}, "model_name": "m", "inputs": {}, "created_at": now(),
                "progress": {"fraction": 1.0, "stage": "done", "eta_seconds": 0.0}, "metrics": {"test_accuracy": 0.9},
            }
            for _ in range(min(20_000, rows - start))
        ]  # fmt: skip
        with database.write() as session:
            session.execute(insert(Job), batch)
        if start <= rows // 2:
            middle = batch[0]["id"]
    database.dispose()
    return middle


def growth(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"small": 1000, "large": rows}
        served: dict[str, tuple[subprocess.Popen[bytes], str, str]] = {}
        for name, size in sizes.items():
            home = Path(folder) / name
            home.mkdir()
            middle = fill(home, size)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            environment = {**os.environ, "GRAFT_HOME": str(home), "GRAFT_PORT": str(port), "GRAFT_LOG_LEVEL": "WARNING"}
            child = subprocess.Popen([sys.executable, "-m", "app.cli", "api"], cwd=ROOT, env=environment)
            served[name] = (child, f"http://127.0.0.1:{port}/api/v1/jobs", middle)
        try:
            return measure(served, sizes)
        finally:
            for child, _, _ in served.values():
                child.terminate()
                child.wait()


def measure(served: dict[str, tuple[subprocess.Popen[bytes], str, str]], sizes: dict[str, int]) -> dict[str, Any]:
    calls = {
        "get": "/{middle}",
        "list": "?limit=50",
        "list_deep": "?limit=50&after={middle}",
        "list_state": "?state=failed",
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    with httpx.Client(trust_env=False, timeout=60) as client:
        for _, url, _ in served.values():
            wait(client, url)
        for _ in range(100):
            for name, (_, url, middle) in served.items():
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
