"""The interval over pictures against a resampling loop, and whether it covers."""

import numpy as np
import pytest

from worker.ranking import expected
from worker.scores import intervals


def test_it_is_the_bootstrap_over_groups():
    rng = np.random.default_rng(0)
    groups_N = np.repeat(np.arange(60), rng.integers(1, 5, 60))
    right_N = rng.random(60)[groups_N] < 0.7
    found = expected.accuracy(right_N, groups_N, 0)
    drawn = []
    for _ in range(4000):
        chosen = rng.integers(0, 60, 60)
        items = np.concatenate([right_N[groups_N == group] for group in chosen])
        drawn.append(items.mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.value, found.method) == (right_N.mean(), "bootstrap")
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_copies_make_it_no_narrower():
    right_G = np.random.default_rng(1).random(100) < 0.6
    alone = expected.accuracy(right_G, np.arange(100), 0)
    groups_N = np.repeat(np.arange(100), 20)
    copies = expected.accuracy(right_G[groups_N], groups_N, 0)
    assert (copies.low, copies.high) == (alone.low, alone.high)


@pytest.mark.parametrize("right_N", [np.ones(200, bool), np.arange(12) < 8])
def test_few_or_all_right_is_exact(right_N):
    found = expected.accuracy(right_N, np.arange(len(right_N)), 0)
    assert found.method == "clopper_pearson"
    assert (found.low, found.high) == intervals.clopper_pearson(int(right_N.sum()), len(right_N))
    assert found.low < found.value <= found.high


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    covered = 0
    for seed in range(200):
        hard_G = rng.random(80)
        groups_N = np.repeat(np.arange(80), rng.integers(1, 4, 80))
        found = expected.accuracy(rng.random(len(groups_N)) < 0.5 + 0.4 * hard_G[groups_N], groups_N, seed)
        covered += found.low <= 0.7 <= found.high
    assert 0.9 <= covered / 200 <= 0.99


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        expected.accuracy(np.zeros(0, bool), np.zeros(0, int), 0)
