"""How far apart two domains are, on items that fitted nothing.

Shape legend: M items of one domain, N of the other, D features.
"""

import numpy as np
from numpy.typing import NDArray

from worker.alignments.affine import Double, Floats
from worker.alignments.moments import moments
from worker.alignments.unpaired import sample
from worker.solvers import ridge
from worker.solvers.linear import standardise

MMD_SAMPLES = 500
CLASSIFIER_SAMPLES = 1000


def coral(first_MD: Floats, second_ND: Floats) -> float:
    """Squared distance of the covariances, |C1 - C2|_F^2 / (4 D^2) (arXiv 1607.01719, equation 1).

    Shape:
        first_MD: [M, D]
        second_ND: [N, D]
    """
    apart_DD = moments(first_MD).covariance_DD - moments(second_ND).covariance_DD
    return float(np.square(apart_DD).sum() / (4 * apart_DD.size))


def bandwidth(first_MD: Floats, second_ND: Floats, seed: int) -> float:
    """Median distance between different items of both domains together: the width of the kernel of `mmd`.

    Shape:
        first_MD: [M, D]
        second_ND: [N, D]
    """
    both = np.concatenate([sample(first_MD, MMD_SAMPLES, seed), sample(second_ND, MMD_SAMPLES, seed + 1)])
    squares = _squares(both.astype(np.float64), both.astype(np.float64))
    median = float(np.sqrt(np.median(squares[np.triu_indices_from(squares, 1)])))
    return median if median > 0 else 1.0


def mmd(first_MD: Floats, second_ND: Floats, width: float, seed: int) -> float:
    """Squared maximum mean discrepancy under exp(-d^2 / (2 width^2)), unbiased: around 0, also below, where they agree.

    Gretton et al., arXiv 0805.2368, equation 4; on at most MMD_SAMPLES items of each domain.

    Shape:
        first_MD: [M, D]
        second_ND: [N, D]
    """
    first = sample(first_MD, MMD_SAMPLES, seed).astype(np.float64)
    second = sample(second_ND, MMD_SAMPLES, seed + 1).astype(np.float64)
    if min(len(first), len(second)) < 2:
        raise ValueError(f"expected at least two items of each domain; found {len(first)} and {len(second)}")

    def kernel(left: Double, right: Double) -> Double:
        found: Double = np.exp(-_squares(left, right) / (2 * width**2))
        return found

    def inside(rows: Double) -> float:
        found = kernel(rows, rows)
        return float((found.sum() - np.trace(found)) / (len(rows) * (len(rows) - 1)))

    return inside(first) + inside(second) - 2 * float(kernel(first, second).mean())


def proxy_a(
    fit_first_MD: Floats, fit_second_ND: Floats, first_MD: Floats, second_ND: Floats, seed: int
) -> tuple[float, float]:
    """Proxy A-distance 2 (1 - 2 error) of a linear classifier of domains, and its error on held-out items.

    Ben-David et al. 2007 (doi 10.7551/mitpress/7503.003.0022); as in arXiv 1505.07818, section 5. The classifier is
    ridge with lambda by leave-one-out on equally many items of both; its error is the mean of both domains' errors.
    0 means that no line tells them apart, 2 that one always does.

    Shape:
        fit_first_MD, fit_second_ND: what the classifier learns from
        first_MD, second_ND: what it is asked about
    """
    wrong = classify_domains(fit_first_MD, fit_second_ND, first_MD, second_ND, seed)
    error = sum(float(one.mean()) for one in wrong) / 2
    return max(2.0 * (1.0 - 2.0 * error), 0.0), error


def classify_domains(
    fit_first_MD: Floats, fit_second_ND: Floats, first_MD: Floats, second_ND: Floats, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which held-out items of either domain the classifier of `proxy_a` takes for the other's.

    Shape:
        as `proxy_a`; result: [M], [N]
    """
    count = min(len(fit_first_MD), len(fit_second_ND), CLASSIFIER_SAMPLES)
    rows = np.concatenate([sample(fit_first_MD, count, seed), sample(fit_second_ND, count, seed + 1)])
    mean_D, scale_D = standardise(rows)
    standard = (rows - mean_D) / scale_D
    targets = ridge.one_hot(np.repeat([0, 1], count), 2)
    strength = ridge.leave_one_out(standard, targets)
    linear = ridge.fit(standard, targets, strength.lambdas[strength.best_index])
    first, second = (linear.outputs((asked - mean_D) / scale_D).argmax(1) for asked in (first_MD, second_ND))
    return np.asarray(first != 0), np.asarray(second != 1)


def _squares(left_MD: Double, right_ND: Double) -> Double:
    """Squared distances [M, N]; rounding never makes one negative."""
    squares = np.square(left_MD).sum(1)[:, None] + np.square(right_ND).sum(1) - 2 * left_MD @ right_ND.T
    found: Double = np.maximum(squares, 0.0)
    return found
