"""The default broker under many hands: each message is read once, and nobody reads half a file."""

import shutil
import subprocess
import sys
from pathlib import Path

from app.queue import Bell, make_celery
from app.settings import Settings
from tests.app.test_queue import take
from tests.processes import ROOT

WRITERS, RINGS = 3, 60
RING = """
import sys
from pathlib import Path
from app.queue import Bell, make_celery
from app.settings import Settings
bell = Bell(make_celery(Settings(home=Path(sys.argv[1]))))
assert all(bell.ring("cpu") for _ in range(int(sys.argv[2])))
"""
TAKE = """
import sys, time
from pathlib import Path
from app.queue import Bell, make_celery
from app.settings import Settings
from tests.app.test_queue import take
celery, found, end = make_celery(Settings(home=Path(sys.argv[1]))), 0, time.monotonic() + float(sys.argv[2])
print("ready", flush=True)
while not sys.stdin.readline():
    pass
while time.monotonic() < end and not (Path(sys.argv[1]) / "written").exists():
    found += len(take(celery, "cpu"))
print(found)
"""


def test_each_message_is_read_once_and_whole(home: Path) -> None:
    home.mkdir(exist_ok=True)
    readers = [start(TAKE, home, 120) for _ in range(2)]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdin is not None
        assert reader.stdout.readline() == "ready\n"
        reader.stdin.write("go\n")
        reader.stdin.flush()
    writers = [start(RING, home, RINGS) for _ in range(WRITERS)]
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [0] * WRITERS
    (home / "written").touch()
    found = [int(reader.communicate(timeout=120)[0]) for reader in readers]
    rest = take(make_celery(Settings(home=home)), "cpu")
    assert sum(found) + len(rest) == WRITERS * RINGS
    assert [reader.returncode for reader in readers] == [0, 0]
    assert list((home / "broker" / "messages").iterdir()) == []


def start(code: str, home: Path, number: int) -> subprocess.Popen[str]:
    """A process of its own, that writes or reads."""
    command = [sys.executable, "-c", code, str(home), str(number)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_broker_that_was_wiped_goes_on(home: Path) -> None:
    celery = make_celery(Settings(home=home))
    bell = Bell(celery)
    assert bell.ring("cpu")
    assert len(take(celery, "cpu")) == 1
    shutil.rmtree(home / "broker")
    assert take(celery, "cpu") == []
    assert bell.ring("cpu")
    assert len(take(celery, "cpu")) == 1
