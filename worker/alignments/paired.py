"""Alignments from pairs: two feature sets over the same items, also of different widths; what was x is to become y.

Closed forms from second moments, float64, memory O(D^2) beyond the features.

Shape legend: N pairs, D features of x, E of y, R directions of x.
"""

from dataclasses import dataclass

import numpy as np

from worker.alignments.affine import Affine, Double, Floats, between_means
from worker.alignments.moments import Diagonal, Joint, check, diagonal, joint
from worker.solvers.spectrum import row_chunks

# Relative to the mean variance of x: from next to none to means only.
STRENGTHS = tuple(float(value) for value in np.logspace(-5, 3, 17))


@dataclass(frozen=True)
class Descent:
    """What gradient descent ended with: the transform, and the loss before every step and after the last."""

    affine: Affine
    losses: tuple[float, ...]


def affine(x_ND: Floats, y_ND: Floats) -> Affine:
    """Finds alpha * x + beta for every feature by itself, least squares in closed form.

    A feature that never changes has no slope: alpha 1, and beta is the shift.

    Shape:
        x_ND: [N, D]
        y_ND: [N, D]

    Raises:
        ValueError: the widths differ.
    """
    own, mean_D, slope_D = _slopes(x_ND, y_ND)
    return between_means(slope_D / own.scale_D, own.mean_D, mean_D)


def affine_descent(x_ND: Floats, y_ND: Floats, learning_rate: float = 0.1, steps: int = 500) -> Descent:
    """The same by gradient descent on the mean squared error: theta <- theta - lr * grad L(theta).

    Features enter divided by sqrt(n), n being their number, so that L = (1/N) sum ||(alpha z + beta - y) / sqrt(n)||^2
    and its curvature 2/n in every direction. The rate is in units of n/2: 1 would solve it in one step, 2 diverges.
    We depart in one way: z is x standardised, since a mean far from zero would make the descent crawl; the result is
    in terms of x again. The full gradient depends on the rows through one sum per feature, taken once.

    Shape:
        x_ND: [N, D]
        y_ND: [N, D]

    Raises:
        ValueError: the widths differ, or rate or steps are out of bounds.
    """
    if not 0.0 < learning_rate < 2.0 or steps < 1:
        raise ValueError(f"expected a rate between 0 and 2 and at least 1 step; found {learning_rate} and {steps}")
    own, mean_D, slope_D = _slopes(x_ND, y_ND)
    num_dims = len(mean_D)
    residual_D = _unexplained(x_ND, y_ND, own, mean_D, slope_D)
    alpha_D, beta_D = own.scale_D.copy(), own.mean_D.copy()  # the identity: y = x
    losses = []
    for _ in range(steps + 1):
        error_D, shift_D = alpha_D - slope_D, beta_D - mean_D
        losses.append(float((residual_D + error_D**2 + shift_D**2).mean()))
        gradient_alpha_D, gradient_beta_D = 2.0 / num_dims * error_D, 2.0 / num_dims * shift_D
        if len(losses) <= steps:
            alpha_D = alpha_D - learning_rate * num_dims / 2.0 * gradient_alpha_D
            beta_D = beta_D - learning_rate * num_dims / 2.0 * gradient_beta_D
    return Descent(Affine(alpha_D / own.scale_D, beta_D - alpha_D * own.mean_D / own.scale_D), tuple(losses))


def ridge(x_ND: Floats, y_NE: Floats, strength: float) -> Affine:
    """A full matrix by ridge regression, rectangular where the widths differ; the offset is not penalised.

    Args:
        x_ND: what comes in.
        y_NE: what is wanted.
        strength: lambda relative to the mean variance of x, so it means the same for any number of rows and units.

    Shape:
        x_ND: [N, D]
        y_NE: [N, E]

    Raises:
        ValueError: the strength is not positive.
    """
    return _ridge(joint(x_ND, y_NE), strength)


def choose_strength(
    x_ND: Floats, y_NE: Floats, held_x_MD: Floats, held_y_ME: Floats, strengths: tuple[float, ...] = STRENGTHS
) -> tuple[float, tuple[float, ...]]:
    """The ridge strength with the lowest squared error on held-out pairs, and the error of each (mean over M and E).

    All strengths share one eigendecomposition; the held-out pairs enter through their second moments.

    Shape:
        x_ND: [N, D]; y_NE: [N, E]; held_x_MD: [M, D]; held_y_ME: [M, E]
    """
    fitted, held = joint(x_ND, y_NE), joint(held_x_MD, held_y_ME)
    values_R, vectors_DR = np.linalg.eigh(fitted.covariance_DD)
    moment_RE = vectors_DR.T @ fitted.cross_DE
    held_RR, held_RE = vectors_DR.T @ held.covariance_DD @ vectors_DR, vectors_DR.T @ held.cross_DE
    apart_R = (held.mean_D - fitted.mean_D) @ vectors_DR
    level = max(float(values_R.mean()), np.finfo(np.float64).tiny)
    errors = []
    for strength in strengths:
        weight_RE = moment_RE / (np.maximum(values_R, 0.0) + strength * level)[:, None]
        bias_E = apart_R @ weight_RE - (held.mean_E - fitted.mean_E)
        around = float(
            held.energy_E.sum() - 2 * (weight_RE * held_RE).sum() + (weight_RE * (held_RR @ weight_RE)).sum()
        )
        errors.append((around + float(bias_E @ bias_E)) / len(bias_E))
    return strengths[int(np.argmin(errors))], tuple(errors)


def procrustes(x_ND: Floats, y_NE: Floats) -> Affine:
    """Rotation (or reflection), one scale and a shift: distances between items keep their proportions.

    Orthogonal Procrustes, Schoenemann 1966 (doi 10.1007/BF02289451). Where the widths differ, the narrower side is
    padded with zeros, and what comes out beyond E is dropped: the matrix then has orthonormal rows or columns.

    Fewer pairs than features leave directions that no pair speaks of, and many turns of them that fit equally well. Of
    those we take the one that is nearest to no turn at all, where the widths are equal.

    Shape:
        x_ND: [N, D]
        y_NE: [N, E]
    """
    found = joint(x_ND, y_NE)
    turn_DE = _turn(found.cross_DE)
    energy = float((turn_DE * (found.covariance_DD @ turn_DE)).sum())
    scale = float((turn_DE * found.cross_DE).sum()) / energy if energy > 0 else 1.0
    return between_means(scale * turn_DE, found.mean_D, found.mean_E)


def _turn(cross_DE: Double) -> Double:
    """The orthogonal matrix that takes most of the cross-covariance along."""
    left_DR, values_R, right_RE = np.linalg.svd(cross_DE, full_matrices=False)
    known = int((values_R > values_R[0] * max(cross_DE.shape) * np.finfo(np.float64).eps).sum())
    rest_DR, rest_RE = left_DR[:, known:], right_RE[known:]
    if rest_RE.size and cross_DE.shape[0] == cross_DE.shape[1]:
        left, _, right = np.linalg.svd(rest_DR.T @ rest_RE.T)
        rest_RE = left @ right @ rest_RE
    turn_DE: Double = left_DR[:, :known] @ right_RE[:known] + rest_DR @ rest_RE
    return turn_DE


def errors(fitted: Affine, x_ND: Floats, y_NE: Floats) -> tuple[float, float]:
    """Mean squared error and R2 (over all features together) on pairs.

    Shape:
        x_ND: [N, D]
        y_NE: [N, E]
    """
    mean_E = y_NE.mean(axis=0, dtype=np.float64)
    wrong = total = 0.0
    for start, stop in row_chunks(len(x_ND)):
        wanted = y_NE[start:stop].astype(np.float64)
        wrong += float(np.square(fitted.apply(x_ND[start:stop].astype(np.float64)) - wanted).sum())
        total += float(np.square(wanted - mean_E).sum())
    return wrong / y_NE.size, 1.0 - wrong / max(total, np.finfo(np.float64).tiny)


def _ridge(found: Joint, strength: float) -> Affine:
    if strength <= 0:
        raise ValueError(f"expected a positive strength; found {strength}")
    system_DD = found.covariance_DD.copy()
    level = max(float(np.trace(system_DD)) / len(system_DD), np.finfo(np.float64).tiny)
    system_DD[np.diag_indices_from(system_DD)] += strength * level
    weight_DE: Double = np.linalg.solve(system_DD, found.cross_DE).astype(np.float64)
    return between_means(weight_DE, found.mean_D, found.mean_E)


def _slopes(x_ND: Floats, y_ND: Floats) -> tuple[Diagonal, Double, Double]:
    """Statistics of x, mean of y, and the least-squares slope of y on standardised x."""
    check(x_ND)
    check(y_ND)
    if x_ND.shape != y_ND.shape:
        raise ValueError(f"expected pairs of one width; found {x_ND.shape} and {y_ND.shape}; use ridge or procrustes")
    own, mean_D = diagonal(x_ND), y_ND.mean(axis=0, dtype=np.float64)
    slope_D = np.zeros_like(mean_D)
    for start, stop in row_chunks(len(x_ND)):
        standard = (x_ND[start:stop] - own.mean_D) / own.scale_D
        slope_D += (standard * (y_ND[start:stop] - mean_D)).sum(0)
    return own, mean_D, np.where(own.varies_D, slope_D / len(x_ND), own.scale_D)


def _unexplained(x_ND: Floats, y_ND: Floats, own: Diagonal, mean_D: Double, slope_D: Double) -> Double:
    """Mean squared error per feature that no alpha and beta can take away."""
    left_D = np.zeros_like(mean_D)
    for start, stop in row_chunks(len(x_ND)):
        standard = (x_ND[start:stop] - own.mean_D) / own.scale_D
        left_D += np.square(standard * slope_D + mean_D - y_ND[start:stop]).sum(0)
    return left_D / len(x_ND)
