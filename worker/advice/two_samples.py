"""Whether two sets of features come from one distribution: distances, each against what it is under permutation.

No torch. A distance of finite samples is never 0, so each comes with the share of random divisions of the same items
in which it is as large: that is what lets "no drift" be said. Permutation is exact for whatever statistic (Good 2005);
the classifier's is taken over its held-out answers (classifier two-sample test, Lopez-Paz and Oquab, arXiv 1610.06545).

CORAL and Frechet compare covariances. In 1,280 dimensions a few hundred items have none worth comparing, so both are
taken in the leading principal components of all items together.

Shape legend: M items of one set, N of the other, B of both, D features, R components, P permutations.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.alignments import distance
from worker.solvers.linear import standardise

Double = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

PERMUTATIONS = 499
COMPONENTS = 32
ITEMS_PER_COMPONENT = 10


@dataclass(frozen=True)
class Tested:
    """One distance.

    Args:
        value: of the two sets.
        null_mean: of random divisions of the same items.
        null_95: what one in twenty of them exceeds.
        p: share of divisions, this one included, in which it is as large.
    """

    value: float
    null_mean: float
    null_95: float
    p: float

    @staticmethod
    def of(value: float, null_P: Double) -> "Tested":
        """A value against those under permutation."""
        as_large = int((null_P >= value - 1e-12 * abs(value)).sum())
        return Tested(value, float(null_P.mean()), float(np.quantile(null_P, 0.95)), (1 + as_large) / (1 + len(null_P)))


def prepare(first_MD: NDArray[np.floating], second_ND: NDArray[np.floating]) -> tuple[Double, Double]:
    """Both standardised by the mean and deviation of all, and in their leading principal components.

    Shape:
        result: [B, D], [B, R]; items of the first set come first
    """
    both = np.concatenate([first_MD, second_ND]).astype(np.float64)
    mean_D, scale_D = standardise(both)
    both = (both - mean_D) / scale_D
    number = max(1, min(COMPONENTS, len(both) // ITEMS_PER_COMPONENT, both.shape[1]))
    # The smaller side's second moments: 1,280 features and at most 2,000 items.
    if both.shape[1] <= len(both):
        _, vectors = np.linalg.eigh(both.T @ both)
        return both, both @ vectors[:, ::-1][:, :number]
    values, vectors = np.linalg.eigh(both @ both.T)
    return both, (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :number]


def divisions(num_first: int, num_second: int, num: int, generator: np.random.Generator) -> Bools:
    """Random divisions of all items into two sets of these sizes [P, B]; true for the first."""
    plain_B = np.arange(num_first + num_second) < num_first
    return generator.permuted(np.tile(plain_B, (num, 1)), axis=1)


def mmd(both_BD: Double, num_first: int, null_PB: Bools, seed: int) -> Tested:
    """Unbiased squared MMD, as `distance.mmd` (arXiv 0805.2368, equation 4), the kernel's width by the median."""
    width = distance.bandwidth(both_BD[:num_first], both_BD[num_first:], seed)
    norms_B = np.square(both_BD).sum(1)
    kernel_BB = np.exp(-np.maximum(norms_B[:, None] + norms_B - 2 * both_BD @ both_BD.T, 0) / (2 * width**2))
    return _by_kernel(kernel_BB, num_first, null_PB)


def coral(parts_BR: Double, num_first: int, null_PB: Bools) -> Tested:
    """|C1 - C2|_F^2 / (4 R^2) (arXiv 1607.01719, equation 1)."""

    def statistic(_: Double, covariances: tuple[Double, Double]) -> float:
        apart_RR = covariances[0] - covariances[1]
        return float(np.square(apart_RR).sum() / (4 * apart_RR.size))

    return _by_moments(parts_BR, num_first, null_PB, statistic)


def frechet(parts_BR: Double, num_first: int, null_PB: Bools) -> Tested:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) (Dowson and Landau 1982): on these features, so no "FID"."""

    def statistic(apart_R: Double, covariances: tuple[Double, Double]) -> float:
        first_RR, second_RR = covariances
        values, vectors = np.linalg.eigh(first_RR)
        root_RR = vectors * np.sqrt(np.maximum(values, 0))
        inner = np.linalg.eigvalsh(root_RR.T @ second_RR @ root_RR)
        mixed = 2 * float(np.sqrt(np.maximum(inner, 0)).sum())
        return float(apart_R @ apart_R) + float(np.trace(first_RR) + np.trace(second_RR)) - mixed

    return _by_moments(parts_BR, num_first, null_PB, statistic)


def classifier(
    first_MD: NDArray[np.floating], second_ND: NDArray[np.floating], num: int, seed: int
) -> tuple[Tested, float]:
    """Proxy A-distance by `distance.classify_domains`, every second item held out; and the held-out error.

    Under permutation of the held-out items between the domains the answers stay what they are.
    """
    wrong = distance.classify_domains(first_MD[::2], second_ND[::2], first_MD[1::2], second_ND[1::2], seed)
    said_B = np.concatenate([wrong[0], ~wrong[1]])  # whether an item was taken for one of the second domain
    sizes = len(wrong[0]), len(wrong[1])

    def apart(first_PB: Bools) -> Double:
        error_P = (first_PB @ said_B.astype(np.float64)) / sizes[0]
        error_P += (~first_PB @ (~said_B).astype(np.float64)) / sizes[1]
        return np.maximum(2 * (1 - error_P), 0.0)

    plain_1B = (np.arange(sum(sizes)) < sizes[0])[None]
    value = float(apart(plain_1B)[0])
    null_P = apart(divisions(*sizes, num, np.random.default_rng(seed)))
    return Tested.of(value, null_P), float((wrong[0].mean() + wrong[1].mean()) / 2)


def means(parts_BR: Double, num_first: int, null_PB: Bools) -> tuple[Tested, float]:
    """Squared distance of the means, unbiased (MMD with the linear kernel); and in deviations of the null."""
    kernel_BB = parts_BR @ parts_BR.T
    null_P = _kernel_values(kernel_BB, null_PB)
    value = float(_kernel_values(kernel_BB, _plain(len(parts_BR), num_first))[0])
    spread = float(null_P.std())
    return Tested.of(value, null_P), (value - float(null_P.mean())) / spread if spread > 0 else 0.0


def holm(p_T: Double) -> Double:
    """Adjusted p-values (Holm 1979): how likely it is that any of several tests is as extreme when nothing differs.

    Shape:
        p_T: [T]; result: [T]
    """
    order = np.argsort(p_T, kind="stable")
    raised = np.minimum(p_T[order] * np.arange(len(p_T), 0, -1), 1.0)
    adjusted = np.empty(len(p_T))
    adjusted[order] = np.maximum.accumulate(raised)
    return adjusted


def _plain(num_items: int, num_first: int) -> Bools:
    return (np.arange(num_items) < num_first)[None]


def _by_kernel(kernel_BB: Double, num_first: int, null_PB: Bools) -> Tested:
    value = float(_kernel_values(kernel_BB, _plain(len(kernel_BB), num_first))[0])
    return Tested.of(value, _kernel_values(kernel_BB, null_PB))


def _kernel_values(kernel_BB: Double, first_PB: Bools) -> Double:
    """Unbiased squared discrepancy of every division [P], from sums over its blocks of the kernel."""
    loose_BB = kernel_BB - np.diag(np.diag(kernel_BB))
    weight_PB = first_PB.astype(np.float64)
    num_first = weight_PB.sum(1)
    num_second = weight_PB.shape[1] - num_first
    rows_PB = weight_PB @ loose_BB
    inside_P, touching_P = (rows_PB * weight_PB).sum(1), rows_PB.sum(1)
    across_P = touching_P - inside_P
    outside_P = loose_BB.sum() - 2 * touching_P + inside_P
    within_P = inside_P / (num_first * (num_first - 1)) + outside_P / (num_second * (num_second - 1))
    return np.asarray(within_P - 2 * across_P / (num_first * num_second))


def _by_moments(
    parts_BR: Double, num_first: int, null_PB: Bools, statistic: Callable[[Double, tuple[Double, Double]], float]
) -> Tested:
    def value(first_B: Bools) -> float:
        one, other = parts_BR[first_B], parts_BR[~first_B]
        covariances = np.cov(one.T, bias=True), np.cov(other.T, bias=True)
        return statistic(one.mean(0) - other.mean(0), (np.atleast_2d(covariances[0]), np.atleast_2d(covariances[1])))

    plain = value(_plain(len(parts_BR), num_first)[0])
    return Tested.of(plain, np.array([value(first_B) for first_B in null_PB]))
