"""The linear probe itself, on arrays: a linear classifier on standardised features. No torch.

Kornblith et al., arXiv 1805.08974. L2 logistic regression with C by cross-validation, and ridge with lambda by exact
leave-one-out; the better one on the same folds is served. Lambda was chosen on the whole pool, so ridge must win by
more than one standard error of the paired difference.

Shape legend: N images, P of the pool, D features, C classes.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.errors import JobFailure
from worker.contract.candidate import Selection
from worker.contract.heads import LinearHead
from worker.contract.task import Float, Rows
from worker.scores import calibration
from worker.scores.objective import ACCURACY, item_scores
from worker.solvers import left_out, logistic, ridge
from worker.solvers.folds import leaves_others, stratified_group_folds
from worker.solvers.linear import Linear
from worker.solvers.logistic import LogisticCV
from worker.solvers.spectrum import EigenBasis, eigenbasis

Scores = NDArray[np.floating[Any]]

NUM_FOLDS = 5
# How far each strength is solved while C is chosen. On 4,010 real rows of 1,280 features weak regularisation took 300
# iterations and more. With these bounds the same C is chosen as with strengths solved to the end, there and on subsets
# of stamps_photos, emoji_google, emoji_twitter, digits and mnist of 5, 20 and 50 per class and whole; its loss is
# within 0.006, its accuracy within 0.006 from 125 items on (one item of 45 at five a class).
CV_ITERATIONS, CV_TOLERANCE = 8, 3e-4
# The refit decides what is served. On those rows its probabilities lie within 0.001 of the optimum (root mean square,
# at C 0.1); scikit-learn at its defaults stops at 0.0025.
FIT_TOLERANCE = 1e-4
# Strengths beyond the best are left out: with 3 standard errors the same C is chosen as with all seven, on subsets of
# stamps_photos, emoji_google and emoji_twitter of 5, 20 and 50 per class and whole, in up to a third less time.
CV_CLEARLY = 3.0
CHOSE = "the probe's strength was chosen on these very items: a little of its accuracy may be that choice"


def refit(feats_ND: Float, labels_N: NDArray[np.int64], num_classes: int, details: Mapping[str, Any]) -> LinearHead:
    """What `fit` chose, fitted to other rows, without choosing again.

    Args:
        feats_ND: of the rows.
        labels_N: likewise.
        num_classes: of the head.
        details: as `fit` gave them.

    Shape:
        feats_ND: [N, D]
        labels_N: [N]
    """
    mean_D, scale_D = logistic.standardise(feats_ND)
    standard_ND = ((feats_ND - mean_D) / scale_D).astype(np.float32)
    strength = float(details["strength"])
    if details["solver"] == "ridge":
        linear = ridge.fit(standard_ND, ridge.one_hot(labels_N, num_classes), strength)
    else:
        linear = logistic.fit(standard_ND, labels_N, num_classes, strength, tolerance=CV_TOLERANCE)
    return _head(linear, mean_D, scale_D, 1.0)


def _head(linear: Linear, mean_D: NDArray[np.float64], scale_D: NDArray[np.float64], temperature: float) -> LinearHead:
    return LinearHead(
        linear.weight_CD.astype(np.float32),
        linear.bias_C.astype(np.float32),
        mean_D.astype(np.float32),
        scale_D.astype(np.float32),
        temperature,
    )


def fit(
    feats_PD: Float,
    labels_P: NDArray[np.int64],
    groups_P: NDArray[np.int64],
    rows: Rows,
    num_classes: int,
    seed: int,
    num_draws: int = 1,
    objective: str = ACCURACY,
) -> tuple[LinearHead, Selection, tuple[float, ...], dict[str, object]]:
    """Chooses between both classifiers and fits the better one to all rows.

    Args:
        feats_PD: of the pool.
        labels_P: likewise.
        groups_P: copies of one picture share a number.
        rows: of the pool, in the dataset.
        num_classes: of the head.
        seed: of the folds.
        num_draws: of the folds, for the predictions of the selection.
        objective: that strengths, and both classifiers, are compared by.

    Shape:
        feats_PD: [P, D]
        labels_P: [P]
        groups_P: [P]

    Returns:
        head, out-of-fold selection, accuracy of each fold, details for the report.
    """
    folds_P, *other_folds = draws(labels_P, groups_P, seed, num_draws)
    mean_D, scale_D = logistic.standardise(feats_PD)
    # In float32 and in place: the features are the largest thing that a probe holds.
    standard_PD = feats_PD - mean_D.astype(np.float32)
    standard_PD /= scale_D.astype(np.float32)
    basis = eigenbasis(standard_PD)
    validated = logistic.cross_validate(
        standard_PD,
        labels_P,
        folds_P,
        num_classes,
        basis=basis,
        tolerance=CV_TOLERANCE,
        max_iterations=CV_ITERATIONS,
        clearly=CV_CLEARLY,
    )
    best = _best(validated, labels_P, objective)
    targets_PC = ridge.one_hot(labels_P, num_classes)
    alone = ridge.leave_one_out(standard_PD, targets_PC, basis=basis)
    alone_L = [item_scores(one_PC.argmax(1), labels_P, objective).mean() for one_PC in alone.predictions_LNC]
    ridge_best = int(np.argmax(alone_L))
    logits_of = {"logistic": validated.logits_SNC[best].astype(np.float64)}
    # Leaving single items out is the cheap look, which flatters ridge where pictures have copies: only where it seems
    # better by what it would have to be is it judged on the same folds.
    if clearly_better(alone.predictions_LNC[ridge_best], logits_of["logistic"], labels_P, objective)[0]:
        logits_of["ridge"] = ridge.leave_folds_out(
            standard_PD, targets_PC, folds_P, alone.lambdas[ridge_best], basis=basis
        )
    right = {name: (logits_PC.argmax(1) == labels_P).astype(np.float64) for name, logits_PC in logits_of.items()}
    other = logits_of.get("ridge", logits_of["logistic"])
    is_better, margin = clearly_better(other, logits_of["logistic"], labels_P, objective)
    name = "ridge" if is_better else "logistic"
    if name == "ridge":
        strength = alone.lambdas[ridge_best]
        linear = ridge.fit(standard_PD, targets_PC, strength, basis=basis)
        again = [ridge.leave_folds_out(standard_PD, targets_PC, one_P, strength, basis=basis) for one_P in other_folds]
        chosen = f"ridge, lambda {strength:.3g}"
    else:
        strength = validated.strengths[best]
        linear = logistic.fit(
            standard_PD,
            labels_P,
            num_classes,
            strength,
            validated.whole_fits[best],
            basis=basis,
            tolerance=FIT_TOLERANCE,
        )
        again = _left_out(standard_PD, labels_P, other_folds, num_classes, strength, linear, basis)
        chosen = f"logistic regression, C {strength:.3g}"
    logits = logits_of[name]
    temperature = calibration.temperature(logits, labels_P)
    head = _head(linear, mean_D, scale_D, temperature)
    is_blind = not leaves_others(labels_P, groups_P)

    def told(accuracy: float) -> float | None:
        return None if is_blind else float(accuracy)

    details: dict[str, object] = {
        "chosen": chosen,
        "solver": name,
        "strength": float(strength),
        "logistic_accuracy": told(right["logistic"].mean()),
        "ridge_accuracy": told(right["ridge"].mean()) if "ridge" in right else None,
        "ridge_leave_one_out_accuracy": told(alone.accuracy(labels_P)[ridge_best]),
        "ridge_margin": margin,
        "strengths": [
            {"C": strength, "accuracy": told(accuracy), "nll": float(nll)}
            for strength, accuracy, nll in zip(
                validated.strengths, validated.accuracy_SF.mean(1), validated.nll_SF.mean(1), strict=True
            )
        ],
    }
    folds = np.unique(folds_P)
    fold_accuracy = () if is_blind else tuple(float(right[name][folds_P == fold].mean()) for fold in folds)
    selection = Selection(rows, logits, f"out of {len(folds)} folds", CHOSE, tuple(again), is_blind)
    return head, selection, fold_accuracy, details


def draws(labels_P: NDArray[np.int64], groups_P: NDArray[np.int64], seed: int, number: int) -> list[NDArray[np.int64]]:
    """So many draws of the folds, the first of which is that of the seed.

    Shape:
        labels_P, groups_P, each result: [P]

    Raises:
        JobFailure: as `num_folds`.
    """
    folds = num_folds(groups_P)
    return [stratified_group_folds(labels_P, groups_P, folds, seed + draw) for draw in range(number)]


def _left_out(
    standard_PD: Float,
    labels_P: NDArray[np.int64],
    other_folds: list[NDArray[np.int64]],
    num_classes: int,
    strength: float,
    start: Linear,
    basis: EigenBasis,
) -> list[NDArray[np.float64]]:
    """Logits of each fold by logistic regression on the others, for each draw of the folds; all in one solve."""
    if not other_folds:
        return []
    rows_FP = np.concatenate([folds_P != np.unique(folds_P)[:, None] for folds_P in other_folds])
    fits = iter(
        logistic.fit_many(
            standard_PD, labels_P, rows_FP, num_classes, strength, start, basis=basis, tolerance=CV_TOLERANCE
        )
    )
    return [
        left_out.by_fold(folds_P, num_classes, lambda out_P: next(fits).outputs(standard_PD[out_P]))
        for folds_P in other_folds
    ]


def _best(validated: LogisticCV, labels_P: NDArray[np.int64], objective: str) -> int:
    """The strength by accuracy is the solver's own; by another objective the same rule, over items for folds."""
    if objective == ACCURACY:
        return validated.best_index
    scores_SP = np.stack([item_scores(one_PC.argmax(1), labels_P, objective) for one_PC in validated.logits_SNC])
    mean_S = scores_SP.mean(1)
    top = int(mean_S.argmax())
    errors_S = (scores_SP[top] - scores_SP).std(1, ddof=1) / np.sqrt(len(labels_P))
    nll_S = np.where(mean_S >= mean_S[top] - errors_S, validated.nll_SF.mean(1), np.inf)
    return int(nll_S.argmin())


def clearly_better(
    ours_PC: Scores, theirs_PC: Scores, labels_P: NDArray[np.int64], objective: str = ACCURACY
) -> tuple[bool, float]:
    """Whether one is better by over one standard error of the paired difference; and that error.

    Shape:
        ours_PC, theirs_PC: [P, C]
        labels_P: [P]
    """
    ours_P, theirs_P = (item_scores(one_PC.argmax(1), labels_P, objective) for one_PC in (ours_PC, theirs_PC))
    difference_P = ours_P - theirs_P
    error = float(difference_P.std(ddof=1) / np.sqrt(len(difference_P)))
    return bool(difference_P.mean() > error), error


def num_folds(groups_P: NDArray[np.int64]) -> int:
    """Five folds, fewer where there are fewer different pictures.

    Raises:
        JobFailure: dataset_invalid, a single picture cannot be left out of itself.
    """
    num_groups = len(np.unique(groups_P))
    if num_groups < 2:
        raise JobFailure(
            "dataset_invalid", "expected at least 2 different pictures outside the test split; found 1; add images"
        )
    return min(NUM_FOLDS, num_groups)
