"""Accuracy with fewer labels, in closed form. Torch-free.

A draw is an order of the pool's pictures in which every class comes evenly; its first tenth, quarter and half are what
is learned from, and all the rest is scored. With all labels every picture is left out once, with its copies.

Shape legend: N items, D features, C classes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.forecasting import stand_in
from worker.forecasting.power_law import Seen
from worker.forecasting.stand_in import StandIn
from worker.solvers.dual import Rows
from worker.solvers.even import even_order, whole

FRACTIONS = (0.1, 0.25, 0.5)
DRAWS = 3
# N x N matrices are held: more items than this are not learned from. The curve then leads on to all of them. With many
# classes it takes more to see a curve at all.
MAX_ITEMS, MAX_ITEMS_MANY_CLASSES, ITEMS_PER_CLASS = 1000, 3000, 10
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
    """What was learned from and scored: the pool, or an even part of it where the pool is large."""

    fitted: StandIn
    points: tuple[Point, ...]

    @property
    def num_groups(self) -> int:
        """Different pictures."""
        return len(np.unique(self.fitted.groups_N))

    def seen(self) -> Seen:
        """The points as a power law takes them."""
        kept = [one for one in self.points if one.num_samples >= _MIN_PER_CLASS * self.fitted.num_classes]
        kept = kept or [self.points[-1]]
        return Seen(
            np.array([one.learned for one in kept]),
            np.array([1.0 - one.accuracy for one in kept]),
            np.array([_variance(one, len(self.fitted.labels_N)) for one in kept]),
            self.num_groups,
        )


def most(num_classes: int) -> int:
    """Items that are learned from at most."""
    return min(max(MAX_ITEMS, ITEMS_PER_CLASS * num_classes), MAX_ITEMS_MANY_CLASSES)


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
    if len(labels_N) > most(num_classes):
        order = even_order(labels_N, groups_N, chance)
        kept = np.sort(order[: whole(groups_N[order], most(num_classes))])
        feats_ND, labels_N, groups_N = feats_ND[kept], labels_N[kept], groups_N[kept]
    orders = [even_order(labels_N, groups_N, chance) for _ in range(DRAWS)]
    fitted = stand_in.fit(feats_ND, labels_N, groups_N, num_classes, orders[0], unit=unit)
    points = [_point(fitted, orders, size) for size in _sizes(len(labels_N), num_classes)]
    learned = _learned(labels_N, groups_N)
    last = Point(len(labels_N), (float(fitted.right_N.mean()),), len(labels_N), learned)
    found = tuple(one for one in points if one is not None and one.learned < learned)
    return Sample(fitted, (*found, last))


def _sizes(num_items: int, num_classes: int) -> list[int]:
    wanted = {max(num_classes, round(fraction * num_items)) for fraction in FRACTIONS}
    return sorted(size for size in wanted if size < num_items)


def _point(fitted: StandIn, orders: list[Rows], size: int) -> Point | None:
    """None where copies leave nothing to score."""
    found, learned = [], []
    for order in orders:
        cut = whole(fitted.groups_N[order], size)
        if cut < len(order):
            found.append(float(fitted.right(order[:cut], order[cut:]).mean()))
            learned.append(cut)
    if not found:
        return None
    return Point(size, tuple(found), len(fitted.labels_N) - round(np.mean(learned)), float(np.mean(learned)))


def _learned(labels_N: NDArray[np.int64], groups_N: NDArray[np.int64]) -> float:
    """What leaving each picture out leaves, in images of an even pool: its own class has lost one, and is the rarer.

    With two images of each class it is half of them, and accuracy is that of half of them.
    """
    _, group_N, size_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    lost_N = np.minimum(size_G[group_N] / np.bincount(labels_N)[labels_N], 1.0)
    return max(len(labels_N) * float(1.0 - lost_N.mean()), 1.0)


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
