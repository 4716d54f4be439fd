"""Intervals of scores over repeated cross-validation: the corrected resampled t (Nadeau and Bengio, 2003). Torch-free.

Folds share most of their training items, so their scores vary together and the plain t interval is far too narrow.
Nadeau and Bengio (Inference for the Generalization Error, Machine Learning 52, section 3.3; no arXiv id) add the ratio
of test to training items to 1/J before the root. For r repeats of k folds (Bouckaert and Frank, PAKDD 2004, section
2.4) J = r k, that ratio is 1/(k - 1), and there are J - 1 degrees of freedom.

Shape legend: J results, one for each fold of each repeat.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NO_SPREAD = "every fold gave the same result, and a t interval of results without spread has no width"
ONE_SEED = "one seed has no spread; more of them are needed"
TOO_FEW = "one result has no spread; at least two folds must be finished"


@dataclass(frozen=True)
class Resampled:
    """Mean and standard deviation over folds, and the corrected 95 % interval; null with a reason where there is none.

    Args:
        mean: over all results.
        std: over all results (with J - 1); None for a single one.
        low: of the interval.
        high: of the interval.
        num_results: J.
        reason: why there is no interval.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    num_results: int
    reason: str | None = None


def corrected(
    results_J: NDArray[np.floating], test_share: float, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Resampled:
    """The corrected resampled t interval of the mean.

    Args:
        results_J: scores, or paired differences of two scores.
        test_share: test items over training items of a fold.
        bounds: what the score cannot leave; the interval is cut there.

    Shape:
        results_J: [J]

    Raises:
        ValueError: when there is no result, or the share is not above 0.
    """
    num = len(results_J)
    if not num or not test_share > 0:
        raise ValueError(f"Expected results and a share of test items above 0, found {num} and {test_share}.")
    mean = float(np.mean(results_J))
    if num < 2:
        return Resampled(mean, None, None, None, num, TOO_FEW)
    std = float(np.std(results_J, ddof=1))
    # Sums of equal numbers differ in their last bit.
    if float(np.ptp(results_J)) < 1e-12:
        return Resampled(mean, 0.0, None, None, num, NO_SPREAD)
    from scipy.special import stdtrit

    half = float(stdtrit(num - 1, 0.975)) * std * float(np.sqrt(1 / num + test_share))
    return Resampled(mean, std, max(bounds[0], mean - half), min(bounds[1], mean + half), num)


@dataclass(frozen=True)
class Seeds:
    """How much a score depends on the seed alone, beside any interval, which is of other items.

    Args:
        value: standard deviation over the seeds (with one less than there are).
        num_seeds: how many.
        scores: of each.
        what: a seed draws, for people.
    """

    value: float
    num_seeds: int
    scores: list[float]
    what: str


def over_seeds(scores: Sequence[float], what: str) -> Seeds | None:
    """The spread of one score over seeds; None for a single one."""
    if len(scores) < 2:
        return None
    return Seeds(float(np.std(scores, ddof=1)), len(scores), [float(score) for score in scores], what)
