"""Stratified splits that keep every group whole: folds for cross-validation and one hold-out. Torch-free.

A group is all copies of one picture; splitting it would put an item's twin on both sides. Groups are placed greedily,
largest first in seeded order, where their classes are rarest so far (as scikit-learn's StratifiedGroupKFold, with a
cost that needs no pass over the folds' spread and works for classes smaller than the number of folds).
"""

import numpy as np
from numpy.typing import NDArray


def stratified_group_folds(
    labels_N: NDArray[np.integer], groups_N: NDArray[np.integer] | NDArray[np.str_], num_folds: int, seed: int
) -> NDArray[np.int64]:
    """Fold number of every item; no group is in two folds, classes are as even as groups allow.

    Shape:
        labels_N, groups_N: [N]; returns [N], values 0 .. num_folds - 1, every fold used.

    Raises:
        ValueError: when there are fewer than two folds or fewer groups than folds.
    """
    groups = _groups(labels_N, groups_N, seed)
    if not 2 <= num_folds <= len(groups.members):
        raise ValueError(
            f"Expected between 2 folds and one per group, found {num_folds} folds for {len(groups.members)} groups; "
            "ask for fewer folds or add images."
        )
    counts = [[0] * num_folds for _ in range(len(groups.class_sizes))]
    totals = [0] * num_folds
    fold_N = np.empty(labels_N.shape[0], dtype=np.int64)
    for members, classes in zip(groups.members, groups.classes, strict=True):
        cost = [
            (sum(num * counts[label][fold] / groups.class_sizes[label] for label, num in classes), totals[fold], fold)
            for fold in range(num_folds)
        ]
        chosen = min(cost)[2]
        for label, num in classes:
            counts[label][chosen] += num
        totals[chosen] += len(members)
        fold_N[members] = chosen
    return fold_N


def stratified_group_holdout(
    labels_N: NDArray[np.integer], groups_N: NDArray[np.integer] | NDArray[np.str_], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Mask of about ``fraction`` of every class, in whole groups.

    A class too small to give an item (rounded) stays on the training side, and so does every class's last item.

    Shape:
        labels_N, groups_N: [N]; returns [N].

    Raises:
        ValueError: when ``fraction`` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"Expected a fraction between 0 and 1, found {fraction}.")
    groups = _groups(labels_N, groups_N, seed)
    held = [0] * len(groups.class_sizes)
    mask_N = np.zeros(labels_N.shape[0], dtype=bool)
    for members, classes in zip(groups.members, groups.classes, strict=True):
        change = 0.0
        for label, num in classes:
            size = groups.class_sizes[label]
            missing = fraction * size - held[label]
            change += ((missing - num) ** 2 - missing**2) / size
            if held[label] + num >= size:
                change = np.inf
        if change < 0:
            for label, num in classes:
                held[label] += num
            mask_N[members] = True
    return mask_N


def leaves_others(labels_N: NDArray[np.integer], groups_N: NDArray[np.integer]) -> bool:
    """Whether any class has another picture when one is left out; if none has, nothing left out can be named right.

    Shape:
        labels_N, groups_N: [N]; copies of one picture share a group.
    """
    return len(np.unique(groups_N)) > len(np.unique(labels_N))


class _Groups:
    """Groups in placement order: item indices, (label, count) pairs; and the size of every class."""

    def __init__(
        self,
        members: list[NDArray[np.intp]],
        classes: list[list[tuple[int, int]]],
        class_sizes: list[int],
    ) -> None:
        self.members = members
        self.classes = classes
        self.class_sizes = class_sizes


def _groups(labels_N: NDArray[np.integer], groups_N: NDArray[np.integer] | NDArray[np.str_], seed: int) -> _Groups:
    if labels_N.ndim != 1 or labels_N.shape != groups_N.shape or labels_N.size == 0:
        raise ValueError(
            f"Expected one label and one group per item, found shapes {labels_N.shape} and {groups_N.shape}."
        )
    _, class_N = np.unique(labels_N, return_inverse=True)
    _, group_N = np.unique(groups_N, return_inverse=True)
    sizes_G = np.bincount(group_N)
    blocks = np.split(np.argsort(group_N, kind="stable"), np.cumsum(sizes_G)[:-1])
    shuffled_G = np.random.default_rng(seed).permutation(sizes_G.size)
    order_G = shuffled_G[np.argsort(-sizes_G[shuffled_G], kind="stable")]
    members = [blocks[group] for group in order_G]
    classes = []
    for block in members:
        names, counts = np.unique(class_N[block], return_counts=True) if block.size > 1 else (class_N[block], [1])
        classes.append([(int(name), int(count)) for name, count in zip(names, counts, strict=True)])
    return _Groups(members, classes, np.bincount(class_N).tolist())
