"""Which samples train, which choose, which test: 70/10/20 by group, stratified, from the dataset's own seed.

A group is all copies of one picture, so no copy of a test item is ever trained on. The order within a stratum is
sha256(seed + group), a group being named by the smallest sha256 of its members: names and order of the upload do not
matter.

Small strata, in groups: 1 -> train; 2 -> one train, one test; 3 and more -> at least one train and one test.
Validation gets a tenth of the whole, spread over the strata that are nearest to deserving one.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST, NONE = 0, 1, 2, -1
VAL_SHARE, TEST_SHARE = 0.1, 0.2


@dataclass(frozen=True, slots=True)
class Digests:
    """sha256 of the encoded bytes of N images.

    Args:
        leading: the first eight bytes of each as a number: [N] in the order of the digests.
        whole: gives the digest of the image at a place.
    """

    leading: NDArray[np.uint64]
    whole: Callable[[int], bytes]

    def take(self, places: NDArray[np.int64]) -> "Digests":
        """Those of some images."""
        return Digests(self.leading[places], lambda place: self.whole(int(places[place])))


def choose(
    seed: int,
    digests: Digests,
    group_N: NDArray[np.int64],
    stratum_N: NDArray[np.int64],
    given_N: NDArray[np.int8],
) -> NDArray[np.int8]:
    """Splits of all samples; those in `given_N` stay as they are.

    A sample without a split that shares its group with given ones follows them: into test before val before train,
    so that a copy of a test item never trains. Other groups fill their stratum up to its share, counting what is given.

    Args:
        seed: the dataset's.
        digests: of the images.
        group_N: groups, numbered from 0 without gaps.
        stratum_N: class of each sample, or a bin of its number; any integers.
        given_N: TRAIN, VAL, TEST or NONE.

    Shape:
        result: [N]
    """
    if not len(group_N):
        return given_N.copy()
    given_G = _of_groups(group_N, given_N)
    num_groups = len(given_G)
    first_G = _first_members(digests.leading, group_N, num_groups)
    split_G = given_G.copy()
    free_G = np.flatnonzero(given_G == NONE)
    if len(free_G):
        free_G = free_G[np.argsort(_shuffled(seed, digests, first_G[free_G]), kind="stable")]
        split_G[free_G] = _fill(stratum_N[first_G], given_G, free_G)
    return np.where(given_N == NONE, split_G[group_N], given_N)


def complete(
    seed: int,
    digests: Digests,
    group_N: NDArray[np.int64],
    stratum_N: NDArray[np.int64],
    given_N: NDArray[np.int8],
) -> tuple[NDArray[np.int8], list[str]]:
    """Given splits, with val and test taken from train where the upload has none; also the names of those that were.

    The given test and val items stay where they are; only train items move, group by group, and none that its class
    cannot spare.
    """
    missing = [split for split in (VAL, TEST) if not (given_N == split).any()]
    if not missing or not (given_N == TRAIN).any():
        return given_N, []
    open_N = np.where(given_N == TRAIN, NONE, given_N).astype(np.int8)
    train = np.flatnonzero(given_N == TRAIN)
    # Only groups wholly in train may move: a copy of a given item follows nothing.
    tied = np.isin(group_N, group_N[(given_N != TRAIN)])
    free = train[~tied[train]]
    _, group_F = np.unique(group_N[free], return_inverse=True)
    chosen = choose(
        seed, digests.take(free), group_F.astype(np.int64), stratum_N[free], np.full(len(free), NONE, dtype=np.int8)
    )
    chosen[~np.isin(chosen, missing)] = TRAIN
    open_N[train] = TRAIN
    open_N[free] = chosen
    return open_N, [SPLITS[split] for split in missing if (open_N == split).any()]


def follow(group_N: NDArray[np.int64], given_N: NDArray[np.int8]) -> NDArray[np.int8]:
    """Given splits; a sample without one has that of its group, if any is given there: see `choose`.

    Args:
        group_N: groups, numbered from 0 without gaps.
        given_N: TRAIN, VAL, TEST or NONE.

    Shape:
        result: [N]
    """
    return np.where(given_N == NONE, _of_groups(group_N, given_N)[group_N], given_N)


def _of_groups(group_N: NDArray[np.int64], given_N: NDArray[np.int8]) -> NDArray[np.int8]:
    """The split that a group without one would follow."""
    given_G = np.full(int(group_N.max(initial=-1)) + 1, NONE, dtype=np.int8)
    # TEST > VAL > TRAIN > NONE, so the maximum is the one to follow.
    np.maximum.at(given_G, group_N, given_N)
    return given_G


def number_strata(values_N: NDArray[np.float64], num_bins: int = 10) -> NDArray[np.int64]:
    """Strata for regression: bins of equal counts over the numbers."""
    order = np.argsort(np.argsort(values_N, kind="stable"), kind="stable")
    return (order * min(num_bins, max(1, len(values_N) // 5)) // max(1, len(values_N))).astype(np.int64)


def _first_members(leading_N: NDArray[np.uint64], group_N: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
    """The member with the smallest digest of each group."""
    order = np.lexsort((leading_N, group_N))
    _, starts = np.unique(group_N[order], return_index=True)
    assert len(starts) == num_groups, "groups are numbered without gaps"
    return order[starts]


def _shuffled(seed: int, digests: Digests, places: NDArray[np.int64]) -> NDArray[np.uint64]:
    """For each image a number that looks random, and comes of the seed and its digest alone."""
    texts = (f"{seed}:{digests.whole(place).hex()}".encode() for place in map(int, places))
    numbers = (int.from_bytes(hashlib.sha256(text).digest()[:8], "big") for text in texts)
    return np.fromiter(numbers, np.uint64, len(places))


def _fill(stratum_G: NDArray[np.int64], given_G: NDArray[np.int8], free_G: NDArray[np.int64]) -> NDArray[np.int8]:
    """Splits of the free groups, which come in random order: the first of a stratum go to test, the next to val."""
    strata, stratum_G = np.unique(stratum_G, return_inverse=True)
    num_S = np.bincount(stratum_G, minlength=len(strata))
    free_S = np.bincount(stratum_G[free_G], minlength=len(strata))
    given_SK = np.stack([np.bincount(stratum_G[given_G == split], minlength=len(strata)) for split in range(3)], axis=1)

    want_test_S = np.where(num_S >= 2, np.maximum(1, np.floor(TEST_SHARE * num_S + 0.5)), 0).astype(np.int64)
    test_S = np.clip(want_test_S - given_SK[:, TEST], 0, free_S)
    # One group of every stratum trains, whatever the shares say.
    test_S = np.minimum(test_S, np.maximum(free_S - (given_SK[:, TRAIN] == 0), 0))
    room_S = np.maximum(free_S - test_S - (given_SK[:, TRAIN] == 0), 0)
    val_S = np.minimum(_val_quota(num_S) - np.minimum(given_SK[:, VAL], _val_quota(num_S)), room_S)

    split_F = np.empty(len(free_G), dtype=np.int8)
    stratum_F = stratum_G[free_G]
    order = np.argsort(stratum_F, kind="stable")
    rank_F = np.empty(len(free_G), dtype=np.int64)
    rank_F[order] = np.arange(len(free_G)) - np.repeat(np.cumsum(free_S) - free_S, free_S)
    split_F[:] = TRAIN
    split_F[rank_F < (test_S + val_S)[stratum_F]] = VAL
    split_F[rank_F < test_S[stratum_F]] = TEST
    return split_F


def _val_quota(num_S: NDArray[np.int64]) -> NDArray[np.int64]:
    """A tenth of all groups, by largest remainder: rounding small classes one by one would leave no validation set."""
    quota_S = np.floor(VAL_SHARE * num_S + 1e-9).astype(np.int64)
    total = int(max(1, np.floor(VAL_SHARE * num_S.sum() + 0.5)))
    remainder_S = VAL_SHARE * num_S - quota_S
    remainder_S[num_S < 3] = -1.0
    order = np.argsort(-remainder_S, kind="stable")
    more = order[remainder_S[order] >= 0][: max(0, total - int(quota_S.sum()))]
    quota_S[more] += 1
    return np.asarray(quota_S, dtype=np.int64)
