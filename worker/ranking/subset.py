"""The images on which every candidate is looked at first: of each class its share, in whole groups. Torch-free.

Shape legend: N images, C classes.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

# Images of each class that stage 1 has at least, where there are as many: with two or three an accuracy says nothing.
MIN_PER_CLASS = 8
MIN_IMAGES, MAX_IMAGES = 300, 2000
SHARE = 0.25
# From 20 on the order that has the prior in it is better than the prior alone (decision 0012).
LEAST_IMAGES, LEAST_PER_CLASS = 20, 2
# From here on a subset spares too little to be worth a second look.
WHOLE_SHARE = 0.6


def size(num_images: int) -> int:
    """How many images stage 1 wants: a quarter, at least 300, at most 2,000; all of them where that spares little."""
    wanted = min(max(MIN_IMAGES, round(SHARE * num_images)), MAX_IMAGES)
    return num_images if wanted >= WHOLE_SHARE * num_images else wanted


def smaller(num_images: int, num_classes: int) -> Iterator[tuple[int, int]]:
    """For a time that does not hold stage 1: ever fewer images that are wanted, and how many of each class at least."""
    while num_images > LEAST_IMAGES:
        num_images = max(LEAST_IMAGES, num_images // 2)
        yield num_images, min(MIN_PER_CLASS, max(LEAST_PER_CLASS, num_images // max(1, num_classes)))


def choose(
    labels_N: NDArray[np.integer],
    groups_N: NDArray[np.integer],
    wanted: int,
    seed: int,
    least: int = MIN_PER_CLASS,
) -> NDArray[np.bool_]:
    """Which images are in: about as many as wanted, every class with its share or `least`, groups whole.

    Shape:
        labels_N, groups_N: [N]; returns [N].
    """
    if wanted >= len(labels_N):
        return np.ones(len(labels_N), np.bool_)
    count_C = np.bincount(labels_N)
    share_C = np.maximum(np.rint(wanted * count_C / len(labels_N)).astype(np.int64), least)
    missing_C = np.minimum(share_C, count_C)
    _, group_N = np.unique(groups_N, return_inverse=True)
    blocks = np.split(np.argsort(group_N, kind="stable"), np.cumsum(np.bincount(group_N))[:-1])
    mask_N = np.zeros(len(labels_N), np.bool_)
    for group in np.random.default_rng(seed).permutation(len(blocks)):
        block = blocks[group]
        if (missing_C[labels_N[block]] > 0).any():
            mask_N[block] = True
            np.subtract.at(missing_C, labels_N[block], 1)
    return mask_N
