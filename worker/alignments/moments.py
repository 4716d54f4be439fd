"""Means and covariances of features, summed over blocks of rows: memory O(D^2) however many rows there are.

Shape legend: N items, D features, E features of a second set over the same items.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.alignments.affine import Double, Floats
from worker.solvers.spectrum import row_chunks

# Share of the largest eigenvalue below which a direction is noise: features are float32.
FLOOR = 1e-10


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Mean and standard deviation of every feature; one that never changes (up to rounding) has scale 1.

    Shape:
        mean_D: [D]
        scale_D: [D]
        varies_D: [D], whether the feature changes
    """

    mean_D: Double
    scale_D: Double
    varies_D: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and (biased, 1/N) covariance of one domain.

    Shape:
        mean_D: [D]
        covariance_DD: [D, D]
    """

    num_items: int
    mean_D: Double
    covariance_DD: Double


@dataclass(frozen=True, eq=False)
class Joint:
    """Moments of two feature sets over the same items.

    Shape:
        cross_DE: [D, E], covariance of a feature of the first with one of the second
        energy_E: [E], variance of the second's features
    """

    num_items: int
    mean_D: Double
    mean_E: Double
    covariance_DD: Double
    cross_DE: Double
    energy_E: Double


def diagonal(feats_ND: Floats) -> Diagonal:
    """Mean and scale of every feature.

    Shape:
        feats_ND: [N, D]
    """
    check(feats_ND)
    mean_D = feats_ND.mean(axis=0, dtype=np.float64)
    variance_D = np.zeros_like(mean_D)
    for start, stop in row_chunks(len(feats_ND)):
        variance_D += np.square(feats_ND[start:stop] - mean_D).sum(0)
    variance_D /= len(feats_ND)
    varies_D = variance_D > (np.finfo(feats_ND.dtype).eps * np.abs(mean_D)) ** 2
    return Diagonal(mean_D, np.sqrt(np.where(varies_D, variance_D, 1.0)), varies_D)


def moments(feats_ND: Floats) -> Moments:
    """Mean and covariance; centred before the products, so that a large mean costs no digits.

    Shape:
        feats_ND: [N, D]
    """
    check(feats_ND)
    mean_D = feats_ND.mean(axis=0, dtype=np.float64)
    covariance_DD = np.zeros((len(mean_D), len(mean_D)))
    for start, stop in row_chunks(len(feats_ND)):
        block = feats_ND[start:stop] - mean_D
        covariance_DD += block.T @ block
    return Moments(len(feats_ND), mean_D, covariance_DD / len(feats_ND))


def joint(feats_ND: Floats, wanted_NE: Floats) -> Joint:
    """Moments of pairs.

    Shape:
        feats_ND: [N, D]
        wanted_NE: [N, E]

    Raises:
        ValueError: the two do not have the same number of rows.
    """
    check(feats_ND)
    check(wanted_NE)
    if len(feats_ND) != len(wanted_NE):
        raise ValueError(f"expected pairs of rows; found {len(feats_ND)} and {len(wanted_NE)}")
    own, mean_E = moments(feats_ND), wanted_NE.mean(axis=0, dtype=np.float64)
    cross_DE, energy_E = np.zeros((len(own.mean_D), len(mean_E))), np.zeros(len(mean_E))
    for start, stop in row_chunks(len(feats_ND)):
        target = wanted_NE[start:stop] - mean_E
        cross_DE += (feats_ND[start:stop] - own.mean_D).T @ target
        energy_E += np.square(target).sum(0)
    count = len(feats_ND)
    return Joint(count, own.mean_D, mean_E, own.covariance_DD, cross_DE / count, energy_E / count)


def oas(found: Moments) -> float:
    """Share of the covariance that is replaced by a multiple of the identity, as the data itself asks for.

    Oracle approximating shrinkage, Chen et al., arXiv 0907.4698, equation 23: closed form from the covariance alone.
    It assumes Gaussian features; pooled features are not, so it is a default and not a truth.
    """
    dims, count = len(found.mean_D), found.num_items
    mean_square = float(np.mean(np.square(found.covariance_DD)))
    level = float(np.trace(found.covariance_DD)) / dims
    spread = (count + 1.0) * (mean_square - level**2 / dims)
    return 1.0 if spread <= 0 else min((mean_square + level**2) / spread, 1.0)


def shrink(covariance_DD: Double, share: float) -> Double:
    """Moves a covariance towards a multiple of the identity with the same trace; always invertible for a share > 0.

    Raises:
        ValueError: the share is not in [0, 1].
    """
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"expected a share of shrinkage from 0 to 1; found {share}")
    shrunk_DD = covariance_DD * (1.0 - share)
    shrunk_DD[np.diag_indices_from(shrunk_DD)] += share * np.trace(covariance_DD) / len(covariance_DD)
    return shrunk_DD


def power(symmetric_DD: Double, exponent: float, floor: float = FLOOR) -> Double:
    """Power of a positive semi-definite matrix, through its eigenvectors.

    Directions that hold less than `floor` of the largest are lifted there: an inverse root of noise would blow it up.
    With an exponent of 1 that is all that happens.
    """
    values, vectors = np.linalg.eigh(symmetric_DD)
    least = max(float(values[-1]), np.finfo(np.float64).tiny) * floor
    result_DD: Double = (vectors * np.maximum(values, least) ** exponent) @ vectors.T
    return result_DD


def check(feats_ND: Floats) -> None:
    """Refuses what no moments can be taken of.

    Raises:
        ValueError: fewer than two rows, or numbers that are not finite.
    """
    if feats_ND.ndim != 2 or len(feats_ND) < 2 or feats_ND.shape[1] == 0:
        raise ValueError(f"expected features [items, dimensions] of at least two items; found shape {feats_ND.shape}")
    if not all(np.isfinite(feats_ND[start:stop]).all() for start, stop in row_chunks(len(feats_ND))):
        raise ValueError("expected finite features; found NaN or infinity; check the images or the backbone")
