"""What is observed beside the answers: all of it, a share, or what fits; never what failed."""

import os
from concurrent.futures import Future

import numpy as np
import pytest

from app.errors import BadRequest
from app.serving import observer
from app.serving.board import Board
from app.serving.call import Result, Timing
from app.serving.observer import Key, Observer
from tests.conftest import wait_until

ONE, OTHER = Key("one", None), Key("one", "aln")


@pytest.fixture
def observing():
    made = []

    def start(share=1.0, board=None):
        made.append(Observer(share, board))
        return made[-1]

    yield start
    for one in made:
        one.close()


def answered(watching, key, number, feature=1.0):
    features = np.full((number, 5), feature, np.float32)
    probabilities = np.tile(np.array([[0.25, 0.75]], np.float32), (number, 1))
    watching.watch(key, Future()).set_result(Result(probabilities, features, Timing()))


def test_versions_and_alignments_are_apart(observing):
    watching = observing()
    answered(watching, ONE, 3, 1.0)
    answered(watching, OTHER, 2, 5.0)
    answered(watching, ONE, 1, 2.0)
    found = watching.within(ONE, "hour")
    assert (found.num_images, found.num_skipped) == (4, 0)
    assert found.mean_D.tolist() == [1.25] * 5
    assert found.labels_C.tolist() == [0, 4]
    assert watching.within(OTHER, "start").mean_D.tolist() == [5.0] * 5
    assert watching.within(Key("two", None), "start") is None
    assert set(watching.seen("hour")) == {ONE, OTHER}


def test_what_failed_is_not_observed(observing):
    watching = observing()
    watching.watch(ONE, Future()).set_exception(BadRequest("expected an image; found none"))
    watching.watch(ONE, Future()).cancel()
    assert watching.seen("start") == {}


def test_a_share_is_looked_at_and_all_are_counted(observing):
    watching, none = observing(0.5), observing(0.0)
    for _ in range(200):
        answered(watching, ONE, 1)
        answered(none, ONE, 1)
    found = watching.within(ONE, "start")
    # By chance outside this once in ten million runs.
    assert 60 <= found.num_images <= 140
    assert found.num_images + found.num_skipped == 200
    assert (none.within(ONE, "start").num_images, none.within(ONE, "start").num_skipped) == (0, 200)


def test_what_does_not_fit_is_counted_and_nobody_waits(observing):
    watching = observing()
    with watching._sums_lock:
        for _ in range(observer.MAX_WAITING // 256 + 3):
            answered(watching, ONE, 256)
    found = watching.within(ONE, "start")
    assert (found.num_images, found.num_skipped) == (observer.MAX_WAITING, 3 * 256)


def test_only_so_many_versions_are_remembered(observing):
    watching = observing()
    for number in range(observer.MAX_KEYS + 5):
        answered(watching, Key(str(number), None), 1)
    found = list(watching.seen("start"))
    assert len(found) == observer.MAX_KEYS
    assert found[-1] == Key(str(observer.MAX_KEYS + 4), None)


def test_processes_of_one_service_see_as_one(observing, tmp_path):
    ours, theirs = (observing(board=Board(tmp_path / "board", 0.02)) for _ in range(2))
    answered(ours, ONE, 3, 1.0)
    answered(theirs, ONE, 1, 5.0)
    answered(theirs, OTHER, 2)
    wait_until(lambda: ours.seen("hour").keys() == {ONE, OTHER}, "what the other process has seen")
    found = ours.within(ONE, "hour")
    assert (found.num_images, found.mean_D.tolist()) == (4, [2.0] * 5)
    assert found.variance_D.tolist() == [4.0] * 5
    theirs.close()
    page = next(path for path in (tmp_path / "board").glob("*.json") if path != ours._board._own)
    os.utime(page, (0, 0))
    assert ours.within(ONE, "hour").num_images == 3
    assert ours.within(ONE, "start").num_images == 4
