"""The interval over pictures against a resampling loop, and whether it covers."""

import numpy as np
import pytest

from worker.ranking import expected
from worker.scores import intervals


def test_it_is_the_bootstrap_over_groups():
    rng = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    right_N = rng.random(60)[groups_N] < 0.7
    found = expected.accuracy(right_N[None], groups_N, 0)
    drawn = []
    for _ in range(4000):
        chosen = rng.integers(0, 60, 60)
        items = np.concatenate([right_N[groups_N == group] for group in chosen])
        drawn.append(items.mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.value, found.method) == (right_N.mean(), "bootstrap")
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_draws_of_folds_are_no_more_pictures():
    """The value is their mean; ten of them leave the interval as wide as one does, and wider where they disagree."""
    rng = np.random.default_rng(5)
    chance_N = rng.beta(2, 1, 200)
    right_RN = rng.random((10, 200)) < chance_N
    groups_N = np.arange(200)
    found = expected.accuracy(right_RN, groups_N, 0)
    assert found.value == right_RN.mean()
    alone = [expected.accuracy(right_N[None], groups_N, 0) for right_N in right_RN]
    assert found.high - found.low > np.mean([one.high - one.low for one in alone])
    same = expected.accuracy(np.repeat(right_RN[:1], 10, axis=0), groups_N, 0)
    assert same.high - same.low == pytest.approx(alone[0].high - alone[0].low, abs=0.01)


def test_copies_make_it_no_narrower():
    right_G = np.random.default_rng(1).random(100) < 0.6
    alone = expected.accuracy(right_G[None], np.arange(100), 0)
    groups_N = np.repeat(np.arange(100), 20)
    copies = expected.accuracy(right_G[None, groups_N], groups_N, 0)
    assert (copies.low, copies.high) == (alone.low, alone.high)


@pytest.mark.parametrize("right_N", [np.ones(200, bool), np.arange(12) < 8])
def test_few_or_all_right_is_exact(right_N):
    found = expected.accuracy(right_N[None], np.arange(len(right_N)), 0)
    assert found.method == "clopper_pearson"
    assert (found.low, found.high) == intervals.clopper_pearson(int(right_N.sum()), len(right_N))
    assert found.low < found.value <= found.high


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        hard_G = rng.random(80)
        groups_N = np.repeat(np.arange(80), rng.integers(1, 4, 80))
        right_N = rng.random(len(groups_N)) < 0.5 + 0.4 * hard_G[groups_N]
        found = expected.accuracy(right_N[None], groups_N, seed)
        covered += found.low <= 0.7 <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        expected.accuracy(np.zeros((1, 0), bool), np.zeros(0, int), 0)
