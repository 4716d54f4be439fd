"""The baseline from scratch under small budgets. Nothing here depends on how much a machine does in a second."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests import factories
from tests.worker import transfer_factories
from tests.worker.transfer_factories import Wire
from worker.attempt.progress import Yielded
from worker.backbones.extraction import Extraction
from worker.contract.task import Task
from worker.methods import reference, scratch, scratch_training
from worker.methods.reference import holdout
from worker.scores.intervals import clopper_pearson
from worker.solvers.logits import softmax


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def task(tmp_path: Path, wire: Wire) -> Iterator[Task]:
    archive = tmp_path / "colours.zip"
    archive.write_bytes(factories.pack(factories.pictures(12)))
    context = transfer_factories.context(tmp_path, wire)
    transfer_factories.store(context, archive)
    return transfer_factories.task(context, transfer_factories.cnn())


def quick(task: Task) -> SimpleNamespace:
    """A transfer that ended soon and was cross-validated."""
    return SimpleNamespace(seconds=0.3, extraction=None, selection=SimpleNamespace(rows=task.pool))


def from_scratch(task: Task, of: SimpleNamespace, by_seconds: float | None = None, image_seconds: float | None = None):
    """The baseline of such a transfer."""
    own_seconds = reference.wall_seconds(task, of.seconds, of.extraction, image_seconds)
    return reference.scratch(task, of.selection.rows, of.seconds, own_seconds, by_seconds)


def test_both_networks_learn_and_the_better_one_counts(task: Task) -> None:
    held = holdout(task)
    found = scratch.run(task, 10.0, [held])
    small, same = found.details["small_cnn"], found.details["same_network"]
    assert small["steps"] > 0
    assert same["steps"] > 0
    assert "small CNN at 32 px" in small["what"]
    assert "test_efficientnet from random weights" in same["what"]
    accuracies = small["selection_accuracy"], same["selection_accuracy"]
    assert found.skipped == ()
    best = small if small["what"] in found.what else same
    assert (found.hurried is None) == (best["epochs"] >= scratch.WANTED_EPOCHS)
    right = found.selection.logits.argmax(1) == task.labels_N[held]
    assert right.mean() == max(accuracies)
    assert right.mean() > 0.6
    np.testing.assert_allclose(found.predict(held), softmax(found.selection.logits), atol=0.05)
    backwards = found.predict(held[::-1])
    np.testing.assert_allclose(backwards[::-1], found.predict(held), atol=1e-6)
    np.testing.assert_allclose(backwards.sum(axis=1), 1.0)
    assert found.what.startswith("from scratch: ")


def test_a_budget_too_small_for_the_same_network_is_said(task: Task, wire: Wire) -> None:
    held = holdout(task)
    found = scratch.run(task, 0.01, [held])
    assert found.details["same_network"]["epochs"] == 0
    assert "one epoch at" in found.details["same_network"]["skipped"]
    assert "small CNN" in found.what
    assert found.details["small_cnn"]["steps"] >= 1
    (skipped,) = found.skipped
    assert (skipped.step, skipped.outcome) == ("baseline test_efficientnet from random weights", "skipped")
    assert skipped.reason == found.details["same_network"]["skipped"]
    event = next(one for one in wire.events("log") if one["data"].get("outcome") == "skipped")
    assert (event["data"]["step"], event["data"]["reason"]) == (skipped.step, skipped.reason)
    assert "epochs and wanted 15 at least" in found.hurried
    told = wire.messages()
    assert any("test_efficientnet from random weights: skipped, one epoch at" in text for text in told)
    # One step and no better than a constant: what it had was no time, and no verdict may stand on that.
    rows = found.selection.rows
    right_P = found.selection.logits.argmax(1) == task.labels_N[rows]
    assert (found.unfair is None) == (clopper_pearson(int(right_P.sum()), len(rows))[0] > 1 / 3)


def test_a_network_that_had_no_time_is_a_straw_man_and_one_that_guesses_is_not() -> None:
    labels_S = np.array([0, 0, 1, 2] * 10)
    guess_S, right_S = np.zeros_like(labels_S), labels_S.copy()
    assert "the largest class alone is 0.500" in str(scratch.straw_man(labels_S, guess_S, 3.0))
    assert scratch.straw_man(labels_S, right_S, 3.0) is None
    assert scratch.straw_man(labels_S, guess_S, 300.0) is None
    # 24 of 40: chance may lift one that has learned nothing over the half that a constant has.
    lucky_S = np.where(np.arange(40) < 8, labels_S, 0)
    assert 0.5 < (lucky_S == labels_S).mean() <= 0.6
    assert "(0.433 to 0.751) of the 40 that were held out" in str(scratch.straw_man(labels_S, lucky_S, 3.0))


def test_however_soon_a_transfer_ends_the_networks_have_their_seconds(task: Task, monkeypatch) -> None:
    given = []
    monkeypatch.setattr(scratch, "run", lambda task, seconds, *rows: given.append(seconds))
    from_scratch(task, quick(task))
    assert given == [reference.MIN_SECONDS]
    assert reference.MIN_SECONDS >= 5


def test_they_start_only_if_their_forecast_fits_the_budget_itself(task: Task, wire: Wire, monkeypatch) -> None:
    """No slack is planned in: two networks of five seconds and six to begin are not begun with fifteen left."""
    monkeypatch.setattr(scratch, "run", lambda *given: given)
    skipped = from_scratch(task, quick(task), 15.9)
    assert (skipped.step, skipped.outcome, skipped.forecast_seconds) == ("baseline from scratch", "skipped", 16.0)
    assert "does not fit" in skipped.reason
    assert from_scratch(task, quick(task), 1e6)[1] == reference.MIN_SECONDS


@pytest.mark.parametrize(
    ("transfer_seconds", "own_seconds", "said"),
    [(0.3, 0.3, "5.0 s, the least that one has (the transfer's was 0.3 s)"), (8.0, 8.0, "8.0 s, as the transfer had"),
     (7.0, 21.8, "21.8 s (7.0 s that the transfer took, and 14.8 s that its cached features would have taken)")],
)  # fmt: skip
def test_what_a_networks_time_is_made_of_is_told(transfer_seconds, own_seconds, said) -> None:
    assert reference.allowance(transfer_seconds, own_seconds) == said


def test_cached_features_are_told_where_the_time_does_not_hold_two_networks(task: Task) -> None:
    cached = quick(task)
    cached.seconds, cached.extraction = 7.0, SimpleNamespace(num_cached=100)
    skipped = from_scratch(task, cached, 20.0, 0.148)
    assert "two networks of 21.8 s (7.0 s that the transfer took, and 14.8 s that its cached" in skipped.reason


def test_a_small_hold_out_is_followed_by_others_that_no_network_has_seen(task: Task) -> None:
    """Few items cannot tell a gain from luck; each more hold-out is named by a network that learned without it."""
    parts = reference.holdouts(task, task.pool)
    assert len(parts) == 5, "36 images: all of them together are fewer than MIN_COMPARED"
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), task.pool)
    np.testing.assert_array_equal(parts[0], holdout(task))
    for group in np.unique(task.groups_N[task.pool]):
        assert sum(group in task.groups_N[rows] for rows in parts) == 1
    found = scratch.run(task, 1.0, parts[:3])
    np.testing.assert_array_equal(found.selection.rows, np.concatenate(parts[:3]))
    assert found.selection.logits.shape == (len(found.selection.rows), 3)
    assert found.selection.what == "3 hold-outs of 20 %"
    assert found.details["num_holdouts"] == 3
    assert found.num_learned == len(task.pool) - len(parts[0])


def test_only_what_the_transfer_has_not_seen_either_is_compared_on(task: Task) -> None:
    (only,) = reference.holdouts(task, holdout(task))
    np.testing.assert_array_equal(only, holdout(task))


def test_more_hold_outs_take_no_more_than_the_time_that_is_left(task: Task, monkeypatch) -> None:
    given = []
    monkeypatch.setattr(scratch, "run", lambda task, seconds, parts, _: given.append(len(parts)))
    from_scratch(task, quick(task))
    monkeypatch.setattr(reference, "MIN_SECONDS", 1000.0)
    for left in (2010.0, 3010.0, 1e6):
        from_scratch(task, quick(task), task.context.reporter.elapsed_seconds + left)
    assert given == [5, 1, 2, 5]


def test_it_yields(task: Task) -> None:
    held = holdout(task)
    task.context.reporter._request = "yield"
    with pytest.raises(Yielded):
        scratch.run(task, 5.0, [held])


def test_native_side_is_the_usual_one_within_bounds(task: Task) -> None:
    assert scratch.native_side(task, task.pool) == 32


def test_one_cycle_goes_up_and_down_to_zero() -> None:
    factors = [scratch_training.one_cycle(step / 100) for step in range(101)]
    top = int(np.argmax(factors))
    assert 20 <= top <= 26
    assert factors[0] > 0
    assert factors[-1] == pytest.approx(0)
    assert all(np.diff(factors[: top + 1]) > 0)
    assert all(np.diff(factors[top:]) <= 0)


def test_what_was_cached_counts_at_the_pace_of_what_was_not(task: Task) -> None:
    extraction = Extraction(num_cached=100, num_extracted=50, seconds=5.0)
    assert reference.wall_seconds(task, 3.0, extraction) == 13.0
    assert reference.wall_seconds(task, 3.0, extraction, image_seconds=0.5) == 53.0
    timed = reference.wall_seconds(task, 3.0, Extraction(num_cached=100, num_extracted=0, seconds=0.0))
    assert 3.0 < timed != 13.0
