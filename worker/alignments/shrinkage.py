"""How much of the covariances to believe: chosen where it shows, on items that fitted nothing. No labels.

With fewer items than features, closed-form shrinkage (`moments.oas`) is too weak for alignment: on 580 pictures of each
domain and 1,280 features it chose 0.08, and held-out items of both domains were further apart than before (squared MMD
0.066 instead of 0.008), since whitening blows up directions that these few pictures happened to lack.

Shape legend: M, N items to fit on, K, L held-out ones, D features.
"""

import numpy as np

from worker.alignments import distance
from worker.alignments.affine import Double, Floats
from worker.alignments.moments import Moments, moments
from worker.alignments.unpaired import correlations as correlations_of
from worker.alignments.unpaired import scales

SHARES = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95, 1.0)


def choose(
    moving_MD: Floats,
    fixed_ND: Floats,
    held_moving_KD: Floats,
    held_fixed_LD: Floats,
    seed: int,
    *,
    correlations: bool = False,
) -> tuple[float, tuple[float, ...]]:
    """The share in SHARES with the smallest squared MMD between held-out items after alignment; and all of them.

    All shares have the eigenvectors of the two covariances in common, so each costs the held-out rows alone. The map is
    that of `unpaired.coral`, or of `unpaired.whitening` with `correlations`.

    Shape:
        moving_MD: [M, D]; fixed_ND: [N, D]; held_moving_KD: [K, D]; held_fixed_LD: [L, D]
    """
    own, wanted = moments(moving_MD), moments(fixed_ND)
    own_D, wanted_D = np.ones_like(own.mean_D), np.ones_like(own.mean_D)
    if correlations:
        own_D, wanted_D = scales(moving_MD, fixed_ND)
        own, wanted = correlations_of(own, own_D), correlations_of(wanted, wanted_D)
    own_values, own_DD = _spectrum(own)
    wanted_values, wanted_DD = _spectrum(wanted)
    rows_KD = ((held_moving_KD - own.mean_D) / own_D) @ own_DD
    between_DD = own_DD.T @ wanted_DD
    width = distance.bandwidth(held_moving_KD, held_fixed_LD, seed)
    apart = []
    for share in SHARES:
        white_KD = rows_KD / np.sqrt(_shrunk(own_values, share))
        coloured_KD = ((white_KD @ between_DD) * np.sqrt(_shrunk(wanted_values, share))) @ wanted_DD.T
        apart.append(distance.mmd(coloured_KD * wanted_D + wanted.mean_D, held_fixed_LD, width, seed))
    return SHARES[int(np.argmin(apart))], tuple(apart)


def _spectrum(found: Moments) -> tuple[Double, Double]:
    values, vectors = np.linalg.eigh(found.covariance_DD)
    return np.maximum(values, 0.0), vectors


def _shrunk(values_D: Double, share: float) -> Double:
    """Eigenvalues of the shrunk matrix; a domain without any variance keeps them at 1, which moves nothing."""
    shrunk_D: Double = (1.0 - share) * values_D + share * values_D.mean()
    return shrunk_D if values_D.any() else np.ones_like(values_D)
