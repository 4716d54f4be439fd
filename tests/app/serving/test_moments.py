"""Sums: the same as over all at once, whatever the batches."""

import numpy as np

from app.serving.moments import Moments, total

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


def test_parts_are_totalled_and_left_as_they_are():
    parts = [Moments.of(FEATURES[rows], PROBABILITIES[rows]) for rows in (np.arange(7), np.arange(7, 500))]
    same(total(parts), np.arange(500))
    assert [one.num_images for one in parts] == [7, 493]
    assert total([]) is None
