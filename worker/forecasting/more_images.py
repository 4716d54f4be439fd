"""What more images of one class would buy: "40 more images of tools buy +3 points". Torch-free.

Half of a class is taken away, several times, and what that costs says what more would bring: on a power law in the
number of images m of the class, losing half costs a m^-b (2^b - 1), and growing to t m gains a m^-b (1 - t^-b). The
exponent is uncertain as that of the whole curve is. Points are of balanced accuracy (mean recall): in plain accuracy a
rare class would never be worth an image, however badly it is known. What other classes lose to it is counted in.

Shape legend: N items, C classes, B draws.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.evaluate.flags import beats_largest_class
from worker.forecasting.power_law import PowerLaw
from worker.forecasting.stand_in import StandIn

# Halving a class of fewer pictures leaves one, which says nothing of the class.
MIN_PICTURES = 4
HALVINGS = 8
# Nothing that was seen reaches further than this many times the images of a class.
MAX_TIMES = 4
# The served classifier gains another multiple of what its stand-in gains: deviation of the logarithm.
FACTOR_SD = 0.6
_DRAWS = 4000
# Named so that nobody collects images of a class whose labels are the fault.
UNTOLD = "the learning curve tells no law, so nothing says what more images would bring: {}"
GUESSES = (
    "on these features no classifier is shown to be better than always naming the largest class; check that labels "
    "belong to their images before adding any"
)

NO_TIME = "the time that the job had for its forecast was over; give it more time (max_minutes)"


@dataclass(frozen=True)
class More:
    """What more images of a class would give; points are null, with the reason, where that cannot be told.

    Args:
        label: the class.
        images: how many more; as many as the median class has, where four times the class is not fewer.
        gain_points: of balanced accuracy, in hundredths.
        low: of its 95 % interval.
        high: of its 95 % interval.
        recall: of the class now, each picture left out.
        reason: why points are null.
    """

    label: int
    images: int
    gain_points: float | None
    low: float | None
    high: float | None
    recall: float | None
    reason: str | None


def advise(
    fitted: StandIn,
    law: PowerLaw,
    seed: int,
    flat: str | None = None,
    is_over: Callable[[], bool] | None = None,
) -> tuple[More, ...]:
    """Every class, the one that gains most first; those that cannot be told last.

    Args:
        fitted: the classifier in closed form.
        law: how errors fall with images.
        seed: of all draws.
        flat: why the points tell no law; where they do not rise, what half of a class costs is chance.
        is_over: whether there is no time to ask another class.
    """
    chance = np.random.default_rng(seed)
    counts_C = np.bincount(fitted.labels_N, minlength=fitted.num_classes)
    usual = max(1, round(float(np.median(counts_C[counts_C > 0]))))
    curves = law.draw(_DRAWS, chance)
    untold = UNTOLD.format(flat) if flat else None
    if untold is None and not beats_largest_class(fitted.right_N, fitted.labels_N):
        untold = GUESSES
    found = []
    for label in range(fitted.num_classes):
        if untold is None and is_over is not None and is_over():
            untold = NO_TIME
        found.append(_class(fitted, label, int(counts_C[label]), usual, curves, chance, untold))
    return tuple(sorted(found, key=lambda one: -np.inf if one.gain_points is None else one.gain_points, reverse=True))


def _class(
    fitted: StandIn,
    label: int,
    count: int,
    usual: int,
    curves: PowerLaw,
    chance: np.random.Generator,
    untold: str | None,
) -> More:
    own = np.flatnonzero(fitted.labels_N == label)
    pictures = np.unique(fitted.groups_N[own])
    images = max(1, min(usual, (MAX_TIMES - 1) * count))
    recall = float(fitted.right_N[own].mean()) if count else None
    if untold is not None:
        return More(label, images, None, None, None, recall, untold)
    if len(pictures) < MIN_PICTURES:
        reason = f"expected at least {MIN_PICTURES} different pictures, to see what half of them cost; "
        return More(label, images, None, None, None, recall, f"{reason}found {len(pictures)}")
    lost_HN = np.stack(
        [fitted.right_N.astype(np.float64) - _right_without(fitted, pictures, chance) for _ in range(HALVINGS)]
    )
    cost, error = _balanced(lost_HN, fitted.labels_N, fitted.num_classes)
    times = (count + images) / count
    cost_B = cost + error * chance.standard_normal(_DRAWS)
    factor_B = np.exp(FACTOR_SD * chance.standard_normal(_DRAWS))
    gain_B = 100 * cost_B * factor_B * (1 - times**-curves.exponent_K) / (2**curves.exponent_K - 1)
    low, high = np.quantile(gain_B, [0.025, 0.975])
    return More(label, images, float(np.median(gain_B)), float(low), float(high), recall, None)


def _right_without(fitted: StandIn, pictures: NDArray[np.int64], chance: np.random.Generator) -> NDArray[np.bool_]:
    gone = chance.permutation(pictures)[: len(pictures) // 2]
    removed = np.flatnonzero(np.isin(fitted.groups_N, gone))
    return fitted.right_without(removed)


def _balanced(lost_HN: NDArray[np.float64], labels_N: NDArray[np.int64], num_classes: int) -> tuple[float, float]:
    """Balanced accuracy that halving costs, and its standard error: over items, and over which half was taken.

    Shape:
        lost_HN: [H, N], 1 where an item is named wrong since, -1 where it is named right since.
    """
    counts_C = np.bincount(labels_N, minlength=num_classes)
    num_seen = int(np.count_nonzero(counts_C))
    weight_N = 1.0 / (num_seen * counts_C[labels_N])
    mean_N = lost_HN.mean(0)
    cost_H = lost_HN @ weight_N
    # Within its class an item is one draw of many; one pseudo-item keeps a class that lost nothing from being certain.
    squares_C = np.bincount(labels_N, np.square(mean_N), num_classes)
    sums_C = np.bincount(labels_N, mean_N, num_classes)
    size_C = np.maximum(counts_C, 1)
    variance_C = (squares_C - sums_C**2 / size_C) / np.maximum(size_C - 1, 1) / size_C
    of_items = float(variance_C[counts_C > 0].sum()) / num_seen**2
    of_halves = float(np.var(cost_H, ddof=1)) / len(cost_H)
    return float(cost_H.mean()), float(np.sqrt(of_items + of_halves))
