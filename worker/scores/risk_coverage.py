"""Risk and coverage: how wrong a model is on the items that it is surest of. Torch-free.

A model that may stay silent answers its surest items only: coverage is their share, risk the share of errors among
them (Geifman and El-Yaniv, arXiv 1705.08500). AURC is the mean risk over all coverages; what a perfect order of the
same errors would have is taken off for the excess (E-AURC, arXiv 1805.08206, section 4).

Shape legend: N items.
"""

from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

# Below this an order of errors is chance.
MIN_ITEMS = 30
COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Point(TypedDict):
    """Share of items that are answered, and the share of errors among them."""

    coverage: float
    risk: float


@dataclass(frozen=True)
class RiskCoverage:
    """Areas under the curve, lower is better; `excess` is 0 where every error is less sure than every right answer."""

    aurc: float
    optimal: float
    excess: float
    num_samples: int
    points: list[Point]


def risk_coverage(confidence_N: NDArray[np.floating], correct_N: NDArray[np.bool_]) -> RiskCoverage:
    """The curve and its area; equally sure items count as their mean, so that their order does not matter.

    Shape:
        both [N].

    Raises:
        ValueError: when there is no item or the shapes differ.
    """
    if correct_N.size == 0 or confidence_N.shape != correct_N.shape:
        raise ValueError(
            f"Expected one confidence for each result and at least one, found {confidence_N.shape} for "
            f"{correct_N.shape}."
        )
    count_N = np.arange(1, correct_N.size + 1)
    _, block_N = np.unique(-confidence_N, return_inverse=True)
    size_B = np.bincount(block_N)
    share_B = np.bincount(block_N, weights=~correct_N) / size_B
    risk_N = np.cumsum(np.repeat(share_B, size_B)) / count_N
    num_right = int(correct_N.sum())
    best_N = np.maximum(count_N - num_right, 0) / count_N
    aurc, optimal = float(risk_N.mean()), float(best_N.mean())
    places = [max(1, round(coverage * correct_N.size)) - 1 for coverage in COVERAGES]
    points = [
        Point(coverage=float(count_N[place] / correct_N.size), risk=float(risk_N[place]))
        for place in dict.fromkeys(places)
    ]
    # Rounding alone must not make it negative.
    return RiskCoverage(aurc, optimal, max(aurc - optimal, 0.0), int(correct_N.size), points)
