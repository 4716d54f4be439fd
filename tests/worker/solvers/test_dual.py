"""Ridge by its inverse kernel matrix, against fits written out one by one."""

import numpy as np
import pytest

from worker.solvers import dual, ridge


def slow(feats_ND, targets_NC, learned, others, strength, weights=None):
    """Ridge with a free bias through the weighted normal equations."""
    design = np.concatenate([feats_ND[learned], np.ones((len(learned), 1))], axis=1)
    penalty = np.full(design.shape[1], strength)
    penalty[-1] = 0.0
    weighted = design.T if weights is None else design.T * weights[learned]
    weight = np.linalg.solve(weighted @ design + np.diag(penalty), weighted @ targets_NC[learned])
    return np.concatenate([feats_ND[others], np.ones((len(others), 1))], axis=1) @ weight


@pytest.fixture
def data():
    chance = np.random.default_rng(0)
    feats_ND = chance.normal(size=(40, 12)).astype(np.float32)
    labels_N = np.arange(40) % 3
    groups_N = np.arange(40)
    groups_N[[5, 9]] = 1  # three copies of one picture
    groups_N[30] = 31
    return feats_ND.astype(np.float64), ridge.one_hot(labels_N, 3), groups_N


def test_fit_to_some_items_predicts_the_others(data):
    feats_ND, targets_NC, _ = data
    learned, others = np.arange(0, 40, 2), np.arange(1, 40, 2)
    found = dual.predict(dual.gram(feats_ND), targets_NC, learned, others, 0.7)
    np.testing.assert_allclose(found, slow(feats_ND, targets_NC, learned, others, 0.7), atol=1e-5)


def test_groups_are_left_out_as_a_loop_does_it(data):
    feats_ND, targets_NC, groups_N = data
    found = dual.invert(dual.gram(feats_ND), targets_NC, 0.7).left_out(groups_N)
    for group in np.unique(groups_N):
        out = groups_N == group
        wanted = slow(feats_ND, targets_NC, np.flatnonzero(~out), np.flatnonzero(out), 0.7)
        np.testing.assert_allclose(found[out], wanted, atol=1e-4)
    np.testing.assert_allclose(found, ridge.leave_groups_out(feats_ND, targets_NC, groups_N, 0.7), atol=1e-4)


def test_removed_items_are_gone_from_every_prediction(data):
    feats_ND, targets_NC, groups_N = data
    removed = np.array([1, 5, 9, 12, 20])  # one whole group among them
    found = dual.invert(dual.gram(feats_ND), targets_NC, 0.7).without(removed, groups_N)
    left = np.setdiff1d(np.arange(40), removed)
    np.testing.assert_allclose(found[removed], slow(feats_ND, targets_NC, left, removed, 0.7), atol=1e-4)
    for group in np.unique(groups_N[left]):
        out = np.flatnonzero(groups_N == group)
        wanted = slow(feats_ND, targets_NC, np.setdiff1d(left, out), out, 0.7)
        np.testing.assert_allclose(found[out], wanted, atol=1e-4)


def test_items_may_weigh_differently(data):
    feats_ND, targets_NC, _ = data
    weights = np.linspace(0.2, 3.0, 40)
    left, removed = np.arange(5, 40), np.arange(5)
    said = dual.predict(dual.gram(feats_ND), targets_NC, left, removed, 0.7 / weights[left])
    wanted = slow(feats_ND, targets_NC, left, removed, 0.7, weights)
    np.testing.assert_allclose(said, wanted, atol=1e-4)
    found = dual.invert(dual.gram(feats_ND), targets_NC, 0.7 / weights)
    np.testing.assert_allclose(found.without(removed, np.arange(40))[removed], wanted, atol=1e-4)
    alone = [
        slow(feats_ND, targets_NC, np.setdiff1d(np.arange(40), [one]), [one], 0.7, weights)[0] for one in range(40)
    ]
    np.testing.assert_allclose(found.left_out(np.arange(40)), alone, atol=1e-4)


def test_other_weights_of_some_items_are_as_if_they_had_had_them(data):
    feats_ND, targets_NC, groups_N = data
    changed, more = np.array([3, 8, 30, 31]), np.array([0.4, -0.3, 1.5, -0.2])
    strength_N = np.full(40, 0.7)
    found = dual.invert(dual.gram(feats_ND), targets_NC, strength_N).reweighed(changed, more)
    strength_N[changed] += more
    wanted = dual.invert(dual.gram(feats_ND), targets_NC, strength_N)
    np.testing.assert_allclose(found.left_out(groups_N), wanted.left_out(groups_N), atol=1e-6)
    np.testing.assert_allclose(found.inverse_NN, wanted.inverse_NN, atol=1e-8)


def test_what_cannot_be_fitted_is_refused(data):
    feats_ND, targets_NC, _ = data
    for gram, targets, strength in (
        (dual.gram(feats_ND), targets_NC, 0.0),
        (dual.gram(feats_ND), targets_NC[:9], 1.0),
        (dual.gram(feats_ND[:1]), targets_NC[:1], 1.0),
    ):
        with pytest.raises(ValueError, match="Expected targets for at least two items"):
            dual.invert(gram, targets, strength)
