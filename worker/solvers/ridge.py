"""Exact leave-one-out ridge regression, every lambda from one eigendecomposition. Torch-free.

Used as a classifier on one-hot targets (regularised least squares) and as a regressor. The bias is not penalised.
Leaving item i out changes its residual to r_i / (1 - h_i), h the leverage (Rifkin and Lippert, "Notes on regularized
least squares", MIT-CSAIL-TR-2007-025, section 4.2; the bias adds 1/N to the leverage of centred features).

Shapes: L lambdas, N items, D features, C targets, R eigen-directions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.solvers import left_out
from worker.solvers.linear import Linear
from worker.solvers.spectrum import EigenBasis, eigenbasis, row_chunks

# Standardised features have N * D total energy, so this spans "no shrinkage" to "class means only" up to 100k items.
LAMBDAS = tuple(float(value) for value in np.logspace(-1, 6, 15))


@dataclass(frozen=True)
class RidgeLOO:
    """Leave-one-out predictions and scores of every lambda.

    Shape:
        predictions_LNC: [L, N, C]; squared_error_L: [L], mean over items and targets.
    """

    lambdas: tuple[float, ...]
    predictions_LNC: NDArray[np.floating]
    squared_error_L: NDArray[np.float64]

    @property
    def best_index(self) -> int:
        """Index of the lambda with the lowest squared error, the score that fits both classifier and regressor."""
        return int(self.squared_error_L.argmin())

    def accuracy(self, labels_N: NDArray[np.integer]) -> NDArray[np.float64]:
        """Share of items whose largest prediction is their label, per lambda.

        Shape:
            labels_N: [N]; returns [L].
        """
        accuracy_L: NDArray[np.float64] = (self.predictions_LNC.argmax(axis=2) == labels_N).mean(axis=1)
        return accuracy_L


def one_hot(labels_N: NDArray[np.integer], num_classes: int) -> NDArray[np.float64]:
    """Targets of a ridge classifier: 1 for the label, 0 elsewhere.

    Shape:
        labels_N: [N]; returns [N, C].
    """
    targets_NC = np.zeros((labels_N.shape[0], num_classes))
    targets_NC[np.arange(labels_N.shape[0]), labels_N] = 1.0
    return targets_NC


def leave_one_out(
    feats_ND: NDArray[np.floating],
    targets_NC: NDArray[np.floating],
    lambdas: tuple[float, ...] = LAMBDAS,
    *,
    basis: EigenBasis | None = None,
) -> RidgeLOO:
    """Predict every item by the ridge fit to all the others, for every lambda.

    ``basis`` is ``eigenbasis`` of exactly these features when the caller shares it with other solvers; they must then
    be centred (standardised on these rows), and the precision is that of the basis. Without it the features are
    centred here and the arithmetic is float64.

    Shape:
        feats_ND: [N, D]; targets_NC: [N, C].

    Raises:
        ValueError: when there are fewer than two items, a lambda is not positive, or the shapes differ.
    """
    _check(feats_ND, targets_NC, lambdas)
    basis = basis or eigenbasis(feats_ND - feats_ND.mean(axis=0, dtype=np.float64), np.float64)
    num_items, num_targets = targets_NC.shape
    dtype = basis.matrix.dtype
    mean_C = targets_NC.mean(axis=0)
    moments_CR = basis.gradient((targets_NC - mean_C).T.astype(dtype))
    shrink_LR = 1.0 / (basis.energy_R + np.asarray(lambdas)[:, None])
    weight_BR = (moments_CR * shrink_LR[:, None, :]).reshape(-1, basis.rank).astype(dtype)
    predictions_LNC = np.empty((len(lambdas), num_items, num_targets), dtype=dtype)
    error_L = np.zeros(len(lambdas))
    for start, stop in row_chunks(num_items):
        rows_NR = basis.rows(slice(start, stop))
        fitted_LNC = (rows_NR @ weight_BR.T).reshape(stop - start, len(lambdas), num_targets).transpose(1, 0, 2)
        leverage_LN = shrink_LR.astype(dtype) @ np.square(rows_NR).T + 1.0 / num_items
        centred_NC = (targets_NC[start:stop] - mean_C).astype(dtype)
        residual_LNC = (centred_NC - fitted_LNC) / (1.0 - leverage_LN)[:, :, None]
        predictions_LNC[:, start:stop] = targets_NC[start:stop] - residual_LNC
        error_L += np.square(residual_LNC).sum(axis=(1, 2), dtype=np.float64)
    return RidgeLOO(tuple(lambdas), predictions_LNC, error_L / targets_NC.size)


def leave_folds_out(
    feats_ND: NDArray[np.floating],
    targets_NC: NDArray[np.floating],
    folds_N: NDArray[np.integer],
    strength: float,
    *,
    basis: EigenBasis | None = None,
) -> NDArray[np.float64]:
    """Predict every fold by the ridge fit to the other folds, by the smaller of two systems.

    Of a fold with fewer items than features the residuals tell it (``leave_groups_out``); for a larger one the normal
    equations are solved without the fold's own share. Leaving single items out leaves copies of a picture in; whole
    folds leave none, so this is what may be reported. ``basis`` as in ``leave_one_out``.

    Shape:
        feats_ND: [N, D]; targets_NC: [N, C]; folds_N: [N]; returns [N, C].
    """
    _check(feats_ND, targets_NC, (strength,))
    if np.unique(folds_N, return_counts=True)[1].max() < feats_ND.shape[1]:
        return leave_groups_out(feats_ND, targets_NC, folds_N, strength, basis=basis)
    design_NE = np.concatenate([feats_ND, np.ones((len(feats_ND), 1))], axis=1).astype(np.float64)
    total_EE, moments_EC = design_NE.T @ design_NE, design_NE.T @ targets_NC
    penalty_E = np.full(design_NE.shape[1], strength)
    penalty_E[-1] = 0.0  # the bias is free

    def predict(out_N: NDArray[np.bool_]) -> NDArray[np.floating]:
        own_ME = design_NE[out_N]
        kept_EE = total_EE - own_ME.T @ own_ME + np.diag(penalty_E)
        return np.asarray(own_ME @ np.linalg.solve(kept_EE, moments_EC - own_ME.T @ targets_NC[out_N]))

    return left_out.by_fold(folds_N, targets_NC.shape[1], predict)


def leave_groups_out(
    feats_ND: NDArray[np.floating],
    targets_NC: NDArray[np.floating],
    groups_N: NDArray[np.integer],
    strength: float,
    *,
    basis: EigenBasis | None = None,
) -> NDArray[np.float64]:
    """Predict every group by the ridge fit to all other groups; exact, without a fit for each.

    A group of one is `leave_one_out`; for more, the residuals of the group are (I - H_gg)^-1 r_g, H_gg its block of the
    hat matrix. ``basis`` as in ``leave_one_out``.

    Shape:
        feats_ND: [N, D]; targets_NC: [N, C]; groups_N: [N]; returns [N, C].

    Raises:
        ValueError: as in ``leave_one_out``, or everything is one group.
    """
    _check(feats_ND, targets_NC, (strength,))
    _, group_N, size_G = np.unique(groups_N, return_inverse=True, return_counts=True)
    if len(size_G) < 2:
        raise ValueError("Expected at least two groups, found one; there is nothing to fit when it is left out.")
    basis = basis or eigenbasis(feats_ND - feats_ND.mean(axis=0, dtype=np.float64), np.float64)
    mean_C = targets_NC.mean(axis=0)
    shrink_R = 1.0 / (basis.energy_R + strength)
    weight_CR = basis.gradient((targets_NC - mean_C).T.astype(basis.matrix.dtype)) * shrink_R
    residual_NC = np.empty(targets_NC.shape)
    leverage_N = np.empty(len(targets_NC))
    for start, stop in row_chunks(len(targets_NC)):
        rows_NR = basis.rows(slice(start, stop)).astype(np.float64)
        residual_NC[start:stop] = targets_NC[start:stop] - mean_C - rows_NR @ weight_CR.T
        leverage_N[start:stop] = np.square(rows_NR) @ shrink_R + 1.0 / len(targets_NC)
    alone_N = size_G[group_N] == 1
    residual_NC[alone_N] /= (1.0 - leverage_N[alone_N])[:, None]
    blocks = np.split(np.argsort(group_N, kind="stable"), np.cumsum(size_G)[:-1])
    for block in blocks:
        if len(block) > 1:
            rows_MR = basis.rows(block).astype(np.float64)
            kept_MM = np.eye(len(block)) - (rows_MR * shrink_R) @ rows_MR.T - 1.0 / len(targets_NC)
            residual_NC[block] = np.linalg.solve(kept_MM, residual_NC[block])
    return np.asarray(targets_NC - residual_NC, np.float64)


def fit(
    feats_ND: NDArray[np.floating],
    targets_NC: NDArray[np.floating],
    strength: float,
    *,
    basis: EigenBasis | None = None,
) -> Linear:
    """Fit ridge on all rows at one lambda (``strength``); ``basis`` as in ``leave_one_out``.

    Shape:
        feats_ND: [N, D]; targets_NC: [N, C].
    """
    _check(feats_ND, targets_NC, (strength,))
    mean_D = feats_ND.mean(axis=0, dtype=np.float64)
    basis = basis or eigenbasis(feats_ND - mean_D, np.float64)
    mean_C = targets_NC.mean(axis=0)
    moments_CR = basis.gradient((targets_NC - mean_C).T.astype(basis.matrix.dtype))
    shrunk_CR = (moments_CR / (basis.energy_R + strength)).astype(basis.matrix.dtype)
    weight_CD = basis.to_features(shrunk_CR)
    return Linear(weight_CD, mean_C - weight_CD @ mean_D)


def _check(feats_ND: NDArray[np.floating], targets_NC: NDArray[np.floating], lambdas: tuple[float, ...]) -> None:
    if targets_NC.ndim != 2 or len(targets_NC) != len(feats_ND) or len(targets_NC) < 2:
        raise ValueError(
            f"Expected targets [items, targets] for at least two items, found shape {targets_NC.shape} "
            f"for {len(feats_ND)} items; pass one row per item (one_hot for labels)."
        )
    if not lambdas or min(lambdas) <= 0:
        raise ValueError(f"Expected positive lambdas, found {lambdas}.")
