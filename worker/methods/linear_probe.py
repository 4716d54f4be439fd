"""Linear probe: a linear classifier on frozen, standardised features; `worker.training.probing` fits it. No torch."""

import time

import numpy as np

from app.recipes import LinearProbe
from worker.backbones import features
from worker.contract.candidate import Candidate
from worker.contract.task import Float, Rows, Task
from worker.scores import calibration
from worker.scores.objective import ACCURACY
from worker.training import probing


def run(recipe: LinearProbe, task: Task, num_draws: int = 1, objective: str = ACCURACY) -> Candidate:
    """Features, folds, both classifiers, the better one refitted on everything but the test split.

    Args:
        recipe: has no settings.
        task: what is learned.
        num_draws: of the folds, for the predictions of the selection.
        objective: that the strength is chosen by.
    """
    began = time.monotonic()
    context = task.context
    stage = ("features", 0.05, 0.7)
    pool_PD, extraction = features.pooled(context, task.index, task.pool, task.backbone, stage, is_first=True)
    context.reporter.log(
        f"features of {len(task.pool)} images: {extraction.num_cached} cached, {extraction.num_extracted} extracted "
        f"in {extraction.seconds:.1f} s",
        num_cached=extraction.num_cached,
        num_extracted=extraction.num_extracted,
        seconds=round(extraction.seconds, 3),
    )
    task.foresee(task, pool_PD)
    context.reporter.progress(0.75, "train")
    arrays = pool_PD, task.labels_N[task.pool], task.groups_N[task.pool], task.pool
    head, selection, fold_accuracy, details = probing.fit(*arrays, task.num_classes, task.seed, num_draws, objective)
    context.reporter.metric(
        f"probe: {details['chosen']}, {cross_validated(fold_accuracy)}",
        cv_accuracy=float(np.mean(fold_accuracy)) if fold_accuracy else None,
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
        calibrated=len(task.pool) >= calibration.MIN_ITEMS,
        trained_params=head.num_params,
        details=details,
        extraction=extraction,
        refit=lambda feats_ND, labels_N: probing.refit(feats_ND, labels_N, task.num_classes, details),
    )


def cross_validated(fold_accuracy: tuple[float, ...]) -> str:
    """For people; without a number where each class had one picture."""
    if not fold_accuracy:
        return "not cross-validated, one picture of each class"
    return f"cross-validated accuracy {np.mean(fold_accuracy):.3f}"


def frozen_features(task: Task, rows: Rows) -> Float:
    """Features of rows under the unchanged backbone."""
    return features.pooled(task.context, task.index, rows, task.backbone, ("evaluate", 0.85, 0.9))[0]
