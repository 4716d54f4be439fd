"""95 % intervals of test scores, and paired comparisons of two models on the same items. Torch-free.

All are in closed form and hold on few items and with one item of a class; resampling does not: within classes it has
nothing to draw where a class has a single item (docs/decisions/0018-intervals-of-small-classes.md has the coverage).

- ``clopper_pearson`` (accuracy): the exact binomial interval (Biometrika 26, 1934).
- ``effective_size`` (mean recall, macro F1): the same interval of as many items as would give the score's variance
  (Korn and Graubard, Survey Methodology 24, 1998). The variance of a class of one item cannot be seen, so classes of
  one size share a recall: the mean of r (1 - r) is at most that of the mean recall, and the interval is too wide
  rather than too narrow. A pseudo-item right and one wrong keep it from nought where all are right.
- ``tango`` (differences): the score interval of paired proportions (Tango, Statistics in Medicine 17, 1998), closed to
  0 where the exact McNemar test does not reject at 5 %: no verdict claims more than that test.

Macro F1 is a mean of ratios, which on few items of a class lies below the truth: under ``MIN_CLASS_ITEMS`` it has a
value and no interval.

Shape legend: N items, C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from worker.scores import beta
from worker.scores.metrics import confusion_matrix

METRICS = ("accuracy", "balanced_accuracy", "macro_recall", "macro_f1")
# Harmonic mean over the classes: below, the bias of macro F1 is a third of its deviation and more.
MIN_CLASS_ITEMS = 5
# Of a normal deviate, two-sided.
_Z = 1.959963984540054

Method = Literal["clopper_pearson", "effective_size", "tango", "bootstrap"]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval and how the interval was found."""

    value: float
    low: float
    high: float
    method: Method


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test: items that only one of two models has right, and the two-sided p-value."""

    num_only_a: int
    num_only_b: int
    p_value: float


def of_scores(labels_N: NDArray[np.integer], predicted_N: NDArray[np.integer], num_classes: int) -> dict[str, Interval]:
    """Intervals of the scores in ``METRICS``, but for those that ``missing`` names; classes without items do not count.

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    if labels_N.size == 0 or labels_N.shape != predicted_N.shape:
        raise ValueError(
            f"Expected one prediction per label and at least one, found {predicted_N.shape} for {labels_N.shape}."
        )
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes)
    hits_C, size_C = np.diagonal(confusion_CC), confusion_CC.sum(axis=1)
    num_hits, num_items = int(hits_C.sum()), int(labels_N.size)
    recall = _mean_recall(hits_C, size_C)
    found = {
        "accuracy": Interval(num_hits / num_items, *clopper_pearson(num_hits, num_items), "clopper_pearson"),
        "balanced_accuracy": recall,
        "macro_recall": recall,
    }
    return found if missing(labels_N) else {**found, "macro_f1": _macro_f1(confusion_CC)}


def missing(labels_N: NDArray[np.integer]) -> dict[str, str]:
    """Scores that have no honest interval on such items, and why."""
    _, count_C = np.unique(labels_N, return_counts=True)
    mean = len(count_C) / float((1 / count_C).sum())
    if mean >= MIN_CLASS_ITEMS:
        return {}
    return {
        "macro_f1": f"its interval needs {MIN_CLASS_ITEMS} items per class (harmonic mean), found {mean:.1f}: with "
        "fewer the score lies below what more items would show"
    }


def bounds(found: Mapping[str, Interval], prefix: str = "") -> dict[str, float | None]:
    """`<prefix><score>_low` and `_high` of every score, None where there is no interval."""
    return {
        f"{prefix}{name}_{end}": getattr(found[name], end) if name in found else None
        for name in METRICS
        for end in ("low", "high")
    }


def reasons(labels_N: NDArray[np.integer], prefix: str) -> dict[str, str]:
    """Why `bounds` are None, by the key's path."""
    return {f"{prefix}{name}_{end}": reason for name, reason in missing(labels_N).items() for end in ("low", "high")}


def paired_difference(correct_a_N: NDArray[np.bool_], correct_b_N: NDArray[np.bool_]) -> Interval:
    """Accuracy of a minus accuracy of b on the same items; holds 0 exactly when ``mcnemar`` does not reject at 5 %.

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    test, number = mcnemar(correct_a_N, correct_b_N), correct_a_N.size
    value = (test.num_only_a - test.num_only_b) / number
    high = _tango_high(test.num_only_a, test.num_only_b, number)
    low = -_tango_high(test.num_only_b, test.num_only_a, number)
    if test.p_value >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(value, low, high, "tango")


def mcnemar(correct_a_N: NDArray[np.bool_], correct_b_N: NDArray[np.bool_]) -> McNemar:
    """Test whether two models err equally often, from the items on which they differ (exact binomial).

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    if correct_a_N.shape != correct_b_N.shape or correct_a_N.size == 0:
        raise ValueError(
            f"Expected two results per item and at least one item, found shapes {correct_a_N.shape} and "
            f"{correct_b_N.shape}; score both models on the same items in the same order."
        )
    only_a = int((correct_a_N & ~correct_b_N).sum())
    only_b = int((correct_b_N & ~correct_a_N).sum())
    fewer, more = sorted((only_a, only_b))
    # P(X <= fewer) of a fair coin; with as many on either side more than half of it.
    p_value = 1.0 if fewer == more else min(1.0, 2 * beta.cdf(0.5, more, fewer + 1))
    return McNemar(only_a, only_b, p_value)


def clopper_pearson(num_hits: float, num_samples: float) -> tuple[float, float]:
    """Exact 95 % interval of a proportion; of an effective number of items where that is no whole one."""
    # All of them, but for rounding: the bounds are those of a whole number.
    num_missed = num_samples - num_hits
    low = 0.0 if num_hits < 1e-9 else beta.quantile(0.025, num_hits, num_missed + 1)
    return low, 1.0 if num_missed < 1e-9 else beta.quantile(0.975, num_hits + 1, num_missed)


def _tango_high(only_a: int, only_b: int, number: int) -> float:
    """The largest difference that the score test does not reject."""

    def statistic(difference: float) -> float:
        # Tango's equation for the share of items that only b has right, given the difference.
        linear = (2 * number - only_a + only_b) * difference - only_a - only_b
        root = linear**2 + 8 * number * only_b * difference * (1 - difference)
        share = (sqrt(max(0.0, root)) - linear) / (4 * number)
        variance = number * (2 * share + difference * (1 - difference))
        return (number * difference - only_a + only_b) / sqrt(variance) if variance > 1e-15 else inf

    low, high = (only_a - only_b) / number, 1.0
    if low == high:
        return high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if statistic(middle) < _Z else (low, middle)
    return (low + high) / 2


def _shared_recall(hits_C: Ints, size_C: Ints) -> Doubles:
    """Recall of all classes of the same size together, one pseudo-item right and one wrong; 1/2 without items."""
    recall_C = np.full(len(size_C), 0.5)
    for size in np.unique(size_C[size_C > 0]):
        same_C = size_C == size
        recall_C[same_C] = (hits_C[same_C].sum() + 1) / (size * same_C.sum() + 2)
    return recall_C


def _effective(value: float, expected: float, variance: float) -> Interval:
    """The exact interval of as many items as have this variance where the score is as expected."""
    number = expected * (1 - expected) / variance
    low, high = clopper_pearson(value * number, number)
    return Interval(value, min(low, value), max(high, value), "effective_size")


def _mean_recall(hits_C: Ints, size_C: Ints) -> Interval:
    seen_C = size_C > 0
    hits_C, size_C = hits_C[seen_C], size_C[seen_C]
    recall_C = _shared_recall(hits_C, size_C)
    variance = float((recall_C * (1 - recall_C) / size_C).sum()) / len(size_C) ** 2
    return _effective(float((hits_C / size_C).mean()), float(recall_C.mean()), variance)


def _macro_f1(confusion_CC: Ints) -> Interval:
    """By the delta method: what one item more of each cell would change, with rows as their shared recall expects."""
    hits_C, size_C, called_C = np.diagonal(confusion_CC), confusion_CC.sum(axis=1), confusion_CC.sum(axis=0)
    seen_C, num_classes = size_C > 0, len(size_C)
    num_seen = int(seen_C.sum())
    value = float((2 * hits_C[seen_C] / (size_C + called_C)[seen_C]).mean())
    recall_C = _shared_recall(hits_C, size_C)
    # Misses go where they went, one pseudo-item over all other classes.
    row_CC = confusion_CC + 1.0 / max(num_classes - 1, 1)
    np.fill_diagonal(row_CC, 0.0)
    row_CC *= ((1 - recall_C) / np.maximum(row_CC.sum(axis=1), np.finfo(np.float64).tiny))[:, None]
    np.fill_diagonal(row_CC, recall_C)
    expected_C, sum_C = size_C * recall_C, np.maximum(size_C + size_C @ row_CC, np.finfo(np.float64).tiny)
    change_CC = np.tile(np.where(seen_C, -2 * expected_C / sum_C**2, 0.0), (num_classes, 1))
    change_CC[np.diag_indices(num_classes)] += np.where(seen_C, 2 / sum_C, 0.0)
    spread_C = (row_CC * change_CC**2).sum(axis=1) - (row_CC * change_CC).sum(axis=1) ** 2
    variance = float(size_C @ spread_C) / num_seen**2
    return _effective(value, float((2 * expected_C / sum_C)[seen_C].mean()), variance)
