"""The split's promises, over random datasets."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from worker.data.splits import NONE, TEST, TRAIN, VAL, Digests, choose, complete, number_strata


def digests(num: int, seed: int = 0) -> Digests:
    rows = [hashlib.sha256(f"{seed}-{number}".encode()).digest() for number in range(num)]
    return Digests(np.array([int.from_bytes(row[:8], "big") for row in rows], dtype=np.uint64), rows.__getitem__)


def none(num: int) -> NDArray[np.int8]:
    return np.full(num, NONE, dtype=np.int8)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group and class of each sample; a group is of one class, as pictures mostly are."""
    sizes = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), min_size=1, max_size=80))
    group = np.repeat(np.arange(len(sizes)), [size for _, size in sizes])
    stratum = np.repeat([label for label, _ in sizes], [size for _, size in sizes])
    return group.astype(np.int64), stratum.astype(np.int64)


def counts(
    split_N: NDArray[np.int8], group_N: NDArray[np.int64], stratum_N: NDArray[np.int64], label: int
) -> list[int]:
    """Groups of a class in train, val and test."""
    return [len(set(group_N[(stratum_N == label) & (split_N == split)])) for split in (TRAIN, VAL, TEST)]


@settings(max_examples=150, deadline=None)
@given(dataset=datasets(), seed=st.integers(0, 5))
def test_stratified_by_group(dataset: tuple[NDArray[np.int64], NDArray[np.int64]], seed: int) -> None:
    group_N, stratum_N = dataset
    split_N = choose(seed, digests(len(group_N)), group_N, stratum_N, none(len(group_N)))
    assert set(split_N) <= {TRAIN, VAL, TEST}
    for group in set(group_N):
        assert len(set(split_N[group_N == group])) == 1
    for label in set(stratum_N):
        train, val, test = counts(split_N, group_N, stratum_N, label)
        num = train + val + test
        assert train >= 1
        assert (test >= 1) == (num >= 2)
        assert abs(test - 0.2 * num) <= 1
        assert abs(val - 0.1 * num) <= 1


@given(seed=st.integers(0, 1000), num=st.integers(30, 60))
@settings(max_examples=30, deadline=None)
def test_the_whole_has_its_tenth_of_validation(seed: int, num: int) -> None:
    """Ten classes of three to six: each on its own would round to none."""
    stratum_N = np.arange(num) % 10
    split_N = choose(seed, digests(num), np.arange(num), stratum_N, none(num))
    assert (split_N == VAL).sum() == int(0.1 * num + 0.5)


@settings(max_examples=50, deadline=None)
@given(dataset=datasets(), data=st.data())
def test_names_and_order_do_not_matter(
    dataset: tuple[NDArray[np.int64], NDArray[np.int64]], data: st.DataObject
) -> None:
    group_N, stratum_N = dataset
    num = len(group_N)
    order = np.array(data.draw(st.permutations(range(num))))
    split_N = choose(3, digests(num), group_N, stratum_N, none(num))
    renumbered = (group_N.max() - group_N)[order]
    assert (choose(3, digests(num).take(order), renumbered, stratum_N[order], none(num)) == split_N[order]).all()


def test_the_seed_makes_the_split() -> None:
    splits = [
        choose(seed, digests(200), np.arange(200), np.zeros(200, dtype=np.int64), none(200)) for seed in (0, 0, 1)
    ]
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()


@pytest.mark.parametrize(
    ("num", "expected"),
    [
        (1, [1, 0, 0]),
        (2, [1, 0, 1]),
        (3, [1, 1, 1]),
        (4, [2, 1, 1]),
        (5, [3, 1, 1]),
        (10, [7, 1, 2]),
        (100, [70, 10, 20]),
    ],
)
def test_one_class_of_any_size(num: int, expected: list[int]) -> None:
    split_N = choose(0, digests(num), np.arange(num), np.zeros(num, dtype=np.int64), none(num))
    assert np.bincount(split_N, minlength=3).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(dataset=datasets(), data=st.data())
def test_given_splits_stay_and_copies_follow(
    dataset: tuple[NDArray[np.int64], NDArray[np.int64]], data: st.DataObject
) -> None:
    group_N, stratum_N = dataset
    num = len(group_N)
    given_N = np.array(
        data.draw(st.lists(st.sampled_from([NONE, TRAIN, VAL, TEST]), min_size=num, max_size=num)), dtype=np.int8
    )
    split_N = choose(1, digests(num), group_N, stratum_N, given_N)
    assert (split_N[given_N != NONE] == given_N[given_N != NONE]).all()
    for group in set(group_N):
        given_here = given_N[group_N == group]
        free = split_N[(group_N == group) & (given_N == NONE)]
        if (given_here != NONE).any():
            assert (free == given_here.max()).all()
        else:
            assert len(set(free)) == 1


def test_a_child_fills_up_the_shares_of_the_whole() -> None:
    """Ten old samples of a class, ten new ones: four tests in all, of which two are there."""
    given_N = np.r_[np.repeat([TRAIN, VAL, TEST], [7, 1, 2]), np.full(10, NONE)].astype(np.int8)
    split_N = choose(0, digests(20), np.arange(20), np.zeros(20, dtype=np.int64), given_N)
    assert np.bincount(split_N, minlength=3).tolist() == [14, 2, 4]
    assert (split_N[:10] == given_N[:10]).all()


@pytest.mark.parametrize(
    ("has", "missing"), [((TRAIN, TEST), ["val"]), ((TRAIN, VAL), ["test"]), ((TRAIN,), ["val", "test"])]
)
def test_missing_splits_come_from_train(has: tuple[int, ...], missing: list[str]) -> None:
    num = 120
    given_N = np.resize(np.array(has, dtype=np.int8), num)
    split_N, found = complete(0, digests(num), np.arange(num), np.arange(num) % 3, given_N)
    assert found == missing
    assert set(split_N) == {TRAIN, VAL, TEST}
    assert (split_N[given_N != TRAIN] == given_N[given_N != TRAIN]).all()
    moved = given_N == TRAIN
    for split, share in ((VAL, 0.1), (TEST, 0.2)):
        if split not in has:
            assert (split_N[moved] == split).mean() == pytest.approx(share, abs=0.02)


def test_a_copy_of_a_given_test_item_is_not_moved_into_val() -> None:
    given_N = np.array([TEST] * 10 + [TRAIN] * 40, dtype=np.int8)
    group_N = np.r_[np.arange(10), np.arange(10), np.arange(10, 40)]
    split_N, _ = complete(0, digests(50), group_N, np.zeros(50, dtype=np.int64), given_N)
    assert (split_N[10:20] == TRAIN).all()


def test_complete_splits_are_left_alone() -> None:
    given_N = np.array([TRAIN, VAL, TEST, TRAIN], dtype=np.int8)
    split_N, missing = complete(0, digests(4), np.arange(4), np.zeros(4, dtype=np.int64), given_N)
    assert missing == []
    assert (split_N == given_N).all()


def test_numbers_are_stratified_by_their_size() -> None:
    values = np.random.default_rng(0).normal(size=103)
    strata = number_strata(values)
    assert np.bincount(strata).min() >= 10
    assert all(values[strata == low].max() <= values[strata == low + 1].min() for low in range(strata.max()))


def test_no_samples_no_splits() -> None:
    assert len(choose(0, digests(0), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), none(0))) == 0


def test_a_split_that_no_class_can_spare_is_not_said_to_be_filled() -> None:
    """One group in each class: nothing can move."""
    given = np.zeros(2, dtype=np.int8)
    found, filled = complete(0, digests(2), np.arange(2), np.arange(2), given)
    assert found.tolist() == [0, 0]
    assert filled == []
