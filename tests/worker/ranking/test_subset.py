"""The images of stage 1: every class has its share, and no group is cut."""

import numpy as np
import pytest

from worker.ranking import subset


@pytest.mark.parametrize(
    ("num_images", "wanted"), [(10, 10), (500, 500), (501, 300), (1000, 300), (4000, 1000), (50_000, 2000)]
)
def test_size(num_images, wanted):
    assert subset.size(num_images) == wanted


def test_shares_floors_and_groups():
    rng = np.random.default_rng(0)
    labels_N = np.concatenate([np.zeros(900, int), np.ones(90, int), np.full(5, 2), np.full(5, 3)])
    groups_N = np.arange(1000)
    groups_N[:40] = np.repeat(np.arange(10), 4)  # copies
    order_N = rng.permutation(1000)
    labels_N, groups_N = labels_N[order_N], groups_N[order_N]
    mask_N = subset.choose(labels_N, groups_N, 300, 0)
    count_C = np.bincount(labels_N[mask_N])
    assert 270 <= count_C[0] <= 274
    assert count_C[1] == 27
    assert count_C[2] == count_C[3] == 5
    assert not set(groups_N[mask_N]) & set(groups_N[~mask_N])
    np.testing.assert_array_equal(mask_N, subset.choose(labels_N, groups_N, 300, 0))
    assert (mask_N != subset.choose(labels_N, groups_N, 300, 1)).any()


def test_a_group_of_two_labels_is_taken_whole():
    labels_N, groups_N = np.array([0, 1] * 40), np.arange(80) // 2
    mask_N = subset.choose(labels_N, groups_N, 20, 0)
    assert np.bincount(labels_N[mask_N]).tolist() == [10, 10]


def test_all_of_them_where_all_are_wanted():
    assert subset.choose(np.array([0, 0, 5]), np.arange(3), 3, 0).all()
