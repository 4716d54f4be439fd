"""Linear probe: a linear classifier on frozen, standardised features. No torch.

Kornblith et al., arXiv 1805.08974. L2 logistic regression with C by cross-validation, and exact leave-one-out ridge; the better
one is served. Departure: ridge is judged by leave-one-out and has trained on more than each fold, so it must win by more than
one standard error of the paired difference.

Shape legend: N images, P of the pool, D features, C classes.
"""

import time

import numpy as np
from numpy.typing import NDArray

from app.recipes import LinearProbe
from worker import features
from worker.evaluate import calibration
from worker.methods.contract import Candidate, Float, Head, Rows, Selection, Task
from worker.solvers import logistic, ridge
from worker.solvers.folds import stratified_group_folds

NUM_FOLDS = 5
LAMBDAS = np.logspace(-4, 4, 15)


def run(recipe: LinearProbe, task: Task) -> Candidate:
    """Features, folds, both classifiers, the better one refitted on everything but the test split."""
    began = time.monotonic()
    context = task.context
    pool_PD, extraction = features.pooled(context, task.index, task.pool, task.backbone, ("features", 0.05, 0.7))
    context.reporter.log(
        f"features of {len(task.pool)} images: {extraction.num_cached} cached, {extraction.num_extracted} extracted "
        f"in {extraction.seconds:.1f} s",
        num_cached=extraction.num_cached,
        num_extracted=extraction.num_extracted,
        seconds=round(extraction.seconds, 3),
    )
    context.reporter.progress(0.75, "train")
    head, selection, fold_accuracy, details = fit(
        pool_PD, task.labels_N[task.pool], task.groups_N[task.pool], task.pool, task.num_classes, task.seed
    )
    context.reporter.metric(
        f"probe: {details['chosen']}, cross-validated accuracy {np.mean(fold_accuracy):.3f}",
        cv_accuracy=float(np.mean(fold_accuracy)),
    )
    return Candidate(
        method=recipe.method,
        name=f"linear_probe ({details['chosen']})",
        head=head,
        graph=task.backbone.graph,
        backbone=task.backbone,
        shared=True,
        selection=selection,
        features=lambda rows: frozen_features(task, rows),
        reference=lambda rows: frozen_features(task, rows),
        seconds=time.monotonic() - began,
        fold_accuracy=fold_accuracy,
        calibrated=True,
        trained_params=head.weight_CD.size + head.bias_C.size,
        details=details,
        extraction=extraction,
    )


def frozen_features(task: Task, rows: Rows) -> Float:
    """Features of rows under the unchanged backbone."""
    return features.pooled(task.context, task.index, rows, task.backbone, ("evaluate", 0.85, 0.9))[0]


def fit(
    feats_PD: Float,
    labels_P: NDArray[np.int64],
    groups_P: NDArray[np.int64],
    rows: Rows,
    num_classes: int,
    seed: int,
) -> tuple[Head, Selection, tuple[float, ...], dict[str, object]]:
    """The probe itself, on arrays.

    Shape:
        feats_PD: [P, D]
        labels_P: [P]
        groups_P: [P]

    Returns:
        head, out-of-fold selection, accuracy of each fold, details for the report.
    """
    folds_P = stratified_group_folds(labels_P, groups_P, NUM_FOLDS, seed)
    mean_D, scale_D = logistic.standardise(feats_PD)
    standard_PD = (feats_PD - mean_D) / scale_D
    validated = logistic.cross_validate(standard_PD, labels_P, folds_P, num_classes)
    best = _best_strength(validated.logits_SNC, labels_P)
    logistic_logits = validated.logits_SNC[best].astype(np.float64)
    left_out = ridge.leave_one_out(standard_PD, ridge.one_hot(labels_P, num_classes), LAMBDAS)
    ridge_best = int(np.argmax([(scores.argmax(1) == labels_P).mean() for scores in left_out.predictions_LNC]))
    ridge_logits = np.asarray(left_out.predictions_LNC[ridge_best], np.float64)
    logistic_right, ridge_right = (logits.argmax(1) == labels_P for logits in (logistic_logits, ridge_logits))
    difference = ridge_right.astype(float) - logistic_right
    margin = difference.std(ddof=1) / np.sqrt(len(difference))
    use_ridge = bool(difference.mean() > margin)
    if use_ridge:
        linear = ridge.fit(standard_PD, ridge.one_hot(labels_P, num_classes), float(LAMBDAS[ridge_best]))
        logits, chosen = ridge_logits, f"ridge, lambda {LAMBDAS[ridge_best]:.3g}"
    else:
        strength = float(validated.strengths[best])
        linear = logistic.fit(standard_PD, labels_P, num_classes, strength)
        logits, chosen = logistic_logits, f"logistic regression, C {strength:.3g}"
    temperature = calibration.fit_temperature(logits, labels_P)
    right = logits.argmax(1) == labels_P
    head = Head(
        linear.weight_CD.astype(np.float32),
        linear.bias_C.astype(np.float32),
        mean_D.astype(np.float32),
        scale_D.astype(np.float32),
        temperature,
    )
    details: dict[str, object] = {
        "chosen": chosen,
        "logistic_accuracy": float(logistic_right.mean()),
        "ridge_accuracy": float(ridge_right.mean()),
        "ridge_margin": float(margin),
        "strengths": [
            {"C": float(strength), "accuracy": float((scores.argmax(1) == labels_P).mean())}
            for strength, scores in zip(validated.strengths, validated.logits_SNC, strict=True)
        ],
    }
    fold_accuracy = tuple(float(right[folds_P == fold].mean()) for fold in np.unique(folds_P))
    return head, Selection(rows, logits, f"out of {len(fold_accuracy)} folds"), fold_accuracy, details


def _best_strength(logits_SNC: NDArray[np.floating], labels_N: NDArray[np.int64]) -> int:
    """The C of the best accuracy out of fold; among equals the strongest regularisation, which comes first."""
    return int(np.argmax([(logits_NC.argmax(1) == labels_N).mean() for logits_NC in logits_SNC]))
