import numpy as np
import pytest

from worker.solvers import folds


def random_items(seed: int = 0, num_items: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels_N = rng.choice(5, size=num_items, p=[0.5, 0.3, 0.15, 0.04, 0.01])
    groups_N = np.arange(num_items)
    copies = rng.choice(num_items, size=60, replace=False)
    groups_N[copies] = groups_N[rng.choice(num_items, size=60)]
    return labels_N, groups_N


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_split_and_classes_are_even(seed: int) -> None:
    labels_N, groups_N = random_items(seed)
    fold_N = folds.stratified_group_folds(labels_N, groups_N, 5, seed)
    assert fold_N.dtype == np.int64
    for group in np.unique(groups_N):
        assert len(set(fold_N[groups_N == group])) == 1
    for label in range(5):
        counts = np.bincount(fold_N[labels_N == label], minlength=5)
        assert counts.max() - counts.min() <= 3, counts
    assert np.ptp(np.bincount(fold_N)) <= 8


def test_without_groups_class_counts_differ_by_at_most_one() -> None:
    labels_N, _ = random_items()
    fold_N = folds.stratified_group_folds(labels_N, np.arange(labels_N.size), 5, 3)
    for label in range(5):
        assert np.ptp(np.bincount(fold_N[labels_N == label], minlength=5)) <= 1


def test_same_seed_same_folds_and_another_seed_others() -> None:
    labels_N, groups_N = random_items()
    first = folds.stratified_group_folds(labels_N, groups_N, 5, 1)
    assert (first == folds.stratified_group_folds(labels_N, groups_N, 5, 1)).all()
    assert (first != folds.stratified_group_folds(labels_N, groups_N, 5, 2)).any()


def test_class_smaller_than_the_number_of_folds_is_spread_and_no_fold_is_empty() -> None:
    labels_N = np.array([0, 0, 0, 0, 0, 0, 1, 1, 2])
    fold_N = folds.stratified_group_folds(labels_N, np.arange(9), 5, 0)
    assert set(fold_N) == set(range(5))
    assert len(set(fold_N[labels_N == 1])) == 2


def test_groups_may_be_hashes_and_span_classes() -> None:
    labels_N = np.array([0, 1, 0, 1, 0, 1])
    groups_N = np.array(["a", "a", "b", "c", "d", "e"])
    fold_N = folds.stratified_group_folds(labels_N, groups_N, 2, 0)
    assert fold_N[0] == fold_N[1]


@pytest.mark.parametrize("num_folds", [1, 4])
def test_impossible_number_of_folds_is_refused(num_folds: int) -> None:
    with pytest.raises(ValueError, match="3 groups"):
        folds.stratified_group_folds(np.array([0, 1, 0, 1]), np.array([0, 1, 2, 2]), num_folds, 0)


@pytest.mark.parametrize("seed", range(3))
def test_holdout_keeps_groups_whole_and_the_fraction_per_class(seed: int) -> None:
    labels_N, groups_N = random_items(seed)
    mask_N = folds.stratified_group_holdout(labels_N, groups_N, 0.2, seed)
    for group in np.unique(groups_N):
        assert len(set(mask_N[groups_N == group])) == 1
    for label in range(5):
        size = (labels_N == label).sum()
        assert abs(mask_N[labels_N == label].sum() - 0.2 * size) <= 1.5 + 0.05 * size


def test_holdout_never_takes_a_whole_class() -> None:
    labels_N = np.array([0] * 10 + [1, 1, 2])
    mask_N = folds.stratified_group_holdout(labels_N, np.arange(13), 0.9, 0)
    assert all((~mask_N[labels_N == label]).any() for label in range(3))


def test_holdout_fraction_is_checked() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        folds.stratified_group_holdout(np.array([0, 1]), np.array([0, 1]), 1.0, 0)
