"""A mixture of Gaussians with diagonal covariances, by expectation maximisation: scikit-learn is not there at run time.

Dempster, Laird and Rubin, J. R. Stat. Soc. B 39(1), 1977. Starts from k-means++ (Arthur and Vassilvitskii, SODA 2007)
and a few rounds of Lloyd's algorithm. Memory O(N (R + K)).

Shape legend: N items, D features, R principal components, K components of the mixture.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.artifact.scores import softmax
from worker.solvers.logits import logsumexp
from worker.solvers.ridge import one_hot
from worker.solvers.spectrum import EigenBasis

Double = NDArray[np.float64]

LLOYD_ROUNDS = 10
MAX_ROUNDS = 100
# Gain in mean log-likelihood below which fitting ends, as scikit-learn has it.
TOLERANCE = 1e-3
# Of the mean variance: what every variance has at least, so that no component shrinks onto one image.
FLOOR = 1e-3


@dataclass(frozen=True)
class Mixture:
    """Shares, means and variances.

    Shape:
        log_share_K: [K]; mean_KR, variance_KR: [K, R]
    """

    log_share_K: Double
    mean_KR: Double
    variance_KR: Double

    def joint_NK(self, items_NR: Double) -> Double:
        """Sum of log P(k) and log P(item | k).

        Shape:
            items_NR: [N, R]; returns [N, K].
        """
        precision_KR = 1.0 / self.variance_KR
        fixed_K = np.log(2 * np.pi * self.variance_KR).sum(1) + (np.square(self.mean_KR) * precision_KR).sum(1)
        square_NK = np.square(items_NR) @ precision_KR.T - 2 * items_NR @ (self.mean_KR * precision_KR).T
        return np.asarray(self.log_share_K - 0.5 * (fixed_K + square_NK))

    def posterior_NK(self, items_NR: Double) -> Double:
        """P(k | item).

        Shape:
            items_NR: [N, R]; returns [N, K].
        """
        return softmax(self.joint_NK(items_NR))


def principal(basis: EigenBasis, share: float) -> Double:
    """Coordinates along the fewest principal axes that hold this share of the variance, at least one.

    Args:
        basis: of centred features.
        share: from 0 to 1.

    Shape:
        returns [N, R].
    """
    held_R = np.cumsum(basis.energy_R) / max(float(basis.energy_R.sum()), np.finfo(np.float64).tiny)
    num_axes = min(int(np.searchsorted(held_R, share)) + 1, basis.rank)
    if basis.projected:
        return np.asarray(basis.matrix[:, :num_axes], np.float64)
    return np.asarray(basis.matrix @ basis.rotation_DR[:, :num_axes], np.float64)


def fit(items_NR: Double, num_components: int, seed: int) -> Mixture:
    """The mixture that expectation maximisation reaches from k-means.

    Shape:
        items_NR: [N, R].

    Raises:
        ValueError: fewer items than components.
    """
    if not 1 <= num_components <= len(items_NR):
        raise ValueError(f"Expected 1 to {len(items_NR)} components for as many items, found {num_components}.")
    nearest_N = _k_means(items_NR, num_components, np.random.default_rng(seed))
    found, before = maximise(items_NR, one_hot(nearest_N, num_components)), -np.inf
    for _ in range(MAX_ROUNDS):
        joint_NK = found.joint_NK(items_NR)
        likelihood = float(logsumexp(joint_NK).mean())
        if likelihood - before < TOLERANCE:
            break
        found, before = maximise(items_NR, softmax(joint_NK)), likelihood
    return found


def maximise(items_NR: Double, share_NK: Double) -> Mixture:
    """The mixture of largest likelihood when each item belongs to the components by these shares.

    Shape:
        items_NR: [N, R]; share_NK: [N, K], rows sum to 1.
    """
    total_K = share_NK.sum(0) + 10 * np.finfo(np.float64).eps
    mean_KR = share_NK.T @ items_NR / total_K[:, None]
    variance_KR = share_NK.T @ np.square(items_NR) / total_K[:, None] - np.square(mean_KR)
    floor = max(FLOOR * float(items_NR.var(axis=0).mean()), np.finfo(np.float64).tiny)
    # Kept above zero also where nothing varies at all.
    return Mixture(np.log(total_K / total_K.sum()), mean_KR, np.maximum(variance_KR, max(floor, 1e-12)))


def _k_means(items_NR: Double, num_clusters: int, rng: np.random.Generator) -> NDArray[np.intp]:
    length_N = np.square(items_NR).sum(1)
    chosen = [int(rng.integers(len(items_NR)))]
    apart_N = _distance(items_NR, length_N, items_NR[chosen[:1]])[:, 0]
    while len(chosen) < num_clusters:
        total = float(apart_N.sum())
        # Where all that is left are copies of what was chosen, any item is as good as another.
        weight_N = apart_N / total if total > 0 else None
        chosen.append(int(rng.choice(len(items_NR), p=weight_N)))
        apart_N = np.minimum(apart_N, _distance(items_NR, length_N, items_NR[chosen[-1:]])[:, 0])
    centre_KR = items_NR[chosen]
    nearest_N = _distance(items_NR, length_N, centre_KR).argmin(1)
    for _ in range(LLOYD_ROUNDS):
        member_NK = one_hot(nearest_N, num_clusters)
        count_K, sums_KR = member_NK.sum(0), member_NK.T @ items_NR
        # A cluster that lost all of its items stays where it is.
        centre_KR = np.where(count_K[:, None] > 0, sums_KR / np.maximum(count_K, 1)[:, None], centre_KR)
        moved_N = _distance(items_NR, length_N, centre_KR).argmin(1)
        if (moved_N == nearest_N).all():
            break
        nearest_N = moved_N
    return np.asarray(nearest_N)


def _distance(items_NR: Double, length_N: Double, centre_KR: Double) -> Double:
    """Squared distances [N, K], never below zero."""
    apart_NK = length_N[:, None] - 2 * items_NR @ centre_KR.T + np.square(centre_KR).sum(1)
    return np.asarray(np.maximum(apart_NK, 0.0))
