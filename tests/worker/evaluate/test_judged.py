"""Predictions in which the choice between ways had no part."""

import numpy as np
import pytest

from worker.evaluate import judged


def test_each_half_is_named_by_the_way_that_the_other_half_takes():
    predicted_WN = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    half_N = np.array([0, 1, 0, 1])
    seen = []

    def choose(seen_N):
        seen.append(seen_N.tolist())
        return int(seen_N[0])

    found_N = judged.cross_fitted(predicted_WN, half_N, choose)
    # Asked about half 0 the rule saw half 1 alone, which has no item 0, and took way 0; about half 1 the other way.
    assert seen == [[False, True, False, True], [True, False, True, False]]
    assert found_N.tolist() == [0, 1, 0, 1]


def test_copies_of_one_picture_are_in_one_half():
    labels_N = np.repeat(np.arange(3), 20)
    groups_N = np.arange(60) // 2
    half_N = judged.halves(labels_N, groups_N, 3)
    assert set(half_N) == {0, 1}
    assert all(len(set(half_N[groups_N == group])) == 1 for group in range(30))


def test_it_takes_the_luck_out_of_the_best_of_many():
    """Of ways that all guess, the best looks far better than chance on the items that chose it."""
    chance = np.random.default_rng(0)
    labels_N, lucky, fair = np.repeat([0, 1], 30), [], []
    for seed in range(40):
        predicted_WN = chance.integers(0, 2, (20, 60))
        right_WN = predicted_WN == labels_N
        half_N = judged.halves(labels_N, np.arange(60), seed)
        found_N = judged.cross_fitted(
            predicted_WN, half_N, lambda seen_N, right_WN=right_WN: int(right_WN[:, seen_N].mean(1).argmax())
        )
        lucky.append(right_WN.mean(1).max())
        fair.append((found_N == labels_N).mean())
    assert np.mean(lucky) > 0.6
    # Standard error of the mean of 40 x 60 coins: 0.010.
    assert np.mean(fair) == pytest.approx(0.5, abs=0.04)


def test_scores_have_their_prediction_as_the_largest():
    assert judged.one_hot([2, 0], 3).argmax(1).tolist() == [2, 0]
