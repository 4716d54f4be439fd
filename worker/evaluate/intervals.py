"""95 % intervals of test scores, and paired comparisons of two models on the same items. Torch-free.

Stratified bootstrap (Efron and Tibshirani, 1993, chapter 13; percentile interval): every class is resampled to its own
size. What such a resample scores depends only on its confusion matrix, whose rows are multinomial draws of the observed
rows; drawing those is the same bootstrap, and memory does not grow with the number of items.

The bootstrap has nothing to resample where every class is all right or all wrong, and with every item right it would
claim [1, 1], a certainty that no finite test set gives; with few items it is too narrow. So below ``MIN_SAMPLES``
items, or when the bootstrap has no width, ``Interval.method`` names the fallback:

- ``clopper_pearson`` (accuracy): the exact binomial interval (Biometrika, 1934);
- ``jeffreys`` (other scores): class recalls drawn from their Beta(hits + 1/2, misses + 1/2) posterior, the missed items
  spread as observed plus one pseudo-item over the other classes;
- ``exact_paired`` (differences, also below ``MIN_DISCORDANT`` items on which the two models differ): the exact binomial
  interval of "who is right when they differ", times that of how often they differ. It excludes 0 exactly when the
  exact McNemar test is significant at 5 %.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worker.evaluate.metrics import confusion_matrix

NUM_RESAMPLES = 2000
MIN_SAMPLES = 30
MIN_DISCORDANT = 10
METRICS = ("accuracy", "balanced_accuracy", "macro_recall", "macro_f1")

# Resampled counts held at once, per array.
_MAX_ELEMENTS = 2**22

Method = Literal["bootstrap", "clopper_pearson", "jeffreys", "exact_paired"]


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


def bootstrap(
    labels_N: NDArray[np.integer],
    predicted_N: NDArray[np.integer],
    num_classes: int,
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> dict[str, Interval]:
    """Intervals of the scores in ``METRICS``; classes without items do not count, as in ``metrics``.

    Shape:
        labels_N, predicted_N: [N].

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    if labels_N.size == 0 or labels_N.shape != predicted_N.shape:
        raise ValueError(
            f"Expected one prediction per label and at least one, found {predicted_N.shape} for {labels_N.shape}."
        )
    confusion_CC = confusion_matrix(labels_N, predicted_N, num_classes)
    size_C = confusion_CC.sum(axis=1)
    values = _scores(np.diagonal(confusion_CC)[None], confusion_CC.sum(axis=0)[None], size_C)
    rng = np.random.default_rng(seed)
    draws = _resampled(confusion_CC, rng, num_resamples)
    fallback: dict[str, NDArray[np.float64]] = {}
    intervals = {}
    for name in METRICS:
        value = float(values[name][0])
        low, high = np.quantile(draws[name], [0.025, 0.975])
        method: Method = "bootstrap"
        if labels_N.size < MIN_SAMPLES or high <= low:
            if name == "accuracy":
                method = "clopper_pearson"
                low, high = clopper_pearson(int(np.diagonal(confusion_CC).sum()), int(labels_N.size))
            else:
                method = "jeffreys"
                fallback = fallback or _posterior(confusion_CC, rng, num_resamples)
                low, high = np.quantile(fallback[name], [0.025, 0.975])
        # Macro F1 is biased downwards in resamples of small classes; the interval must still hold its own value.
        intervals[name] = Interval(value, min(float(low), value), max(float(high), value), method)
    return intervals


def paired_difference(
    correct_a_N: NDArray[np.bool_],
    correct_b_N: NDArray[np.bool_],
    labels_N: NDArray[np.integer],
    seed: int,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
    """Accuracy of a minus accuracy of b on the same items, resampled as pairs within each class.

    Shape:
        all [N].

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    _check_pairs(correct_a_N, correct_b_N)
    if labels_N.shape != correct_a_N.shape:
        raise ValueError(f"Expected one label per item, found {labels_N.shape} for {correct_a_N.shape}.")
    difference_N = correct_a_N.astype(np.int64) - correct_b_N.astype(np.int64)
    value = float(difference_N.mean())
    if labels_N.size < MIN_SAMPLES or np.abs(difference_N).sum() < MIN_DISCORDANT:
        return _exact_paired(value, difference_N)
    _, class_N = np.unique(labels_N, return_inverse=True)
    counts_C3 = np.bincount(class_N * 3 + difference_N + 1).astype(np.int64)
    counts_C3 = np.pad(counts_C3, (0, -counts_C3.size % 3)).reshape(-1, 3)
    rng = np.random.default_rng(seed)
    total_B = np.zeros(num_resamples)
    for count_3 in counts_C3:
        size = count_3.sum()
        drawn_B3 = rng.multinomial(size, count_3 / size, size=num_resamples)
        total_B += drawn_B3[:, 2] - drawn_B3[:, 0]
    low, high = np.quantile(total_B / labels_N.size, [0.025, 0.975])
    if high <= low:
        return _exact_paired(value, difference_N)
    return Interval(value, min(float(low), value), max(float(high), value), "bootstrap")


def mcnemar(correct_a_N: NDArray[np.bool_], correct_b_N: NDArray[np.bool_]) -> McNemar:
    """Test whether two models err equally often, from the items on which they differ (exact binomial).

    Shape:
        both [N].
    """
    _check_pairs(correct_a_N, correct_b_N)
    only_a = int((correct_a_N & ~correct_b_N).sum())
    only_b = int((correct_b_N & ~correct_a_N).sum())
    p_value = min(1.0, 2 * float(_special().bdtr(min(only_a, only_b), only_a + only_b, 0.5)))
    return McNemar(only_a, only_b, p_value)


def _special() -> Any:
    """scipy.special, imported where a fallback needs it: most jobs do not, and it costs 0.2 s."""
    import scipy.special

    return scipy.special


def clopper_pearson(num_hits: int, num_samples: int) -> tuple[float, float]:
    """Exact 95 % interval of a proportion."""
    # None or all of them: the tail of the binomial is a power, and scipy need not be imported.
    if num_hits == 0:
        return 0.0, 1.0 - 0.025 ** (1 / num_samples)
    if num_hits == num_samples:
        return 0.025 ** (1 / num_samples), 1.0
    quantile = _special().betaincinv
    low = float(quantile(num_hits, num_samples - num_hits + 1, 0.025))
    return low, float(quantile(num_hits + 1, num_samples - num_hits, 0.975))


def _check_pairs(correct_a_N: NDArray[np.bool_], correct_b_N: NDArray[np.bool_]) -> None:
    if correct_a_N.shape != correct_b_N.shape or correct_a_N.size == 0:
        raise ValueError(
            f"Expected two results per item and at least one item, found shapes {correct_a_N.shape} and "
            f"{correct_b_N.shape}; score both models on the same items in the same order."
        )


def _exact_paired(value: float, difference_N: NDArray[np.int64]) -> Interval:
    num_differing = int(np.abs(difference_N).sum())
    rarely, often = clopper_pearson(num_differing, difference_N.size)
    if num_differing == 0:
        return Interval(value, -often, often, "exact_paired")
    least, most = (2 * share - 1 for share in clopper_pearson(int((difference_N > 0).sum()), num_differing))
    low = least * (often if least < 0 else rarely)
    high = most * (often if most > 0 else rarely)
    return Interval(value, low, high, "exact_paired")


def _scores(
    hits_BC: NDArray[np.number], called_BC: NDArray[np.number], size_C: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Scores of resampled (or drawn) diagonals and column sums, each [B]."""
    seen_C = size_C > 0
    hits_BC, called_BC, sizes_C = hits_BC[:, seen_C], called_BC[:, seen_C], size_C[seen_C]
    recall_B = (hits_BC / sizes_C).mean(axis=1)
    return {
        "accuracy": hits_BC.sum(axis=1) / sizes_C.sum(),
        "balanced_accuracy": recall_B,
        "macro_recall": recall_B,
        "macro_f1": (2 * hits_BC / (sizes_C + called_BC)).mean(axis=1),
    }


def _resampled(
    confusion_CC: NDArray[np.int64], rng: np.random.Generator, num_resamples: int
) -> dict[str, NDArray[np.float64]]:
    """Scores of stratified resamples; empty cells are never drawn, so the cost follows the filled ones."""
    num_classes = len(confusion_CC)
    size_C = confusion_CC.sum(axis=1)
    block = max(1, min(num_resamples, _MAX_ELEMENTS // num_classes))
    parts = []
    for start in range(0, num_resamples, block):
        num = min(block, num_resamples - start)
        hits_BC = np.zeros((num, num_classes), dtype=np.int64)
        called_BC = np.zeros((num, num_classes), dtype=np.int64)
        for label in np.flatnonzero(size_C):
            cells = np.flatnonzero(confusion_CC[label])
            drawn_BM = rng.multinomial(size_C[label], confusion_CC[label, cells] / size_C[label], size=num)
            called_BC[:, cells] += drawn_BM
            hits_BC[:, label] = drawn_BM[:, cells == label].sum(axis=1)
        parts.append(_scores(hits_BC, called_BC, size_C))
    return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}


def _posterior(
    confusion_CC: NDArray[np.int64], rng: np.random.Generator, num_draws: int
) -> dict[str, NDArray[np.float64]]:
    """Scores under the Jeffreys posterior of every class's recall; see the module's text."""
    num_classes = len(confusion_CC)
    size_C, hits_C = confusion_CC.sum(axis=1), np.diagonal(confusion_CC)
    wrong_CC = confusion_CC + 1.0 / max(num_classes - 1, 1)
    np.fill_diagonal(wrong_CC, 0.0)
    wrong_CC /= np.maximum(wrong_CC.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    drawn_BC = size_C * rng.beta(hits_C + 0.5, size_C - hits_C + 0.5, size=(num_draws, num_classes))
    return _scores(drawn_BC, drawn_BC + (size_C - drawn_BC) @ wrong_CC, size_C)
