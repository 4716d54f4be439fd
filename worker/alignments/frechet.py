"""Fréchet distance of two domains in feature space.

Shape legend: M items of one domain, N of the other, D features.
"""

import numpy as np

from worker.alignments.affine import Double, Floats
from worker.alignments.unpaired import sample

SAMPLES = 500


def frechet(first_MD: Floats, second_ND: Floats, seed: int) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), of two normal distributions (Dowson and Landau, 1982, equation 16).

    The form of FID (Heusel et al., arXiv 1706.08500, equation 6), but on these features: its values are no FIDs. With
    C = A'A of centred items, the last trace is the sum of the singular values of A1 A2', so that no D x D root is
    taken. On at most SAMPLES items of each domain; biased upwards, the more the fewer items: compare figures of equal
    numbers of items.

    Shape:
        first_MD: [M, D]
        second_ND: [N, D]

    Raises:
        ValueError: fewer than two items of a domain.
    """
    first, second = sample(first_MD, SAMPLES, seed), sample(second_ND, SAMPLES, seed + 1)
    if min(len(first), len(second)) < 2:
        raise ValueError(f"expected at least two items of each domain; found {len(first)} and {len(second)}")
    (mean_1, root_1), (mean_2, root_2) = _moments(first), _moments(second)
    crossed = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    spread = np.square(root_1).sum() + np.square(root_2).sum() - 2 * crossed
    # Rounding never makes a distance negative.
    return max(float(np.square(mean_1 - mean_2).sum() + spread), 0.0)


def _moments(feats_ND: Floats) -> tuple[Double, Double]:
    """Mean, and A with A'A the covariance."""
    feats = feats_ND.astype(np.float64)
    mean_D = feats.mean(0)
    return mean_D, (feats - mean_D) / np.sqrt(len(feats) - 1)
