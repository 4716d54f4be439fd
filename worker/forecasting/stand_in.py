"""The classifier that stands for the one to be trained: answers in closed form, whatever is left out. Torch-free.

For probes it is ridge regression on standardised features, its items weighed by the inverse root of their class's size.
Unweighted, one-hot ridge all but forgets a rare class, which logistic regression does not: with 8 digits of one class
and 70 of each other, 0.844 against 0.921 of the probe; weighed 0.918, and 0.933 were all classes to weigh the same. For
few-shot classifiers it is ridge on features of length 1, unweighted as theirs, or the nearest neighbour where that is
better by more than one standard error.

Shape legend: N items, D features, C classes, R learned items, S others.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from worker.solvers import dual, linear
from worker.solvers.dual import Double, Inverse, Rows
from worker.solvers.even import whole

# Per feature of standardised features, and of features of length 1: from hardly any shrinkage to class means only.
STANDARD_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
UNIT_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Rows that choose the strength: it hardly depends on how many there are.
_MAX_CHOOSING = 400


@dataclass(frozen=True)
class StandIn:
    """Fitted to the items of a pool.

    Args:
        strength: of an item that weighs one.
        is_weighed: whether items of rare classes weigh more.
        by_neighbour: whether the nearest item names, and not ridge.

    Shape:
        gram_NN: [N, N]; labels_N, groups_N, strength_N: [N]; right_N: [N], whether each item is named right when it is
        left out with its copies.
    """

    gram_NN: Double
    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.int64]
    num_classes: int
    strength: float
    strength_N: Double
    inverse: Inverse
    right_N: NDArray[np.bool_]
    by_neighbour: bool
    is_weighed: bool

    def right(self, learned_R: Rows, others_S: Rows) -> NDArray[np.bool_]:
        """Whether others are named right after learning from some items alone.

        Shape:
            learned_R: [R]; others_S: [S]; returns [S].
        """
        if self.by_neighbour:
            named_S = self.labels_N[learned_R[self.gram_NN[np.ix_(others_S, learned_R)].argmax(1)]]
        else:
            targets_NC, strength_R = self.inverse.targets_NC, self.strength_N[learned_R]
            named_S = dual.predict(self.gram_NN, targets_NC, learned_R, others_S, strength_R).argmax(1)
        return np.asarray(named_S == self.labels_N[others_S])

    def right_without(self, removed_S: Rows) -> NDArray[np.bool_]:
        """The same as `right_N` where some whole groups were never there, and classes weigh as what is left of them.

        Shape:
            removed_S: [S]; returns [N].
        """
        if self.by_neighbour:
            return _by_neighbour(self.gram_NN, self.labels_N, self.groups_N, removed_S)
        inverse = self._weighed_without(removed_S) if self.is_weighed else self.inverse
        return np.asarray(inverse.without(removed_S, self.groups_N).argmax(1) == self.labels_N)

    def _weighed_without(self, removed_S: Rows) -> Inverse:
        counts_C = np.bincount(self.labels_N, minlength=self.num_classes)
        left_C = counts_C - np.bincount(self.labels_N[removed_S], minlength=self.num_classes)
        share_N = np.sqrt(left_C / np.maximum(counts_C, 1))[self.labels_N]
        share_N[removed_S] = 1.0
        changed = np.flatnonzero(share_N < 1.0)
        return self.inverse.reweighed(changed, (share_N[changed] - 1.0) * self.strength_N[changed])

    def part(self, kept_R: Rows) -> "StandIn":
        """The same classifier of some whole groups alone."""
        gram_RR = self.gram_NN[np.ix_(kept_R, kept_R)]
        labels_R, groups_R = self.labels_N[kept_R], self.groups_N[kept_R]
        found = _invert(gram_RR, labels_R, groups_R, self.num_classes, self.strength, self.is_weighed)
        return found.named_by_neighbour() if self.by_neighbour else found

    def named_by_neighbour(self) -> "StandIn":
        """The same items, each named by its nearest one."""
        near_N = _by_neighbour(self.gram_NN, self.labels_N, self.groups_N)
        return replace(self, right_N=near_N, by_neighbour=True)


def fit(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    order_N: Rows,
    *,
    unit: bool,
) -> StandIn:
    """Chooses the strength, fits, and leaves every picture out once.

    Args:
        feats_ND: of the pool.
        labels_N: of the pool.
        groups_N: copies of one picture share a number.
        num_classes: of the task.
        order_N: an even order of the pool; half of it chooses the strength on the rest.
        unit: features are brought to length 1, as few-shot classifiers take them; else they are standardised.

    Shape:
        feats_ND: [N, D]; labels_N, groups_N, order_N: [N].
    """
    gram_NN = dual.gram(_prepared(feats_ND, unit))
    targets_NC = _one_hot(labels_N, num_classes)
    weight_N = _weights(labels_N, is_weighed=not unit)
    grid = UNIT_STRENGTHS if unit else [feats_ND.shape[1] * one for one in STANDARD_STRENGTHS]
    cut = whole(groups_N[order_N], max(1, min(len(order_N) // 2, _MAX_CHOOSING)))
    learned, rest = order_N[:cut], order_N[cut:]
    errors = []
    for strength in grid if len(rest) else grid[-1:]:
        missed = dual.predict(gram_NN, targets_NC, learned, rest, strength / weight_N[learned]) - targets_NC[rest]
        errors.append(float((np.square(missed).sum(1) * weight_N[rest]).sum()))
    chosen = grid[int(np.argmin(errors))]
    found = _invert(gram_NN, labels_N, groups_N, num_classes, chosen, is_weighed=not unit)
    if not unit:
        return found
    near = found.named_by_neighbour()
    ahead_N = near.right_N.astype(np.float64) - found.right_N
    is_ahead = ahead_N.mean() > ahead_N.std(ddof=1) / np.sqrt(len(np.unique(groups_N)))
    return near if is_ahead else found


def _invert(
    gram_NN: Double,
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    strength: float,
    is_weighed: bool,
) -> StandIn:
    strength_N = strength / _weights(labels_N, is_weighed)
    inverse = dual.invert(gram_NN, _one_hot(labels_N, num_classes), strength_N)
    right_N = np.asarray(inverse.left_out(groups_N).argmax(1) == labels_N)
    return StandIn(gram_NN, labels_N, groups_N, num_classes, strength, strength_N, inverse, right_N, False, is_weighed)


def _weights(labels_N: NDArray[np.int64], is_weighed: bool) -> Double:
    if not is_weighed:
        return np.ones(len(labels_N))
    weight_N = np.bincount(labels_N)[labels_N] ** -0.5
    return np.asarray(weight_N / weight_N.mean())


def _one_hot(labels_N: NDArray[np.int64], num_classes: int) -> Double:
    targets_NC = np.zeros((len(labels_N), num_classes))
    targets_NC[np.arange(len(labels_N)), labels_N] = 1.0
    return targets_NC


def _prepared(feats_ND: NDArray[np.floating], unit: bool) -> NDArray[np.float32]:
    mean_D, scale_D = linear.standardise(feats_ND)
    centred_ND = feats_ND - mean_D.astype(np.float32)
    if unit:
        return np.asarray(scores.unit(centred_ND), np.float32)
    return np.asarray(centred_ND / scale_D.astype(np.float32), np.float32)


def _by_neighbour(
    gram_NN: Double, labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], removed_S: Rows | None = None
) -> NDArray[np.bool_]:
    """Whether the nearest item of another group, none of the removed, has an item's label."""
    similarity_NN = np.where(groups_N[:, None] == groups_N, -np.inf, gram_NN)
    if removed_S is not None:
        similarity_NN[:, removed_S] = -np.inf
    return np.asarray(labels_N[similarity_NN.argmax(1)] == labels_N)
