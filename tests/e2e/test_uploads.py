"""A large upload into real processes: flat memory, a kill in the middle, and nothing left behind."""

import os
import signal
import threading
import zipfile
from pathlib import Path

import psutil
import pytest

from app.client import uploading
from tests import factories, processes
from tests.conftest import wait_until

pytestmark = pytest.mark.server
SPARSE_BYTES = 256 * 2**20
# One buffer, and what the allocator keeps; a copy of the file would be many times that.
MOST_GROWTH_BYTES = 48 * 2**20


class Watched:
    """The largest memory of a process while a block lasts."""

    def __init__(self, process: psutil.Process) -> None:
        self._process, self._done = process, threading.Event()
        self.first = self.peak = process.memory_info().rss
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            self.peak = max(self.peak, self._process.memory_info().rss)


def answering(home: Path) -> psutil.Process:
    """The process that answers requests, once there is one."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = processes.named(home, "both")
        return len(found) == 1

    wait_until(look, "a process that answers")
    return found[0]


def test_large_upload(up, home, tmp_path, monkeypatch):
    monkeypatch.setattr(uploading, "FIRST_WAIT_SECONDS", 0.2)
    service = up()
    service.client.large_bytes = 1
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(SPARSE_BYTES)
    small = tmp_path / "small"
    small.write_bytes(b"x")
    # What only the first upload needs is loaded.
    service.client.upload(small)
    with Watched(answering(home)) as memory:
        done = service.client.upload(sparse)
    assert (done["state"], done["received_bytes"]) == ("complete", SPARSE_BYTES)
    assert memory.peak - memory.first < MOST_GROWTH_BYTES, (memory.first, memory.peak)

    killed: list[int] = []

    def kill(sent: int, size: int) -> None:
        if sent > size // 2 and not killed:
            killed.append(answering(home).pid)
            os.kill(killed[0], signal.SIGKILL)

    again = service.client.upload(sparse, on_sent=kill)
    assert killed
    assert (again["state"], again["sha256"]) == ("complete", done["sha256"])

    archive = tmp_path / "pets.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in factories.pictures(4).items():
            file.writestr(name, data)
    dataset = service.client.wait_dataset(service.client.upload_dataset(archive, "pets")["id"])
    assert dataset["state"] == "ready"
    for upload in service.client.call("GET", "/uploads")["data"]:
        if upload["state"] != "used":
            service.client.call("DELETE", f"/uploads/{upload['id']}")
    service.client.call("DELETE", f"/datasets/{dataset['id']}")
    wait_until(lambda: service.files() == [], f"no files; found {service.files()}")
