"""A large sparse file into a service of its own: seconds, and how much the memory of the answering process grows.

    python benchmarks/uploads.py [--gigabytes 5]

Prints one JSON document; the file and the service are gone afterwards.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from app.client import Client

GROWTH_MB = 64


@contextmanager
def service(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """`graft api` in a home of its own; its address and its process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    variables = {**os.environ, "GRAFT_HOME": str(home), "GRAFT_PORT": str(port), "GRAFT_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "app.cli"]
    subprocess.run([*command, "migrate"], cwd=ROOT, env=variables, check=True, capture_output=True)
    with subprocess.Popen([*command, "api"], cwd=ROOT, env=variables) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            while not answers(url):
                assert process.poll() is None, "the service ended by itself"
                time.sleep(0.1)
            yield url, psutil.Process(process.pid)
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/livez", trust_env=False).is_success
    except httpx.TransportError:
        return False


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[int]]:
    """Memory in bytes: at the beginning, and at most."""
    found, done = [process.memory_info().rss] * 2, threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            found[1] = max(found[1], process.memory_info().rss)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def measure(graft: Client, process: psutil.Process, file: Path) -> dict[str, Any]:
    small, size = file.with_name("small"), file.stat().st_size
    small.write_bytes(b"x")
    graft.upload(small)
    times = [time.monotonic()]

    def on_sent(sent: int, whole: int) -> None:
        if sent == whole and len(times) == 1:
            times.append(time.monotonic())

    with watched(process) as memory:
        found = graft.upload(file, on_sent=on_sent)
    times.append(time.monotonic())
    assert (found["state"], found["received_bytes"]) == ("complete", size)
    growth = (memory[1] - memory[0]) / 2**20
    return {
        "size_bytes": size,
        "send_seconds": round(times[1] - times[0], 1),
        "verify_seconds": round(times[2] - times[1], 1),
        "memory_before_mb": round(memory[0] / 2**20),
        "memory_growth_mb": round(growth, 1),
        "meets_goal": growth <= GROWTH_MB,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    size = int(parser.parse_args().gigabytes * 1e9)
    with tempfile.TemporaryDirectory(prefix="graft-uploads-") as name:
        home, file = Path(name) / "home", Path(name) / "sparse"
        home.mkdir()
        with file.open("wb") as sparse:
            sparse.truncate(size)
        with service(home) as (url, process), Client(url, timeout_seconds=600) as graft:
            print(json.dumps(measure(graft, process, file)))


if __name__ == "__main__":
    main()
