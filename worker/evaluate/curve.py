"""Learning curve of the frozen probe: what more labels would buy. Scored on a hold-out, never on the test split."""

from typing import Any

import numpy as np

from worker.methods import linear_probe
from worker.methods.contract import Task
from worker.methods.reference import holdout
from worker.solvers import logistic

FRACTIONS = (0.1, 0.25, 0.5, 1.0)
DRAWS = 3
STRENGTH = 0.1


def learning_curve(task: Task) -> list[dict[str, Any]]:
    """Accuracy with 10, 25, 50 and 100 % of the training labels, three draws each.

    A class that a draw leaves without an image is missed on every item, as it would be in use.
    """
    selection = holdout(task)
    if not len(selection):
        return []
    train = np.setdiff1d(task.pool, selection)
    feats_ND = linear_probe.frozen_features(task, np.concatenate([train, selection]))
    labels_N = np.concatenate([task.labels_N[train], task.labels_N[selection]])
    mean_D, scale_D = logistic.standardise(feats_ND[: len(train)])
    standard_ND = (feats_ND - mean_D) / scale_D
    generator = np.random.default_rng(task.seed)
    points = []
    for fraction in FRACTIONS:
        size = max(task.num_classes, round(fraction * len(train)))
        scores = []
        for _ in range(DRAWS if size < len(train) else 1):
            rows = generator.permutation(len(train))[:size]
            present, labels = np.unique(labels_N[rows], return_inverse=True)
            if len(present) < 2:
                continue
            linear = logistic.fit(standard_ND[rows], labels, len(present), STRENGTH)
            logits = standard_ND[len(train) :] @ linear.weight_CD.T + linear.bias_C
            scores.append(float((present[logits.argmax(1)] == labels_N[len(train) :]).mean()))
        if scores:
            points.append({"num_samples": size, "accuracy": float(np.mean(scores)), "draws": scores})
    return points
