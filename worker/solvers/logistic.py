"""L2 logistic regression on cached features: cross-validation over strengths and the final fit. Torch-free.

The objective is scikit-learn's: ``C * sum of cross-entropies + 0.5 ||W||^2``, bias not penalised. With two classes
scikit-learn penalises one weight vector w; that is the softmax with rows -w/2 and +w/2 and twice the penalty, which is
what is solved here, so two classes are not a special case anywhere else.

Shapes: S strengths, F folds, C classes, N items, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.solvers import softmax
from worker.solvers.linear import Linear, standardise
from worker.solvers.logits import logsumexp
from worker.solvers.spectrum import EigenBasis, eigenbasis

__all__ = ["STRENGTHS", "Linear", "LogisticCV", "cross_validate", "fit", "fit_many", "standardise"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)
# Predicted relative decrease at which a solve stops. On 5,000 x 1,280 features, out-of-fold probabilities then differ
# from the optimum by 0.0005-0.002 (root mean square; at the defaults of scikit-learn 0.0004-0.1), accuracy by <= 0.002.
CV_TOLERANCE = 1e-5
FIT_TOLERANCE = 1e-8
# A class without training rows gets the largest constant logit that leaves it this probability on every training row:
# scores stay finite, and the other probabilities equal those of a fit that never heard of the class.
ABSENT_PROBABILITY = 1e-6
# Elements of one [F, C, N] array; folds beyond it are solved after each other.
_MAX_ELEMENTS = 2**25


@dataclass(frozen=True)
class LogisticCV:
    """Out-of-fold results for every strength.

    ``whole_fits`` holds, per strength, the fit to all items as far as it was solved: the start for the final fit.

    Shape:
        logits_SNC: [S, N, C] float32; accuracy_SF, nll_SF: [S, F], nll is the mean per held-out item.
    """

    strengths: tuple[float, ...]
    logits_SNC: NDArray[np.float32]
    accuracy_SF: NDArray[np.float64]
    nll_SF: NDArray[np.float64]
    whole_fits: tuple[Linear, ...]
    num_iterations: int

    @property
    def best_index(self) -> int:
        """Index of the chosen strength: lowest NLL among those within one standard error of the best accuracy.

        Accuracy alone is a coin toss between neighbours on small sets; NLL resolves them and keeps the calibration.
        """
        mean_S = self.accuracy_SF.mean(axis=1)
        top = int(mean_S.argmax())
        folds = self.accuracy_SF.shape[1]
        error = self.accuracy_SF[top].std(ddof=1) / np.sqrt(folds) if folds > 1 else 0.0
        nll_S = np.where(mean_S >= mean_S[top] - error, self.nll_SF.mean(axis=1), np.inf)
        return int(nll_S.argmin())


def cross_validate(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.integer],
    folds_N: NDArray[np.integer],
    num_classes: int,
    strengths: tuple[float, ...] = STRENGTHS,
    *,
    basis: EigenBasis | None = None,
    tolerance: float = CV_TOLERANCE,
    max_iterations: int = 300,
    clearly: float | None = None,
) -> LogisticCV:
    """Fit every fold at every strength and predict the rows left out.

    All items are fitted beside the folds: reading the features is what a product costs, whatever the number of folds,
    and the final fit starts almost where it ends.
    The path goes from strong to weak regularisation, each start extrapolated from the two before it. ``basis`` is
    ``eigenbasis(feats_ND)`` when the caller has it already. ``max_iterations`` bounds each strength: on separable data
    weak regularisation converges slowly, to solutions that overfit. ``clearly`` ends the path at a strength whose
    accuracy is not above the best so far and whose loss is higher than the lowest so far by that many standard errors
    of the paired difference: beyond it lie the slowest solves, and none that would be chosen. It is not looked at where
    memory splits the folds into several solves.

    Shape:
        feats_ND: [N, D] standardised; labels_N, folds_N: [N], folds numbered from 0.

    Raises:
        ValueError: when labels, folds or strengths do not fit each other.
    """
    labels_N = _checked_labels(feats_ND, labels_N, num_classes)
    if list(strengths) != sorted(set(strengths)) or not strengths or strengths[0] <= 0:
        raise ValueError(f"Expected increasing positive strengths, found {strengths}; sort them.")
    num_folds = int(folds_N.max()) + 1
    if folds_N.shape != labels_N.shape or num_folds < 2 or np.bincount(folds_N, minlength=num_folds).min() == 0:
        raise ValueError(
            f"Expected one fold number per item, from 0, at least two folds and none empty; found shape "
            f"{folds_N.shape} and sizes {np.bincount(folds_N).tolist()} for {labels_N.size} items."
        )
    basis = basis or eigenbasis(feats_ND)
    shape = (len(strengths), labels_N.size, num_classes)
    logits_SNC = np.empty(shape, dtype=np.float32)
    params_SKP = np.zeros((len(strengths), num_classes, basis.rank + 1), dtype=np.float32)
    num_iterations = 0
    # The last subset leaves nothing out.
    subsets = num_folds + 1
    group = _folds_at_once(num_classes, labels_N.size)
    for first in range(0, subsets, group):
        members = np.arange(first, min(first + group, subsets))
        problem = _problem(basis, labels_N, folds_N[None, :] != members[:, None], num_classes)
        for index, solution in enumerate(_path(problem, num_classes, strengths, tolerance, max_iterations)):
            num_iterations += solution.num_iterations
            params_FKP, logits_FKN = _finished(problem, solution)
            if members[-1] == num_folds:
                params_SKP[index] = params_FKP[-1]
            for position, fold in enumerate(members[members < num_folds]):
                held_out_N = folds_N == fold
                logits_SNC[index, held_out_N] = logits_FKN[position][:, held_out_N].T
            if clearly and len(members) == subsets and _past_the_best(logits_SNC[: index + 1], labels_N, clearly):
                strengths, params_SKP = strengths[: index + 1], params_SKP[: index + 1]
                logits_SNC = logits_SNC[: index + 1]
                break
    correct_SN = logits_SNC.argmax(axis=2) == labels_N
    nll_SN = _nll(logits_SNC, labels_N)
    held_out = [folds_N == fold for fold in range(num_folds)]
    return LogisticCV(
        strengths=tuple(strengths),
        logits_SNC=logits_SNC,
        accuracy_SF=np.stack([correct_SN[:, rows_N].mean(axis=1) for rows_N in held_out], axis=1),
        nll_SF=np.stack([nll_SN[:, rows_N].mean(axis=1) for rows_N in held_out], axis=1),
        whole_fits=tuple(_linear(basis, params_KP) for params_KP in params_SKP),
        num_iterations=num_iterations,
    )


def fit(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.integer],
    num_classes: int,
    strength: float,
    start: Linear | None = None,
    *,
    basis: EigenBasis | None = None,
    tolerance: float = FIT_TOLERANCE,
) -> Linear:
    """Fit one classifier on all rows, from ``start`` (for example ``LogisticCV.whole_fits``) when given.

    Shape:
        feats_ND: [N, D] standardised; labels_N: [N].
    """
    rows_FN = np.ones((1, labels_N.shape[0]), dtype=bool)
    return fit_many(feats_ND, labels_N, rows_FN, num_classes, strength, start=start, basis=basis, tolerance=tolerance)[
        0
    ]


def fit_many(
    feats_ND: NDArray[np.floating],
    labels_N: NDArray[np.integer],
    rows_FN: NDArray[np.bool_],
    num_classes: int,
    strength: float,
    start: Linear | None = None,
    *,
    basis: EigenBasis | None = None,
    tolerance: float = FIT_TOLERANCE,
) -> list[Linear]:
    """Fit one classifier per row subset in one batched solve, for example the training rows and the whole pool.

    Shape:
        rows_FN: [F, N], True where subset f trains on the item.

    Raises:
        ValueError: when labels are out of range, the strength is not positive, or a subset is empty.
    """
    labels_N = _checked_labels(feats_ND, labels_N, num_classes)
    if strength <= 0:
        raise ValueError(f"Expected a positive strength C, found {strength}.")
    basis = basis or eigenbasis(feats_ND)
    start_KP = np.zeros((num_classes, basis.rank + 1), dtype=np.float32)
    if start is not None:
        start_KP[:, :-1] = basis.from_features(start.weight_CD)
        start_KP[:, -1] = start.bias_C
    fits = []
    group = _folds_at_once(num_classes, labels_N.size)
    for first in range(0, len(rows_FN), group):
        problem = _problem(basis, labels_N, rows_FN[first : first + group], num_classes)
        start_FKP = np.where(problem.present_FK[:, :, None], start_KP, np.float32(0))
        solution = softmax.minimise(problem, start_FKP, strength, tolerance=tolerance)
        fits += [_linear(basis, params_KP) for params_KP in _finished(problem, solution)[0]]
    return fits


def _path(
    problem: softmax.SoftmaxProblem,
    num_classes: int,
    strengths: tuple[float, ...],
    tolerance: float,
    max_iterations: int,
) -> Iterator[softmax.Solution]:
    """Solutions at increasing strengths; the path is close to linear in log C, so two points predict the third."""
    start_FKP = np.zeros((len(problem.train_FN), num_classes, problem.basis.rank + 1), dtype=np.float32)
    known: list[tuple[float, NDArray[np.float32]]] = []
    curvature = None
    for strength in strengths:
        if len(known) == 2:
            (before, before_FKP), (last, last_FKP) = known
            ratio = np.float32(np.log(strength / last) / np.log(last / before))
            start_FKP = last_FKP + ratio * (last_FKP - before_FKP)
        solution = softmax.minimise(
            problem, start_FKP, strength, curvature=curvature, tolerance=tolerance, max_iterations=max_iterations
        )
        start_FKP, curvature = solution.params_FKP, solution.curvature
        known = [*known[-1:], (strength, solution.params_FKP)]
        yield solution


def _problem(
    basis: EigenBasis, labels_N: NDArray[np.int64], rows_FN: NDArray[np.bool_], num_classes: int
) -> softmax.SoftmaxProblem:
    present_FK = np.stack([np.bincount(labels_N[rows_N], minlength=num_classes) > 0 for rows_N in rows_FN])
    if not present_FK.any(axis=1).all():
        raise ValueError("Expected every row subset to hold at least one item, found an empty one; merge folds.")
    return softmax.SoftmaxProblem(
        basis=basis,
        labels_N=labels_N,
        train_FN=rows_FN.astype(np.float32),
        present_FK=present_FK,
        penalty=2.0 if num_classes == 2 else 1.0,
    )


def _finished(
    problem: softmax.SoftmaxProblem, solution: softmax.Solution
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Parameters and logits with the free constant fixed (classes sum to zero) and a finite logit for absent classes.

    Shape:
        returns params_FKP [F, K, P], logits_FKN [F, K, N].
    """
    present_FK1 = problem.present_FK[:, :, None]
    params_FKP = np.where(present_FK1, solution.params_FKP, np.float32(0))
    params_FKP -= params_FKP.sum(axis=1, keepdims=True) / present_FK1.sum(axis=1, keepdims=True)
    params_FKP = np.where(present_FK1, params_FKP, np.float32(0))
    logits_FKN = np.where(present_FK1, solution.logits_FKN, -np.inf).astype(np.float32)
    logits_FKN -= np.where(present_FK1, logits_FKN, np.float32(0)).sum(axis=1, keepdims=True) / present_FK1.sum(
        axis=1, keepdims=True
    )
    for fold in np.flatnonzero(~problem.present_FK.all(axis=1)):
        absent_K = ~problem.present_FK[fold]
        trained_N = problem.train_FN[fold] > 0
        lowest = float(logsumexp(logits_FKN[fold][:, trained_N].T).min())
        params_FKP[fold, absent_K, -1] = lowest + np.log(ABSENT_PROBABILITY)
        logits_FKN[fold, absent_K] = lowest + np.log(ABSENT_PROBABILITY)
    return params_FKP, logits_FKN


def _linear(basis: EigenBasis, params_KP: NDArray[np.floating]) -> Linear:
    return Linear(basis.to_features(params_KP[:, :-1]), params_KP[:, -1].copy())


def _nll(logits_SNC: NDArray[np.float32], labels_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Negative log-likelihood of every item at every strength, [S, N]; one strength at a time to bound memory."""
    items = np.arange(labels_N.size)
    return np.stack([logsumexp(logits_NC).astype(np.float64) - logits_NC[items, labels_N] for logits_NC in logits_SNC])


def _past_the_best(logits_SNC: NDArray[np.float32], labels_N: NDArray[np.int64], clearly: float) -> bool:
    """Whether the last strength is worse than the best before by ``clearly`` standard errors, and not more accurate.

    Shape:
        logits_SNC: [S, N, C], out of fold, of the strengths so far.
    """
    if len(logits_SNC) < 2:
        return False
    nll_SN = _nll(logits_SNC, labels_N)
    accuracy_S = (logits_SNC.argmax(axis=2) == labels_N).mean(axis=1)
    rise_N = nll_SN[-1] - nll_SN[nll_SN[:-1].mean(axis=1).argmin()]
    error = rise_N.std(ddof=1) / np.sqrt(len(rise_N))
    return bool(rise_N.mean() > clearly * error and accuracy_S[-1] <= accuracy_S[:-1].max())


def _folds_at_once(num_classes: int, num_items: int) -> int:
    return max(1, _MAX_ELEMENTS // (num_classes * num_items))


def _checked_labels(
    feats_ND: NDArray[np.floating], labels_N: NDArray[np.integer], num_classes: int
) -> NDArray[np.int64]:
    if num_classes < 2:
        raise ValueError(f"Expected at least two classes, found {num_classes}; add images of another class.")
    if labels_N.ndim != 1 or len(labels_N) != len(feats_ND) or len(labels_N) == 0:
        raise ValueError(f"Expected one label per item, found {labels_N.shape} labels for {len(feats_ND)} items.")
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise ValueError(
            f"Expected labels from 0 to {num_classes - 1}, found {labels_N.min()} to {labels_N.max()}; "
            "number the classes from 0."
        )
    return labels_N.astype(np.int64, copy=False)
