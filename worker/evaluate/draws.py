"""Accuracy with fewer labels, by ridge regression in closed form. Torch-free.

A draw is an order of the pool's pictures in which every class comes evenly; its first tenth, quarter and half are what
is learned from, and all the rest is scored. With all labels every picture is left out once, with its copies.

Shape legend: N items, D features, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact import scores
from worker.evaluate.power_law import Seen
from worker.solvers import dual, linear
from worker.solvers.dual import Double, Inverse, Rows

FRACTIONS = (0.1, 0.25, 0.5)
DRAWS = 3
# N x N matrices are held: more items than this are not learned from. The curve then leads on to all of them. With many
# classes it takes more to see a curve at all.
MAX_ITEMS, MAX_ITEMS_MANY_CLASSES, ITEMS_PER_CLASS = 1500, 3000, 10
# Per feature of standardised features, and of features of length 1: from hardly any shrinkage to class means only.
STANDARD_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
UNIT_STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
# Rows that choose the strength: it hardly depends on how many there are.
_MAX_CHOOSING = 400
# A point from fewer images per class than this lies on no power law: classes are missing altogether.
_MIN_PER_CLASS = 2.0
# Two draws of the same size differ at least by this, whatever they are scored on.
_MIN_SPREAD = 0.01


@dataclass(frozen=True)
class Point:
    """Accuracy with so many images.

    Args:
        num_samples: of the draw.
        draws: accuracy of each.
        num_scored: items that each was scored on.
        learned: images that stand behind an answer: those of the draw, less what was left out for its sake.
    """

    num_samples: int
    draws: tuple[float, ...]
    num_scored: int
    learned: float

    @property
    def accuracy(self) -> float:
        """Mean of the draws."""
        return float(np.mean(self.draws))


@dataclass(frozen=True)
class Sample:
    """What is learned from and scored: the pool, or an even part of it where the pool is large.

    Shape:
        labels_N, groups_N: [N]; right_N: [N], whether each item is named right when left out.
    """

    labels_N: NDArray[np.int64]
    groups_N: NDArray[np.int64]
    num_classes: int
    inverse: Inverse
    right_N: NDArray[np.bool_]
    points: tuple[Point, ...]

    @property
    def num_groups(self) -> int:
        """Different pictures."""
        return len(np.unique(self.groups_N))

    def seen(self) -> Seen:
        """The points as a power law takes them."""
        kept = [one for one in self.points if one.num_samples >= _MIN_PER_CLASS * self.num_classes]
        kept = kept or [self.points[-1]]
        return Seen(
            np.array([one.learned for one in kept]),
            np.array([1.0 - one.accuracy for one in kept]),
            np.array([_variance(one, len(self.labels_N)) for one in kept]),
            self.num_groups,
        )


def sample(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.int64],
    groups_N: NDArray[np.int64],
    num_classes: int,
    seed: int,
    *,
    unit: bool = False,
) -> Sample:
    """Learns from draws of the pool and scores the rest.

    Args:
        feats_ND: of the pool.
        labels_N: of the pool.
        groups_N: copies of one picture share a number.
        num_classes: of the task.
        seed: of the draws.
        unit: features are brought to length 1, as few-shot classifiers take them; else they are standardised.

    Shape:
        feats_ND: [N, D]; labels_N, groups_N: [N].
    """
    chance = np.random.default_rng(seed)
    most = min(max(MAX_ITEMS, ITEMS_PER_CLASS * num_classes), MAX_ITEMS_MANY_CLASSES)
    if len(labels_N) > most:
        order = even_order(labels_N, groups_N, chance)
        kept = np.sort(order[: whole(groups_N[order], most)])
        feats_ND, labels_N, groups_N = feats_ND[kept], labels_N[kept], groups_N[kept]
    gram_NN = dual.gram(_prepared(feats_ND, unit))
    targets_NC = np.zeros((len(labels_N), num_classes))
    targets_NC[np.arange(len(labels_N)), labels_N] = 1.0
    orders = [even_order(labels_N, groups_N, chance) for _ in range(DRAWS)]
    scale = 1.0 if unit else feats_ND.shape[1]
    grid = [scale * one for one in (UNIT_STRENGTHS if unit else STANDARD_STRENGTHS)]
    strength = _strength(gram_NN, targets_NC, groups_N, orders[0], grid)
    points = [
        _point(gram_NN, targets_NC, groups_N, orders, size, strength) for size in _sizes(len(labels_N), num_classes)
    ]
    inverse = dual.invert(gram_NN, targets_NC, strength)
    right_N = inverse.left_out(groups_N).argmax(1) == labels_N
    learned = _learned(labels_N, groups_N)
    last = Point(len(labels_N), (float(right_N.mean()),), len(labels_N), learned)
    found = tuple(one for one in points if one is not None and one.learned < learned)
    return Sample(labels_N, groups_N, num_classes, inverse, right_N, (*found, last))


def even_order(
    labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], chance: np.random.Generator
) -> NDArray[np.int64]:
    """A random order in which copies are neighbours and each beginning holds every class in its share of the whole.

    Shape:
        labels_N, groups_N: [N]; returns [N], positions.
    """
    _, first_G, group_N = np.unique(groups_N, return_index=True, return_inverse=True)
    label_G = labels_N[first_G]
    key_G = np.empty(len(first_G))
    for label in np.unique(label_G):
        members = chance.permutation(np.flatnonzero(label_G == label))
        key_G[members] = (np.arange(len(members)) + chance.random()) / len(members)
    return np.lexsort((group_N, key_G[group_N])).astype(np.int64)


def whole(groups_N: NDArray[np.int64], size: int) -> int:
    """The least size from which no group is cut, going up.

    Shape:
        groups_N: [N], in the order of a draw.
    """
    while size < len(groups_N) and groups_N[size] == groups_N[size - 1]:
        size += 1
    return size


def _prepared(feats_ND: NDArray[np.floating], unit: bool) -> NDArray[np.float32]:
    mean_D, scale_D = linear.standardise(feats_ND)
    centred_ND = feats_ND - mean_D.astype(np.float32)
    if unit:
        return np.asarray(scores.unit(centred_ND), np.float32)
    return np.asarray(centred_ND / scale_D.astype(np.float32), np.float32)


def _sizes(num_items: int, num_classes: int) -> list[int]:
    wanted = {max(num_classes, round(fraction * num_items)) for fraction in FRACTIONS}
    return sorted(size for size in wanted if size < num_items)


def _point(
    gram_NN: Double,
    targets_NC: Double,
    groups_N: NDArray[np.int64],
    orders: list[NDArray[np.int64]],
    size: int,
    strength: float,
) -> Point | None:
    """None where copies leave nothing to score."""
    found, learned = [], []
    for order in orders:
        cut = whole(groups_N[order], size)
        rest = order[cut:]
        if len(rest):
            said_MC = dual.predict(gram_NN, targets_NC, order[:cut], rest, strength)
            found.append(float((said_MC.argmax(1) == targets_NC[rest].argmax(1)).mean()))
            learned.append(cut)
    if not found:
        return None
    return Point(size, tuple(found), len(targets_NC) - round(np.mean(learned)), float(np.mean(learned)))


def _learned(labels_N: NDArray[np.int64], groups_N: NDArray[np.int64]) -> float:
    """What leaving each picture out leaves, in images of an even pool: its own class has lost one, and is the rarer.

    With two images of each class it is half of them, and accuracy is that of half of them.
    """
    _, group_N, size_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    lost_N = np.minimum(size_G[group_N] / np.bincount(labels_N)[labels_N], 1.0)
    return max(len(labels_N) * float(1.0 - lost_N.mean()), 1.0)


def _strength(
    gram_NN: Double, targets_NC: Double, groups_N: NDArray[np.int64], order: Rows, grid: list[float]
) -> float:
    """The strength that half of a draw predicts the rest best with, by squared error."""
    cut = whole(groups_N[order], min(len(order) // 2, _MAX_CHOOSING))
    learned, rest = order[:cut], order[cut:]
    if not len(rest) or not cut:
        return grid[len(grid) // 2]
    errors = [
        float(np.square(dual.predict(gram_NN, targets_NC, learned, rest, one) - targets_NC[rest]).mean())
        for one in grid
    ]
    return grid[int(np.argmin(errors))]


def _variance(point: Point, num_items: int) -> float:
    """Of a point around its curve: which images were drawn, and which were left to score.

    Three draws alone tell a variance badly; they are pooled with what scoring another part of the items explains.
    """
    wrong = (1.0 - point.accuracy) * point.num_scored
    error = (wrong + 0.5) / (point.num_scored + 1.0)
    scoring = error * (1 - error) * max(1.0 / point.num_scored - 1.0 / num_items, 0.0)
    known = scoring + _MIN_SPREAD**2
    num = len(point.draws)
    between = float(np.var(point.draws, ddof=1)) if num > 1 else 0.0
    return (between * (num - 1) + known * 2) / (num + 1) / num
