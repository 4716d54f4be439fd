"""Alignments of two domains without pairs and without labels: the statistics of one are given to the other.

All of them move features of the new domain (`moving`) to the domain that a head was trained in (`fixed`); the head
stays as it is. Closed forms, float64, memory O(D^2) beyond the features.

Shape legend: M items of the moving domain, N of the fixed one, D features.
"""

import os
from types import ModuleType
from typing import cast

import numpy as np

from worker.alignments.affine import Affine, Double, Floats, between_means
from worker.alignments.moments import Moments, diagonal, moments, oas, power, shrink

OT_SAMPLES = 1000
POT_FLOOR = 1e-6


def standardising(feats_ND: Floats) -> Affine:
    """One domain to mean 0 and standard deviation 1: half of a z-score alignment, for heads that are trained on it.

    Shape:
        feats_ND: [N, D]
    """
    found = diagonal(feats_ND)
    return Affine(1.0 / found.scale_D, -found.mean_D / found.scale_D)


def zca(feats_ND: Floats, shrinkage: float | None = None) -> Affine:
    """One domain to mean 0 and covariance I by the whitening that changes it least (ZCA, arXiv 1512.00809, table 1).

    Args:
        feats_ND: of the domain.
        shrinkage: of the covariance, 0 to 1; None lets the data choose (`moments.oas`).

    Shape:
        feats_ND: [N, D]
    """
    found = moments(feats_ND)
    return between_means(power(_shrunk(found, shrinkage), -0.5), found.mean_D, np.zeros_like(found.mean_D))


def z_score(moving_MD: Floats, fixed_ND: Floats) -> Affine:
    """Per-domain z-score: standardise with the own statistics, go back with those of the head's domain.

    A feature that never changes in one of the domains is only shifted: its ratio of scales means nothing.

    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]
    """
    own, wanted = diagonal(moving_MD), diagonal(fixed_ND)
    alpha_D = np.where(own.varies_D & wanted.varies_D, wanted.scale_D / own.scale_D, 1.0)
    return between_means(alpha_D, own.mean_D, wanted.mean_D)


def moment_matching(moving_MD: Floats, fixed_ND: Floats, order: int = 2) -> Affine:
    """The first moments of every feature are made equal: the mean (order 1), or mean and scale (order 2).

    With order 2 it is `z_score`, the diagonal of CORAL: alpha = s_fixed / s_moving, beta = m_fixed - alpha m_moving.
    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]

    Raises:
        ValueError: the order is not 1 or 2.
    """
    if order not in (1, 2):
        raise ValueError(f"expected order 1 (means) or 2 (means and scales); found {order}")
    if order == 2:
        return z_score(moving_MD, fixed_ND)
    own, wanted = diagonal(moving_MD), diagonal(fixed_ND)
    return Affine(np.ones_like(own.mean_D), wanted.mean_D - own.mean_D)


def coral(
    moving_MD: Floats, fixed_ND: Floats, moving_shrinkage: float | None = None, fixed_shrinkage: float | None = None
) -> Affine:
    """CORAL: whiten with the own covariance, colour with the other one (arXiv 1511.05547, algorithm 1).

    We depart in two ways. The paper adds the identity to both covariances, which depends on the features' units; we
    shrink towards the identity times the mean variance. And the means are matched too (arXiv 1612.01939 assumes
    centred features).

    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]
    """
    own, wanted = moments(moving_MD), moments(fixed_ND)
    alpha_DD = power(_shrunk(own, moving_shrinkage), -0.5) @ power(_shrunk(wanted, fixed_shrinkage), 0.5)
    return between_means(alpha_DD, own.mean_D, wanted.mean_D)


def whitening(
    moving_MD: Floats, fixed_ND: Floats, moving_shrinkage: float | None = None, fixed_shrinkage: float | None = None
) -> Affine:
    """ZCA-cor whitening and back (arXiv 1512.00809, section 4): correlations are moved apart from scales.

    CORAL is ZCA on covariances; this is ZCA on correlations, so a feature of large variance does not rule the others,
    and full shrinkage is exactly the z-score alignment.

    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]
    """
    own, wanted = moments(moving_MD), moments(fixed_ND)
    own_D, wanted_D = scales(moving_MD, fixed_ND)
    white_DD = power(_shrunk(correlations(own, own_D), moving_shrinkage), -0.5)
    colour_DD = power(_shrunk(correlations(wanted, wanted_D), fixed_shrinkage), 0.5)
    return between_means((white_DD @ colour_DD) * (wanted_D / own_D[:, None]), own.mean_D, wanted.mean_D)


def gaussian_transport(
    moving_MD: Floats, fixed_ND: Floats, moving_shrinkage: float | None = None, fixed_shrinkage: float | None = None
) -> Affine:
    """The optimal transport map between two Gaussians with the domains' moments, by POT (arXiv 1905.10155, eq. 9).

    Of all linear maps that give the moving domain the other covariance it is the one that moves features least.

    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]
    """
    own, wanted = moments(moving_MD), moments(fixed_ND)
    # POT takes roots of a product of both, which squares their range: what is near singular must be lifted before.
    own_DD, wanted_DD = (
        power(_shrunk(found, share), 1.0, POT_FLOOR)
        for found, share in ((own, moving_shrinkage), (wanted, fixed_shrinkage))
    )
    alpha_DD, offset_D = _pot().gaussian.bures_wasserstein_mapping(own.mean_D, wanted.mean_D, own_DD, wanted_DD)
    return Affine(np.asarray(alpha_DD), np.asarray(offset_D).reshape(-1))


def barycentric_transport(
    moving_MD: Floats, fixed_ND: Floats, seed: int, max_samples: int = OT_SAMPLES, strength: float = 1.0
) -> Affine:
    """Exact optimal transport of samples by POT, turned into an affine map (arXiv 1507.00504, section 4.3).

    Every sampled item goes to the barycentre of the items that the plan sends it to; the displacement is then fitted
    by ridge, so that new items move too. Strong ridge leaves a pure shift. The plan is max_samples^2 numbers.

    Args:
        moving_MD: new domain.
        fixed_ND: the head's domain.
        seed: of the choice of samples.
        max_samples: of each domain.
        strength: of the ridge, relative to the mean variance of the features.

    Shape:
        moving_MD: [M, D]
        fixed_ND: [N, D]
    """
    from worker.alignments.paired import ridge

    transport = _pot()
    moving_KD = sample(moving_MD, max_samples, seed).astype(np.float64)
    fixed_LD = sample(fixed_ND, max_samples, seed + 1).astype(np.float64)
    cost_KL = transport.dist(moving_KD, fixed_LD)
    share_K, share_L = (np.full(len(rows), 1.0 / len(rows)) for rows in (moving_KD, fixed_LD))
    # Costs relative to the largest: the solver's tolerance is absolute.
    plan_KL = transport.emd(share_K, share_L, cost_KL / cost_KL.max(), numItermax=1_000_000)
    goal_KD = (plan_KL / plan_KL.sum(1, keepdims=True)) @ fixed_LD
    moved = ridge(moving_KD, goal_KD - moving_KD, strength)
    return Affine(moved.alpha + np.eye(moved.dim_in), moved.offset)


def sample(feats_ND: Floats, most: int, seed: int) -> Floats:
    """At most so many rows, drawn without replacement, in their order.

    Shape:
        feats_ND: [N, D]
    """
    if len(feats_ND) <= most:
        return feats_ND
    rows = np.sort(np.random.default_rng(seed).choice(len(feats_ND), most, replace=False))
    chosen: Floats = feats_ND[rows]
    return chosen


def _shrunk(found: Moments, share: float | None) -> Double:
    return shrink(found.covariance_DD, oas(found) if share is None else share)


def scales(moving_MD: Floats, fixed_ND: Floats) -> tuple[Double, Double]:
    """Scales of both domains, 1 where a feature never changes in one of them: it is shifted and not scaled."""
    own, wanted = diagonal(moving_MD), diagonal(fixed_ND)
    both_D = own.varies_D & wanted.varies_D
    return np.where(both_D, own.scale_D, 1.0), np.where(both_D, wanted.scale_D, 1.0)


def correlations(found: Moments, scale_D: Double) -> Moments:
    """The domain's correlations in place of its covariances."""
    correlation_DD = found.covariance_DD / scale_D / scale_D[:, None]
    single_D = np.flatnonzero(np.abs(np.diagonal(correlation_DD) - 1.0) > 1e-6)
    # A feature without a scale of its own stays by itself: it correlates with nothing.
    correlation_DD[single_D], correlation_DD[:, single_D] = 0.0, 0.0
    np.fill_diagonal(correlation_DD, 1.0)
    return Moments(found.num_items, found.mean_D, correlation_DD)


def _pot() -> ModuleType:
    """POT with its numpy backend alone: it imports torch, 4 s and 800 MB, where it finds it."""
    for backend in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{backend}", "1")
    import ot

    return cast(ModuleType, ot)
