"""Temperature scaling and calibration scores of a classifier. Torch-free.

One scalar T divides the logits (Guo et al., arXiv 1706.04599, section 4.2); it never changes which class is predicted.
Fit it on out-of-fold or hold-out logits, never on those of training items, which are far too sure of themselves.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from worker.solvers.logits import log_softmax, softmax

NUM_BINS = 15
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
# A temperature from fewer items says more of them than of the model.
MIN_ITEMS = 30
_MAX_NEWTON_STEPS = 60


class ReliabilityBin(TypedDict):
    """One confidence bin; the means are null when it is empty."""

    low: float
    high: float
    num_samples: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration scores of one evaluated set."""

    ece: float
    adaptive_ece: float
    brier: float
    nll: float
    bins: list[ReliabilityBin]

    def document(self) -> dict[str, float | list[ReliabilityBin]]:
        """The scores as they stand in the report."""
        return {
            "ece": self.ece,
            "adaptive_ece": self.adaptive_ece,
            "brier": self.brier,
            "nll": self.nll,
            "bins": self.bins,
        }


def fit_temperature(logits_NC: NDArray[np.floating], labels_N: NDArray[np.integer]) -> float:
    """Temperature with the lowest NLL, within [0.01, 100].

    The NLL is convex in 1/T, so its derivative has one sign change: Newton steps kept inside a shrinking bracket
    cannot diverge. On logits that classify everything correctly the optimum is T -> 0 and the lower bound is returned.

    Shape:
        logits_NC: [N, C]; labels_N: [N].

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    _check(logits_NC, labels_N)
    margins_NC = logits_NC.astype(np.float64)
    margins_NC -= margins_NC[np.arange(labels_N.size), labels_N][:, None]
    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if not margins_NC.any():
        return 1.0
    if _nll_slope(margins_NC, high)[0] <= 0:
        return MIN_TEMPERATURE
    if _nll_slope(margins_NC, low)[0] >= 0:
        return MAX_TEMPERATURE
    inverse = 1.0
    for _ in range(_MAX_NEWTON_STEPS):
        slope, curvature = _nll_slope(margins_NC, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else np.inf
        proposal = step if low < step < high else float(np.sqrt(low * high))
        if abs(proposal - inverse) <= 1e-10 * inverse:
            break
        inverse = proposal
    return 1 / inverse


def temperature(logits_NC: NDArray[np.floating], labels_N: NDArray[np.integer]) -> float:
    """What a head is served with: `fit_temperature`, or 1 where there are too few items to fit anything to.

    Shape:
        logits_NC: [N, C]; labels_N: [N].
    """
    return fit_temperature(logits_NC, labels_N) if labels_N.size >= MIN_ITEMS else 1.0


def _nll_slope(margins_NC: NDArray[np.float64], inverse: float) -> tuple[float, float]:
    """First and second derivative of the mean NLL by 1/T; margins are logits minus the label's."""
    probabilities_NC = softmax(inverse * margins_NC)
    mean_N = (probabilities_NC * margins_NC).sum(axis=1)
    curvature_N = (probabilities_NC * np.square(margins_NC - mean_N[:, None])).sum(axis=1)
    return float(mean_N.mean()), float(curvature_N.mean())


def calibration(
    probabilities_NC: NDArray[np.floating], labels_N: NDArray[np.integer], num_bins: int = NUM_BINS
) -> Calibration:
    """Expected calibration error with equal-width and with equal-count bins, Brier score, NLL and reliability bins.

    Brier is the multi-class sum of squares, 0 to 2 (Brier, 1950). Adaptive ECE: Nguyen and O'Connor, arXiv 1508.05154.

    Shape:
        probabilities_NC: [N, C]; labels_N: [N].

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    _check(probabilities_NC, labels_N)
    probabilities_NC = probabilities_NC.astype(np.float64)
    confidence_N = probabilities_NC.max(axis=1)
    correct_N = probabilities_NC.argmax(axis=1) == labels_N
    own_N = probabilities_NC[np.arange(labels_N.size), labels_N]
    edges = np.linspace(0, 1, num_bins + 1)
    bin_N = np.clip(np.searchsorted(edges, confidence_N, side="right") - 1, 0, num_bins - 1)
    equal_count = np.array_split(np.argsort(confidence_N, kind="stable"), min(num_bins, labels_N.size))
    adaptive = sum(abs(confidence_N[rows].sum() - correct_N[rows].sum()) for rows in equal_count) / labels_N.size
    count_M = np.bincount(bin_N, minlength=num_bins)
    confidence_M = np.bincount(bin_N, weights=confidence_N, minlength=num_bins)
    correct_M = np.bincount(bin_N, weights=correct_N, minlength=num_bins)
    return Calibration(
        ece=float(np.abs(confidence_M - correct_M).sum() / labels_N.size),
        adaptive_ece=float(adaptive),
        brier=float((np.square(probabilities_NC).sum(axis=1) - 2 * own_N + 1).mean()),
        nll=float(-np.log(np.maximum(own_N, np.finfo(np.float64).tiny)).mean()),
        bins=[
            ReliabilityBin(
                low=float(edges[index]),
                high=float(edges[index + 1]),
                num_samples=int(count),
                confidence=float(confidence_M[index] / count) if count else None,
                accuracy=float(correct_M[index] / count) if count else None,
            )
            for index, count in enumerate(count_M)
        ],
    )


def nll(logits_NC: NDArray[np.floating], labels_N: NDArray[np.integer], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels at a temperature.

    Shape:
        logits_NC: [N, C]; labels_N: [N].
    """
    _check(logits_NC, labels_N)
    scores_NC = log_softmax(logits_NC.astype(np.float64) / temperature)
    return float(-scores_NC[np.arange(labels_N.size), labels_N].mean())


def _check(values_NC: NDArray[np.floating], labels_N: NDArray[np.integer]) -> None:
    if labels_N.size == 0 or values_NC.ndim != 2 or len(values_NC) != labels_N.size:
        raise ValueError(
            f"Expected one row of class scores per label and at least one, found shape {values_NC.shape} "
            f"for {labels_N.size} labels."
        )
