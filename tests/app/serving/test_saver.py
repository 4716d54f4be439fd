"""What is observed outlives its process: stored about once a minute, each image once, whatever breaks."""

import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future

import numpy as np
import pytest

from app.errors import Unavailable
from app.serving.board import Board
from app.serving.call import Result, Timing
from app.serving.moments import total
from app.serving.observer import Observer
from app.serving.parts import Parts
from app.serving.saver import Saver
from app.serving.slots import DAY, HOUR, LATE_SECONDS, TEN_MINUTES, Key
from app.storage import FolderStorage
from tests.conftest import wait_until
from tests.factories import files_below
from tests.processes import ROOT

KEY = Key("default", "ver_1", None)
MIDNIGHT = 20_000 * DAY
NEVER = 1e6
# A process that has answered so many images one by one, each of which it says it has stored.
ANSWERING = """
import sys
from concurrent.futures import Future
from pathlib import Path
import numpy as np
from app.serving.call import Result, Timing
from app.serving.observer import Observer
from app.serving.parts import Parts
from app.serving.saver import Saver
from app.serving.slots import Key
from app.storage import FolderStorage
folder, result = Path(sys.argv[1]), Result(np.full((1, 2), 0.5, np.float32), np.ones((1, 5), np.float32), Timing())
observer = Observer()
saver = Saver(observer, Parts(FolderStorage(folder / "storage"), folder / "scratch"), set, 1e6)
for number in range(1, int(sys.argv[2]) + 1):
    observer.watch(Key("default", "ver_1", None), Future()).set_result(result)
    saver.save()
    print(number, flush=True)
"""


def answered(watching, number, feature=1.0, key=KEY):
    features = np.full((number, 5), feature, np.float32)
    probabilities = np.tile(np.array([[0.25, 0.75]], np.float32), (number, 1))
    watching.watch(key, Future()).set_result(Result(probabilities, features, Timing()))


class Away(FolderStorage):
    """An object store that can go, before or after it has done what it is asked."""

    is_away = is_deaf = False

    def put(self, key, source):
        if self.is_away:
            raise Unavailable("expected the object store to answer; found nothing; try again")
        super().put(key, source)
        if self.is_deaf:
            raise Unavailable("expected the object store to answer; found nothing; try again")


class Service:
    """A process, its storage, and its clock."""

    def __init__(self, folder, board=None, period=NEVER, published=set):
        self.now = MIDNIGHT + 12 * HOUR
        self.storage = Away(folder / "storage")
        self.parts = Parts(self.storage, folder / "scratch")
        self.observer = Observer(board=board, clock=lambda: self.now)
        self.saver = Saver(self.observer, self.parts, published, period)

    def seen(self, oldest=0.0):
        found = total(self.parts.read(KEY, oldest, self.observer.states(KEY)).values())
        return found.num_answered if found else 0

    def stored(self):
        found = total(self.parts.read(KEY, 0, {}).values())
        return found.num_answered if found else 0

    def close(self):
        self.observer.close()
        self.saver.close()


@pytest.fixture
def service(tmp_path):
    made = []

    def start(**options):
        made.append(Service(tmp_path, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def test_all_that_is_answered_is_stored_and_only_what_has_changed(service, tmp_path):
    one = service()
    answered(one.observer, 3)
    one.saver.save()
    (first,) = files_below(tmp_path / "storage")
    one.saver.save()
    assert files_below(tmp_path / "storage") == [first]
    answered(one.observer, 2)
    one.saver.save()
    (second,) = files_below(tmp_path / "storage")
    assert (second != first, one.stored(), one.seen()) == (True, 5, 5)
    one.now += TEN_MINUTES
    answered(one.observer, 1)
    one.saver.save()
    assert second in files_below(tmp_path / "storage")
    assert (len(files_below(tmp_path / "storage")), one.stored(), one.seen()) == (2, 6, 6)
    one.now += 2 * HOUR
    one.saver.save()
    (hour,) = files_below(tmp_path / "storage")
    assert "-60-" in hour
    assert (one.stored(), one.seen(), one.seen(one.now - HOUR)) == (6, 6, 0)
    assert files_below(tmp_path / "scratch") == []


def test_it_stores_by_itself_and_at_its_end(service):
    one, other = service(period=0.02), service()
    answered(one.observer, 3)
    wait_until(lambda: one.stored() == 3, "sums that are stored")
    answered(other.observer, 4)
    other.close()
    assert one.seen() == 7


def test_two_services_and_the_processes_of_one_see_each_other_and_nothing_twice(service, tmp_path):
    beside = [service(board=Board(tmp_path / "board", 0.02)) for _ in range(2)]
    far = service()
    for number, one in enumerate((*beside, far), 1):
        answered(one.observer, number)
    # What the board shows and what is stored are states of the same slots.
    wait_until(lambda: {one.seen() for one in beside} == {3}, "what the board shows")
    assert far.seen() == 3
    for one in beside:
        one.saver.save()
    assert (far.seen(), [one.seen() for one in beside]) == (6, [3, 3])
    far.saver.save()
    answered(beside[0].observer, 10)
    wait_until(lambda: {one.seen() for one in beside} == {16}, "what the board shows")
    assert far.seen() == 6
    beside[0].close()
    assert [one.seen() for one in (*beside, far)] == [16, 16, 16]
    assert service().seen() == 13 + 3


def test_an_outage_loses_nothing_and_keeps_nobody_waiting(service, caplog):
    one = service()
    answered(one.observer, 3)
    one.saver.save()
    one.storage.is_away = True
    for _ in range(20):
        answered(one.observer, 1)
        one.saver.save()
        one.now += HOUR
    assert "were not stored; they are kept in memory" in caplog.text
    assert (one.stored(), one.seen()) == (3, 23)
    one.storage.is_away = False
    one.saver.save()
    assert (one.stored(), one.seen()) == (23, 23)


def test_what_was_stored_although_it_was_not_said_counts_once(service):
    one = service()
    one.storage.is_deaf = True
    for number in range(1, 4):
        answered(one.observer, 1)
        one.saver.save()
        assert (one.stored(), one.seen()) == (number, number)
    one.now += 3 * HOUR
    one.saver.save()
    assert (one.stored(), one.seen()) == (3, 3)
    one.storage.is_deaf = False
    one.saver.save()
    assert len(list(one.storage.list("observed"))) == 1
    assert (one.stored(), one.seen()) == (3, 3)


def test_what_comes_too_late_is_told_of_and_not_stored(service, caplog):
    one = service()
    answered(one.observer, 3)
    one.saver.save()
    answered(one.observer, 2)
    assert one.seen() == 5
    one.now = MIDNIGHT + DAY + LATE_SECONDS
    one.saver.save()
    assert "2 images of ver_1 were not stored in time" in caplog.text
    assert one.stored() == one.seen() == 3


def test_requests_do_not_wait_for_a_storage_that_hangs(service):
    one, hanging, begun = service(), threading.Event(), threading.Event()
    put = one.storage.put

    def hangs(key, source):
        begun.set()
        assert hanging.wait(30)
        put(key, source)

    one.storage.put = hangs
    answered(one.observer, 1)
    saving = threading.Thread(target=one.saver.save)
    saving.start()
    assert begun.wait(30)
    start = time.monotonic()
    for _ in range(100):
        answered(one.observer, 1)
    assert one.seen() == 101
    assert time.monotonic() - start < 5
    hanging.set()
    saving.join()
    assert one.stored() == 1


def test_of_a_deleted_version_nothing_is_stored_or_kept(service, tmp_path):
    there = {"ver_1"}
    one = service(published=lambda ids: there & set(ids))
    answered(one.observer, 1)
    one.saver.save()
    there.clear()
    answered(one.observer, 1)
    one.saver.save()
    assert one.observer.states(KEY) == {}
    assert one.stored() == 1


def test_a_database_that_is_away_loses_nothing(service):
    is_away = True

    def published(ids):
        if is_away:
            raise Unavailable("expected the database to answer; found nothing")
        return set(ids)

    one = service(published=published)
    answered(one.observer, 1)
    one.saver.save()
    assert one.stored() == 0
    is_away = False
    one.saver.save()
    assert one.stored() == 1


@pytest.mark.parametrize("point", ["sums_stored", "file_linked"])
def test_a_killed_process_leaves_what_it_had_stored_and_nothing_twice(service, tmp_path, point):
    """Kill -9 around the writing of its fourth state; the process that follows goes on from there."""
    armed = tmp_path / "armed"
    armed.mkdir()
    command = [sys.executable, "-c", ANSWERING, str(tmp_path), "9"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={"GRAFT_FAILPOINTS": str(armed)}
    ) as process:
        for line in process.stdout:
            if line.strip() == "3":
                (armed / f".{point}").write_text("kill")
                (armed / f".{point}").rename(armed / point)
        assert process.wait() == -signal.SIGKILL
        number = int(line)
    one = service()
    # The one that it was storing may be there, and be there beside the state before it.
    assert one.stored() == number + (point != "file_linked")
    subprocess.run([*command[:-1], "5"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert one.stored() == number + (point != "file_linked") + 5
