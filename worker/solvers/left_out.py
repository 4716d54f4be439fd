"""What is said of items that were left out: by fits to the others, and in closed form. Torch-free.

What is left out together is a fold, or a group, which is all copies of one picture: leaving one copy out would leave
its twin in. In the closed forms, of centroids and neighbours, features are centred and of length 1 by the caller; the
group's share of the centring mean stays, which is 1 in the number of groups.

Shapes: N items, M of one fold, D features, C classes, K neighbours.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from worker.solvers.spectrum import row_chunks

# Below every logit of a class with an item: u.c - |c|^2 / 2 is at least -1.5 where u and c are no longer than 1.
ABSENT = -2.0
# Similarities held at once.
_CHUNK_ELEMENTS = 2**24


class Classifier(Protocol):
    """What scores items by their features."""

    def logits(self, features_ND: NDArray[np.float32], /) -> NDArray[np.floating]:
        """Scores [N, C]."""


def by_fold(
    folds_N: NDArray[np.integer], num_outputs: int, predict: Callable[[NDArray[np.bool_]], NDArray[np.floating]]
) -> NDArray[np.float64]:
    """What is said of every item while its fold is left out.

    Args:
        folds_N: of the items; any numbers.
        num_outputs: of each item: classes, or targets.
        predict: what is said of the items of one fold, given which these are; called once a fold, by rising number.

    Shape:
        folds_N: [N]; predict: [N] -> [M, C]; returns [N, C].
    """
    outputs_NC = np.empty((len(folds_N), num_outputs))
    for fold in np.unique(folds_N):
        out_N = folds_N == fold
        outputs_NC[out_N] = predict(out_N)
    return outputs_NC


def refitted(
    build: Callable[[NDArray[np.float32], NDArray[np.int64]], Classifier],
    feats_ND: NDArray[np.float32],
    labels_N: NDArray[np.int64],
    folds_N: NDArray[np.integer],
    num_classes: int,
) -> NDArray[np.float64]:
    """Each fold as the classifier of all other folds sees it.

    Shape:
        feats_ND: [N, D]; labels_N, folds_N: [N]; returns [N, C].
    """
    return by_fold(
        folds_N,
        num_classes,
        lambda out_N: build(feats_ND[~out_N], labels_N[~out_N]).logits(feats_ND[out_N]),
    )


def class_sums(
    unit_ND: NDArray[np.floating], labels_N: NDArray[np.integer], num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum of the features of each class, and its number of items.

    Shape:
        unit_ND: [N, D]; labels_N: [N]; returns [C, D], [C].
    """
    sums_CD = np.zeros((num_classes, unit_ND.shape[1]))
    for label in np.unique(labels_N):
        sums_CD[label] = unit_ND[labels_N == label].sum(axis=0, dtype=np.float64)
    return sums_CD, np.bincount(labels_N, minlength=num_classes)


def spread(sums_CD: NDArray[np.float64], counts_C: NDArray[np.int64]) -> float:
    """Mean squared distance of an item from its class's true mean, pooled over classes; 0 where no class has two items.

    Features have length 1, so the squared distances from the class's own mean c sum to n (1 - |c|^2), with n - 1
    degrees of freedom.

    Shape:
        sums_CD: [C, D]; counts_C: [C].
    """
    several = counts_C > 1
    if not several.any():
        return 0.0
    num_C = counts_C[several]
    within_C = num_C - np.square(sums_CD[several]).sum(1) / num_C
    return float(max(within_C.sum(), 0.0) / (num_C - 1).sum())


def centroid_rows(
    sums_CD: NDArray[np.float64], counts_C: NDArray[np.integer], spread: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows c and biases -(|c|^2 - spread / n) / 2: the nearest class mean has the largest logit.

    |u - c|^2 = |u|^2 - 2 (u.c - |c|^2 / 2); and c, a mean of n items, is longer than the true mean by spread / n for
    no other reason than that n is small. That is taken off: where all classes have as many items it changes nothing,
    else classes with few would hardly ever be named. A class without an item gets ``ABSENT``.

    Shape:
        sums_CD: [C, D]; counts_C: [C]; returns [C, D], [C].
    """
    num_C = np.maximum(counts_C, 1)
    mean_CD = sums_CD / num_C[:, None]
    bias_C = np.where(counts_C > 0, -0.5 * (np.square(mean_CD).sum(1) - spread / num_C), ABSENT)
    return mean_CD, bias_C


def centroid(
    unit_ND: NDArray[np.floating],
    labels_N: NDArray[np.integer],
    groups_N: NDArray[np.integer],
    num_classes: int,
) -> NDArray[np.float64]:
    """Logits of ``centroid_rows``, where an item's group is taken out of the class means; the spread is the pool's.

    With p the sum over the group's part of a class, m its size, S and n the class's: c = (S - p) / (n - m).

    Shape:
        unit_ND: [N, D]; labels_N, groups_N: [N]; returns [N, C].
    """
    sums_CD, counts_C = class_sums(unit_ND, labels_N, num_classes)
    pooled = spread(sums_CD, counts_C)
    weight_CD, bias_C = centroid_rows(sums_CD, counts_C, pooled)
    logits_NC = np.asarray(unit_ND @ weight_CD.T + bias_C, np.float64)
    logits_NC[:, counts_C == 0] = ABSENT
    _, group_N, size_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    alone = np.flatnonzero(size_G[group_N] == 1)
    for start, stop in row_chunks(len(alone)):
        rows = alone[start:stop]
        own_M = labels_N[rows]
        unit_MD = unit_ND[rows].astype(np.float64)
        rest_MD, bias_M = centroid_rows(sums_CD[own_M] - unit_MD, counts_C[own_M] - 1, pooled)
        logits_NC[rows, own_M] = (unit_MD * rest_MD).sum(1) * (counts_C[own_M] > 1) + bias_M
    for block in np.split(np.argsort(group_N, kind="stable"), np.cumsum(size_G)[:-1]):
        if len(block) > 1:
            unit_MD = unit_ND[block].astype(np.float64)
            for label in np.unique(labels_N[block]):
                part_MD = unit_MD[labels_N[block] == label]
                left = counts_C[label] - len(part_MD)
                rest_CD, rest_C = centroid_rows((sums_CD[label] - part_MD.sum(0))[None], np.array([left]), pooled)
                logits_NC[block, label] = unit_MD @ rest_CD[0] * (left > 0) + rest_C[0]
    return logits_NC


def nearest(
    unit_ND: NDArray[np.floating], labels_N: NDArray[np.integer], groups_N: NDArray[np.integer], wanted: int
) -> tuple[NDArray[np.float64], NDArray[np.integer]]:
    """Similarity and label of the nearest items of other groups, nearest first; memory does not grow with N^2.

    Shape:
        unit_ND: [N, D]; labels_N, groups_N: [N]; returns [N, K] both, K being `wanted`.
    """
    similarity_NK = np.empty((len(unit_ND), wanted))
    labels_NK = np.empty((len(unit_ND), wanted), labels_N.dtype)
    rows = max(1, _CHUNK_ELEMENTS // len(unit_ND))
    for start in range(0, len(unit_ND), rows):
        stop = min(start + rows, len(unit_ND))
        similarity_BN = (unit_ND[start:stop] @ unit_ND.T).astype(np.float64)
        # Below every cosine.
        similarity_BN[groups_N[start:stop, None] == groups_N] = -2.0
        found_BK, similarity_NK[start:stop] = scores.nearest(similarity_BN, wanted)
        labels_NK[start:stop] = labels_N[found_BK]
    return similarity_NK, labels_NK
