"""What is observed beside the answers: all of it, a share, or what fits; never what failed."""

from concurrent.futures import Future

import numpy as np
import pytest

from app.errors import BadRequest
from app.serving import observer
from app.serving.board import Board
from app.serving.call import Result, Timing
from app.serving.moments import total
from app.serving.observer import Observer
from app.serving.slots import HOUR, Key, chosen
from tests.conftest import wait_until

ONE, OTHER = Key("default", "one", None), Key("default", "one", "aln")
NOW = 1_800_000_000.0


@pytest.fixture
def observing():
    made = []

    def start(*arguments, **options):
        made.append(Observer(*arguments, **options))
        return made[-1]

    yield start
    for one in made:
        one.close()


def answered(watching, key, number, feature=1.0):
    features = np.full((number, 5), feature, np.float32)
    probabilities = np.tile(np.array([[0.25, 0.75]], np.float32), (number, 1))
    watching.watch(key, Future()).set_result(Result(probabilities, features, Timing()))


def all_of(watching, key):
    states = watching.states(key)
    return total(states[span] for span in chosen(states, 0))


def test_versions_and_alignments_are_apart(observing):
    watching = observing()
    answered(watching, ONE, 3, 1.0)
    answered(watching, OTHER, 2, 5.0)
    answered(watching, ONE, 1, 2.0)
    found = all_of(watching, ONE)
    assert (found.num_images, found.num_skipped) == (4, 0)
    assert found.mean_D.tolist() == [1.25] * 5
    assert found.labels_C.tolist() == [0, 4]
    assert all_of(watching, OTHER).mean_D.tolist() == [5.0] * 5
    assert watching.states(Key("default", "two", None)) == {}
    assert set(watching.recent()) == {ONE, OTHER}


def test_what_failed_is_not_observed(observing):
    watching = observing()
    watching.watch(ONE, Future()).set_exception(BadRequest("expected an image; found none"))
    watching.watch(ONE, Future()).cancel()
    assert watching.recent() == {}


def test_a_share_is_looked_at_and_all_are_counted(observing):
    watching, none = observing(0.5), observing(0.0)
    for _ in range(200):
        answered(watching, ONE, 1)
        answered(none, ONE, 1)
    found = all_of(watching, ONE)
    # By chance outside this once in ten million runs.
    assert 60 <= found.num_images <= 140
    assert found.num_images + found.num_skipped == 200
    assert (all_of(none, ONE).num_images, all_of(none, ONE).num_skipped) == (0, 200)


def test_what_does_not_fit_is_counted_and_nobody_waits(observing):
    watching = observing()
    with watching._sums_lock:
        for _ in range(observer.MAX_WAITING // 256 + 3):
            answered(watching, ONE, 256)
    found = all_of(watching, ONE)
    assert (found.num_images, found.num_skipped) == (observer.MAX_WAITING, 3 * 256)


def test_only_so_many_versions_are_remembered_once_they_are_stored(observing):
    watching = observing()
    keys = [Key("default", str(number), None) for number in range(observer.MAX_KEYS + 5)]
    for key in keys:
        answered(watching, key, 1)
    assert [one.key for one in watching.due()] == keys
    watching.shrink()
    assert list(watching.recent()) == keys[5:]
    first = next(iter(watching.states(keys[-1])))
    watching.forget(keys[-1])
    # What comes back is another series, so that it is never taken for an older state of the first.
    answered(watching, keys[-1], 1)
    (again,) = watching.states(keys[-1])
    assert again[:2] == first[:2]
    assert again.series != first.series


def test_processes_of_one_service_see_as_one(observing, tmp_path):
    moment = [NOW]
    ours, theirs = (observing(board=Board(tmp_path / "board", 0.02), clock=lambda: moment[0]) for _ in range(2))
    answered(ours, ONE, 3, 1.0)
    answered(theirs, ONE, 1, 5.0)
    answered(theirs, OTHER, 2)
    wait_until(lambda: ours.recent().keys() == {ONE, OTHER}, "what the other process has seen")
    for found in (ours.recent()[ONE], all_of(ours, ONE)):
        assert (found.num_images, found.mean_D.tolist()) == (4, [2.0] * 5)
        assert found.variance_D.tolist() == [4.0] * 5
    theirs.close()
    # What it had seen before its end stays for as long as anybody's.
    assert ours.recent()[ONE].num_images == 4
    moment[0] += HOUR
    assert ours.recent() == {}
