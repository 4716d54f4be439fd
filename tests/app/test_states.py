"""The table of moves, written down a second time."""

import itertools

import pytest

from app.errors import Conflict
from app.states import FINAL, MOVES, JobState, check_move

ALLOWED = {
    ("queued", "running"), ("queued", "cancelled"), ("queued", "failed"),
    ("running", "queued"), ("running", "succeeded"), ("running", "failed"), ("running", "cancelled"),
    ("failed", "queued"), ("cancelled", "queued"),
}  # fmt: skip


@pytest.mark.parametrize(("current", "wanted"), list(itertools.product(JobState, JobState)))
def test_every_pair(current, wanted):
    if (current, wanted) in ALLOWED:
        check_move(current, wanted)
        return
    with pytest.raises(Conflict, match=f"can become {wanted}; found one that is {current}"):
        check_move(current, wanted)


def test_final_states_only_leave_by_retry():
    assert {"succeeded", "failed", "cancelled"} == FINAL
    assert MOVES[JobState.SUCCEEDED] == frozenset()
    assert all(MOVES[state] <= {JobState.QUEUED} for state in FINAL)
