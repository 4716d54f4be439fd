"""Batched L-BFGS for several L2 softmax regressions that share their features. Torch-free.

All row subsets ("folds") advance together: one product with the features serves every fold, so an iteration costs two
matrix products whatever the number of folds. Logits are linear in the parameters, so a line search only needs the
logits of the direction and is elementwise. L-BFGS: Nocedal and Wright, Numerical Optimization (2006), algorithm 7.4.
It starts from a Kronecker approximation of the Hessian, (mean of diag(p) - p p^T over items) x (Gram matrix), which is
diagonal once the classes are rotated too: without the class part, a pair of classes that are often confused leaves a
flat direction that costs twice the iterations.

Shapes: F folds, K classes, N items, R eigen-directions, P = R + 1 parameters of a class (the last one is the bias).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.solvers.spectrum import EigenBasis

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

MEMORY = 10
# Logit of a class that a fold never saw in training: exp() of it is exactly zero, and it never overflows.
_ABSENT_LOGIT = np.float32(-1e30)
_MAX_TRIALS = 12
_SLOPE_SHARE = 0.5
_MIN_SPREAD = 1e-6
# Of a product that is divided by: the inverse of what is smaller is no float32.
_LEAST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class SoftmaxProblem:
    """What stays the same along the path of strengths.

    Shape:
        labels_N: [N]; train_FN: [F, N] 1.0 where a fold trains on the item; present_FK: [F, K] classes it trains on.
    """

    basis: EigenBasis
    labels_N: NDArray[np.int64]
    train_FN: Float32
    present_FK: NDArray[np.bool_]
    penalty: float


@dataclass(frozen=True)
class Curvature:
    """Memory of L-BFGS, oldest first: (step, change of gradient), each [F, K * P], at the strength they were seen."""

    pairs: list[tuple[Float32, Float32]]
    strength: float


@dataclass(frozen=True)
class Solution:
    """Parameters and logits at one strength; ``converged_F`` is False where float32 resolved no further decrease.

    Shape:
        params_FKP: [F, K, P]; logits_FKN: [F, K, N] of every item, trained on or not; objective_F: [F].
    """

    params_FKP: Float32
    logits_FKN: Float32
    objective_F: Float64
    converged_F: NDArray[np.bool_]
    num_iterations: int
    curvature: Curvature


@dataclass(frozen=True)
class _Metric:
    """The starting Hessian: diagonal_FKP after the classes are rotated by rotation_FKK."""

    rotation_FKK: Float32
    diagonal_FKP: Float32

    def solve(self, gradient: Float32) -> Float32:
        """Inverse of the starting Hessian times a gradient, both [F, K * P]."""
        inner_FKP = np.matmul(self.rotation_FKK.transpose(0, 2, 1), gradient.reshape(self.diagonal_FKP.shape))
        inner_FKP /= self.diagonal_FKP
        solved: Float32 = np.matmul(self.rotation_FKK, inner_FKP).reshape(gradient.shape)
        return solved


def minimise(
    problem: SoftmaxProblem,
    start_FKP: Float32,
    strength: float,
    *,
    tolerance: float,
    curvature: Curvature | None = None,
    max_iterations: int = 500,
) -> Solution:
    """Minimise strength * sum of cross-entropies + penalty / 2 * ||W||^2 for every fold at once.

    Stops when the predicted decrease (half the squared gradient in the metric of the starting Hessian) is below
    ``tolerance`` of the objective in every fold. The step is found from derivatives alone, because near the optimum
    the float32 objective no longer resolves the decrease.
    """
    folds, classes, width = start_FKP.shape
    params_FKP = start_FKP
    logits_FKN = forward(problem, params_FKP)
    logits_FKN[~problem.present_FK] = _ABSENT_LOGIT
    residual_FKN, loss_F = _residual(problem, logits_FKN)
    metric = _metric(problem, logits_FKN, strength)
    gradient = _gradient(problem, params_FKP, residual_FKN, strength)
    pairs = _rescaled(curvature, problem.penalty, strength, classes, width)
    stuck_F = np.zeros(folds, dtype=bool)
    iteration = 0
    while True:
        objective_F = strength * loss_F + _penalty(problem, params_FKP, params_FKP) / 2
        converged_F = np.vecdot(gradient, metric.solve(gradient)) / 2 <= tolerance * objective_F
        active_F = ~(converged_F | stuck_F)
        if not active_F.any() or iteration == max_iterations:
            return Solution(params_FKP, logits_FKN, objective_F, converged_F, iteration, Curvature(pairs, strength))
        iteration += 1
        direction = np.where(active_F[:, None], _direction(gradient, metric, pairs), np.float32(0))
        direction_FKP = direction.reshape(folds, classes, width)
        slope_FKN = forward(problem, direction_FKP)
        start_slope_F = np.vecdot(gradient, direction).astype(np.float64)
        linear_F = _penalty(problem, params_FKP, direction_FKP)
        square_F = _penalty(problem, direction_FKP, direction_FKP)
        search = _Search.start(active_F)
        for _ in range(_MAX_TRIALS):
            trial_FKN = logits_FKN + search.step_F.astype(np.float32)[:, None, None] * slope_FKN
            residual_FKN, loss_F = _residual(problem, trial_FKN)
            data_F = np.vecdot(residual_FKN.reshape(folds, -1), slope_FKN.reshape(folds, -1)).astype(np.float64)
            slope_F = strength * data_F + linear_F + search.step_F * square_F
            search = search.next(slope_F, start_slope_F)
            if not search.open_F.any():
                break
        if search.open_F.any():
            search.step_F[search.open_F] = 0.0
            trial_FKN = logits_FKN + search.step_F.astype(np.float32)[:, None, None] * slope_FKN
            residual_FKN, loss_F = _residual(problem, trial_FKN)
            # A fold whose plain preconditioned gradient leads nowhere either has reached the floor of float32.
            stuck_F = stuck_F | (search.open_F if not pairs else False)
            pairs = []
        step = search.step_F.astype(np.float32)[:, None] * direction
        params_FKP = params_FKP + step.reshape(params_FKP.shape)
        logits_FKN = trial_FKN
        before, gradient = gradient, _gradient(problem, params_FKP, residual_FKN, strength)
        if not search.open_F.any():
            pairs = [*pairs[-(MEMORY - 1) :], (step, gradient - before)]


def forward(problem: SoftmaxProblem, params_FKP: Float32) -> Float32:
    """Logits of every item under every fold's parameters.

    Shape:
        returns [F, K, N].
    """
    folds, classes, width = params_FKP.shape
    outputs = problem.basis.outputs(params_FKP[:, :, : width - 1].reshape(folds * classes, width - 1))
    logits_FKN: Float32 = outputs.reshape(folds, classes, -1)
    logits_FKN += params_FKP[:, :, -1:]
    return logits_FKN


@dataclass
class _Search:
    """Bracketing search for a zero of the slope, every fold on its own."""

    step_F: Float64
    open_F: NDArray[np.bool_]
    lower_F: Float64
    lower_slope_F: Float64
    upper_F: Float64
    upper_slope_F: Float64

    @classmethod
    def start(cls, active_F: NDArray[np.bool_]) -> "_Search":
        """Try the full step first."""
        zeros_F = np.zeros(active_F.size)
        return cls(np.ones(active_F.size), active_F, zeros_F, zeros_F, np.full(active_F.size, np.inf), zeros_F)

    def next(self, slope_F: Float64, start_slope_F: Float64) -> "_Search":
        """Close the folds whose slope has fallen enough; move the others by the secant, inside the bracket."""
        open_F = self.open_F & ~(np.abs(slope_F) <= _SLOPE_SHARE * -start_slope_F)
        lower_slope_F = np.where(self.lower_F > 0, self.lower_slope_F, start_slope_F)
        over_F = slope_F > 0
        lower_F = np.where(over_F, self.lower_F, self.step_F)
        lower_slope_F = np.where(over_F, lower_slope_F, slope_F)
        upper_F = np.where(over_F, self.step_F, self.upper_F)
        upper_slope_F = np.where(over_F, slope_F, self.upper_slope_F)
        bounded_F = np.isfinite(upper_F)
        width_F = np.where(bounded_F, upper_F, 0.0) - lower_F
        rise_F = np.where(bounded_F & open_F, upper_slope_F - lower_slope_F, 1.0)
        share_F = np.clip(-lower_slope_F / rise_F, 0.1, 0.9)
        proposal_F = np.where(bounded_F, lower_F + share_F * width_F, 4.0 * self.step_F)
        step_F = np.where(open_F, proposal_F, self.step_F)
        return _Search(step_F, open_F, lower_F, lower_slope_F, upper_F, upper_slope_F)


def _residual(problem: SoftmaxProblem, logits_FKN: Float32) -> tuple[Float32, Float64]:
    """Probabilities minus one-hot labels on training rows (zero elsewhere), and the summed cross-entropy per fold."""
    items = np.arange(logits_FKN.shape[2])
    top_FN = logits_FKN.max(axis=1)
    residual_FKN = logits_FKN - top_FN[:, None]
    np.exp(residual_FKN, out=residual_FKN)
    own_FN = residual_FKN[:, problem.labels_N, items]
    residual_FKN[:, problem.labels_N, items] = 0
    others_FN = residual_FKN.sum(axis=1)
    # log1p and "minus the others" keep relative precision where an item is fitted almost perfectly, p - 1 would not.
    nll_FN = np.log1p(others_FN + (own_FN - 1)) + (top_FN - logits_FKN[:, problem.labels_N, items])
    loss_F = np.where(problem.train_FN > 0, nll_FN, 0).sum(axis=1, dtype=np.float64)
    weight_FN = problem.train_FN / (others_FN + own_FN)
    residual_FKN *= weight_FN[:, None]
    residual_FKN[:, problem.labels_N, items] = -others_FN * weight_FN
    return residual_FKN, loss_F


def _gradient(problem: SoftmaxProblem, params_FKP: Float32, residual_FKN: Float32, strength: float) -> Float32:
    """Gradient of every fold's objective, [F, K * P]."""
    folds, classes, num_items = residual_FKN.shape
    gradient_FKP = np.empty_like(params_FKP)
    products = problem.basis.gradient(residual_FKN.reshape(folds * classes, num_items))
    gradient_FKP[:, :, :-1] = products.reshape(folds, classes, -1)
    gradient_FKP[:, :, -1] = residual_FKN.sum(axis=2)
    gradient_FKP *= np.float32(strength)
    gradient_FKP[:, :, :-1] += np.float32(problem.penalty) * params_FKP[:, :, :-1]
    return gradient_FKP.reshape(folds, -1)


def _metric(problem: SoftmaxProblem, logits_FKN: Float32, strength: float) -> _Metric:
    """Kronecker approximation of the Hessian at these logits."""
    folds, classes, _ = logits_FKN.shape
    probabilities_FKN = np.exp(logits_FKN - logits_FKN.max(axis=1, keepdims=True))
    probabilities_FKN *= (problem.train_FN / probabilities_FKN.sum(axis=1))[:, None]
    rows_F = problem.train_FN.sum(axis=1, dtype=np.float64)
    spread_FKK = -np.matmul(probabilities_FKN, probabilities_FKN.transpose(0, 2, 1)).astype(np.float64)
    spread_FKK[:, np.arange(classes), np.arange(classes)] += probabilities_FKN.sum(axis=2, dtype=np.float64)
    values_FK, rotation_FKK = np.linalg.eigh(spread_FKK / rows_F[:, None, None])
    energy_FP = np.empty((folds, problem.basis.rank + 1))
    energy_FP[:, :-1] = problem.basis.energy_R * (rows_F / problem.basis.num_items)[:, None]
    energy_FP[:, -1] = rows_F
    diagonal_FKP = strength * np.maximum(values_FK, _MIN_SPREAD)[:, :, None] * energy_FP[:, None, :]
    diagonal_FKP[:, :, :-1] += problem.penalty
    return _Metric(rotation_FKK.astype(np.float32), diagonal_FKP.astype(np.float32))


def _direction(gradient: Float32, metric: _Metric, pairs: list[tuple[Float32, Float32]]) -> Float32:
    """Two-loop recursion, every fold on its own; all arrays [F, K * P]."""
    found = gradient.copy()
    products = [np.vecdot(step, change) for step, change in pairs]
    # A fold that has converged adds empty pairs, and one with a single class all but empty ones, whose inverse is
    # beyond float32; a zero weight makes them count for nothing.
    weights = [np.divide(1, product, out=np.zeros_like(product), where=product > _LEAST) for product in products]
    applied = []
    for (step, change), weight in zip(reversed(pairs), reversed(weights), strict=True):
        alpha = weight * np.vecdot(step, found)
        found -= alpha[:, None] * change
        applied.append(alpha)
    found = metric.solve(found)
    if pairs:
        change = pairs[-1][1]
        size = np.vecdot(change, metric.solve(change))
        usable = (size > _LEAST) & (products[-1] > _LEAST)
        found *= np.divide(products[-1], size, out=np.ones_like(size), where=usable)[:, None]
    for (step, change), weight, alpha in zip(pairs, weights, reversed(applied), strict=True):
        found += (alpha - weight * np.vecdot(change, found))[:, None] * step
    return -found


def _penalty(problem: SoftmaxProblem, left_FKP: Float32, right_FKP: Float32) -> Float64:
    """Penalty form of two sets of parameters per fold, biases left out."""
    products_F: Float64 = np.vecdot(left_FKP[:, :, :-1], right_FKP[:, :, :-1]).sum(axis=1, dtype=np.float64)
    return problem.penalty * products_F


def _rescaled(
    curvature: Curvature | None, penalty: float, strength: float, classes: int, width: int
) -> list[tuple[Float32, Float32]]:
    """Pairs measured at one strength, as they would be at another: only the data part of the Hessian grows with it."""
    if curvature is None:
        return []
    ratio = np.float32(strength / curvature.strength)
    penalty_KP = np.full((classes, width), penalty, dtype=np.float32)
    penalty_KP[:, -1] = 0
    flat = penalty_KP.reshape(-1)
    return [(step, ratio * (change - flat * step) + flat * step) for step, change in curvature.pairs]
