"""Where fine-tuning starts: a linear probe made for a backbone that will move.

Shape legend: N images, D features, C classes.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.contract.heads import LinearHead
from worker.contract.task import Float, Rows, Task
from worker.scores import calibration
from worker.solvers import logistic
from worker.solvers.folds import stratified_group_folds
from worker.solvers.spectrum import eigenbasis
from worker.training import inputs
from worker.training.checkpoint import Snapshot
from worker.training.probing import CV_ITERATIONS, CV_TOLERANCE, num_folds

MIN_SCALE = 0.5
HEAD_ARRAYS = ("weight_CD", "bias_C", "mean_D", "scale_D")


def start_head(
    feats_ND: Float, labels_N: NDArray[np.int64], groups_N: NDArray[np.int64], num_classes: int, seed: int
) -> tuple[LinearHead, float, float]:
    """The linear probe that training starts from: logistic regression on features that are not blown up.

    Departure from `probing`: no feature is divided by less than half of the root mean square of all deviations.
    Some features of a backbone hardly move on a new domain (EfficientNet-Lite0 on MNIST: deviations from 2e-5 to 1.1);
    divided by their own deviation they carry the gradient into the backbone thousandfold. Measured on MNIST,
    stamps_photos and emoji_google: the same cross-validated accuracy, a lower loss, weights on the raw features up to
    40 times smaller, and no pilot that explodes.

    Shape:
        feats_ND: [N, D]
        labels_N: [N]
        groups_N: [N]

    Returns:
        head, cross-validated accuracy, chosen C.
    """
    mean_D, scale_D = logistic.standardise(feats_ND)
    scale_D = np.maximum(scale_D, MIN_SCALE * np.sqrt((scale_D**2).mean()))
    standard_ND = ((feats_ND - mean_D) / scale_D).astype(np.float32)
    folds_N = stratified_group_folds(labels_N, groups_N, num_folds(groups_N), seed)
    basis = eigenbasis(standard_ND)
    validated = logistic.cross_validate(
        standard_ND,
        labels_N,
        folds_N,
        num_classes,
        basis=basis,
        tolerance=CV_TOLERANCE,
        max_iterations=CV_ITERATIONS,
    )
    best = validated.best_index
    strength, start = validated.strengths[best], validated.whole_fits[best]
    linear = logistic.fit(standard_ND, labels_N, num_classes, strength, start, basis=basis)
    logits_NC = validated.logits_SNC[best].astype(np.float64)
    head = LinearHead(
        linear.weight_CD.astype(np.float32),
        linear.bias_C.astype(np.float32),
        mean_D.astype(np.float32),
        scale_D.astype(np.float32),
        calibration.temperature(logits_NC, labels_N),
    )
    return head, float((logits_NC.argmax(1) == labels_N).mean()), strength


def begin(task: Task, train: Rows, train_ND: Float, snapshot: Snapshot | None) -> tuple[LinearHead, dict[str, Any]]:
    """The head that training starts from; an earlier attempt's where there was one."""
    if snapshot is not None:
        arrays = {name: snapshot.tensors[f"probe/{name}"].numpy() for name in HEAD_ARRAYS}
        return LinearHead(**arrays, temperature=snapshot.facts["temperature"]), {
            name: snapshot.facts[name] for name in ("temperature", "probe", "views")
        }
    head, accuracy, strength = start_head(
        train_ND, task.labels_N[train], task.groups_N[train], task.num_classes, task.seed
    )
    task.context.reporter.log(
        f"probe on the training part: C {strength:.3g}, cross-validated accuracy {accuracy:.3f}", cv_accuracy=accuracy
    )
    return head, {
        "temperature": head.temperature,
        "probe": {"C": strength, "cv_accuracy": accuracy},
        "views": inputs.num_views(task.backbone, len(train)),
    }


def tensors(probe: LinearHead) -> dict[str, Tensor]:
    """Its arrays, for a checkpoint."""
    return {
        f"probe/{name}": torch.from_numpy(np.ascontiguousarray(getattr(probe, name), np.float32))
        for name in HEAD_ARRAYS
    }
