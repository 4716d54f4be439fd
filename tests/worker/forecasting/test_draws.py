"""Even draws, and accuracies by closed form against fits one by one."""

import numpy as np
import pytest

from tests.worker.solvers.test_dual import slow
from worker.forecasting import draws, stand_in
from worker.solvers import linear, ridge
from worker.solvers.even import even_order, whole


@pytest.fixture
def pool():
    chance = np.random.default_rng(3)
    labels_N = np.repeat(np.arange(3), [40, 20, 12])
    feats_ND = (chance.normal(size=(72, 10)) + 1.2 * np.eye(10)[labels_N]).astype(np.float32)
    groups_N = np.arange(72)
    groups_N[[1, 2, 3]] = 0
    groups_N[41] = 40
    return feats_ND, labels_N, groups_N


def test_every_beginning_of_a_draw_has_every_class_in_its_share(pool):
    _, labels_N, groups_N = pool
    order = even_order(labels_N, groups_N, np.random.default_rng(0))
    assert sorted(order) == list(range(72))
    half = np.bincount(labels_N[order[:36]], minlength=3)
    np.testing.assert_allclose(half, [20, 10, 6], atol=4)
    place = np.argsort(order)
    assert np.ptp(place[:4]) == 3  # copies are neighbours
    other = even_order(labels_N, groups_N, np.random.default_rng(1))
    assert not np.array_equal(order, other)


def test_no_group_is_cut(pool):
    _, labels_N, groups_N = pool
    for seed in range(20):
        order = even_order(labels_N, groups_N, np.random.default_rng(seed))
        for size in (7, 18, 36):
            cut = whole(groups_N[order], size)
            assert size <= cut <= size + 3
            assert not np.isin(groups_N[order[:cut]], groups_N[order[cut:]]).any()


@pytest.mark.parametrize("unit", [False, True])
def test_points_are_what_separate_fits_say(pool, unit):
    feats_ND, labels_N, groups_N = pool
    found = draws.sample(feats_ND, labels_N, groups_N, 3, 5, unit=unit)
    assert [one.num_samples for one in found.points] == [7, 18, 36, 72]
    mean_D, scale_D = linear.standardise(feats_ND)
    ready_ND = feats_ND - mean_D
    ready_ND = ready_ND / np.linalg.norm(ready_ND, axis=1, keepdims=True) if unit else ready_ND / scale_D
    chance = np.random.default_rng(5)
    orders = [even_order(labels_N, groups_N, chance) for _ in range(draws.DRAWS)]
    targets_NC = ridge.one_hot(labels_N, 3)
    weights = np.ones(72) if unit else np.bincount(labels_N)[labels_N] ** -0.5
    weights /= weights.mean()
    strengths = stand_in.UNIT_STRENGTHS if unit else [10 * one for one in stand_in.STANDARD_STRENGTHS]
    half, rest = np.split(orders[0], [whole(groups_N[orders[0]], 36)])
    errors = [np.square(slow(ready_ND, targets_NC, half, rest, one) - targets_NC[rest]).mean() for one in strengths]
    strength = strengths[int(np.argmin(errors))]
    for point in found.points[:-1]:
        wanted = []
        for order in orders:
            learned, scored = np.split(order, [whole(groups_N[order], point.num_samples)])
            said = slow(ready_ND, targets_NC, learned, scored, strength, weights)
            wanted.append((said.argmax(1) == labels_N[scored]).mean())
        assert point.draws == pytest.approx(wanted)
        assert point.accuracy == pytest.approx(np.mean(wanted))
    right = np.empty(72, bool)
    for group in np.unique(groups_N):
        out = np.flatnonzero(groups_N == group)
        said = slow(ready_ND, targets_NC, np.setdiff1d(np.arange(72), out), out, strength, weights)
        right[out] = said.argmax(1) == labels_N[out]
    np.testing.assert_array_equal(found.fitted.right_N, right)
    # 70 % of this pool is gone when the copies of a class of two are left out; here a few.
    assert 72 - 5 < found.points[-1].learned < 72 - 2


def test_leaving_one_of_two_out_leaves_half(pool):
    feats_ND = pool[0][:20]
    labels_N = np.repeat(np.arange(10), 2)
    found = draws.sample(feats_ND, labels_N, np.arange(20), 10, 0)
    assert found.points[-1].learned == 10
    assert found.seen().num_scored == 20


def test_copies_of_one_picture_are_one_scored_item(pool):
    feats_ND, labels_N, groups_N = pool
    assert draws.sample(feats_ND, labels_N, groups_N, 3, 0).seen().num_scored == 72 - 4


def test_a_large_pool_is_sampled_evenly(monkeypatch, pool):
    feats_ND, labels_N, groups_N = pool
    monkeypatch.setattr(draws, "MAX_ITEMS", 40)
    found = draws.sample(feats_ND, labels_N, groups_N, 3, 0)
    assert 40 <= len(found.fitted.labels_N) <= 43
    np.testing.assert_allclose(np.bincount(found.fitted.labels_N), [22, 11, 7], atol=3)
    assert found.points[-1].num_samples == len(found.fitted.labels_N)


def test_a_class_that_was_not_drawn_is_missed(pool):
    feats_ND = np.concatenate([pool[0], pool[0][:1]])
    labels_N, groups_N = np.append(pool[1], 3), np.append(pool[2], 99)
    found = draws.sample(feats_ND, labels_N, groups_N, 4, 0)
    assert not found.fitted.right_N[-1]
