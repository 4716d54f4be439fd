"""Sums over time: the same as over all at once, whatever the batches, and forgotten when a window has passed."""

import numpy as np
import pytest

from app.serving.moments import DAY, HOUR, SLOT_SECONDS, Moments, Slots

RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(500, 12)) * 3 + 100).astype(np.float32)
PROBABILITIES = RNG.dirichlet(np.ones(4), 500).astype(np.float32)


def same(found, rows):
    assert found.num_images == len(rows)
    np.testing.assert_allclose(found.mean_D, FEATURES[rows].mean(0, dtype=np.float64), rtol=1e-9)
    np.testing.assert_allclose(found.variance_D, FEATURES[rows].var(0, ddof=1, dtype=np.float64), rtol=1e-5)
    assert found.labels_C.tolist() == np.bincount(PROBABILITIES[rows].argmax(1), minlength=4).tolist()
    assert found.scores_B.sum() == len(rows)


def test_batches_add_up():
    found = Moments.empty(12, 4)
    for part in np.split(np.arange(500), [1, 2, 40, 41, 300]):
        found.add(Moments.of(FEATURES[part], PROBABILITIES[part]))
    same(found, np.arange(500))


def test_what_is_no_number_is_skipped():
    features = FEATURES[:4].copy()
    features[1, 3], features[2, 0] = np.nan, np.inf
    found = Moments.of(features, PROBABILITIES[:4])
    assert found.num_skipped == 2
    same(found, np.array([0, 3]))
    nothing = Moments.of(features[1:3], PROBABILITIES[1:3])
    assert (nothing.num_images, nothing.num_skipped) == (0, 2)
    found.add(nothing)
    assert found.num_skipped == 4


@pytest.mark.parametrize("start", [0.0, 12_345.6])
def test_windows_forget_and_memory_does_not_grow(start):
    """One image a slot, for two days: an hour has the last six, a day all of it to the hour, the start everything."""
    slots = Slots(12, 4)
    for number in range(300):
        now = start + number * SLOT_SECONDS
        slots.open(now).add(Moments.of(FEATURES[number : number + 1], PROBABILITIES[number : number + 1]))
        assert len(slots) <= 6 + 24 + 2
    same(slots.within("hour", now), np.arange(294, 300))
    same(slots.within("start", now), np.arange(300))
    assert DAY / SLOT_SECONDS - 6 <= slots.within("day", now).num_images <= DAY / SLOT_SECONDS
    assert slots.within("hour", now + HOUR).num_images == 0
    same(slots.within("start", now + 9 * DAY), np.arange(300))
    slots.within("start", now).add(Moments.of(FEATURES, PROBABILITIES))
    same(slots.within("start", now), np.arange(300))
