"""What more images of one class buy, held against what they bought; what cannot be told is said."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from worker.forecasting import lending, more_images, stand_in
from worker.forecasting.forecast import forecast
from worker.solvers import dual
from worker.solvers.even import even_order
from worker.training import probing


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data.astype(np.float32), found.target.astype(np.int64)


def split(labels_N, seed, num_pool, num_test):
    order = even_order(labels_N, np.arange(len(labels_N)), np.random.default_rng(1000 + seed))
    return np.sort(order[:num_pool]), order[-num_test:]


def advised(data, rows, seed=0, **more):
    feats_ND, labels_N = data
    return forecast(feats_ND[rows], labels_N[rows], rows, 10, seed, 100, advise=True, **more).more_images


def points(data, rows, test, seed):
    """Balanced accuracy of the probe that would be served, in hundredths."""
    feats_ND, labels_N = data
    head = probing.fit(feats_ND[rows], labels_N[rows], rows, rows, 10, seed)[0]
    right = head.logits(feats_ND[test]).argmax(1) == labels_N[test]
    return 100 * np.mean([right[labels_N[test] == label].mean() for label in range(10)])


def with_few(labels_N, pool, label, num):
    """The order of digits is that of their writers: the first few of a class are one hand's."""
    own = np.random.default_rng(label).permutation(pool[labels_N[pool] == label])
    return np.concatenate([pool[labels_N[pool] != label], own[:num]]), own[num:]


@pytest.mark.parametrize("num", [5, 8])
def test_a_rare_class_is_asked_for_first_and_gains_what_was_told(digits, num):
    """Also where it is never named: halving it costs nothing, and foretold nothing while that was asked."""
    labels_N = digits[1]
    held, told, found = 0, [], []
    for rare in range(10):
        pool, test = split(labels_N, rare, 700, 900)
        before, more = with_few(labels_N, pool, rare, num)
        rows = advised(digits, before, rare)
        assert rows[0].label == rare
        assert rows[0].images == 3 * num  # four times the class at most
        assert rows[0].low <= rows[0].gain_points <= rows[0].high
        after = np.concatenate([before, more[: rows[0].images]])
        found.append(points(digits, after, test, rare) - points(digits, before, test, rare))
        told.append(rows[0].gain_points)
        held += rows[0].low <= found[-1] <= rows[0].high
    assert held >= 9
    assert np.mean(told) == pytest.approx(np.mean(found), rel=0.4)


def test_one_class_of_equal_ones_gains_little_and_is_told_little(digits):
    """It takes from the others: what half of a class costs promised several times as much."""
    labels_N = digits[1]
    held, told, found = 0, [], []
    for label in range(10):
        pool, test = split(labels_N, label, 600, 900)
        half = pool[even_order(labels_N[pool], pool, np.random.default_rng(label))]
        before, other = np.sort(half[:300]), half[300:]
        row = next(one for one in advised(digits, before, label) if one.label == label)
        after = np.concatenate([before, other[labels_N[other] == label][: row.images]])
        found.append(points(digits, after, test, label) - points(digits, before, test, label))
        told.append(row.gain_points)
        # The two hundredths of a point that one test image is worth come on top of the interval.
        held += row.low - 0.25 <= found[-1] <= row.high + 0.25
    assert held >= 9
    assert np.mean(told) == pytest.approx(np.mean(found), abs=0.3)


def test_nothing_is_certain_not_even_of_a_class_that_misses_nothing(digits):
    labels_N = digits[1]
    pool, _ = split(labels_N, 0, 400, 100)
    rows = advised(digits, pool)
    assert any(row.recall == 1.0 for row in rows)
    for row in rows:
        assert row.high - row.low > 0.01


def test_images_are_counted_in_all_that_there_are_and_not_in_those_that_were_looked_at(digits):
    """Of 1,500 images 1,000 are looked at: a class of 150 has 100 there."""
    labels_N = digits[1]
    pool, _ = split(labels_N, 0, 1500, 200)
    before, _ = with_few(labels_N, pool, 3, 12)
    counts_C = np.bincount(labels_N[before])
    rows = {row.label: row for row in advised(digits, before)}
    usual = round(float(np.median(counts_C)))
    assert rows[3].images == 36
    assert {rows[label].images for label in range(10) if label != 3} == {usual}


def test_with_all_images_a_class_gains_less_than_with_the_part_that_was_looked_at(digits):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 300, 100)
    order = even_order(labels_N[pool], np.arange(300), np.random.default_rng(0))
    fitted = stand_in.fit(feats_ND[pool], labels_N[pool], pool, 10, order, unit=False)
    law = forecast(feats_ND[pool], labels_N[pool], pool, 10, 0, 100).reading.curves
    counts_C = np.bincount(labels_N[pool])
    some, many = (more_images.advise(fitted, counts_C * times, law, 0) for times in (1, 10))
    assert sum(row.high for row in many) < 0.8 * sum(row.high for row in some)
    assert {row.label: row.images for row in many} == {row.label: 10 * row.images for row in some}


def test_a_rare_class_of_two_is_told_something(digits):
    """No three larger classes are there to borrow from: what halves of both brought must do."""
    feats_ND, labels_N = digits
    noisy_ND = feats_ND + np.random.default_rng(0).normal(0, 10, feats_ND.shape).astype(np.float32)
    rows = np.flatnonzero((labels_N == 3) | (labels_N == 8))
    few = np.concatenate([rows[labels_N[rows] == 8][:160], rows[labels_N[rows] == 3][:50]])
    found = forecast(noisy_ND[few], labels_N[few] // 8, few, 2, 0, 50, advise=True).more_images
    assert all(row.gain_points is not None and row.reason is None for row in found)
    assert found[0].label == 0


def test_copies_under_two_labels_come_and_go_together(digits):
    """A group that is removed in part has no fit without it."""
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 300, 100)
    pool, _ = with_few(labels_N, pool, 4, 6)
    groups_N = np.arange(len(pool))
    ones, sevens = np.flatnonzero(labels_N[pool] == 1), np.flatnonzero(labels_N[pool] == 7)
    groups_N[sevens[:10]] = groups_N[ones[:10]]
    found = forecast(feats_ND[pool], labels_N[pool], groups_N, 10, 0, 100, advise=True).more_images
    assert all(row.gain_points is not None for row in found)


def test_time_that_is_over_is_the_reason(digits):
    pool, _ = split(digits[1], 0, 300, 100)
    rows = advised(digits, pool, is_over=lambda: True)
    assert {row.reason for row in rows} == {more_images.NO_TIME}
    assert {row.gain_points for row in rows} == {None}


def test_what_is_left_of_a_class_weighs_as_a_class_of_that_size(digits):
    """Against the fit to what is left, with the weights that such a class has."""
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 200, 100)
    labels = labels_N[pool]
    order = even_order(labels, np.arange(200), np.random.default_rng(0))
    fitted = stand_in.fit(feats_ND[pool], labels, pool, 10, order, unit=False)
    removed = np.flatnonzero(labels == 5)[4:]
    left = np.setdiff1d(np.arange(200), removed)
    strength_N = fitted.strength_N.copy()
    strength_N[labels == 5] *= np.sqrt(4 / (labels == 5).sum())
    said = dual.predict(fitted.gram_NN, fitted.inverse.targets_NC, left, removed, strength_N[left]).argmax(1)
    np.testing.assert_array_equal(fitted.right_without(removed)[removed], said == 5)


@pytest.mark.parametrize("unit", [False, True])
def test_a_part_is_the_fit_to_its_items_alone(digits, unit):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 200, 100)
    order = even_order(labels_N[pool], np.arange(200), np.random.default_rng(0))
    fitted = stand_in.fit(feats_ND[pool], labels_N[pool], pool, 10, order, unit=unit)
    rows = np.arange(0, 200, 2)
    part = fitted.part(rows)
    np.testing.assert_array_equal(part.labels_N, fitted.labels_N[rows])
    assert (part.strength, part.by_neighbour) == (fitted.strength, fitted.by_neighbour)
    for place in (0, 17, 60):
        rest = np.setdiff1d(np.arange(100), [place])
        said = part.right(rest, np.array([place]))
        # The weights of a class are those with the item in it.
        assert said[0] == part.right_N[place]


def test_too_few_larger_classes_lend_nothing(digits):
    feats_ND, labels_N = digits
    pool, _ = split(labels_N, 0, 200, 100)
    order = even_order(labels_N[pool], np.arange(200), np.random.default_rng(0))
    fitted = stand_in.fit(feats_ND[pool], labels_N[pool], pool, 10, order, unit=False)
    chance = np.random.default_rng(0)
    assert lending.from_few(fitted, 5, 1000, chance) is None
    assert lending.from_half(fitted, list(range(10)), chance, lambda: True) is None
    assert lending.from_half(fitted, list(range(10)), chance) is not None
